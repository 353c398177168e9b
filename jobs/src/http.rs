//! Answers over HTTP how a job is: `/healthz`, `/readyz` and `/stalled`.
//!
//! 1. It has a thread and a runtime of its own, and begins before the job starts: so it answers while the cluster assembles and while
//!    workers or the job's own I/O threads hang.
//! 2. It only reads, and says nothing of documents, keys or secrets: names of sources, sinks and operators, feed ranges, times, and
//!    what a service answered.
//! 3. Where there is a token, only its bearer learns more than "ok" and "ready": the probes of an orchestrator have no secret, and
//!    look at the status alone.
//!
//! Limits: no TLS; so many connections at a time, of which each has some time to say what it wants.

mod client;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use tidefeed_runtime::{Context, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::config::{HttpConfig, Token};
use crate::health::{Answer, Health};
pub(crate) use client::get as ask;

/// Connections at a time; others wait. A guess: a few probes and people.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a connection that could not be accepted, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Who is asked, and by whom.
struct Desk {
    health: Health,
    token: Option<Token>,
}

/// Listens, if the configuration says so, until the process ends. `port` is added to the port. Returns where it listens.
///
/// # Errors
/// `Config` when it cannot listen there, or others could ask without a token.
pub(crate) fn serve(config: &HttpConfig, port: u16, health: Health) -> Result<Option<SocketAddr>> {
    let Some((at, token)) = config.place(port)? else {
        return Ok(None);
    };
    let listener = TcpListener::bind(at)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
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
    let desk = Arc::new(Desk { health, token });
    std::thread::Builder::new()
        .name("tidefeed-http".to_owned())
        .spawn(move || runtime.block_on(accept(listener, router(desk))))
        .context(
            ErrorKind::Internal,
            || "cannot start the thread that answers",
        )?;
    tracing::info!("answers at http://{at}/healthz, /readyz and /stalled");
    Ok(Some(at))
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/stalled", get(stalled))
        .with_state(desk)
}

async fn healthz(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    desk.probed(&headers, &desk.health.liveness())
}

async fn readyz(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    desk.probed(&headers, &desk.health.readiness())
}

async fn stalled(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    match desk.knows(&headers) {
        true => answer(StatusCode::OK, &desk.health.explain()),
        false => {
            let what = json!({"error": "say who you are: Authorization: Bearer TOKEN"});
            let refused = answer(StatusCode::UNAUTHORIZED, &what);
            ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response()
        }
    }
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

    /// Whether whoever asks may know everything.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|given| given.as_bytes().strip_prefix(b"Bearer "));
        given.is_some_and(|given| given.ct_eq(token.0.as_bytes()).into())
    }
}

fn answer<T: Serialize>(status: StatusCode, what: &T) -> Response {
    match serde_json::to_string(what) {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (status, headers, text + "\n").into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "an answer has no JSON form");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "nobody can ask how the job is"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve_one(stream, router.clone());
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serving).await;
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
    use serde_json::Value;
    use tidefeed_runtime::stall::Explanation;

    use super::*;

    fn serving(token: Option<&str>, stuck_after_ms: u64) -> (SocketAddr, Health) {
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
        let at = serve(&config, 0, health.clone()).expect("listens");
        (at.expect("on"), health)
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
        assert_eq!(asked(at, "/", None).0, 404);
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
