//! Asks the service for pages, and does not give up easily.
//!
//! What the driver gives up on is asked again here, without limit, unless no retry can mend it: waiting as long as the service asks
//! for, with smaller pages when a page is too much, and within the budget of request units.

use std::time::Duration;

use azure_data_cosmos::feed::FeedRange;
use tidefeed_runtime::stall::Trouble;
use tidefeed_runtime::{Error, FeedRangeId, Records, Result};
use tokio::time::Instant;

use super::CosmosFeed;
use super::config::FeedMode;
use super::cursor::{Cursor, Place, Polled};
use super::page_size::{PageSize, TooMuch};
use super::phases::Feed;
use super::position::Position;
use super::refusal;
use super::token::{Saved, encode};
use crate::cosmos::diagnostics::{self, Call};
use crate::cosmos::failure::Failure;
use crate::cosmos::retry::Retry;
use crate::cosmos::throttling::Throttling;
use crate::feed::{Page, Spent, Troubles};

/// What its calls do, in the log.
const READ: &str = "read";

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
    /// Failures in a row, throttling included.
    failures: u32,
    throttling: Throttling,
    /// Failures in a row, and when the first of them was.
    failing: Option<(u32, Instant)>,
    began: Instant,
}

/// Failures in a row that are worth a line: the waits between them come to seconds. A guess.
const FAILING: u32 = 4;

impl Asker {
    pub(super) fn new(feed: CosmosFeed, id: FeedRangeId) -> Self {
        Asker {
            retry: Retry::new(feed.config.backoff.clone()),
            page_size: PageSize::new(feed.config.page_size),
            feed,
            id,
            troubles: Troubles::default(),
            failures: 0,
            throttling: Throttling::default(),
            failing: None,
            began: Instant::now(),
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
            let sent = Instant::now();
            let polled = cursor.poll(self.page_size.now()).await;
            self.observe(&polled, sent.elapsed());
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

    /// Logs what is worth it.
    fn observe(&mut self, polled: &Result<Polled, Failure>, took: Duration) {
        let (container, range) = (&self.feed.container, &self.id);
        let failure = polled.as_ref().err();
        let throttled = failure.is_some_and(Failure::is_throttled);
        let now = self.began.elapsed();
        let throttling = &mut self.throttling;
        throttling.ended(now, throttled, READ, container, range);
        match polled {
            Ok(polled) => {
                if let Some(call) = &polled.slow {
                    diagnostics::slow(READ, container, range, call);
                }
                self.goes_on();
            }
            Err(_) if throttled => {}
            Err(failure) => {
                let call = Call::failed(failure, took);
                diagnostics::failed(READ, container, range, &call);
                self.fails(failure);
            }
        }
    }

    fn fails(&mut self, failure: &Failure) {
        let (failures, _) = self.failing.get_or_insert_with(|| (0, Instant::now()));
        *failures = failures.saturating_add(1);
        if *failures == FAILING {
            tracing::warn!(
                event = "read_failing",
                container = %self.feed.container,
                range = %self.id,
                status = failure.status,
                sub_status = failure.sub_status,
                activity_id = failure.activity_id,
                cause = failure.cause(),
                "a feed range cannot be read, and is tried again and again"
            );
        }
    }

    fn goes_on(&mut self) {
        if let Some((count, since)) = self.failing.take()
            && count >= FAILING
        {
            tracing::info!(
                event = "read_again",
                container = %self.feed.container,
                range = %self.id,
                lasted_s = since.elapsed().as_secs_f64(),
                count,
                "the feed range is read again"
            );
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
        Ok(self.retry.wait(&failure))
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
