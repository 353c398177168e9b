use super::*;
use crate::memory::{MemoryContainer, MemoryOptions};
use std::collections::BTreeSet;
use tidefeed_runtime::Epoch;
use tidefeed_runtime::bridge::Inbox;

use crate::time::event_time::EventTimeConfig;

fn readers(container: MemoryContainer, budget: &ByteBudget, ranges: usize) -> Arc<Readers> {
    let ledger = Ledger::new(Epoch(0), Epoch(0));
    ledger.expect_to_catch_up(ranges);
    let finish = ledger.finishing();
    Arc::new(Readers {
        feed: Arc::new(container),
        poll: PollDelay {
            first: Duration::from_millis(100),
            longest: Duration::from_millis(100),
        },
        event_time: None,
        counters: Arc::default(),
        budget: budget.clone(),
        ledger,
        finish,
        split_seen: Arc::default(),
    })
}

fn from(range: &FeedRangeId) -> RangeStart {
    RangeStart {
        range: range.clone(),
        start: Start::Beginning,
        loading: true,
    }
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
    let (_divide, division) = watch::channel(None);
    let reading = tokio::spawn(Arc::clone(&readers).read(from(&range), 0, division, inbox));
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
    let (_divide, division) = watch::channel(None);
    for range in &ranges {
        let reader = Arc::clone(&readers);
        tokio::spawn(reader.read(from(range), 0, division.clone(), inbox.clone()));
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

/// A range that is handed over ends after a whole page, and what others go on with is exactly what is left.
#[tokio::test(start_paused = true)]
async fn what_is_handed_over_goes_on_where_the_range_stood() {
    let container = MemoryContainer::new(MemoryOptions {
        ranges: 1,
        page_size: 5,
        ..Default::default()
    });
    for number in 0..200 {
        container.upsert(&format!("[{number}]"), "1", "{}");
    }
    let range = container.ranges().await.unwrap().remove(0);
    // Room for a few pages, so that the reader is in the middle when it is told.
    let budget = ByteBudget::new(4 << 10);
    let parts = container.divide(&range, 3);
    let readers = readers(container, &budget, 1);
    let (inbox, mut arrivals) = Inbox::within(&budget);
    let (divide, division) = watch::channel(None);
    let whole = Arc::clone(&readers).read(from(&range), 0, division, inbox.clone());
    let whole = tokio::spawn(whole);
    let (mut keys, mut ended, mut left) = (Vec::new(), 0, 1);
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for arrival in std::iter::from_fn(|| arrivals.try_next()) {
            assert_eq!(ended > 0, arrival.range != range, "{}", arrival.range);
            let records = arrival.page.records.clone().into_iter();
            keys.extend(records.map(|record| record.key));
            if arrival.counts() {
                readers.ledger.page_attached(Epoch(1), arrival.bytes);
            }
            if arrival.caught_up {
                readers.ledger.caught_up(Epoch(1));
                left -= usize::from(arrival.handed_over.is_none());
            }
            let Some(handed_over) = arrival.handed_over else {
                continue;
            };
            // As the enumerator does.
            readers.ledger.handed_over(parts.len(), handed_over.loading);
            (ended, left) = (keys.len(), handed_over.parts.len());
            assert_eq!(handed_over.parts, parts);
            assert!(handed_over.loading);
            for part in handed_over.parts {
                let start = RangeStart {
                    range: part,
                    start: Start::Token(arrival.page.token.clone()),
                    loading: true,
                };
                let (_divide, division) = watch::channel(None);
                tokio::spawn(Arc::clone(&readers).read(start, 0, division, inbox.clone()));
            }
        }
        if keys.len() >= 20 {
            divide.send_replace(Some(parts.clone()));
        }
    }
    whole.await.unwrap();
    assert!((20..200).contains(&ended) && ended % 5 == 0, "{ended}");
    assert_eq!(keys.len(), 200, "none twice");
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 200, "and none lost");
    assert!(readers.ledger.loaded());
    assert_eq!(readers.counters.ranges().len(), 3);
}

/// Readers of a source whose event time is in `at`, and whose ranges are idle after 5 s.
fn timed(container: &MemoryContainer, budget: &ByteBudget) -> Arc<Readers> {
    let config = EventTimeConfig {
        path: "/at".to_owned(),
        unit: None,
        out_of_orderness_ms: 100,
        idle_after_ms: 5_000,
    };
    let readers = Arc::into_inner(readers(container.clone(), budget, 1)).expect("the only one");
    Arc::new(Readers {
        event_time: Some(config.compile("source.s").expect("valid")),
        ..readers
    })
}

/// One range that is read while a test writes to it, with one document.
struct Quiet {
    container: MemoryContainer,
    range: FeedRangeId,
    budget: ByteBudget,
    readers: Arc<Readers>,
    arrivals: Inbox<Arrival>,
    reading: tokio::task::JoinHandle<()>,
    _divide: watch::Sender<Option<Vec<FeedRangeId>>>,
}

impl Quiet {
    async fn start() -> Quiet {
        let container = MemoryContainer::new(MemoryOptions {
            ranges: 1,
            ..Default::default()
        });
        let range = container.ranges().await.unwrap().remove(0);
        let budget = ByteBudget::new(1 << 20);
        let readers = timed(&container, &budget);
        let (inbox, arrivals) = Inbox::within(&budget);
        let (divide, division) = watch::channel(None);
        let quiet = Quiet {
            reading: tokio::spawn(Arc::clone(&readers).read(from(&range), 0, division, inbox)),
            container,
            range,
            budget,
            readers,
            arrivals,
            _divide: divide,
        };
        quiet.put("1", 700);
        quiet
    }

    fn put(&self, id: &str, at: u64) {
        let body = format!("{{\"at\":{at}}}");
        self.container.upsert("[1]", id, body);
    }

    /// Marks and numbers of records of what has arrived within a time.
    async fn arrived(&mut self, within: Duration) -> Vec<(Option<(u64, bool)>, usize)> {
        tokio::time::sleep(within).await;
        let next = std::iter::from_fn(|| self.arrivals.try_next());
        next.map(|arrival| {
            assert!(arrival.counts(), "an epoch is due for each");
            let mark = arrival.mark.map(|mark| (mark.at_ms, mark.idle));
            (mark, arrival.page.records.len())
        })
        .collect()
    }

    async fn end(self) {
        self.readers.ledger.stop();
        self.reading.await.unwrap();
    }
}

/// A run that is drained reads no further than it has, however much there is.
#[tokio::test(start_paused = true)]
async fn a_range_ends_between_two_pages_when_the_run_is_drained() {
    let container = MemoryContainer::new(MemoryOptions {
        ranges: 1,
        page_size: 1,
        ..Default::default()
    });
    let range = container.ranges().await.unwrap().remove(0);
    for number in 0..100 {
        container.upsert(&format!("[{number}]"), "1", "{}");
    }
    // Room for one page, so that the reader is in the middle when it is told.
    let budget = ByteBudget::new(1);
    let readers = readers(container, &budget, 0);
    readers.ledger.open_ranges(1);
    readers.ledger.complete_load(Epoch(0));
    let (inbox, mut arrivals) = Inbox::within(&budget);
    let (_divide, division) = watch::channel(None);
    let start = RangeStart {
        loading: false,
        ..from(&range)
    };
    let reading = tokio::spawn(Arc::clone(&readers).read(start, 0, division, inbox));
    let mut read = 0;
    while !reading.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for arrival in std::iter::from_fn(|| arrivals.try_next()) {
            readers.ledger.page_attached(Epoch(1), arrival.bytes);
            read += arrival.page.records.len();
        }
        if read >= 10 {
            readers.ledger.drain();
        }
    }
    reading.await.unwrap();
    assert!((10..14).contains(&read), "{read}");
    assert!(!readers.ledger.stopped() && readers.ledger.drained());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_range_says_once_that_it_is_idle() {
    let mut quiet = Quiet::start().await;
    let second = Duration::from_secs(1);
    let now = quiet.arrived(second).await;
    assert_eq!(
        now,
        [(Some((600, false)), 1), (None, 0)],
        "and has caught up"
    );
    assert_eq!(quiet.arrived(3 * second).await, []);
    assert_eq!(quiet.arrived(2 * second).await, [(Some((600, true)), 0)]);
    assert_eq!(quiet.arrived(100 * second).await, []);
    let shown = quiet.readers.counters.ranges()[&quiet.range].event_time;
    assert!(shown.is_some_and(|mark| mark.idle), "{shown:?}");
    // What is behind wakes it up all the same, and what has no time is counted.
    quiet.put("2", 100);
    assert_eq!(quiet.arrived(second).await, [(Some((600, false)), 1)]);
    quiet.container.upsert("[1]", "3", "{}");
    assert_eq!(quiet.arrived(second).await, [(None, 1)]);
    quiet.put("4", 900);
    assert_eq!(quiet.arrived(second).await, [(Some((800, false)), 1)]);
    assert_eq!(
        quiet
            .readers
            .counters
            .without_event_time
            .load(Ordering::Relaxed),
        1
    );
    quiet.end().await;
}

/// A reader that waits for room has not said that its range has nothing; and where the range counts as idle already, it says that
/// it is not before it waits.
#[tokio::test(start_paused = true)]
async fn a_range_whose_page_waits_for_room_is_not_idle() {
    let mut quiet = Quiet::start().await;
    let second = Duration::from_secs(1);
    assert_eq!(quiet.arrived(second).await.len(), 2);
    // Not idle yet, and held up for much longer than it takes to be.
    let all = quiet.budget.take(1 << 20).await;
    quiet.put("2", 800);
    assert_eq!(quiet.arrived(60 * second).await, []);
    drop(all);
    assert_eq!(quiet.arrived(second).await, [(Some((700, false)), 1)]);
    assert_eq!(quiet.arrived(6 * second).await, [(Some((700, true)), 0)]);
    // Idle, and then held up.
    let all = quiet.budget.take(1 << 20).await;
    quiet.put("3", 900);
    assert_eq!(quiet.arrived(60 * second).await, [(Some((0, false)), 0)]);
    drop(all);
    assert_eq!(quiet.arrived(second).await, [(Some((800, false)), 1)]);
    quiet.end().await;
}
