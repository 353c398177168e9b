//! Reports as they are made, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::status::Reporter;

/// Those who follow at a time; there are more connections, so that probes find a place. A guess: a few people.
const MAX_FOLLOWERS: usize = 16;

/// Whether a connection is one on which somebody follows, which may last.
#[derive(Clone, Default)]
pub(super) struct Follows(Arc<AtomicBool>);

impl Follows {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gives reports to those who follow.
pub(super) struct Events {
    reporter: Reporter,
    places: Arc<Semaphore>,
}

impl Events {
    pub(super) fn new(reporter: Reporter) -> Self {
        Events {
            reporter,
            places: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
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
        follows.0.store(true, Ordering::Relaxed);
        let mut reports = self.reporter.follow();
        reports.mark_changed();
        let events = unfold((reports, place), |(reports, place)| next(reports, place));
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (headers, Body::from_stream(events)).into_response()
    }
}

type Following = (watch::Receiver<Bytes>, OwnedSemaphorePermit);

/// The next report; the place is given back with the stream.
async fn next(
    mut reports: watch::Receiver<Bytes>,
    place: OwnedSemaphorePermit,
) -> Option<(Result<Bytes, Infallible>, Following)> {
    reports.changed().await.ok()?;
    let report = reports.borrow_and_update().clone();
    Some((Ok(event(&report)), (reports, place)))
}

/// A report is one line.
fn event(report: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(report.len() + 8);
    event.put_slice(b"data: ");
    event.put_slice(report);
    event.put_slice(b"\n\n");
    event.freeze()
}
