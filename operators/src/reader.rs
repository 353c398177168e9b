//! The task that reads one feed range and feeds its pages to a worker.
//!
//! Backpressure is the bounded inbox: when the worker does not attach, the reader waits with one page in hand and asks for
//! no more. An idle range is polled with a delay that doubles up to a bound and falls back at the first change.
//! The first page that leaves nothing behind it is marked: when it is attached, the range has caught up, and when all have,
//! the first load is complete.
//! A bounded run ends a range only on an answer to a request that was *sent* after the end was asked for, so every
//! change written before that is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::bridge::InboxSender;
use tidefeed_runtime::{FeedRangeId, Ledger, Result};
use tokio::sync::watch;

use crate::feed::{ChangeFeed, Page, Start};

/// A page and the range that it comes from.
#[derive(Debug)]
pub struct Arrival {
    /// The feed range.
    pub range: FeedRangeId,
    /// The page.
    pub page: Page,
    /// With this page the range has caught up for the first time.
    pub caught_up: bool,
}

impl Arrival {
    /// Whether the ticker was told of it: an epoch is due for it at once.
    pub fn counts(&self) -> bool {
        self.caught_up || !self.page.records.is_empty()
    }
}

/// What a source has read so far.
#[derive(Debug, Default)]
pub struct SourceCounters {
    /// Changes delivered to workers.
    pub changes: AtomicU64,
    /// Pages with changes.
    pub pages: AtomicU64,
    /// Bytes of keys and documents.
    pub bytes: AtomicU64,
    /// Request units charged, in thousandths.
    pub charge_milli_ru: AtomicU64,
}

/// How often an idle range is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollDelay {
    /// First delay after the range turned idle.
    pub first: Duration,
    /// Longest delay.
    pub longest: Duration,
}

/// Everything that the readers of one source share.
pub struct Readers {
    /// The container's feed.
    pub feed: Arc<dyn ChangeFeed>,
    /// How often an idle range is asked again.
    pub poll: PollDelay,
    /// Counters of the source.
    pub counters: Arc<SourceCounters>,
    /// The process's ledger.
    pub ledger: Ledger,
    /// Turns true when every range shall end once it has caught up.
    pub finish: watch::Receiver<bool>,
    /// Ranges, of all sources, that have not ended.
    pub open_ranges: Arc<AtomicUsize>,
}

impl Readers {
    /// Reads a range until the run ends, a bounded run has caught up, or an error ends the run.
    pub async fn read(
        self: Arc<Self>,
        range: FeedRangeId,
        start: Start,
        inbox: InboxSender<Arrival>,
    ) {
        let mut end = self.ledger.end();
        tokio::select! {
            read = self.read_to_end(&range, start, &inbox) => match read {
                Ok(true) => if self.open_ranges.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.ledger.complete_input();
                },
                Ok(false) => {}
                Err(error) => self.ledger.fail(error),
            },
            // An error means that the ledger is gone, and with it the run.
            _ = end.wait_for(|ended| *ended) => {}
        }
    }

    /// True when the range was read to the end that was asked for, false when its worker is gone.
    async fn read_to_end(
        &self,
        range: &FeedRangeId,
        start: Start,
        inbox: &InboxSender<Arrival>,
    ) -> Result<bool> {
        let mut finish = self.finish.clone();
        let mut delay = self.poll.first;
        // A position that is durable already is no news.
        let mut last_token = match &start {
            Start::Token(token) => Some(token.clone()),
            Start::Beginning | Start::Now | Start::Time(_) => None,
        };
        let mut loading = !self.ledger.loaded();
        let mut stream = self.feed.open(range, start).await?;
        loop {
            let finishing = *finish.borrow_and_update();
            let page = stream.next_page().await?;
            self.count_charge(&page);
            let idle = page.records.is_empty() && page.caught_up;
            // Delivered also without news, because the load is complete when it is attached.
            let caught_up = loading && page.caught_up;
            loading &= !caught_up;
            if caught_up || last_token.as_ref() != Some(&page.token) || !page.records.is_empty() {
                last_token = Some(page.token.clone());
                let arrival = Arrival {
                    range: range.clone(),
                    page,
                    caught_up,
                };
                if !self.deliver(arrival, inbox).await {
                    return Ok(false);
                }
            }
            if !idle {
                delay = self.poll.first;
                continue;
            }
            if finishing {
                return Ok(true);
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => delay = (delay * 2).min(self.poll.longest),
                // The sender is gone when nobody can ask for an end any more; then only the sleep counts.
                changed = finish.changed() => if changed.is_err() { tokio::time::sleep(delay).await },
            }
        }
    }

    /// Every poll costs, also one that finds nothing and is not delivered.
    fn count_charge(&self, page: &Page) {
        self.counters
            .charge_milli_ru
            .fetch_add((page.charge_ru * 1000.0) as u64, Ordering::Relaxed);
    }

    async fn deliver(&self, arrival: Arrival, inbox: &InboxSender<Arrival>) -> bool {
        let counters = &self.counters;
        let records = &arrival.page.records;
        if !records.is_empty() {
            let bytes: usize = records
                .iter()
                .map(tidefeed_runtime::Record::size_bytes)
                .sum();
            counters
                .changes
                .fetch_add(records.len() as u64, Ordering::Relaxed);
            counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            counters.pages.fetch_add(1, Ordering::Relaxed);
        }
        if arrival.counts() {
            // Before the send: a page in the channel that is not counted would let a drained run end without it.
            self.ledger.page_arrived();
        }
        inbox.send(arrival).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryContainer;
    use tidefeed_runtime::Epoch;
    use tidefeed_runtime::bridge::Inbox;

    /// Only delivered pages were counted, and an idle job seemed to read for nothing.
    #[tokio::test(start_paused = true)]
    async fn polls_that_find_nothing_are_charged() {
        let container = MemoryContainer::new(Default::default());
        let range = container.ranges().await.unwrap().remove(0);
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        let counters = Arc::new(SourceCounters::default());
        let readers = Arc::new(Readers {
            feed: Arc::new(container),
            poll: PollDelay {
                first: Duration::from_millis(100),
                longest: Duration::from_millis(100),
            },
            counters: Arc::clone(&counters),
            ledger: ledger.clone(),
            finish: watch::Sender::new(false).subscribe(),
            open_ranges: Arc::new(AtomicUsize::new(1)),
        });
        let (inbox, mut arrivals) = Inbox::new(8);
        let reading = tokio::spawn(readers.read(range, Start::Beginning, inbox));
        tokio::time::sleep(Duration::from_secs(10)).await;
        ledger.stop();
        reading.await.unwrap();
        let mut delivered = 0;
        while arrivals.try_next().is_some() {
            delivered += 1;
        }
        let charged = counters.charge_milli_ru.load(Ordering::Relaxed);
        assert_eq!(delivered, 1, "the first position, and no other");
        assert!(charged >= 50_000, "{charged} for about 50 polls");
    }
}
