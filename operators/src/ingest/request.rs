//! One request: what is refused, what is taken, and the answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use subtle::ConstantTimeEq;
use tidefeed_runtime::Error;
use tidefeed_runtime::bridge::Room;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::batch::{Change, parse};
use super::{Batch, Producers};

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger bodies are parsed away from the threads that serve every connection.
const PARSE_HERE_BYTES: usize = 64 << 10;
/// What a producer is asked to wait, in seconds: seals take milliseconds, and a store that is slow takes longer anyway.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not taken.
struct Refusal {
    status: StatusCode,
    why: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Refusal {
            status,
            why: why.into(),
            header: None,
        }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// A refusal that says nothing about the batch: the same may be taken later.
    fn for_now(status: StatusCode, why: impl Into<String>) -> Self {
        Self::new(status, why).with(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }
}

/// Carries out a request and answers when its batch is sealed.
pub(super) async fn answer(
    producers: &Producers,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (status, body, header) = match take(producers, request).await {
        Ok(count) => (StatusCode::OK, json!({ "taken": count }), None),
        Err(refusal) => {
            let Refusal {
                status,
                why,
                header,
            } = refusal;
            (status, json!({ "error": why }), header)
        }
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response.headers_mut().extend(header);
    response
}

async fn take(producers: &Producers, request: Request<Incoming>) -> Result<usize, Refusal> {
    let (parts, body) = request.into_parts();
    let change = admit(producers, &parts)?;
    // Before the body is read: a client that asks whether to send it is told now.
    let room = room_for(producers, &body)?;
    let body = read(body, producers.options.max_body_bytes).await?;
    let records = parsed(producers, body, change).await.map_err(|error| {
        let why = format!("{}; nothing of the batch was taken", error.report());
        Refusal::new(StatusCode::BAD_REQUEST, why)
    })?;
    let count = records.len();
    if count == 0 {
        return Ok(0);
    }
    let (sealed, is_sealed) = oneshot::channel();
    let batch = Batch {
        records,
        room,
        sealed,
    };
    let ends = || {
        let why = "the job ends, and may have taken the batch or not: send it again";
        Refusal::for_now(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    producers.queue.send(batch).map_err(|_| ends())?;
    match timeout(producers.options.answer_within, is_sealed).await {
        Ok(Ok(())) => Ok(count),
        Ok(Err(_)) => Err(ends()),
        Err(_) => Err(Refusal::for_now(
            StatusCode::SERVICE_UNAVAILABLE,
            "the batch is not durable yet, and may be later: send it again",
        )),
    }
}

/// What the head of a request says.
fn admit(producers: &Producers, head: &Parts) -> Result<Change, Refusal> {
    let options = &producers.options;
    if head.uri.path() != options.path {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "there is nothing at this path",
        ));
    }
    match &options.token {
        Some(token) => {
            let sent = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
            let sent = sent.and_then(|sent| {
                let (scheme, token) = sent.split_at_checked("Bearer ".len())?;
                scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
            });
            // The time that it takes says nothing about the token, but its length.
            let right = sent.is_some_and(|sent| sent.ct_eq(token.0.as_bytes()).into());
            if !right {
                let why = "the bearer token is missing or another";
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, why)
                    .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
        }
        // A browser names the page that sends, and any page could send to this machine.
        None if head.headers.contains_key(ORIGIN) => {
            let why = "web pages may send with a bearer token only";
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
        None => {}
    }
    let change = match head.method {
        Method::POST => Change::Upsert,
        Method::DELETE => Change::Remove,
        _ => {
            let why = "POST documents, or DELETE them";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
                .with(ALLOW, HeaderValue::from_static("POST, DELETE")));
        }
    };
    if head.headers.contains_key(CONTENT_ENCODING) {
        let why = "send the body without a content encoding";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    Ok(change)
}

/// Room for a body. One of unknown length may be as large as any.
fn room_for(producers: &Producers, body: &Incoming) -> Result<Room, Refusal> {
    let most = producers.options.max_body_bytes;
    let least = body.size_hint().lower();
    if least > most {
        return Err(too_large(most));
    }
    let bytes = body.size_hint().exact().unwrap_or(most);
    producers.budget.try_take(bytes).ok_or_else(|| {
        Refusal::for_now(
            StatusCode::TOO_MANY_REQUESTS,
            "too much waits to become durable: send it again later",
        )
    })
}

fn too_large(most: u64) -> Refusal {
    let why = format!("the body has more than {most} bytes: send fewer documents at once");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why)
}

async fn read(body: Incoming, most: u64) -> Result<Bytes, Refusal> {
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    match timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Ok(Err(error)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("cannot read the body: {error}"),
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

async fn parsed(
    producers: &Producers,
    body: Bytes,
    change: Change,
) -> Result<Vec<tidefeed_runtime::Record>, Error> {
    if body.len() <= PARSE_HERE_BYTES {
        return parse(&body, &producers.key, change);
    }
    let key = producers.key.clone();
    let parsing = tokio::task::spawn_blocking(move || parse(&body, &key, change));
    let failed = |error| Error::internal("the parsing did not end").with_source(error);
    parsing.await.map_err(failed)?
}
