//! What the reader of one feed range has seen.

use std::time::Duration;

use parking_lot::Mutex;
use tidefeed_runtime::watermarks::Mark;
use tokio::time::Instant;

use crate::feed::{Page, Spent, Troubles};

/// Figures of a feed range since it is read by its present reader.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RangeStatus {
    /// The worker that it feeds.
    pub worker: usize,
    /// Changes read.
    pub changes: u64,
    /// Bytes of keys and documents.
    pub bytes: u64,
    /// Answers of the service, with changes or without.
    pub pages: u64,
    /// Answers that there was nothing new.
    pub empty: u64,
    /// What the requests took.
    pub spent: Spent,
    /// Documents that did not decode and that the run goes on without. They are decoded when their page is attached: those of a reader
    /// that has ended by then are counted for the source alone.
    pub decode_errors: u64,
    /// Changes that are yet to be read, as the service estimated with its last answer; see [`Page::remaining`].
    pub remaining: Option<u64>,
    /// How far behind the range is at most: everything written so long ago is read. The time since the service was last asked and
    /// had nothing more; `None` while it had.
    pub behind: Option<Duration>,
    /// Time since the last change came, or since the reader began.
    pub since_change: Duration,
    /// Age of the position: the time since it last moved, or since the reader began. A service that keeps changes for a limited
    /// time cannot go on from one that is older.
    pub since_moved: Duration,
    /// How long the page in hand has been waiting for room; `None` when there is none. Backpressure, not the service.
    pub waits_for_room: Option<Duration>,
    /// For how long the present request has gone without an answer, retries included; `None` when none is under way.
    pub asked: Option<Duration>,
    /// Time since the last answer; `None` before the first.
    pub answered: Option<Duration>,
    /// Where it stands in event time, milliseconds since the UNIX epoch, and whether it is idle; `None` of a source whose event time
    /// is not read, and before the range has said anything.
    pub event_time: Option<Mark>,
}

/// Takes the figures of one range.
#[derive(Debug)]
pub(crate) struct RangeFigures(Mutex<Seen>, Troubles);

#[derive(Debug)]
struct Seen {
    status: RangeStatus,
    caught_up_at: Option<Instant>,
    changed_at: Instant,
    moved_at: Instant,
    waits_since: Option<Instant>,
    asked_at: Option<Instant>,
    answered_at: Option<Instant>,
}

impl RangeFigures {
    pub(crate) fn new(worker: usize) -> Self {
        let now = Instant::now();
        let seen = Mutex::new(Seen {
            status: RangeStatus {
                worker,
                ..RangeStatus::default()
            },
            caught_up_at: None,
            changed_at: now,
            moved_at: now,
            waits_since: None,
            asked_at: None,
            answered_at: None,
        });
        RangeFigures(seen, Troubles::default())
    }

    /// A request is sent.
    pub(crate) fn asked(&self) {
        self.0.lock().asked_at = Some(Instant::now());
    }

    /// Where the range says what is wrong with its requests.
    pub(crate) fn troubles(&self) -> Troubles {
        self.1.clone()
    }

    /// An answer has come to a request that was sent at `sent`.
    pub(crate) fn answered(&self, page: &Page, moved: bool, sent: Instant) {
        let bytes = page.records.size_bytes();
        let now = Instant::now();
        let seen = &mut *self.0.lock();
        seen.asked_at = None;
        seen.answered_at = Some(now);
        seen.status.pages += 1;
        seen.status.spent += page.spent;
        seen.status.remaining = page.remaining;
        seen.status.changes += page.records.len() as u64;
        seen.status.bytes += bytes as u64;
        if page.records.is_empty() {
            seen.status.empty += 1;
        } else {
            seen.changed_at = now;
        }
        if page.caught_up || page.remaining == Some(0) {
            // What was written after the request was sent may be missing.
            seen.caught_up_at = Some(sent);
        }
        if moved {
            seen.moved_at = now;
        }
    }

    /// So many documents did not decode.
    pub(crate) fn undecodable(&self, documents: u64) {
        self.0.lock().status.decode_errors += documents;
    }

    /// Where the range stands in event time.
    pub(crate) fn stands(&self, mark: Mark) {
        self.0.lock().status.event_time = Some(mark);
    }

    /// The page in hand waits for room, or does no more.
    pub(crate) fn waits_for_room(&self, waits: bool) {
        self.0.lock().waits_since = waits.then(Instant::now);
    }

    pub(crate) fn status(&self) -> RangeStatus {
        let seen = self.0.lock();
        RangeStatus {
            behind: seen.caught_up_at.map(|at| at.elapsed()),
            since_change: seen.changed_at.elapsed(),
            since_moved: seen.moved_at.elapsed(),
            waits_for_room: seen.waits_since.map(|at| at.elapsed()),
            asked: seen.asked_at.map(|at| at.elapsed()),
            answered: seen.answered_at.map(|at| at.elapsed()),
            ..seen.status
        }
    }
}
