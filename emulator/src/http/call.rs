//! One request, with its headers read the way operations need them.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::error::ApiError;
use super::headers;
use crate::binary_json;
use crate::epk::{EpkRange, from_hex};

/// Largest request, as JSON text (service limit), and room for what a document's own limit does not count.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024 + 64 * 1024;

/// Items in a page if the client does not say.
const DEFAULT_PAGE_ITEMS: usize = 1_000;

/// One request.
#[derive(Debug)]
pub struct Call<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Body as it came.
    pub body: Bytes,
}

impl<'a> Call<'a> {
    /// A header's text.
    pub fn header(&self, name: &HeaderName) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a header says true.
    pub fn flag(&self, name: &HeaderName) -> bool {
        self.header(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether a write shall be answered with the document.
    pub fn wants_content(&self) -> bool {
        match self.header(&headers::CONTENT_RESPONSE) {
            Some(value) => value.eq_ignore_ascii_case("true"),
            None => !self
                .header(&headers::PREFER)
                .is_some_and(|value| value.contains("return=minimal")),
        }
    }

    /// The body as JSON text.
    ///
    /// # Errors
    /// 413 if it is too large, 400 if it is malformed binary JSON.
    pub fn json_text(&self) -> Result<Bytes, ApiError> {
        let text = if binary_json::is_binary(&self.body) {
            Bytes::from(
                binary_json::to_text(&self.body)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?,
            )
        } else {
            self.body.clone()
        };
        if text.len() > MAX_REQUEST_BYTES {
            return Err(ApiError::too_large(
                "the request is larger than 2 MB: send less at once",
            ));
        }
        Ok(text)
    }

    /// The body as a JSON value.
    ///
    /// # Errors
    /// 413 if it is too large, 400 if it is not JSON.
    pub fn json_value(&self) -> Result<serde_json::Value, ApiError> {
        serde_json::from_slice(&self.json_text()?)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))
    }

    /// Items wanted in a page.
    ///
    /// # Errors
    /// 400 if the hint is not a number.
    pub fn page_items(&self) -> Result<usize, ApiError> {
        match self
            .header(&headers::MAX_ITEM_COUNT)
            .map(|text| text.trim().parse::<i64>())
        {
            None => Ok(DEFAULT_PAGE_ITEMS),
            Some(Ok(count)) if count > 0 => Ok(count as usize),
            Some(Ok(-1)) => Ok(DEFAULT_PAGE_ITEMS),
            Some(_) => Err(ApiError::bad_request(
                "x-ms-max-item-count must be a positive number, or -1",
            )),
        }
    }

    /// The key interval of the EPK headers, if there is one.
    ///
    /// # Errors
    /// 400 if a bound is not hexadecimal.
    pub fn epk_range(&self) -> Result<Option<EpkRange>, ApiError> {
        let (start, end) = (
            self.header(&headers::START_EPK),
            self.header(&headers::END_EPK),
        );
        if start.is_none() && end.is_none() {
            return Ok(None);
        }
        let bound = |text: &str| {
            from_hex(text).ok_or_else(|| {
                ApiError::bad_request("x-ms-start-epk and x-ms-end-epk must be hexadecimal")
            })
        };
        Ok(Some(EpkRange {
            min: bound(start.unwrap_or(""))?,
            max: bound(end.unwrap_or("FF"))?,
        }))
    }

    /// The entity tag conditions.
    pub fn conditions(&self) -> Conditions<'a> {
        Conditions {
            if_match: self.header(&IF_MATCH),
            if_none_match: self.header(&IF_NONE_MATCH),
        }
    }
}

/// Entity tag conditions of a point operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// The tag must be this, or anything for `*`.
    pub if_match: Option<&'a str>,
    /// The tag must not be this; nothing may exist for `*`.
    pub if_none_match: Option<&'a str>,
}

impl Conditions<'_> {
    /// Whether a write may change a document with `etag`.
    pub fn allow_write(&self, etag: &[u8]) -> bool {
        self.if_match.is_none_or(|wanted| tag_matches(wanted, etag))
            && !self
                .if_none_match
                .is_some_and(|unwanted| tag_matches(unwanted, etag))
    }

    /// Whether a reader knows the document with `etag` already.
    pub fn not_modified(&self, etag: &[u8]) -> bool {
        self.if_none_match
            .is_some_and(|known| tag_matches(known, etag))
    }
}

fn tag_matches(condition: &str, etag: &[u8]) -> bool {
    let condition = condition.trim();
    condition == "*" || condition.trim_matches('"').as_bytes() == etag
}
