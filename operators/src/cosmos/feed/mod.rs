//! The change feed of a container as a [`ChangeFeed`].
//!
//! ```text
//!     CosmosFeed --open--> LatestStream ---------- Cursor (latest versions)      one feed range in one mode
//!                      `-> FullStream -- Phases -- Cursor, Cursor (all versions)
//!                                |
//!                              Asker: retries, page size, budget
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `cursor` | the driver's stream, opened again from the last token after a failure |
//! | `page` | the changes in an answer |
//! | `asker` | requests until the service answers, with retries, smaller pages and the budget |
//! | `stream` | pages and tokens; a start at "now" that is resolved before the stream is handed out |
//! | `phases` | snapshot, then stream: all versions from the beginning |
//! | `position`, `token` | what is in the driver's tokens, and in ours |
//! | `page_size`, `pacer` | how much to ask for, and how often |
//! | `refusal` | what a person is told, and positions that are older than the retention |
//!
//! Dropping a `next_page` that has not finished is safe: a page that is on its way stays on its way and comes out of the
//! next call.

mod asker;
mod config;
mod cursor;
mod pacer;
mod page;
mod page_size;
mod phases;
mod position;
mod ranges;
mod refusal;
mod stream;
mod token;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_data_cosmos::options::ChangeFeedStartFrom;
use parking_lot::Mutex;
use tidefeed_runtime::stall::Trouble;
use tidefeed_runtime::{Error, ErrorKind, FeedRangeId, Result};
use tokio::time::Instant;

use self::asker::Asker;
use self::cursor::Place;
use self::pacer::Pacer;
use self::refusal::{is_old, rough};
use self::stream::{FullStream, LatestStream, now};
use self::token::{Saved, SavedPhase, decode};
use super::container::Container;
use super::document::DocumentShape;
use crate::feed::{ChangeFeed, PageStream, Start, Troubles};
use crate::projection::Projection;

pub(super) use self::config::DeletedMark;
pub use self::config::{FeedConfig, FeedMode, OnExpired, SoftDelete};
pub(crate) use self::ranges::{feed_ranges, range_id};

/// The change feed of one container. Clones share the budget of request units.
#[derive(Clone, Debug)]
pub struct CosmosFeed {
    container: Container,
    shape: DocumentShape,
    config: FeedConfig,
    pacer: Option<Arc<Mutex<Pacer>>>,
}

impl CosmosFeed {
    /// The feed of `container`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when `keep_system_properties` names something else, `fields` is empty, or `deleted` is malformed.
    pub fn new(container: Container, config: FeedConfig) -> Result<Self> {
        let mut shape =
            DocumentShape::new(container.keys().clone(), &config.keep_system_properties)?;
        if let Some(deleted) = &config.deleted {
            shape = shape.with_deleted(deleted.compile()?);
        }
        let fields = format!("fields of the feed of container {container}");
        shape = shape.with_fields(Projection::new(&fields, config.fields.as_deref())?);
        let pacer = |per_second| Arc::new(Mutex::new(Pacer::new(per_second, clock())));
        Ok(CosmosFeed {
            container,
            shape,
            pacer: config.ru_per_second.map(pacer),
            config,
        })
    }

    /// Waits until the budget lets a request go.
    async fn admitted(&self, troubles: &Troubles) -> f64 {
        let Some(pacer) = &self.pacer else {
            return 0.0;
        };
        loop {
            // The lock must not be held while it waits.
            let admitted = pacer.lock().admit(clock());
            match admitted {
                Ok(taken) => return taken,
                Err(wait) => {
                    troubles.tell(Trouble::Budget);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn charged(&self, taken: f64, charge_ru: f64) {
        if let Some(pacer) = &self.pacer {
            pacer.lock().settle(taken, charge_ru);
        }
    }

    /// How far back the feed of all versions reaches, if the container says so; continuous backup does not.
    fn retention(&self) -> Option<Duration> {
        let policy = self.container.properties().change_feed_policy.as_ref()?;
        policy.retention_duration()
    }

    /// A position that is near the end of its life is worth a warning: it may not last until the next restart.
    fn look_at_age(&self, id: &FeedRangeId, saved: &SavedPhase) {
        let age = Duration::from_secs(now().saturating_sub(saved.at()));
        if let Some(retention) = self.retention().filter(|retention| is_old(age, *retention)) {
            tracing::warn!(
                event = "position_old",
                container = %self.container,
                range = %id,
                "the position in feed range {id} of {} is {}, and the feed reaches back {retention:?}: restart the job sooner, or give \
                 the container a longer retention",
                self.container,
                rough(age)
            );
        }
    }

    fn unusable(&self, id: &FeedRangeId, why: &str) -> Error {
        Error::new(
            ErrorKind::Checkpoint,
            format!(
                "the token for feed range {id} of container {} is not usable: {why}",
                self.container
            ),
        )
    }
}

#[async_trait]
impl ChangeFeed for CosmosFeed {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        let ranges = feed_ranges(&self.container, &self.config.backoff).await?;
        Ok(ranges.iter().map(range_id).collect())
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let range = ranges::parse_range(&range.0).ok_or_else(|| {
            Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "feed range {range:?} of container {} is malformed",
                    self.container
                ),
            )
        })?;
        let id = range_id(&range);
        let asker = Asker::new(self.clone(), id.clone());
        if let Start::Token(token) = start {
            let saved = decode(&token, &range, self.config.mode);
            return match saved.map_err(|why| self.unusable(&id, why))? {
                Saved::Latest(token) => {
                    let place = Place::Token(token);
                    Ok(Box::new(LatestStream::open(asker, &range, place).await?))
                }
                Saved::Full(saved) => {
                    self.look_at_age(&id, &saved);
                    let resumed = FullStream::resumed(asker, &range, saved);
                    Ok(Box::new(
                        resumed.map_err(|error| self.unusable(&id, &error.report()))?,
                    ))
                }
            };
        }
        if self.config.mode == FeedMode::AllVersionsAndDeletes {
            return match start {
                Start::Now => Ok(Box::new(FullStream::now(asker, &range).await?)),
                Start::Time(_) => Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "all versions and deletes of container {} cannot be read from a point in time: start at the beginning or now",
                        self.container
                    ),
                )),
                Start::Beginning | Start::Token(_) => {
                    Ok(Box::new(FullStream::beginning(asker, &range).await?))
                }
            };
        }
        let start = match start {
            Start::Now => ChangeFeedStartFrom::Now,
            Start::Time(time) => ChangeFeedStartFrom::PointInTime(time.into()),
            Start::Beginning | Start::Token(_) => ChangeFeedStartFrom::Beginning,
        };
        let place = Place::Start(start);
        Ok(Box::new(LatestStream::open(asker, &range, place).await?))
    }

    fn divide(&self, range: &FeedRangeId, parts: usize) -> Vec<FeedRangeId> {
        range.divide(parts, ranges::END_OF_HASHES)
    }
}

/// The clock of the budget, which tests can pause.
fn clock() -> std::time::Instant {
    Instant::now().into_std()
}
