//! Answers over HTTP how a job is: a page at `/`, and `/healthz`, `/readyz`, `/stalled`, `/status`, `/events` and `/metrics`.
//!
//! 1. It has a thread and a runtime of its own, and begins before the job starts: so it answers while the cluster assembles and while
//!    workers or the job's own I/O threads hang.
//! 2. It only reads, and says nothing of documents, keys or secrets: names of sources, sinks and operators, feed ranges, times, and
//!    what a service answered.
//! 3. Where there is a token, only its bearer learns more than "ok" and "ready": the probes of an orchestrator have no secret, and
//!    look at the status alone. The page itself holds nothing of the job, and asks for the token.
//! 4. Where there is none, only whoever asks for this machine by an address or as `localhost` learns more: else a web site could have its
//!    own name lead here, and read what a browser on this machine may read.
//!
//! Limits: no TLS; so many connections at a time, of which each has some time to say what it wants. Only those that follow the reports
//! last.

mod client;
mod events;
mod page;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use tidefeed_runtime::{Context, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::config::{HttpConfig, ListenAt, Token};
use crate::health::{Answer, Health};
use crate::status::Reporter;
use crate::status::metrics::{CONTENT_TYPE, encoded};
pub(crate) use client::get as ask;
use events::{Events, Follows};

/// Connections at a time; others wait. A guess: a few probes and people.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What browsers are told with each answer: nothing comes from elsewhere, nobody else shows it or reads it.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who is asked, and by whom.
struct Desk {
    health: Health,
    token: Option<Token>,
    events: Events,
}

/// What answers; it does so until the process ends, whether this is kept or not.
pub(crate) struct Answering {
    pub(crate) at: SocketAddr,
    events: Events,
}

impl Answering {
    /// Before the process ends: gives those who follow the reports the last one, which says how the run has ended.
    pub(crate) fn farewell(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.events.farewell()),
            Err(error) => tracing::debug!(%error, "nobody is told how the run has ended"),
        }
    }
}

/// Listens, if the configuration says so, until the process ends. `port` is added to the port.
///
/// # Errors
/// `Config` when it cannot listen there, or others could ask without a token.
pub(crate) fn serve(config: &HttpConfig, port: u16, health: Health) -> Result<Option<Answering>> {
    let Some(ListenAt { at, token, or_any }) = config.place(port)? else {
        return Ok(None);
    };
    let listener = match TcpListener::bind(at) {
        Err(error) if or_any && error.kind() == std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::new(at.ip(), 0))
        }
        bound => bound,
    };
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let listener = listener.context(ErrorKind::Config, || format!("cannot listen at {at}"))?;
    let at = listener.local_addr();
    let at = at.context(ErrorKind::Internal, || "a listener has no address")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(
            ErrorKind::Internal,
            || "cannot start the thread that answers",
        )?;
    let reporter = Reporter::new(&health);
    let reporting = reporter.clone().run();
    let events = Events::new(reporter);
    let desk = Arc::new(Desk {
        health,
        token,
        events: events.clone(),
    });
    std::thread::Builder::new()
        .name("tidefeed-http".to_owned())
        .spawn(move || {
            runtime.spawn(reporting);
            runtime.block_on(accept(listener, router(desk)));
        })
        .context(
            ErrorKind::Internal,
            || "cannot start the thread that answers",
        )?;
    tracing::info!(event = "listening", "how the job does is at http://{at}/");
    Ok(Some(Answering { at, events }))
}

fn router(desk: Arc<Desk>) -> Router {
    let answers = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/stalled", get(stalled))
        .route("/status", get(status))
        .route("/events", get(events))
        .route("/metrics", get(metrics));
    let told = middleware::map_response(with_headers);
    page::add(answers).layer(told).with_state(desk)
}

/// What browsers are to know of each answer.
async fn with_headers(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// Whether a host is an address or this machine, and not a name that somebody has chosen.
fn is_address(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = host.strip_prefix("localhost").unwrap_or("no");
    let at_port = |port: &str| port.parse::<u16>().is_ok();
    name.is_empty()
        || name.strip_prefix(':').is_some_and(at_port)
        || host.parse::<SocketAddr>().is_ok()
        || host.parse::<IpAddr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

async fn healthz(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    desk.probed(&headers, &desk.health.liveness())
}

async fn readyz(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    desk.probed(&headers, &desk.health.readiness())
}

async fn stalled(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let found = || answer(StatusCode::OK, &desk.health.explain());
    desk.told(&headers, found)
}

async fn status(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    desk.told(&headers, || {
        json_answer(StatusCode::OK, desk.events.newest())
    })
}

async fn metrics(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    desk.told(&headers, || match encoded(&desk.health.look()) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::debug!(error = error.report(), "there are no metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    })
}

async fn events(
    State(desk): State<Arc<Desk>>,
    Extension(follows): Extension<Follows>,
    headers: HeaderMap,
) -> Response {
    desk.told(&headers, || desk.events.follow(&follows))
}

impl Desk {
    /// What a probe is told; the status alone if it may not know more.
    fn probed<T: Serialize>(&self, headers: &HeaderMap, found: &Answer<T>) -> Response {
        let status = match found.well {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        match self.knows(headers) {
            true => answer(status, found),
            false => answer(status, &json!({"status": found.status})),
        }
    }

    /// The answer, if whoever asks may know everything.
    fn told(&self, headers: &HeaderMap, answered: impl FnOnce() -> Response) -> Response {
        match self.knows(headers) {
            true => answered(),
            false if self.token.is_none() => {
                let what = json!({"error": "ask at 127.0.0.1: a name may be anybody's"});
                answer(StatusCode::FORBIDDEN, &what)
            }
            false => {
                let what = json!({"error": "say who you are: Authorization: Bearer TOKEN"});
                let refused = answer(StatusCode::UNAUTHORIZED, &what);
                ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
            }
        }
    }

    /// Whether whoever asks may know everything.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return headers.get(header::HOST).is_none_or(is_address);
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|given| given.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| given.ct_eq(token.0.as_bytes()).into())
    }
}

fn answer<T: Serialize>(status: StatusCode, what: &T) -> Response {
    match serde_json::to_string(what) {
        Ok(text) => json_answer(status, text + "\n"),
        Err(error) => {
            tracing::debug!(%error, "an answer has no JSON form");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn json_answer(status: StatusCode, text: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, text.into()).into_response()
}

async fn accept(listener: TcpListener, router: Router) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::error!(event = "http_failed", %error, "nobody can ask how the job is");
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve_for_a_while(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection, which may last only if somebody follows on it.
async fn serve_for_a_while(stream: TcpStream, router: Router) {
    let follows = Follows::default();
    let serving = serve_one(stream, router.layer(Extension(follows.clone())));
    tokio::pin!(serving);
    while tokio::time::timeout(CONNECTION_TIMEOUT, &mut serving)
        .await
        .is_err()
    {
        if !follows.any() {
            return;
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use serde_json::Value;
    use tidefeed_runtime::stall::Explanation;

    use super::*;
    use crate::status::report::{FORM, Report};

    fn serving(token: Option<&str>, stuck_after_ms: u64) -> (SocketAddr, Health) {
        let (answering, health) = answering(token, stuck_after_ms);
        (answering.at, health)
    }

    fn answering(token: Option<&str>, stuck_after_ms: u64) -> (Answering, Health) {
        let folder = tempfile::tempdir().expect("a folder");
        let token_file = token.map(|token| {
            let path = folder.path().join("token");
            std::fs::write(&path, token).expect("written");
            path
        });
        let config = HttpConfig {
            listen: Some("127.0.0.1:0".to_owned()),
            stuck_after_ms,
            stalled_after_ms: stuck_after_ms,
            token_file,
            token_env: "TIDEFEED_NO_SUCH_VARIABLE".to_owned(),
            ..HttpConfig::default()
        };
        let health = Health::new(config.clone());
        let answering = serve(&config, 0, health.clone()).expect("listens");
        (answering.expect("on"), health)
    }

    fn asked(at: SocketAddr, path: &str, token: Option<&str>) -> (u16, Value) {
        let token = token.map(|token| Token(token.to_owned()));
        let (status, body) = ask(at, path, token.as_ref()).expect("answers");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[test]
    fn it_answers_before_the_job_starts() {
        let (at, _health) = serving(None, 60_000);
        let (status, live) = asked(at, "/healthz", None);
        assert_eq!((status, &live["status"]), (200, &json!("ok")));
        let (status, ready) = asked(at, "/readyz", None);
        assert_eq!((status, &ready["state"]), (503, &json!("starting")));
        let (status, found) = asked(at, "/stalled", None);
        assert_eq!(status, 200);
        let found: Explanation = serde_json::from_value(found).expect("an explanation");
        assert!(!found.stalled);
        assert_eq!(asked(at, "/nothing", None).0, 404);
    }

    #[test]
    fn the_page_and_reports_are_there() {
        let (at, _health) = serving(None, 60_000);
        let (status, page) = ask(at, "/", None).expect("answers");
        assert_eq!(status, 200);
        let page = String::from_utf8(page).expect("text");
        assert!(page.starts_with("<!doctype html>") || page.starts_with("<!DOCTYPE html>"));
        let (status, report) = asked(at, "/status", None);
        let report: Report = serde_json::from_value(report).expect("a report");
        assert_eq!((status, report.form), (200, FORM));
        assert_eq!(
            report.holds.state,
            tidefeed_runtime::stall::RunState::Starting
        );
    }

    #[test]
    fn browsers_are_told_to_be_careful() {
        let (at, _health) = serving(None, 60_000);
        for (path, of) in [
            ("/", "127.0.0.1"),
            ("/status", "localhost:80"),
            ("/healthz", "[::1]:9"),
        ] {
            let head = head(at, path, of);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert!(
                head.contains("content-security-policy: default-src 'none'"),
                "{head}"
            );
            assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "localhost:80.evil.example",
        ] {
            let head = head(at, "/status", name);
            assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        }
        let probe = "GET /healthz HTTP/1.1\r\nHost: a.name\r\nConnection: close\r\n\r\n";
        let mut text = String::new();
        let mut stream = std::net::TcpStream::connect(at).expect("connects");
        stream.write_all(probe.as_bytes()).expect("writes");
        stream.read_to_string(&mut text).expect("reads");
        assert!(text.ends_with("{\"status\":\"ok\"}\n"), "{text}");
        // Whoever has a token has been told it.
        let (at, _health) = serving(Some("secret"), 60_000);
        assert!(head(at, "/healthz", "job.example").starts_with("HTTP/1.1 "));
        assert!(head(at, "/events", "job.example").starts_with("HTTP/1.1 401"));
    }

    #[test]
    fn whoever_follows_gets_one_report_after_the_other() {
        let (at, _health) = serving(None, 60_000);
        let mut stream = request(at, "/events", "127.0.0.1");
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while text.matches("data: {").count() < 3 {
            let read = stream.read(&mut buffer).expect("reads");
            assert!(read > 0, "it ended after {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        assert!(text.contains("content-type: text/event-stream"), "{text}");
    }

    #[test]
    fn whoever_follows_is_told_how_it_has_ended() {
        let (answering, health) = answering(None, 60_000);
        let mut stream = request(answering.at, "/events", "127.0.0.1");
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains("data: {") {
            let read = stream.read(&mut buffer).expect("reads");
            assert!(read > 0, "it ended after {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let refused = tidefeed_runtime::Error::new(ErrorKind::Rejected, "sink v: no");
        health.ends_with(&refused);
        answering.farewell();
        stream.read_to_string(&mut text).expect("it ends");
        assert!(
            text.contains("\"state\":\"ended\"") && text.contains("sink v (exit code 9"),
            "{text}"
        );
        // Whoever comes later is told the same, and no more.
        let mut late = String::new();
        let mut stream = request(answering.at, "/events", "127.0.0.1");
        stream.read_to_string(&mut late).expect("it ends");
        assert_eq!(late.matches("data: {").count(), 1, "{late}");
    }

    fn request(at: SocketAddr, path: &str, host: &str) -> std::net::TcpStream {
        let mut stream = std::net::TcpStream::connect(at).expect("connects");
        let timeout = Some(Duration::from_secs(30));
        stream.set_read_timeout(timeout).expect("sets");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("writes");
        stream
    }

    /// Of an answer that ends.
    fn head(at: SocketAddr, path: &str, host: &str) -> String {
        let mut text = String::new();
        let mut stream = request(at, path, host);
        stream.read_to_string(&mut text).expect("reads");
        text.split("\r\n\r\n").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_is_stuck_is_not_well_and_says_why() {
        let (at, _health) = serving(None, 0);
        let (status, live) = asked(at, "/healthz", None);
        assert_eq!(
            (status, &live["culprit"]["kind"]),
            (503, &json!("starting"))
        );
    }

    #[test]
    fn without_the_token_one_learns_the_status_only() {
        let (at, _health) = serving(Some("secret"), 60_000);
        assert_eq!(asked(at, "/stalled", None).0, 401);
        assert_eq!(asked(at, "/stalled", Some("secre")).0, 401);
        assert_eq!(asked(at, "/stalled", Some("secret")).0, 200);
        let status_only = (200, json!({"status": "ok"}));
        assert_eq!(asked(at, "/healthz", None), status_only);
        assert_eq!(
            asked(at, "/readyz", None),
            (503, json!({"status": "not-ready"}))
        );
        assert_eq!(asked(at, "/healthz", Some("secret")).1["state"], "starting");
    }
}
