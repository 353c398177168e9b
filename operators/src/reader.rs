//! The task that reads one feed range and feeds its pages to a worker.
//!
//! Backpressure is a budget of bytes, one for all readers of a process: a page holds room in it until the worker attaches
//! the page. When there is none, the reader waits with one page in hand and asks for no more, and the ticker is told. Room
//! goes to readers in turn, so a range with much to read does not keep the others waiting for more than a page of each.
//! A page that is larger than the budget waits for all of it, and passes alone.
//!
//! An idle range is polled with a delay that doubles up to a bound and falls back at the first change, less a random part.
//! The first page that leaves nothing behind it is marked: when it is attached, the range has caught up, and when all have,
//! the first load is complete.
//! A bounded run ends a range only on an answer to a request that was *sent* after the end was asked for, so every
//! change written before that is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::bridge::{ByteBudget, InboxSender, Room};
use tidefeed_runtime::{FeedRangeId, Ledger, Record, Result};
use tokio::sync::watch;

use crate::feed::{ChangeFeed, Page, Start};

/// A page and the range that it comes from.
#[derive(Debug)]
pub struct Arrival {
    /// The feed range.
    pub range: FeedRangeId,
    /// The page.
    pub page: Page,
    /// Bytes of its records.
    pub bytes: u64,
    /// With this page the range has caught up for the first time.
    pub caught_up: bool,
    /// Held until the arrival is dropped.
    _room: Room,
}

impl Arrival {
    /// Whether the ticker was told of it: an epoch is due for it at once.
    pub fn counts(&self) -> bool {
        counts(&self.page, self.caught_up)
    }
}

fn counts(page: &Page, caught_up: bool) -> bool {
    caught_up || !page.records.is_empty()
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
    /// Room for pages that wait to be attached, of all sources of the process.
    pub budget: ByteBudget,
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
                if !self.deliver(range, page, caught_up, inbox).await {
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
                () = tokio::time::sleep(jittered(delay, fastrand::f64())) => {
                    delay = (delay * 2).min(self.poll.longest);
                }
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

    /// False when the worker is gone.
    async fn deliver(
        &self,
        range: &FeedRangeId,
        page: Page,
        caught_up: bool,
        inbox: &InboxSender<Arrival>,
    ) -> bool {
        let bytes = page.records.iter().map(Record::size_bytes).sum::<usize>() as u64;
        self.count_changes(&page, bytes);
        if caught_up {
            self.ledger.read_up();
        }
        if counts(&page, caught_up) {
            // Before the send: a page in the channel that is not counted would let a drained run end without it.
            self.ledger.page_arrived(bytes);
        }
        let _room = self.room_for(bytes).await;
        let arrival = Arrival {
            range: range.clone(),
            page,
            bytes,
            caught_up,
            _room,
        };
        inbox.send(arrival).await
    }

    fn count_changes(&self, page: &Page, bytes: u64) {
        if page.records.is_empty() {
            return;
        }
        let counters = &self.counters;
        counters
            .changes
            .fetch_add(page.records.len() as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        counters.pages.fetch_add(1, Ordering::Relaxed);
    }

    /// Whoever has to wait says so, because only an epoch makes room.
    async fn room_for(&self, bytes: u64) -> Room {
        if let Some(room) = self.budget.try_take(bytes) {
            return room;
        }
        let _wanted = self.ledger.want_room();
        self.budget.take(bytes).await
    }
}

/// Up to a quarter shorter, so that ranges that turned idle together do not ask together for ever. `random` is uniform in
/// `[0, 1)`.
fn jittered(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(1.0 - random / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryContainer, MemoryOptions};
    use std::collections::BTreeSet;
    use tidefeed_runtime::Epoch;
    use tidefeed_runtime::bridge::Inbox;

    fn readers(container: MemoryContainer, budget: &ByteBudget, ranges: usize) -> Arc<Readers> {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        ledger.expect_to_catch_up(ranges);
        Arc::new(Readers {
            feed: Arc::new(container),
            poll: PollDelay {
                first: Duration::from_millis(100),
                longest: Duration::from_millis(100),
            },
            counters: Arc::default(),
            budget: budget.clone(),
            ledger,
            finish: watch::Sender::new(false).subscribe(),
            open_ranges: Arc::new(AtomicUsize::new(ranges)),
        })
    }

    #[test]
    fn delays_are_a_little_shorter_and_never_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0.0), second);
        assert_eq!(jittered(second, 0.5), Duration::from_millis(875));
        assert!(jittered(second, 0.999_999) > Duration::from_millis(749));
    }

    /// Only delivered pages were counted, and an idle job seemed to read for nothing.
    #[tokio::test(start_paused = true)]
    async fn polls_that_find_nothing_are_charged() {
        let container = MemoryContainer::new(Default::default());
        let range = container.ranges().await.unwrap().remove(0);
        let budget = ByteBudget::new(1 << 20);
        let readers = readers(container, &budget, 1);
        let (inbox, mut arrivals) = Inbox::within(&budget);
        let reading = tokio::spawn(Arc::clone(&readers).read(range, Start::Beginning, inbox));
        tokio::time::sleep(Duration::from_secs(10)).await;
        readers.ledger.stop();
        reading.await.unwrap();
        let delivered = std::iter::from_fn(|| arrivals.try_next()).count();
        let charged = readers.counters.charge_milli_ru.load(Ordering::Relaxed);
        assert_eq!(delivered, 1, "the first position, and no other");
        assert!(charged >= 50_000, "{charged} for about 50 polls");
    }

    /// One range has a hundred pages, the others one each, and one of them is larger than the budget: what is small must not
    /// wait for all of what is large, what is large must pass, and what waits must never be more than the budget and the
    /// pages in the readers' hands.
    #[tokio::test(start_paused = true)]
    async fn every_range_has_its_turn_and_a_page_that_is_too_large_passes() {
        const BUDGET: u64 = 8 << 10;
        const PAGE: u64 = 3 << 10;
        const LARGE: u64 = 20 << 10;
        let container = MemoryContainer::new(MemoryOptions {
            page_size: 1,
            ..Default::default()
        });
        let ranges = container.ranges().await.unwrap();
        let mut filled = vec![0; ranges.len()];
        for number in 0.. {
            let key = format!("[\"p{number}\"]");
            let at = container.range_of(&key);
            let (most, bytes) = match at {
                0 => (100, PAGE),
                1 => (1, LARGE),
                _ => (1, PAGE),
            };
            if filled[at] < most {
                filled[at] += 1;
                container.upsert(&key, "1", vec![b'x'; bytes as usize]);
            }
            if filled.iter().sum::<i32>() == 103 {
                break;
            }
        }
        let budget = ByteBudget::new(BUDGET);
        let readers = readers(container, &budget, ranges.len());
        let (inbox, mut arrivals) = Inbox::within(&budget);
        for range in &ranges {
            let reader = Arc::clone(&readers);
            tokio::spawn(reader.read(range.clone(), Start::Beginning, inbox.clone()));
        }
        let (mut from, mut with_records) = (Vec::new(), BTreeSet::new());
        while from.len() < 103 || readers.ledger.observe().loading {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let seen = readers.ledger.observe();
            assert!(seen.waiting_bytes <= BUDGET + 3 * (PAGE + 100) + LARGE + 100);
            assert!(seen.full || from.len() >= 100, "the readers wait for room");
            // As at a tick: everything that has arrived.
            let mut bytes = 0;
            for arrival in std::iter::from_fn(|| arrivals.try_next()) {
                bytes += arrival.bytes;
                readers.ledger.page_attached(Epoch(1), arrival.bytes);
                if arrival.bytes > 0 {
                    from.push(arrival.range.clone());
                    with_records.insert(arrival.range);
                }
            }
            assert!(bytes <= BUDGET || bytes < LARGE + 100, "{bytes} at once");
            if from.len() > 12 {
                assert_eq!(with_records.len(), ranges.len(), "a range waits: {from:?}");
            }
        }
        assert_eq!(readers.ledger.observe().waiting_bytes, 0);
    }
}
