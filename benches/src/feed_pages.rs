//! How long pages of a change feed take, through the adapter and the official SDK.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tidefeed_operators::cosmos::{Container, CosmosFeed, FeedConfig};
use tidefeed_operators::feed::{ChangeFeed, PageStream, Start};
use tidefeed_runtime::FeedRangeId;

use crate::Outcome;

/// Documents of a page that is timed.
pub const PAGE_SIZE: u32 = 1_000;

/// Reads a container's change feed from its beginning to its end, range after range, and over again.
pub struct FeedPages {
    feed: CosmosFeed,
    ranges: Vec<FeedRangeId>,
    opened: usize,
    pages: Option<Box<dyn PageStream>>,
}

impl FeedPages {
    /// Of this container.
    ///
    /// # Errors
    /// When its feed ranges cannot be listed.
    pub async fn new(container: Container) -> Outcome<Self> {
        let config = FeedConfig {
            page_size: NonZeroU32::new(PAGE_SIZE).ok_or("a page has documents")?,
            ..FeedConfig::default()
        };
        let feed = CosmosFeed::new(container, config)?;
        Ok(FeedPages {
            ranges: feed.ranges().await?,
            feed,
            opened: 0,
            pages: None,
        })
    }

    /// The time of the next full page. The first page of a stream, which opens it, and the last, which is not full, are
    /// read and not timed.
    ///
    /// # Errors
    /// When the feed cannot be read.
    pub async fn timed_page(&mut self) -> Outcome<Duration> {
        loop {
            let pages = match &mut self.pages {
                Some(pages) => pages,
                none => {
                    let range = &self.ranges[self.opened % self.ranges.len()];
                    self.opened += 1;
                    let pages = none.insert(self.feed.open(range, Start::Beginning).await?);
                    pages.next_page().await?;
                    pages
                }
            };
            let begun = Instant::now();
            let page = pages.next_page().await?;
            let time = begun.elapsed();
            if page.records.len() == PAGE_SIZE as usize {
                return Ok(time);
            }
            if page.caught_up {
                self.pages = None;
            }
        }
    }
}
