//! The port through which changes come in: feed ranges, pages and tokens.
//!
//! An adapter implements [`ChangeFeed`] and [`PageStream`] for one container, as `memory` and `cosmos` do. The contract that
//! sources rely on:
//!
//! 1. Every document belongs to exactly one range. [`ChangeFeed::ranges`] tiles the key space, if it has one.
//! 2. Pages of one stream come in the order of the feed, and a page never splits what the service wrote at once.
//! 3. [`Page::token`] resumes exactly after the page. It never covers a record that no page has delivered.
//! 4. A token of a range is a position in every part of it: [`ChangeFeed::open`] takes it for any range that it covers.
//! 5. Throttling and passing faults are waited out inside [`PageStream::next_page`]; an error that comes out is final.
//!
//! Other inputs are behind the same port: [`files`](crate::files), whose ranges need not tile anything, and
//! [`ingest`](crate::ingest), whose pages come when somebody sends them and who must learn when they are durable.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::{ContinuationToken, FeedRangeId, Record, Result};

/// Where to start reading a feed range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// At the first change that the service still has.
    Beginning,
    /// At the changes made from now on.
    Now,
    /// At the changes made at or after a point in time.
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

    /// Opens one range. Does no more than it must: the first page is read by the first `next_page`.
    ///
    /// # Errors
    /// When the range is malformed or the token is not one of this range.
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

    /// Partitions of the service that the range lies in, as far as the stream has seen; more than one after a split.
    fn partitions(&self) -> usize {
        1
    }
}

/// Changes of one feed range and the position after them.
#[derive(Debug)]
pub struct Page {
    /// The changes, in feed order. A document may appear more than once; the last one counts.
    pub records: Vec<Record>,
    /// The position after these changes.
    pub token: ContinuationToken,
    /// Request units charged for the page.
    pub charge_ru: f64,
    /// True when the service said that there is nothing after this page for now.
    pub caught_up: bool,
    /// Who is to learn that the changes are durable; usually nobody.
    pub receipt: Option<Receipt>,
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
