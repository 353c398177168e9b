//! Everything that answers requests: the stored data, and what is decided before and around an operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};

use super::auth::Authorizer;
use super::call::Call;
use super::dispatch::route;
use super::error::{ApiError, ApiResult};
use super::headers;
use super::precedence::Precedence;
use super::reply::Reply;
use super::target::Target;
use crate::clock::Clock;
use crate::faults::{Faults, Verdict};
use crate::ids;
use crate::store::Account;

/// Everything that answers requests.
#[derive(Debug)]
pub struct Service {
    /// What is stored.
    pub account: Account,
    /// Base address, as the account read returns it.
    pub endpoint: String,
    /// The time by which the server decides.
    pub clock: Arc<Clock>,
    /// Faults on command.
    pub faults: Faults,
    /// What requests said about their precedence.
    pub precedence: Precedence,
    authorizer: Authorizer,
    requests: AtomicU64,
    salt: u32,
}

impl Service {
    /// A service over an empty account.
    pub fn new(
        account: Account,
        endpoint: String,
        authorizer: Authorizer,
        clock: Arc<Clock>,
    ) -> Self {
        Self {
            account,
            endpoint,
            clock,
            faults: Faults::default(),
            precedence: Precedence::default(),
            authorizer,
            requests: AtomicU64::new(0),
            salt: ids::salt(),
        }
    }

    /// A service whose containers get `partitions` physical partitions.
    #[cfg(test)]
    pub fn for_tests(partitions: usize) -> Self {
        let authorizer = Authorizer::new(crate::config::WELL_KNOWN_KEY).unwrap();
        Self::new(
            Account::new(Arc::new(crate::store::Environment::for_tests(partitions))),
            "http://127.0.0.1:1".to_owned(),
            authorizer,
            Arc::default(),
        )
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Carries out and answers one signed request, whose body may have been refused already.
    pub fn answer(&self, parts: &Parts, body: Result<Bytes, ApiError>) -> Response<Full<Bytes>> {
        let reply = body
            .and_then(|body| self.signed(&parts.method, &parts.headers, body, parts.uri.path()));
        self.respond(parts, reply.unwrap_or_else(ApiError::into_reply))
    }

    /// Carries out one signed request, and answers it with `reply` whatever came of it.
    pub fn answer_instead(
        &self,
        parts: &Parts,
        body: Result<Bytes, ApiError>,
        reply: Reply,
    ) -> Response<Full<Bytes>> {
        if let Ok(body) = body {
            // The client is to learn nothing of the outcome.
            let _ = self.signed(&parts.method, &parts.headers, body, parts.uri.path());
        }
        self.respond(parts, reply)
    }

    /// Counts a request and finishes its reply.
    pub fn respond(&self, parts: &Parts, reply: Reply) -> Response<Full<Bytes>> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.finish(parts, reply, number)
    }

    /// Finishes the reply to an admin request, which does not count.
    pub fn respond_uncounted(&self, parts: &Parts, reply: Reply) -> Response<Full<Bytes>> {
        self.finish(parts, reply, self.requests())
    }

    fn finish(&self, parts: &Parts, reply: Reply, number: u64) -> Response<Full<Bytes>> {
        let activity_id = match parts.headers.get(&headers::ACTIVITY_ID) {
            Some(id) => id.clone(),
            None => HeaderValue::from_bytes(&ids::etag(self.salt, number))
                .unwrap_or_else(|_| HeaderValue::from_static("0")),
        };
        reply.into_response(activity_id)
    }

    /// Decides which fault a request meets.
    pub fn judge(&self, parts: &Parts) -> Verdict {
        let target = Target::of(self, parts, self.faults.ask_partitions());
        self.faults.decide(&target.subject())
    }

    /// Carries out a request of the server itself: no signature, no faults, every rule of the operation.
    ///
    /// # Errors
    /// Any refusal of the operation.
    pub fn trusted(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static HeaderName, HeaderValue)],
        body: Bytes,
    ) -> ApiResult {
        let mut map = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            map.insert(*name, value.clone());
        }
        let call = Call {
            method: &method,
            headers: &map,
            body,
        };
        route(self, &call, path)
    }

    fn signed(&self, method: &Method, headers: &HeaderMap, body: Bytes, path: &str) -> ApiResult {
        let call = Call {
            method,
            headers,
            body,
        };
        self.authorizer.check(&call, path)?;
        route(self, &call, path)
    }
}
