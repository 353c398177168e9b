//! One change feed, in one mode.
//!
//! A stream that has failed is dead, so the cursor keeps the token of the last answer and opens a new stream from it;
//! a failed page has delivered nothing, so nothing is lost or repeated.
//!
//! Dropping a `poll` that has not finished is safe: a page that is on its way stays on its way and comes out of the next call.

use std::num::NonZeroU32;

use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::options::ChangeFeedStartFrom;
use tidefeed_runtime::{Records, Result};

use super::config::FeedMode;
use super::page::{Changes, changes};
use super::position::Position;
use crate::cosmos::container::Container;
use crate::cosmos::diagnostics::Call;
use crate::cosmos::document::DocumentShape;
use crate::cosmos::driver::Pages;
use crate::cosmos::failure::Failure;

/// Where a cursor has come to.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// No answer yet.
    Start(ChangeFeedStartFrom),
    /// After the answer that the driver gave this token for.
    Token(String),
}

/// An answer of the service.
pub(super) struct Polled {
    /// What it brought, or why a document of it is unusable.
    pub(super) records: Result<Records>,
    /// After these records.
    pub(super) token: String,
    /// When the last of them was written, in seconds since 1970, if the service says so.
    pub(super) written_at: Option<u64>,
    pub(super) charge_ru: f64,
    /// How it came, if that took long.
    pub(super) slow: Option<Call>,
    /// See [`Page::remaining`](crate::feed::Page::remaining).
    pub(super) remaining: Option<u64>,
    /// See [`Answer::quiet`](super::phases::Answer::quiet).
    pub(super) quiet: bool,
}

/// A position in one change feed of a range.
pub(super) struct Cursor {
    container: Container,
    shape: DocumentShape,
    range: FeedRange,
    mode: FeedMode,
    place: Place,
    /// `None` before the first page and after a failure.
    pages: Option<Pages>,
    /// What the pages were asked for with.
    page_size: NonZeroU32,
    /// Polls in a row that the service answered with "nothing new".
    quiet_polls: usize,
    /// Partitions that the range lies in, when they were last counted.
    partitions: usize,
}

impl Cursor {
    pub(super) fn new(
        container: Container,
        shape: DocumentShape,
        range: FeedRange,
        mode: FeedMode,
        place: Place,
    ) -> Self {
        Cursor {
            container,
            shape,
            range,
            mode,
            place,
            pages: None,
            page_size: NonZeroU32::MIN,
            quiet_polls: 0,
            partitions: 1,
        }
    }

    pub(super) fn partitions(&self) -> usize {
        self.partitions
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// From here on it counts who is quiet.
    pub(super) fn listen_anew(&mut self) {
        self.quiet_polls = 0;
    }

    /// Asks once.
    pub(super) async fn poll(&mut self, page_size: NonZeroU32) -> Result<Polled, Failure> {
        let polled = self.poll_once(page_size).await;
        if polled.is_err() {
            // The driver's stream ends with its first error.
            self.pages = None;
            self.quiet_polls = 0;
        }
        polled
    }

    async fn poll_once(&mut self, page_size: NonZeroU32) -> Result<Polled, Failure> {
        if self.pages.is_none() || self.page_size != page_size {
            self.page_size = page_size;
            self.pages = Some(self.open().await?);
        }
        let pages = self.pages.as_mut().expect("opened above");
        let (answer, token) = pages.next().await?;
        let read = match answer.not_modified {
            true => Ok(Changes::default()),
            // Whatever cut it short, it has delivered nothing and is asked for again.
            false => changes(&answer.body, &self.shape).map_err(|error| {
                Failure::transient(&format!(
                    "a page of the change feed cannot be read: {error}"
                ))
            })?,
        };
        // Also after an answer that is not delivered: when the stream is opened again, a start at "now" must not have become a
        // later one.
        self.place = Place::Token(token.clone());
        let quiet = answer.not_modified && self.all_parts_quiet(&token).await;
        let is_empty = read.as_ref().is_ok_and(|read| read.records.is_empty());
        if quiet || !is_empty {
            self.quiet_polls = 0;
        }
        Ok(Polled {
            written_at: read.as_ref().ok().and_then(|read| read.written_at),
            records: read.map(|read| read.records),
            token,
            charge_ru: answer.charge_ru,
            slow: answer.slow,
            // Of one part of several it says nothing about the others.
            remaining: answer.remaining.filter(|_| self.partitions == 1),
            quiet,
        })
    }

    /// Exclusive, because what is under way is not to be shared among threads.
    async fn open(&mut self) -> Result<Pages, Failure> {
        let (start, token) = match &self.place {
            Place::Start(start) => (start.clone(), None),
            // With a token the start is ignored.
            Place::Token(token) => (ChangeFeedStartFrom::Beginning, Some(token.clone())),
        };
        let client = self.container.feed_client().await?;
        let range = self.range.clone();
        client
            .pages(range, self.mode, start, token, self.page_size)
            .await
    }

    /// After a "nothing new": true when every part of the range has said so since it last had something. The driver asks the parts
    /// in turn, and one that is quiet says nothing about the others.
    async fn all_parts_quiet(&mut self, token: &str) -> bool {
        self.quiet_polls += 1;
        // Parts of today. Without a map the next poll fails as well, and is dealt with there.
        let client = self.container.feed_client().await;
        self.partitions = match client {
            Ok(client) => client.partitions(&self.range).await.unwrap_or(1),
            Err(_) => 1,
        };
        // Where partitions were merged, the parts of before are still asked each by itself.
        let asked = Position::of(token.to_owned()).map_or(1, |position| position.parts());
        self.quiet_polls >= self.partitions.max(asked)
    }
}
