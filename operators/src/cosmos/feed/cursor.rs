//! One change feed of the SDK, in one mode.
//!
//! A stream that has failed is dead in the SDK, so the cursor keeps the token of the last answer and opens a new SDK stream from it;
//! a failed page has delivered nothing, so nothing is lost or repeated.
//!
//! Dropping a `poll` that has not finished is safe: a page that is on its way stays on its way and comes out of the next call.

use std::num::NonZeroU32;

use azure_data_cosmos::feed::{
    ChangeFeedPageIterator, ContinuationToken as SdkToken, FeedPage, FeedRange, FeedScope,
};
use azure_data_cosmos::models::ChangeFeedItem;
use azure_data_cosmos::options::{
    ChangeFeedMode, ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint,
};
use futures::StreamExt;

use super::position::Position;
use crate::cosmos::container::Container;
use crate::cosmos::document::Taken;
use crate::cosmos::failure::Failure;

/// Where a cursor has come to.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// No answer yet.
    Start(ChangeFeedStartFrom),
    /// After the answer that the SDK gave this token for.
    Token(String),
}

type Item = ChangeFeedItem<Taken>;
type Pages = ChangeFeedPageIterator<Item>;

/// An answer of the service.
pub(super) struct Polled {
    pub(super) items: Vec<Item>,
    /// After these items.
    pub(super) token: String,
    /// When the last of them was written, in seconds since 1970, if the service says so.
    pub(super) written_at: Option<u64>,
    pub(super) charge_ru: f64,
    /// See [`Answer::quiet`](super::phases::Answer::quiet).
    pub(super) quiet: bool,
}

/// A position in one change feed of a range.
pub(super) struct Cursor {
    container: Container,
    range: FeedRange,
    mode: ChangeFeedMode,
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
        range: FeedRange,
        mode: ChangeFeedMode,
        place: Place,
    ) -> Self {
        Cursor {
            container,
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
            // The SDK's stream ends with its first error.
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
        let page = match pages.next().await {
            Some(page) => page.map_err(|error| Failure::of(&error))?,
            None => {
                return Err(Failure::transient(
                    "the SDK ended a change feed, which never ends",
                ));
            }
        };
        let token = pages
            .to_continuation_token()
            .map_err(|error| Failure::of(&error))?;
        let token = token.as_str().to_owned();
        // Also after an answer that is not delivered: when the stream is opened again, a start at "now" must not have become a
        // later one.
        self.place = Place::Token(token.clone());
        let charge_ru = charge(&page);
        let quiet = is_not_modified(&page) && self.all_parts_quiet(&token).await;
        let items = page.into_items();
        if quiet || !items.is_empty() {
            self.quiet_polls = 0;
        }
        Ok(Polled {
            written_at: items.last().and_then(written_at),
            items,
            token,
            charge_ru,
            quiet,
        })
    }

    /// Exclusive, because what the SDK has under way is not to be shared among threads.
    async fn open(&mut self) -> Result<Pages, Failure> {
        let options = ChangeFeedOptions::default()
            .with_mode(self.mode)
            .with_max_item_count(MaxItemCountHint::Limit(self.page_size));
        // With a token the SDK ignores the start.
        let (start, options) = match &self.place {
            Place::Start(start) => (start.clone(), options),
            Place::Token(token) => (
                ChangeFeedStartFrom::Beginning,
                options.with_continuation_token(SdkToken::from_string(token.clone())),
            ),
        };
        let scope = FeedScope::range(self.range.clone());
        self.container
            .client()
            .query_change_feed(scope, start, Some(options))
            .await
            .map_err(|error| Failure::of(&error))
    }

    /// After a "nothing new": true when every part of the range has said so since it last had something. The SDK asks the parts
    /// in turn, and one that is quiet says nothing about the others.
    async fn all_parts_quiet(&mut self, token: &str) -> bool {
        self.quiet_polls += 1;
        // Parts of today, from the SDK's cached map, which it renews when it meets a split.
        self.partitions = match self.container.client().read_feed_ranges(None).await {
            Ok(parts) => parts
                .iter()
                .filter(|part| part.overlaps(&self.range))
                .count(),
            // Then the next poll fails as well, and is dealt with there.
            Err(_) => 1,
        };
        // Where partitions were merged, the parts of before are still asked each by itself.
        let asked = Position::of(token.to_owned()).map_or(1, |position| position.parts());
        self.quiet_polls >= self.partitions.max(asked)
    }
}

fn written_at(item: &Item) -> Option<u64> {
    let time = item.metadata()?.conflict_resolution_timestamp()?;
    Some(time.as_secs())
}

fn is_not_modified<T>(page: &FeedPage<T>) -> bool {
    page.diagnostics()
        .status()
        .is_some_and(|status| u16::from(status.status_code()) == 304)
}

fn charge<T>(page: &FeedPage<T>) -> f64 {
    page.headers()
        .request_charge()
        .map_or(0.0, |charge| charge.value())
}
