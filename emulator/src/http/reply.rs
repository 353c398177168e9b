//! A reply under construction.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::headers;
use crate::ru::Charge;

/// A reply under construction.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// A reply without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::with_capacity(20),
            body: Bytes::new(),
        }
    }

    /// A reply with JSON text.
    pub fn text(status: StatusCode, body: Vec<u8>) -> Self {
        let mut reply = Self::empty(status);
        reply
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        reply.body = Bytes::from(body);
        reply
    }

    /// A reply with a JSON value.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::text(status, body.to_string().into_bytes())
    }

    /// Sets a header; a value that no header can carry is left out.
    pub fn put(mut self, name: &'static HeaderName, value: impl Into<String>) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.into()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Sets a header to a value that is one already.
    pub fn put_value(mut self, name: &'static HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets a header to a number.
    pub fn put_number(mut self, name: &'static HeaderName, value: u64) -> Self {
        self.headers.insert(name, HeaderValue::from(value));
        self
    }

    /// Sets the cost.
    pub fn charge(self, charge: Charge) -> Self {
        self.put(&headers::REQUEST_CHARGE, charge.to_text())
    }

    /// Sets the entity tag, quotes included.
    pub fn etag(mut self, tag: impl Into<String>) -> Self {
        if let Ok(value) = HeaderValue::try_from(tag.into()) {
            self.headers.insert(ETAG, value);
        }
        self
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The finished response.
    pub fn into_response(mut self, activity_id: HeaderValue) -> Response<Full<Bytes>> {
        self.headers.insert(&headers::ACTIVITY_ID, activity_id);
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
