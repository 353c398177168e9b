//! The socket's end of bulk writes: one batch for one physical partition goes out, and its answer comes back.
//!
//! ```text
//! Wire::send -> encode::body -> sign -> connection (gate, HTTP/1.1, TLS) -> service
//!            <- encode::results <----------------------------------------------'
//! ```
//!
//! Nothing is retried here: what an answer means, and when to send again, is for others to decide. A reply is an [`Answer`]
//! only if it can be believed as a whole; anything else is [`NoAnswer`], which says whether the request may have happened.
//!
//! Limits: batches only, no single writes; servers and certificates as in [`connection`].

mod connection;
mod fenced;
mod metadata;
mod sign;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use azure_core::Uuid;
use azure_core::http::Url;
use azure_core::time::OffsetDateTime;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use tokio::sync::Semaphore;

use super::config::Priority;
use super::encode;
use super::operation::{Answer, Lost, Operation};
use super::routing::RangeId;

pub(crate) use connection::{NoAnswer, Reply, Timeouts};
pub(crate) use fenced::Gate;
pub(crate) use sign::{Resource, Signer};

use connection::Pool;

/// The version of the protocol, the one that official clients speak.
const VERSION: &str = "2020-07-15";

const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const ACTIVITY_ID: HeaderName = HeaderName::from_static("x-ms-activity-id");
const DATE: HeaderName = HeaderName::from_static("x-ms-date");
const RANGE_ID: HeaderName = HeaderName::from_static("x-ms-documentdb-partitionkeyrangeid");
const TENTATIVE: HeaderName = HeaderName::from_static("x-ms-cosmos-allow-tentative-writes");
const CONTAINER_RID: HeaderName = HeaderName::from_static("x-ms-cosmos-intended-collection-rid");

/// What all requests have in common.
#[derive(Clone, Debug)]
pub(crate) struct WireConfig {
    /// How long to wait for connections and replies.
    pub(crate) timeouts: Timeouts,
    /// The most requests under way at once, which is also the most connections.
    pub(crate) max_connections: usize,
    /// Where to write if the account takes writes in several regions, best first.
    pub(crate) preferred_regions: Vec<String>,
    /// How the service ranks the writes.
    pub(crate) priority: Option<Priority>,
    /// The throughput bucket of the writes, 1 to 5.
    pub(crate) throughput_bucket: Option<u8>,
}

impl Default for WireConfig {
    fn default() -> Self {
        WireConfig {
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                // The service works on a request for five seconds at most.
                reply: Duration::from_secs(8),
                idle: Duration::from_secs(60),
            },
            max_connections: 64,
            preferred_regions: Vec::new(),
            priority: None,
            throughput_bucket: None,
        }
    }
}

/// Sends batches to one container.
pub(crate) struct Wire {
    /// `dbs/NAME/colls/NAME`, as signatures have it.
    link: String,
    /// Its path, percent-encoded and without a slash at the end.
    path: String,
    signer: Signer,
    gate: Gate,
    config: WireConfig,
    /// The account as it was configured, and the server that takes writes: the same until something else is known.
    account: (Url, Arc<Pool>),
    writes: Mutex<(Url, Arc<Pool>)>,
    permits: Semaphore,
    /// Headers of every batch.
    batch: HeaderMap,
    /// Whether several regions take writes. Those that are not the first refuse a write that does not allow for that.
    several_take_writes: AtomicBool,
    /// The service's own name of the container, which changes when it is created anew.
    container_rid: OnceLock<HeaderValue>,
}

impl Wire {
    /// For a container of the account at `account`. Must be used inside a tokio runtime. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the URL is not usable.
    pub(crate) fn new(
        account: &Url,
        database: &str,
        container: &str,
        signer: Signer,
        gate: Gate,
        config: WireConfig,
    ) -> Result<Self> {
        let pool = Arc::new(Pool::new(account, gate.clone(), config.timeouts)?);
        let escaped = |name| utf8_percent_encode(name, PATH_ESCAPES);
        Ok(Wire {
            link: format!("dbs/{database}/colls/{container}"),
            path: format!("/dbs/{}/colls/{}", escaped(database), escaped(container)),
            signer,
            gate,
            account: (account.clone(), pool.clone()),
            writes: Mutex::new((account.clone(), pool)),
            permits: Semaphore::new(config.max_connections),
            batch: batch_headers(&config),
            several_take_writes: AtomicBool::new(false),
            container_rid: OnceLock::new(),
            config,
        })
    }

    /// Sends a batch of operations, each for a document in `range`. They are independent of each other.
    ///
    /// # Errors
    /// [`NoAnswer`] when there was no answer, or none that can be believed: nothing is acknowledged then.
    pub(crate) async fn send(
        &self,
        range: &RangeId,
        operations: &[Arc<Operation>],
    ) -> Result<Answer, NoAnswer> {
        let mut headers = self.batch.clone();
        let range = HeaderValue::from_str(range.as_str());
        let range = range.context(ErrorKind::Internal, || "a range id is no possible header");
        headers.insert(RANGE_ID, range.map_err(NoAnswer::unsent)?);
        if let Some(rid) = self.container_rid.get() {
            headers.insert(CONTAINER_RID, rid.clone());
        }
        if self.several_take_writes.load(Ordering::Relaxed) {
            headers.insert(TENTATIVE, HeaderValue::from_static("true"));
        }
        let mut activity = Uuid::encode_buffer();
        let activity = Uuid::new_v4().hyphenated().encode_lower(&mut activity);
        headers.insert(ACTIVITY_ID, header(activity));
        let resource = Resource {
            kind: "docs",
            link: &self.link,
        };
        let call = Call {
            method: Method::POST,
            resource,
            path: format!("{}/docs", self.path),
            headers,
            body: encode::body(operations).into(),
        };
        let pool = self.writes.lock().1.clone();
        let reply = self.call(&pool, call).await?;
        answer(operations, reply, activity)
    }

    /// Signs the next request anew, after the service has refused one.
    pub(crate) async fn renew_credentials(&self) {
        self.signer.renew().await;
    }

    async fn call(&self, pool: &Pool, call: Call<'_>) -> Result<Reply, NoAnswer> {
        let permit = self.permits.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let method = match call.method {
            Method::GET => "get",
            _ => "post",
        };
        // After the wait: a date is good for some minutes only.
        let signed = self
            .signer
            .authorize(OffsetDateTime::now_utc(), method, call.resource)
            .await
            .map_err(NoAnswer::unsent)?;
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        let uri = hyper::Uri::from_maybe_shared(call.path);
        let uri = uri.context(ErrorKind::Config, || "a name is no possible path");
        *request.uri_mut() = uri.map_err(NoAnswer::unsent)?;
        let headers = request.headers_mut();
        *headers = call.headers;
        headers.insert(DATE, signed.date);
        headers.insert(hyper::header::AUTHORIZATION, signed.value);
        pool.exchange(request).await
    }
}

/// A request before it is signed. Methods other than GET are POST.
struct Call<'a> {
    method: Method,
    resource: Resource<'a>,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A header of plain text.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("plain text is a header")
}

fn header_map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let common = [
        ("accept", "application/json"),
        ("cache-control", "no-cache"),
        (
            "user-agent",
            concat!("tidefeed/", env!("CARGO_PKG_VERSION")),
        ),
        ("x-ms-version", VERSION),
    ];
    let all = common.iter().chain(headers);
    all.map(|&(name, value)| (HeaderName::from_static(name), header(value)))
        .collect()
}

fn batch_headers(config: &WireConfig) -> HeaderMap {
    let mut headers = header_map(&[
        ("content-type", "application/json"),
        ("prefer", "return=minimal"),
        ("x-ms-cosmos-batch-atomic", "False"),
        ("x-ms-cosmos-batch-continue-on-error", "True"),
        ("x-ms-cosmos-is-batch-request", "True"),
        // It follows merges of partitions.
        ("x-ms-cosmos-sdk-supportedcapabilities", "1"),
    ]);
    if let Some(priority) = config.priority {
        let level = match priority {
            Priority::High => "High",
            Priority::Low => "Low",
        };
        headers.insert("x-ms-cosmos-priority-level", header(level));
    }
    if let Some(bucket) = config.throughput_bucket {
        let name = HeaderName::from_static("x-ms-cosmos-throughput-bucket");
        headers.insert(name, HeaderValue::from(u16::from(bucket)));
    }
    headers
}

fn answer(operations: &[Arc<Operation>], reply: Reply, activity: &str) -> Result<Answer, NoAnswer> {
    let mut answer = Answer {
        status: reply.status.as_u16(),
        sub_status: reply.number("x-ms-substatus").unwrap_or(0),
        retry_after: reply
            .number("x-ms-retry-after-ms")
            .map(Duration::from_millis),
        charge_ru: reply.number("x-ms-request-charge").unwrap_or(0.0),
        activity_id: reply.text(ACTIVITY_ID.as_str()).unwrap_or(activity).into(),
        ..Answer::default()
    };
    if matches!(reply.status, StatusCode::OK | StatusCode::MULTI_STATUS) {
        answer.results = encode::results(operations, &reply.body).map_err(|why| NoAnswer {
            lost: Lost::Maybe,
            error: Error::new(
                ErrorKind::Unreachable,
                format!("a reply is not readable: {why}"),
            ),
        })?;
    } else {
        answer.message = reply.message().into();
    }
    Ok(answer)
}

impl Reply {
    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.trim().parse().ok()
    }

    /// What the server said about a failure, on one line, and what to do about it.
    fn message(&self) -> String {
        #[derive(Deserialize)]
        struct Body {
            message: String,
        }
        let said = serde_json::from_slice(&self.body).map_or_else(
            |_| String::from_utf8_lossy(&self.body[..self.body.len().min(400)]).into_owned(),
            |body: Body| body.message,
        );
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let hint = match self.status {
            StatusCode::UNAUTHORIZED => {
                "check COSMOS_KEY or the role assignment, and that this machine's clock is right"
            }
            StatusCode::FORBIDDEN => "check the account's firewall and the role assignment",
            _ => return line,
        };
        format!("{line} ({hint})")
    }
}
