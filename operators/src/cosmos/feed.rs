//! The change feed of a container as a [`ChangeFeed`].
//!
//! A stream that has failed is dead in the SDK, so [`CosmosStream`] keeps the token of the last answer and opens a new SDK
//! stream from it; a failed page has delivered nothing, so nothing is lost or repeated. A stream that starts at "now" starts
//! at the service's first answer: until then there is no token, and a new attempt has a new "now".
//!
//! Dropping a `next_page` that has not finished is safe: a page that is on its way stays on its way and comes out of the
//! next call.

use std::num::NonZeroU32;

use async_trait::async_trait;
use azure_data_cosmos::feed::{
    ChangeFeedPageIterator, ContinuationToken as SdkToken, FeedPage, FeedRange, FeedScope,
};
use azure_data_cosmos::models::{ChangeFeedItem, EffectivePartitionKey};
use azure_data_cosmos::options::{
    ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint, ReadFeedRangesOptions,
};
use futures::StreamExt;
use serde::Deserialize;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Result};

use super::backoff::BackoffConfig;
use super::container::Container;
use super::document::{DocumentShape, Taken};
use super::failure::Failure;
use super::retry::Retry;
use super::status::Disposition;
use crate::feed::{ChangeFeed, Page, PageStream, Start};

/// How a change feed is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// The most documents a page should have; the service may send fewer, and more when it wrote them at once. Default
    /// 1000, a guess. Larger needs fewer requests and more memory per range; smaller has less delay within a burst.
    pub page_size: NonZeroU32,
    /// System properties to leave in the documents, of `_rid`, `_self`, `_etag`, `_attachments`, `_ts` and `_lsn`. Default
    /// none.
    pub keep_system_properties: Vec<String>,
    /// Waits between attempts.
    pub backoff: BackoffConfig,
}

impl Default for FeedConfig {
    fn default() -> Self {
        FeedConfig {
            page_size: NonZeroU32::new(1000).expect("1000 is not zero"),
            keep_system_properties: Vec::new(),
            backoff: BackoffConfig::default(),
        }
    }
}

/// The change feed of one container, in LatestVersion mode.
#[derive(Clone, Debug)]
pub struct CosmosFeed {
    container: Container,
    shape: DocumentShape,
    config: FeedConfig,
}

impl CosmosFeed {
    /// The feed of `container`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when `keep_system_properties` names something else.
    pub fn new(container: Container, config: FeedConfig) -> Result<Self> {
        let shape = DocumentShape::new(container.keys().clone(), &config.keep_system_properties)?;
        Ok(CosmosFeed {
            container,
            shape,
            config,
        })
    }
}

#[async_trait]
impl ChangeFeed for CosmosFeed {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        let ranges = feed_ranges(&self.container, &self.config.backoff).await?;
        Ok(ranges.iter().map(range_id).collect())
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let range = parse_range(&range.0).ok_or_else(|| {
            Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "feed range {range:?} of container {} is malformed",
                    self.container
                ),
            )
        })?;
        let position = match start {
            Start::Beginning => Position::Start(ChangeFeedStartFrom::Beginning),
            Start::Now => Position::Start(ChangeFeedStartFrom::Now),
            Start::Time(time) => Position::Start(ChangeFeedStartFrom::PointInTime(time.into())),
            Start::Token(token) => {
                Position::Token(decode_token(&token, &range).map_err(|why| {
                    Error::new(
                        ErrorKind::Checkpoint,
                        format!(
                            "the token for feed range {} of container {} is not usable: {why}",
                            range_id(&range),
                            self.container
                        ),
                    )
                })?)
            }
        };
        Ok(Box::new(CosmosStream {
            feed: self.clone(),
            retry: Retry::new(self.config.backoff.clone()),
            id: range_id(&range),
            range,
            position,
            pages: None,
            quiet_polls: 0,
            partitions: 1,
        }))
    }

    fn divide(&self, range: &FeedRangeId, parts: usize) -> Vec<FeedRangeId> {
        range.divide(parts, END_OF_HASHES)
    }
}

/// The service hashes partition keys to numbers whose two leading bits are zero, so that nothing is beyond.
const END_OF_HASHES: u64 = 0x40 << 56;

/// The feed ranges of a container as they are now, in key order. Passing faults are retried without limit.
///
/// # Errors
/// What no retry can mend.
pub(crate) async fn feed_ranges(
    container: &Container,
    backoff: &BackoffConfig,
) -> Result<Vec<FeedRange>> {
    let mut retry = Retry::new(backoff.clone());
    loop {
        let options = ReadFeedRangesOptions::default().with_force_refresh(true);
        let failure = match container.client().read_feed_ranges(Some(options)).await {
            Ok(mut ranges) => {
                ranges.sort_by(|a, b| a.min_inclusive().cmp(b.min_inclusive()));
                return Ok(ranges);
            }
            Err(error) => Failure::of(&error),
        };
        if !failure.is_passing() {
            return Err(failure.into_error(format!(
                "cannot list the feed ranges of container {container}"
            )));
        }
        tokio::time::sleep(retry.wait_after(&failure, container)).await;
    }
}

/// Where a stream has come to.
#[derive(Clone, Debug)]
enum Position {
    /// No answer yet.
    Start(ChangeFeedStartFrom),
    /// After the answer that the SDK gave this token for.
    Token(String),
}

type Pages = ChangeFeedPageIterator<ChangeFeedItem<Taken>>;

/// The pages of one feed range.
struct CosmosStream {
    feed: CosmosFeed,
    range: FeedRange,
    id: FeedRangeId,
    position: Position,
    /// `None` before the first page and after a failure.
    pages: Option<Pages>,
    retry: Retry,
    /// Polls in a row that the service answered with "nothing new", since the last page that went out.
    quiet_polls: usize,
    /// Partitions that the range lies in, when they were last counted.
    partitions: usize,
}

#[async_trait]
impl PageStream for CosmosStream {
    async fn next_page(&mut self) -> Result<Page> {
        let mut charge_ru = 0.0;
        loop {
            let failure = match self.poll().await {
                Ok(page) => {
                    self.retry.succeeded();
                    charge_ru += charge(&page);
                    let token = self.move_on()?;
                    let caught_up = is_not_modified(&page);
                    if !caught_up || self.all_parts_quiet().await {
                        return self.deliver(page, token, charge_ru, caught_up);
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            charge_ru += failure.charge_ru;
            // The SDK's stream ends with its first error.
            self.pages = None;
            self.quiet_polls = 0;
            if !failure.is_passing() {
                return Err(self.fatal(failure));
            }
            let what =
                format_args!("feed range {} of {}", self.id, self.feed.container).to_string();
            tokio::time::sleep(self.retry.wait_after(&failure, &what)).await;
        }
    }

    fn partitions(&self) -> usize {
        self.partitions
    }
}

impl CosmosStream {
    async fn poll(&mut self) -> Result<FeedPage<ChangeFeedItem<Taken>>, Failure> {
        if self.pages.is_none() {
            self.pages = Some(self.reopen().await?);
        }
        let pages = self.pages.as_mut().expect("opened above");
        match pages.next().await {
            Some(page) => page.map_err(|error| Failure::of(&error)),
            None => Err(Failure::transient(
                "the SDK ended a change feed, which never ends",
            )),
        }
    }

    async fn reopen(&mut self) -> Result<Pages, Failure> {
        let options = ChangeFeedOptions::default()
            .with_max_item_count(MaxItemCountHint::Limit(self.feed.config.page_size));
        // With a token the SDK ignores the start.
        let (start, options) = match &self.position {
            Position::Start(start) => (start.clone(), options),
            Position::Token(token) => (
                ChangeFeedStartFrom::Beginning,
                options.with_continuation_token(SdkToken::from_string(token.clone())),
            ),
        };
        let scope = FeedScope::range(self.range.clone());
        self.feed
            .container
            .client()
            .query_change_feed(scope, start, Some(options))
            .await
            .map_err(|error| Failure::of(&error))
    }

    /// After a "nothing new": true when every part of the range has said so since it last had something. Where a range has
    /// split, the SDK asks its parts in turn, and one that is quiet says nothing about the others.
    async fn all_parts_quiet(&mut self) -> bool {
        self.quiet_polls += 1;
        let container = self.feed.container.clone();
        let range = self.range.clone();
        // From the SDK's cached map, which it renews when it meets a split.
        let parts = match container.client().read_feed_ranges(None).await {
            Ok(parts) => parts.iter().filter(|part| part.overlaps(&range)).count(),
            // Then the next poll fails as well, and is dealt with there.
            Err(_) => 1,
        };
        self.partitions = parts;
        self.quiet_polls >= parts
    }

    /// Takes the position after the page that has just arrived, also after one that is not delivered: when the stream is
    /// opened again, a start at "now" must not have become a later one. Returns the token.
    fn move_on(&mut self) -> Result<String> {
        let pages = self.pages.as_ref().expect("a page has just come out of it");
        let token = pages
            .to_continuation_token()
            .map_err(|error| self.fatal(Failure::of(&error)))?;
        self.position = Position::Token(token.as_str().to_owned());
        Ok(token.as_str().to_owned())
    }

    fn deliver(
        &mut self,
        page: FeedPage<ChangeFeedItem<Taken>>,
        token: String,
        charge_ru: f64,
        caught_up: bool,
    ) -> Result<Page> {
        self.quiet_polls = 0;
        let records = page
            .into_items()
            .iter()
            // In LatestVersion mode every change has a current document.
            .filter_map(|item| item.current())
            .map(|document| self.feed.shape.record(document.0.take()))
            .collect::<Result<Vec<_>>>()
            .map_err(|error| {
                error.wrap(format!("cannot read container {}", self.feed.container))
            })?;
        Ok(Page {
            records,
            token: ContinuationToken(format!("{}{TOKEN_SEPARATOR}{token}", self.id)),
            charge_ru,
            caught_up,
            receipt: None,
        })
    }

    fn fatal(&self, failure: Failure) -> Error {
        let container = &self.feed.container;
        let id = &self.id;
        match failure.disposition {
            Disposition::NoDocument | Disposition::NoContainer => failure.into_error(format!(
                "container {container} does not exist any more, or was created anew"
            )),
            // The SDK refuses a token that it cannot read, or that names another container, before it asks the service.
            Disposition::Rejected | Disposition::Broken
                if !failure.from_service && matches!(self.position, Position::Token(_)) =>
            {
                Error::new(
                    ErrorKind::Checkpoint,
                    format!("the token for feed range {id} of container {container} is not usable"),
                )
                .with_source(failure.message)
            }
            _ => failure.into_error(format!(
                "cannot read feed range {id} of container {container}"
            )),
        }
    }
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

/// Between the range and the SDK's token in ours. The SDK reads a token of another range as "nothing known here", and would
/// start over without a word; with the range in front a mix-up is found.
const TOKEN_SEPARATOR: char = '@';

/// Its name: the bounds.
pub(crate) fn range_id(range: &FeedRange) -> FeedRangeId {
    FeedRangeId(format!(
        "{}-{}",
        range.min_inclusive().to_hex(),
        range.max_exclusive().to_hex()
    ))
}

fn parse_range(id: &str) -> Option<FeedRange> {
    let (min, max) = id.split_once('-')?;
    let min = EffectivePartitionKey::try_from(min).ok()?;
    let max = EffectivePartitionKey::try_from(max).ok()?;
    if min >= max {
        return None;
    }
    FeedRange::new(min, max).ok()
}

/// The SDK's part of `token`, if its range covers `range`: after a split the children start from their parent's token.
fn decode_token(token: &ContinuationToken, range: &FeedRange) -> Result<String, &'static str> {
    let (of, sdk_token) = token
        .0
        .split_once(TOKEN_SEPARATOR)
        .ok_or("it is not a token of a Cosmos DB feed")?;
    let of = parse_range(of).ok_or("it names a malformed feed range")?;
    if !range.is_subset_of(&of) {
        return Err("it is a token of another feed range");
    }
    if sdk_token.is_empty() {
        return Err("it is cut off");
    }
    Ok(sdk_token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_names_can_be_read_back() {
        for id in [
            "-FF",
            "-1FFFFFFFFFFFFFFF",
            "1FFFFFFFFFFFFFFF-3FFF",
            "05C1-FF",
        ] {
            let range = parse_range(id).unwrap();
            assert_eq!(range_id(&range).0, id);
        }
        for malformed in ["", "FF", "-", "FF-05", "05-05", "0-FF", "xy-FF", "05-FF-"] {
            assert!(parse_range(malformed).is_none(), "{malformed}");
        }
        assert_eq!(parse_range("-FF").unwrap(), FeedRange::full());
    }

    #[test]
    fn a_token_fits_its_range_and_the_children_of_its_range() {
        let range = |id| parse_range(id).unwrap();
        let token = ContinuationToken("10-20@c1.abc".to_owned());
        assert_eq!(decode_token(&token, &range("10-20")).unwrap(), "c1.abc");
        assert_eq!(decode_token(&token, &range("10-18")).unwrap(), "c1.abc");
        assert_eq!(decode_token(&token, &range("18-20")).unwrap(), "c1.abc");
        assert!(decode_token(&token, &range("10-30")).is_err());
        assert!(decode_token(&token, &range("20-30")).is_err());
        for broken in ["c1.abc", "10-20@", "20@c1.abc"] {
            let token = ContinuationToken(broken.to_owned());
            assert!(decode_token(&token, &range("10-20")).is_err(), "{broken}");
        }
    }
}
