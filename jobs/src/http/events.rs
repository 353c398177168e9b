//! Reports as they are made, as server-sent events.
//!
//! A process that ends gives those who follow its last report before: how a run has ended is known only then, and nobody answers later.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::status::Reporter;

/// Those who follow at a time; there are more connections, so that probes find a place. A guess: a few people.
const MAX_FOLLOWERS: usize = 16;

/// How long those who follow may take to read the last report. A guess: a round trip and a busy machine.
const FAREWELL: Duration = Duration::from_secs(1);

/// The place of a connection on which somebody follows, which may last. It is given back when the connection is closed.
#[derive(Clone, Default)]
pub(super) struct Follows(Arc<OnceLock<OwnedSemaphorePermit>>);

impl Follows {
    pub(super) fn any(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Gives reports to those who follow. Clones are the same.
#[derive(Clone)]
pub(super) struct Events {
    reporter: Reporter,
    places: Arc<Semaphore>,
    over: Arc<watch::Sender<bool>>,
}

impl Events {
    pub(super) fn new(reporter: Reporter) -> Self {
        Events {
            reporter,
            places: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            over: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The newest report.
    pub(super) fn newest(&self) -> Bytes {
        self.reporter.newest()
    }

    /// The newest report, and then each that is made.
    pub(super) fn follow(&self, follows: &Follows) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let what = format!("{MAX_FOLLOWERS} follow already: close one, or ask for /status\n");
            return (StatusCode::SERVICE_UNAVAILABLE, what).into_response();
        };
        // It is the last answer of its connection, so there was none before.
        let _ = follows.0.set(place);
        let mut reports = self.reporter.follow();
        reports.mark_changed();
        let events = unfold((reports, self.over.subscribe()), next);
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONNECTION, "close"),
        ];
        (headers, Body::from_stream(events)).into_response()
    }

    /// Gives those who follow a last report, and waits until they have it, but not for long.
    pub(super) async fn farewell(&self) {
        self.reporter.report();
        self.over.send_replace(true);
        let all_gone = self.places.acquire_many(MAX_FOLLOWERS as u32);
        // Whoever does not read in time does without.
        let _ = tokio::time::timeout(FAREWELL, all_gone).await;
    }
}

type Following = (watch::Receiver<Bytes>, watch::Receiver<bool>);

/// The next report, until the last.
async fn next(
    (mut reports, mut over): Following,
) -> Option<(Result<Bytes, Infallible>, Following)> {
    tokio::select! {
        biased;
        changed = reports.changed() => changed.ok()?,
        // The sender is with the one of reports.
        _ = over.wait_for(|over| *over) => return None,
    }
    let report = reports.borrow_and_update().clone();
    Some((Ok(event(&report)), (reports, over)))
}

/// A report is one line.
fn event(report: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(report.len() + 8);
    event.put_slice(b"data: ");
    event.put_slice(report);
    event.put_slice(b"\n\n");
    event.freeze()
}
