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
//! A reader that is told to hands its range over: after a whole page, it leaves the parts and the position to its worker and
//! ends. What happens then is in [`enumerator`](crate::enumerator).
//! The first position of a range that starts at now is sealed at once, and whoever waits for the start learns of it: a run after
//! this one must not begin at a later now.
//! Of a source whose event time is read, an arrival says where its range stands in it, with the records that say so, or alone when
//! the range has become idle ([`range_mark`](crate::time::range_mark)).
//! A bounded run ends a range only on an answer to a request that was *sent* after the end was asked for, so every
//! change written before that is read. A run that is drained ends every range between two pages.

mod arrival;
mod counters;
mod figures;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::bridge::{ByteBudget, InboxSender, Room};
use tidefeed_runtime::cluster::Finish;
use tidefeed_runtime::watermarks::Mark;
use tidefeed_runtime::{ContinuationToken, FeedRangeId, Ledger, Result};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::feed::{ChangeFeed, Page, Receipt, Start};
use crate::time::event_time::EventTime;
use crate::time::range_mark::RangeMark;
pub use arrival::{Arrival, HandedOver, RangeStart};
pub use counters::SourceCounters;
use figures::RangeFigures;
pub use figures::RangeStatus;

/// What a reader is told while it reads: nothing, or to hand its range over as these parts.
pub type Division = watch::Receiver<Option<Vec<FeedRangeId>>>;

/// How often an idle range is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PollDelay {
    /// First delay after the range turned idle.
    pub first: Duration,
    /// Longest delay.
    pub longest: Duration,
}

impl Default for PollDelay {
    /// 10 ms to 1 s: guesses.
    fn default() -> Self {
        PollDelay {
            first: Duration::from_millis(10),
            longest: Duration::from_secs(1),
        }
    }
}

/// Everything that the readers of one source share.
pub struct Readers {
    /// The container's feed.
    pub feed: Arc<dyn ChangeFeed>,
    /// How often an idle range is asked again.
    pub poll: PollDelay,
    /// How event time is read, if it is.
    pub event_time: Option<EventTime>,
    /// Counters of the source.
    pub counters: Arc<SourceCounters>,
    /// Room for pages that wait to be attached, of all sources of the process.
    pub budget: ByteBudget,
    /// The process's ledger.
    pub ledger: Ledger,
    /// Says when every range shall end.
    pub finish: watch::Receiver<Finish>,
    /// Told when a reader has met a split.
    pub split_seen: Arc<Notify>,
}

/// Why a reader has stopped.
enum Stopped {
    /// Everything up to the end that was asked for is read.
    AtTheEnd,
    /// Others read the range from here on.
    HandedOver,
    /// Its worker is gone, and with it the run.
    Alone,
}

impl Readers {
    /// Reads a range until the run ends, a bounded run has caught up, others are to go on with it, or an error ends the run.
    pub async fn read(
        self: Arc<Self>,
        from: RangeStart,
        worker: usize,
        division: Division,
        inbox: InboxSender<Arrival>,
    ) {
        let mut end = self.ledger.end();
        let figures = Arc::new(RangeFigures::new(worker));
        let ranges = &self.counters.ranges;
        ranges
            .lock()
            .insert(from.range.clone(), Arc::clone(&figures));
        let reading = Reading::new(&self, &from, &figures, &inbox);
        tokio::select! {
            stopped = reading.run(from.start.clone(), division) => match stopped {
                Ok(Stopped::AtTheEnd) => self.ledger.range_ended(),
                Ok(Stopped::HandedOver | Stopped::Alone) => {}
                Err(error) => self.ledger.fail(error),
            },
            // An error means that the ledger is gone, and with it the run.
            _ = end.wait_for(|ended| *ended) => {}
        }
        ranges.lock().remove(&from.range);
    }

    /// Every poll costs, also one that finds nothing and is not delivered.
    fn count_charge(&self, page: &Page) {
        self.counters
            .charge_milli_ru
            .fetch_add((page.spent.charge_ru * 1000.0) as u64, Ordering::Relaxed);
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
}

/// One range as it is read.
struct Reading<'a> {
    readers: &'a Readers,
    range: &'a FeedRangeId,
    figures: &'a RangeFigures,
    inbox: &'a InboxSender<Arrival>,
    /// The newest position that was delivered, or was durable already.
    last_token: Option<ContinuationToken>,
    /// Whether the range has yet to catch up for the first time.
    loading: bool,
    /// Where it stands in event time, if that is read.
    mark: Option<RangeMark>,
    began: Instant,
}

impl<'a> Reading<'a> {
    fn new(
        readers: &'a Readers,
        from: &'a RangeStart,
        figures: &'a RangeFigures,
        inbox: &'a InboxSender<Arrival>,
    ) -> Self {
        Reading {
            readers,
            range: &from.range,
            figures,
            inbox,
            last_token: match &from.start {
                Start::Token(token) => Some(token.clone()),
                Start::Beginning | Start::Now | Start::Time(_) => None,
            },
            loading: from.loading,
            mark: readers
                .event_time
                .as_ref()
                .map(|time| RangeMark::new(time.idle_after())),
            began: Instant::now(),
        }
    }

    async fn run(mut self, start: Start, mut division: Division) -> Result<Stopped> {
        let mut unfixed = matches!(start, Start::Now).then(|| self.readers.ledger.clone());
        let mut finish = self.readers.finish.clone();
        let poll = self.readers.poll;
        let mut delay = poll.first;
        self.figures.asked();
        let mut stream = self.readers.feed.open(self.range, start).await?;
        stream.watched_by(self.figures.troubles());
        let mut partitions = 1;
        loop {
            if let Some((parts, token)) = self.due(&division) {
                return Ok(self.hand_over(parts, token).await);
            }
            let finish_at = *finish.borrow_and_update();
            // A range that starts at now has to have got its position.
            if finish_at == Finish::Here && unfixed.is_none() {
                return Ok(Stopped::AtTheEnd);
            }
            let finishing = finish_at != Finish::No;
            let sent = Instant::now();
            self.figures.asked();
            let mut page = tokio::select! {
                biased;
                page = stream.next_page() => page?,
                () = changed(&mut division), if self.last_token.is_some() => continue,
                () = changed(&mut finish), if unfixed.is_none() => continue,
            };
            if let Some(unfixed) = unfixed.take() {
                page.receipt = Some(Receipt::new(move || unfixed.range_fixed()));
            }
            self.readers.count_charge(&page);
            let moved = self.last_token.as_ref() != Some(&page.token);
            self.figures.answered(&page, moved, sent);
            let now = stream.partitions();
            if std::mem::replace(&mut partitions, now) < now {
                self.readers.split_seen.notify_one();
            }
            let idle = page.records.is_empty() && page.caught_up;
            // Nothing is left for now, so that to ask at once would be in vain. While others wait for the end, only the service
            // says that it is reached.
            let up = page.remaining == Some(0) && !self.loading && !finishing;
            if !self.deliver_news(page, moved).await {
                return Ok(Stopped::Alone);
            }
            if !idle {
                delay = poll.first;
                if !up {
                    continue;
                }
            } else if finishing {
                return Ok(Stopped::AtTheEnd);
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(delay, fastrand::f64())) => if idle {
                    delay = (delay * 2).min(poll.longest);
                },
                () = stream.news() => {}
                () = changed(&mut finish) => {}
                () = changed(&mut division) => {}
            }
        }
    }

    /// What the range is to be handed over as, and the position, if both are there.
    fn due(&self, division: &Division) -> Option<(Vec<FeedRangeId>, ContinuationToken)> {
        division.borrow().clone().zip(self.last_token.clone())
    }

    /// Ends the range where it stands. It counts as one that has yet to end, and to catch up, until its parts take its place.
    async fn hand_over(self, parts: Vec<FeedRangeId>, token: ContinuationToken) -> Stopped {
        let loading = self.loading;
        let mark = self.mark.as_ref().map(|mark| Mark {
            at_ms: 0,
            idle: mark.told().is_some_and(|told| told.idle),
        });
        let handed_over = HandedOver {
            parts,
            loading,
            mark,
        };
        let arrival = self.arrival(Page::at(token));
        let arrival = Arrival {
            handed_over: Some(handed_over),
            ..arrival
        };
        self.deliver(arrival).await;
        Stopped::HandedOver
    }

    /// Delivers a page that says anything new. False when the worker is gone.
    async fn deliver_news(&mut self, page: Page, moved: bool) -> bool {
        // Delivered also without news, because the load is complete when it is attached.
        let caught_up = self.loading && page.caught_up;
        self.loading &= !caught_up;
        // A position that is durable already is no news.
        let may_be_idle = self.mark.as_ref().is_some_and(RangeMark::may_be_idle);
        let mark = self.look_at_time(&page);
        if !caught_up && !moved && mark.is_none() && page.records.is_empty() {
            return true;
        }
        let room = self.readers.budget.try_take(bytes_of(&page));
        let wakes = may_be_idle && !page.records.is_empty() && room.is_none();
        if wakes && !self.wake_up().await {
            return false;
        }
        self.last_token = Some(page.token.clone());
        let arrival = self.arrival(page);
        let arrival = Arrival {
            caught_up,
            mark,
            room,
            ..arrival
        };
        self.deliver(arrival).await
    }

    /// What a page says of the range's event time, if that is read and has changed.
    fn look_at_time(&mut self, page: &Page) -> Option<Mark> {
        let (time, mark) = self.readers.event_time.as_ref().zip(self.mark.as_mut())?;
        let changed = if !page.records.is_empty() {
            let found = time.of(&page.records);
            let without = &self.readers.counters.without_event_time;
            without.fetch_add(found.without, Ordering::Relaxed);
            mark.brought(found.at_ms)
        } else if page.caught_up {
            mark.had_nothing(self.began.elapsed())
        } else {
            None
        };
        if let Some(told) = mark.told() {
            self.figures.stands(told);
        }
        changed
    }

    /// Says that an idle range is not idle any more, as what it has brought must wait for room: until that is attached, the watermark
    /// would go on without it. False when the worker is gone.
    async fn wake_up(&self) -> bool {
        let Some(token) = self.last_token.clone() else {
            return true;
        };
        let arrival = self.arrival(Page::at(token));
        let arrival = Arrival {
            mark: Some(Mark::default()),
            ..arrival
        };
        self.readers.ledger.page_arrived(0);
        self.inbox.send(arrival).await
    }

    /// A page that says nothing more than itself.
    fn arrival(&self, page: Page) -> Arrival {
        Arrival {
            range: self.range.clone(),
            bytes: bytes_of(&page),
            page,
            caught_up: false,
            handed_over: None,
            mark: None,
            room: None,
        }
    }

    /// False when the worker is gone.
    async fn deliver(&self, mut arrival: Arrival) -> bool {
        let (readers, bytes) = (self.readers, arrival.bytes);
        readers.count_changes(&arrival.page, bytes);
        if arrival.caught_up {
            readers.ledger.read_up();
        }
        if arrival.counts() {
            // Before the send: a page in the channel that is not counted would let a drained run end without it.
            readers.ledger.page_arrived(bytes);
        }
        if arrival.room.is_none() {
            arrival.room = Some(self.room_for(bytes).await);
        }
        self.inbox.send(arrival).await
    }

    /// Whoever has to wait says so, because only an epoch makes room.
    async fn room_for(&self, bytes: u64) -> Room {
        let Readers { budget, ledger, .. } = self.readers;
        if let Some(room) = budget.try_take(bytes) {
            return room;
        }
        let _wanted = ledger.want_room();
        self.figures.waits_for_room(true);
        let room = budget.take(bytes).await;
        self.figures.waits_for_room(false);
        room
    }
}

fn bytes_of(page: &Page) -> u64 {
    page.records.size_bytes() as u64
}

/// Resolves when there is something new to see; never when there cannot be any more.
pub(crate) async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Up to a quarter shorter, so that ranges that turned idle together do not ask together for ever. `random` is uniform in
/// `[0, 1)`.
fn jittered(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(1.0 - random / 4.0)
}

#[cfg(test)]
mod tests;
