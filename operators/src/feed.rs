//! The port through which changes come in: feed ranges, pages and tokens.
//!
//! An adapter implements [`ChangeFeed`] and [`PageStream`] for one container, as `memory` and `cosmos` do. The contract that
//! sources rely on:
//!
//! 1. Every document belongs to exactly one range. [`ChangeFeed::ranges`] tiles the key space, if it has one.
//! 2. Pages of one stream come in the order of the feed, and a page never splits what the service wrote at once.
//! 3. [`Page::token`] resumes exactly after the page. It never covers a record that no page has delivered.
//! 4. A token of a range is a position in every part of it: [`ChangeFeed::open`] takes it for any range that it covers.
//! 5. A start at [`Start::Now`] is fixed when [`ChangeFeed::open`] returns: every change made after that is delivered, whatever
//!    happens to the range, and the first page holds the position. No token says "now".
//! 6. Throttling and passing faults are waited out inside [`PageStream::next_page`]; an error that comes out is final.
//! 7. Dropping a `next_page` that has not finished loses nothing, for a feed that [divides](ChangeFeed::divide): its reader does so
//!    when it is to hand its range over.
//!
//! Other inputs are behind the same port: [`files`](crate::files), whose ranges need not tile anything, and
//! [`ingest`](crate::ingest), whose pages come when somebody sends them and who must learn when they are durable.

use std::error::Error as StdError;
use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::stall::Trouble;
use tidefeed_runtime::{ContinuationToken, Error, FeedRangeId, Records, Result};

pub use crate::projection::check_fields;

/// Where to start reading a feed range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// At the first change that the service still has.
    Beginning,
    /// At the changes made from now on.
    Now,
    /// At the changes made at or after a point in time. Cosmos DB finds it to about 5 seconds.
    Time(SystemTime),
    /// After the page that returned this token.
    Token(ContinuationToken),
}

/// One container's change feed.
#[async_trait]
pub trait ChangeFeed: Send + Sync + 'static {
    /// The feed ranges that exist now, in key order, without gap or overlap.
    ///
    /// # Errors
    /// When the container cannot be reached, or does not exist.
    async fn ranges(&self) -> Result<Vec<FeedRangeId>>;

    /// Whether the ranges tile a key space, so that a gap or an overlap is a mistake. False says that they are independent: none
    /// covers another, new ones may appear, and one that has gone leaves nothing to read. A document still belongs to one.
    /// The names of independent ranges are not of the form `min-max`.
    fn ranges_tile(&self) -> bool {
        true
    }

    /// Whether a run also reads independent ranges that appear after it has begun, each from its beginning. Of ranges that tile a
    /// key space nothing appears: what is new in the list is a part of what is read already.
    fn ranges_appear(&self) -> bool {
        false
    }

    /// Opens one range. Does no more than it must: with [`Start::Now`] it waits until the position is fixed in every part of the
    /// range; otherwise the first page is read by the first `next_page`.
    ///
    /// # Errors
    /// When the range is malformed, the token is not one of this range, or the feed cannot start there.
    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>>;

    /// A range in so many parts of about the same size, in key order, which tile it; fewer where that cannot be, by default
    /// the range itself.
    fn divide(&self, range: &FeedRangeId, _parts: usize) -> Vec<FeedRangeId> {
        vec![range.clone()]
    }
}

/// Pages of one feed range, in feed order, without end.
#[async_trait]
pub trait PageStream: Send {
    /// The next page. An idle range answers with an empty page at once; how often to ask again is the caller's choice.
    ///
    /// # Errors
    /// Only what no retry can mend, with the range and the cause named.
    async fn next_page(&mut self) -> Result<Page>;

    /// Resolves when the range, idle until now, has something: the reader asks then, and not only when its delay is over.
    /// Nothing is lost when the future is dropped. The default never resolves.
    async fn news(&mut self) {
        std::future::pending().await
    }

    /// From now on the stream says in `troubles` what is wrong with its requests, and when nothing is any more. The default says
    /// nothing, for streams whose requests do not fail.
    fn watched_by(&mut self, _troubles: Troubles) {}

    /// Partitions of the service that the range lies in, as far as the stream has seen; more than one after a split.
    fn partitions(&self) -> usize {
        1
    }
}

/// What is wrong with the present request of a feed range, for whoever asks why it stands still. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<Option<Trouble>>>);

impl Troubles {
    /// Says what is wrong.
    pub fn tell(&self, trouble: Trouble) {
        *self.0.lock() = Some(trouble);
    }

    /// Nothing is, any more.
    pub fn end(&self) {
        *self.0.lock() = None;
    }

    /// What is wrong now.
    pub fn now(&self) -> Option<Trouble> {
        self.0.lock().clone()
    }
}

/// Changes of one feed range and the position after them.
#[derive(Debug)]
pub struct Page {
    /// The changes, in feed order. A document may appear more than once; the last one counts.
    pub records: Records,
    /// The position after these changes.
    pub token: ContinuationToken,
    /// What it took to get it.
    pub spent: Spent,
    /// Changes that come after this page, as far as the service says; an estimate, usually too high, because versions that were
    /// overwritten and documents that are gone count as well.
    pub remaining: Option<u64>,
    /// True when the service said that there is nothing after this page for now.
    pub caught_up: bool,
    /// Who is to learn that the changes are durable; usually nobody.
    pub receipt: Option<Receipt>,
}

/// What requests took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Request units charged.
    pub charge_ru: f64,
    /// Requests that the service put off because there were too many.
    pub throttled: u64,
}

impl Page {
    /// A position without changes.
    pub fn at(token: ContinuationToken) -> Page {
        Page {
            records: Records::new(),
            token,
            spent: Spent::default(),
            remaining: None,
            caught_up: false,
            receipt: None,
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Spent) {
        self.charge_ru += more.charge_ru;
        self.throttled += more.throttled;
    }
}

/// Tells whoever brought a page that its changes are durable: sealed, which is before they are in any view.
///
/// Dropped without being given, it says that nobody knows: the run has ended before.
pub struct Receipt(Box<dyn FnOnce() + Send>);

impl Receipt {
    /// A receipt that calls `given`, on a worker's thread, which must not wait.
    pub fn new(given: impl FnOnce() + Send + 'static) -> Self {
        Receipt(Box::new(given))
    }

    /// The changes are durable.
    pub fn give(self) {
        (self.0)();
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// The cause of an error that says that a position is older than what the feed keeps. What changed since then is lost for good, so
/// only a run that starts over goes on.
#[derive(Debug)]
pub struct ExpiredPosition {
    reload: bool,
    message: String,
}

impl ExpiredPosition {
    /// `reload` says whether whoever runs the job asked for a start from the beginning in this case; `message` is the server's.
    pub fn new(reload: bool, message: impl Into<String>) -> Self {
        let message = message.into();
        ExpiredPosition { reload, message }
    }

    /// Whether the job is to start over.
    pub fn reload(&self) -> bool {
        self.reload
    }

    /// The one in the causes of `error`.
    pub fn of(error: &Error) -> Option<&ExpiredPosition> {
        let first = StdError::source(error);
        std::iter::successors(first, |&error| error.source())
            .find_map(|cause| cause.downcast_ref::<ExpiredPosition>())
    }
}

impl fmt::Display for ExpiredPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for ExpiredPosition {}

#[cfg(test)]
mod tests {
    use super::*;
    use tidefeed_runtime::ErrorKind;

    #[test]
    fn an_expired_position_is_found_below_any_context() {
        let error = Error::new(ErrorKind::Checkpoint, "the position is too old");
        assert!(ExpiredPosition::of(&error).is_none());
        let error = error.with_source(ExpiredPosition::new(true, "gone"));
        let error = error.wrap("source orders").wrap("job shop");
        assert!(ExpiredPosition::of(&error).is_some_and(ExpiredPosition::reload));
        assert!(error.report().ends_with("too old: gone"));
    }
}
