//! Asks the service for pages, and does not give up easily.
//!
//! What the driver gives up on is asked again here, without limit, unless no retry can mend it: waiting as long as the service asks
//! for, with smaller pages when a page is too much, and within the budget of request units.

use std::time::Duration;

use azure_data_cosmos::feed::FeedRange;
use tidefeed_runtime::stall::Trouble;
use tidefeed_runtime::{Error, FeedRangeId, Records, Result};

use super::CosmosFeed;
use super::config::FeedMode;
use super::cursor::{Cursor, Place, Polled};
use super::page_size::{PageSize, TooMuch};
use super::phases::Feed;
use super::position::Position;
use super::refusal;
use super::token::{Saved, encode};
use crate::cosmos::failure::Failure;
use crate::cosmos::retry::Retry;
use crate::feed::{Page, Spent, Troubles};

/// Answers after which every part of a range must have had its turn; a range that was just opened has one part, or a few.
const MOST_PARTS: usize = 10_000;

/// What the requests of one feed range share.
pub(super) struct Asker {
    feed: CosmosFeed,
    pub(super) id: FeedRangeId,
    retry: Retry,
    page_size: PageSize,
    /// Where it says what is wrong.
    pub(super) troubles: Troubles,
    /// Failures in a row.
    failures: u32,
}

impl Asker {
    pub(super) fn new(feed: CosmosFeed, id: FeedRangeId) -> Self {
        Asker {
            retry: Retry::new(feed.config.backoff.clone()),
            page_size: PageSize::new(feed.config.page_size),
            feed,
            id,
            troubles: Troubles::default(),
            failures: 0,
        }
    }

    /// A cursor in the range.
    pub(super) fn cursor(&self, range: &FeedRange, feed: Feed, place: Place) -> Cursor {
        let mode = match feed {
            Feed::Latest => FeedMode::LatestVersion,
            Feed::All => FeedMode::AllVersionsAndDeletes,
        };
        let (container, shape) = (self.feed.container.clone(), self.feed.shape.clone());
        Cursor::new(container, shape, range.clone(), mode, place)
    }

    /// The next answer of the service. `spent` grows by what it and the failures before it took; `at` says when a position
    /// that has a limited life was current.
    pub(super) async fn ask(
        &mut self,
        cursor: &mut Cursor,
        at: Option<u64>,
        spent: &mut Spent,
    ) -> Result<Polled> {
        loop {
            let taken = self.feed.admitted(&self.troubles).await;
            let polled = cursor.poll(self.page_size.now()).await;
            let charged = match &polled {
                Ok(polled) => polled.charge_ru,
                Err(failure) => failure.charge_ru,
            };
            self.feed.charged(taken, charged);
            spent.charge_ru += charged;
            let failure = match polled {
                Ok(polled) => {
                    self.retry.succeeded();
                    self.page_size.accepted();
                    self.failures = 0;
                    self.troubles.end();
                    return Ok(polled);
                }
                Err(failure) => failure,
            };
            spent.throttled += u64::from(failure.is_throttled());
            self.tell(&failure);
            let wait = self.after(failure, cursor, at)?;
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&mut self, failure: &Failure) {
        self.failures = self.failures.saturating_add(1);
        let attempts = self.failures;
        self.troubles.tell(match failure.is_throttled() {
            true => Trouble::Throttled { attempts },
            false => Trouble::Failing {
                attempts,
                error: failure.message.clone(),
            },
        });
    }

    /// How long to wait after `failure`.
    fn after(&mut self, failure: Failure, cursor: &Cursor, at: Option<u64>) -> Result<Duration> {
        let too_much = TooMuch::of(&failure);
        let smaller = too_much.is_some() && self.page_size.refused();
        if smaller {
            let (range, page_size) = (&self.id, self.page_size.now());
            tracing::debug!(%range, page_size, cause = %failure.message, "asks for smaller pages");
        }
        match too_much {
            Some(TooMuch::Large) if smaller => return Ok(Duration::ZERO),
            _ if failure.is_passing() => {}
            _ => {
                let (feed, id) = (&self.feed, &self.id);
                return Err(refusal::error(failure, feed, id, cursor.place(), at));
            }
        }
        let what = format_args!("feed range {} of {}", self.id, self.feed.container).to_string();
        Ok(self.retry.wait_after(&failure, &what))
    }

    /// Asks until the service has answered for every part of the range. Returns where that is, and what came until then.
    pub(super) async fn resolve(
        &mut self,
        cursor: &mut Cursor,
        spent: &mut Spent,
    ) -> Result<(Position, Records)> {
        let mut records = Records::new();
        for _ in 0..MOST_PARTS {
            let polled = self.ask(cursor, None, spent).await?;
            records.append(self.readable(polled.records)?);
            let position = Position::of(polled.token)?;
            if position.covers(&self.id) {
                return Ok((position, records));
            }
        }
        let (id, container) = (&self.id, &self.feed.container);
        Err(Error::internal(format!(
            "feed range {id} of {container} has no position after {MOST_PARTS} answers"
        )))
    }

    /// Names the container in what is wrong with a document of it.
    pub(super) fn readable(&self, records: Result<Records>) -> Result<Records> {
        records
            .map_err(|error| error.wrap(format!("cannot read container {}", self.feed.container)))
    }

    /// A page of records up to this position.
    pub(super) fn page(
        &self,
        records: Records,
        saved: &Saved,
        spent: Spent,
        remaining: Option<u64>,
        caught_up: bool,
    ) -> Page {
        Page {
            records,
            spent,
            remaining,
            caught_up,
            ..Page::at(encode(&self.id, saved))
        }
    }
}
