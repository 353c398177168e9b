//! Plays the events of a timeline as writes.
//!
//! ```text
//! dispatcher --event--> lane 0 --write, acknowledged--> low-water mark --every 200 ms--> player.json
//!     (paced)  \------> lane 1 --write, acknowledged-/
//! ```
//!
//! 1. All events of a document go to one lane, and a lane has one write in flight: a document's writes are in order.
//! 2. The dispatcher hands out events in time order and waits for a full lane, so lanes stay within a bounded distance of
//!    each other: at most [`LANE_DEPTH`] events wait in each.
//! 3. An event counts as acknowledged when its write has returned. The file never holds a mark beyond the first event
//!    that is not acknowledged; so a run that resumes leaves no event out, and writes some again.
//! 4. A document whose later events were already acknowledged goes back in time when it is written again, and comes
//!    forward again in the same run: its last event is among those that are repeated.
//!
//! The writer retries what can be retried; an error that it returns stops the player.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidefeed_runtime::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::lifecycle::Timeline;
use crate::mark::{LowWater, MarkFile};
use crate::model::FlightDocument;

/// Events that may wait in one lane. Larger keeps lanes busier when write times vary; smaller keeps the writes closer to
/// time order. A guess: 32 lanes of 16 are less than 0.7 % of January's events.
pub const LANE_DEPTH: usize = 16;

/// Where the player writes to.
pub trait DocumentWriter: Send + Sync + 'static {
    /// Replaces a document, or creates it. Returns when the write is acknowledged.
    fn write(&self, document: &FlightDocument) -> impl Future<Output = Result<()>> + Send;
}

/// How to play.
#[derive(Clone, Debug)]
pub struct PlayerOptions {
    /// Writes in flight at once. Default 32: a guess for one account on a fast network.
    pub lanes: usize,
    /// Events per second; `None` is as fast as the writer takes them.
    pub rate: Option<NonZeroU32>,
    /// How often the mark is made durable. Larger repeats more writes after a crash. Default 200 ms.
    pub save_every: Duration,
}

impl Default for PlayerOptions {
    fn default() -> Self {
        PlayerOptions {
            lanes: 32,
            rate: None,
            save_every: Duration::from_millis(200),
        }
    }
}

/// How far the player is; read it from anywhere.
#[derive(Debug)]
pub struct PlayerProgress {
    total: u64,
    resumed_from: u64,
    written: AtomicU64,
}

impl PlayerProgress {
    /// Events of the timeline.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The event that this run began with.
    pub fn resumed_from(&self) -> u64 {
        self.resumed_from
    }

    /// Writes that this run has had acknowledged.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// One run over a timeline.
pub struct Player<W> {
    timeline: Arc<Timeline>,
    writer: Arc<W>,
    mark_file: MarkFile,
    options: PlayerOptions,
    shared: Arc<Shared>,
}

struct Shared {
    progress: Arc<PlayerProgress>,
    water: Mutex<LowWater>,
}

impl<W: DocumentWriter> Player<W> {
    /// A player that continues from the mark in the file, or starts at the first event.
    ///
    /// # Errors
    /// `Checkpoint` when the file is damaged or belongs to other flights; `Config` when there are no lanes.
    pub fn new(
        timeline: Arc<Timeline>,
        writer: Arc<W>,
        mark_file: MarkFile,
        options: PlayerOptions,
    ) -> Result<Self> {
        if options.lanes == 0 {
            return Err(Error::new(
                ErrorKind::Config,
                "the player needs at least one lane",
            ));
        }
        let mark = mark_file.load()?;
        let progress = PlayerProgress {
            total: timeline.events().len() as u64,
            resumed_from: mark,
            written: AtomicU64::new(0),
        };
        let shared = Shared {
            progress: Arc::new(progress),
            water: Mutex::new(LowWater::new(mark)),
        };
        Ok(Player {
            timeline,
            writer,
            mark_file,
            options,
            shared: Arc::new(shared),
        })
    }

    /// A handle on how far the player is.
    pub fn progress(&self) -> Arc<PlayerProgress> {
        Arc::clone(&self.shared.progress)
    }

    /// Writes every event from the mark to the end. The returned future may be dropped at any point.
    ///
    /// # Errors
    /// The first error of the writer, or that the mark cannot be saved. Other writes may then have happened.
    pub async fn play(self) -> Result<()> {
        let mut tasks = self.spawn_tasks();
        let mut ticks = interval(self.options.save_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saved = self.shared.progress.resumed_from;
        let outcome = loop {
            tokio::select! {
                task = tasks.join_next() => match task {
                    None => break Ok(()),
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => break Err(error),
                    Some(Err(error)) => break Err(Error::internal("the player stopped").with_source(error)),
                },
                _ = ticks.tick() => self.save(&mut saved).await?,
            }
        };
        tasks.shutdown().await;
        let last = self.save(&mut saved).await;
        outcome.and(last)
    }

    /// The dispatcher and the lanes. They end when all events are written; the dispatcher also ends, without an error of
    /// its own, when a lane has failed.
    fn spawn_tasks(&self) -> JoinSet<Result<()>> {
        let mut tasks = JoinSet::new();
        let mut lanes = Vec::with_capacity(self.options.lanes);
        for _ in 0..self.options.lanes {
            let (sender, events) = mpsc::channel(LANE_DEPTH);
            lanes.push(sender);
            tasks.spawn(run_lane(
                Arc::clone(&self.timeline),
                Arc::clone(&self.writer),
                Arc::clone(&self.shared),
                events,
            ));
        }
        let from = self.shared.progress.resumed_from;
        tasks.spawn(dispatch(
            Arc::clone(&self.timeline),
            from,
            self.options.rate,
            lanes,
        ));
        tasks
    }

    /// Makes the mark durable if it has moved.
    async fn save(&self, saved: &mut u64) -> Result<()> {
        let mark = self
            .shared
            .water
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .mark();
        if mark != *saved {
            let file = self.mark_file.clone();
            let write = tokio::task::spawn_blocking(move || file.save(mark));
            write
                .await
                .map_err(|error| Error::internal("the player stopped").with_source(error))??;
            *saved = mark;
        }
        Ok(())
    }
}

/// Hands out the events from `from` on, each to the lane of its document.
async fn dispatch(
    timeline: Arc<Timeline>,
    from: u64,
    rate: Option<NonZeroU32>,
    lanes: Vec<mpsc::Sender<u64>>,
) -> Result<()> {
    let start = Instant::now();
    for (index, event) in timeline.events().iter().enumerate().skip(from as usize) {
        if let Some(rate) = rate {
            let played = index as u64 - from;
            sleep_until(start + Duration::from_secs_f64(played as f64 / f64::from(rate.get())))
                .await;
        }
        // Flights are numbered in the order of the data, so their remainders spread evenly at every moment.
        let lane = &lanes[event.flight as usize % lanes.len()];
        if lane.send(index as u64).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes the events of one lane, one after the other.
async fn run_lane<W: DocumentWriter>(
    timeline: Arc<Timeline>,
    writer: Arc<W>,
    shared: Arc<Shared>,
    mut events: mpsc::Receiver<u64>,
) -> Result<()> {
    while let Some(index) = events.recv().await {
        let document = timeline.document(&timeline.events()[index as usize]);
        writer.write(&document).await?;
        shared
            .water
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .acknowledge(index);
        shared.progress.written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::data::bundled_flights;
    use crate::model::Status;
    use crate::testing::Seeded;

    /// Takes a random time for each write, fails at one of them if told, and checks rule 1 as it goes.
    struct FakeWriter {
        random: Mutex<Seeded>,
        fail_at: Option<u64>,
        log: Mutex<Log>,
    }

    #[derive(Default)]
    struct Log {
        calls: u64,
        in_flight: HashSet<String>,
        largest_in_flight: usize,
        /// What each document became, in the order of the acknowledgements of this run.
        acknowledged: BTreeMap<String, Vec<Status>>,
    }

    impl FakeWriter {
        fn new(seed: u64, fail_at: Option<u64>) -> Arc<Self> {
            Arc::new(FakeWriter {
                random: Mutex::new(Seeded::new(seed)),
                fail_at,
                log: Mutex::default(),
            })
        }

        fn log(&self) -> std::sync::MutexGuard<'_, Log> {
            self.log.lock().expect("no writer panics")
        }
    }

    impl DocumentWriter for FakeWriter {
        async fn write(&self, document: &FlightDocument) -> Result<()> {
            let micros = self.random.lock().expect("no writer panics").below(20_000);
            {
                let mut log = self.log();
                log.calls += 1;
                if Some(log.calls) == self.fail_at {
                    return Err(Error::new(ErrorKind::Rejected, "refused for the test"));
                }
                assert!(
                    log.in_flight.insert(document.id.clone()),
                    "two writes of {}",
                    document.id
                );
                log.largest_in_flight = log.largest_in_flight.max(log.in_flight.len());
            }
            sleep(Duration::from_micros(micros)).await;
            let mut log = self.log();
            log.in_flight.remove(&document.id);
            log.acknowledged
                .entry(document.id.clone())
                .or_default()
                .push(document.status);
            Ok(())
        }
    }

    fn timeline(flights: usize) -> Arc<Timeline> {
        let mut all = bundled_flights().expect("flights");
        all.truncate(flights);
        Arc::new(Timeline::new(all))
    }

    fn player(
        timeline: &Arc<Timeline>,
        writer: &Arc<FakeWriter>,
        directory: &std::path::Path,
        lanes: usize,
    ) -> Player<FakeWriter> {
        let mark_file = MarkFile::new(directory, timeline.fingerprint());
        let options = PlayerOptions {
            lanes,
            ..PlayerOptions::default()
        };
        Player::new(Arc::clone(timeline), Arc::clone(writer), mark_file, options).expect("a player")
    }

    /// Every document's life, whole.
    fn lives(timeline: &Timeline) -> BTreeMap<String, Vec<Status>> {
        let mut lives: BTreeMap<String, Vec<Status>> = BTreeMap::new();
        for event in timeline.events() {
            lives
                .entry(timeline.document(event).id)
                .or_default()
                .push(event.status);
        }
        lives
    }

    /// Runs that end at random points, by a crash or by an error of the writer, until one comes to the end. In each run
    /// a document's writes are a stretch of its life in order, the mark never passes what was acknowledged, and all runs
    /// together leave nothing out and every document at its end.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_out_or_out_of_order_through_crashes() {
        let timeline = timeline(400);
        let lives = lives(&timeline);
        for seed in 0..40 {
            println!("seed {seed}");
            let mut random = Seeded::new(seed);
            let directory = tempfile::tempdir().expect("a directory");
            let lanes = 1 + random.below(40) as usize;
            let mut seen: BTreeMap<String, HashSet<Status>> = BTreeMap::new();
            let mut last: BTreeMap<String, Status> = BTreeMap::new();
            loop {
                let fail_at = (random.below(3) == 0).then(|| 1 + random.below(600));
                let writer = FakeWriter::new(random.next(), fail_at);
                let player = player(&timeline, &writer, directory.path(), lanes);
                let from = player.progress().resumed_from();
                let crash_after = Duration::from_millis(random.below(4_000 / lanes as u64 + 900));
                let outcome = timeout(crash_after, player.play()).await;

                let log = writer.log();
                assert!(log.largest_in_flight <= lanes);
                for (id, statuses) in &log.acknowledged {
                    let life = &lives[id];
                    assert!(
                        life.windows(statuses.len()).any(|part| part == statuses),
                        "{id} {statuses:?}"
                    );
                    seen.entry(id.clone()).or_default().extend(statuses);
                    last.insert(id.clone(), statuses[statuses.len() - 1]);
                }
                let mark = MarkFile::new(directory.path(), timeline.fingerprint())
                    .load()
                    .expect("a mark");
                assert!(mark >= from);
                for event in &timeline.events()[..mark as usize] {
                    let id = timeline.document(event).id;
                    assert!(seen[&id].contains(&event.status), "mark {mark} passes {id}");
                }
                if matches!(outcome, Ok(Ok(()))) {
                    assert_eq!(mark, timeline.events().len() as u64);
                    break;
                }
            }
            for (id, life) in &lives {
                assert_eq!(seen[id].len(), life.len());
                assert_eq!(last[id], life[life.len() - 1]);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_run_writes_each_event_once_and_resuming_writes_nothing() {
        let timeline = timeline(400);
        let directory = tempfile::tempdir().expect("a directory");
        let writer = FakeWriter::new(1, None);
        let first = player(&timeline, &writer, directory.path(), 32);
        let progress = first.progress();
        first.play().await.expect("played");
        assert_eq!(progress.written(), progress.total());
        assert_eq!(writer.log().acknowledged, lives(&timeline));
        assert!(
            writer.log().largest_in_flight > 24,
            "{}",
            writer.log().largest_in_flight
        );

        let again = FakeWriter::new(1, None);
        player(&timeline, &again, directory.path(), 32)
            .play()
            .await
            .expect("played");
        assert_eq!(again.log().calls, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_writer_comes_out() {
        let timeline = timeline(400);
        let directory = tempfile::tempdir().expect("a directory");
        let writer = FakeWriter::new(1, Some(300));
        let error = player(&timeline, &writer, directory.path(), 4).play().await;
        assert_eq!(error.expect_err("refused").report(), "refused for the test");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept() {
        let timeline = timeline(100);
        let directory = tempfile::tempdir().expect("a directory");
        let writer = FakeWriter::new(1, None);
        let mut player = player(&timeline, &writer, directory.path(), 32);
        player.options.rate = NonZeroU32::new(10);
        let start = Instant::now();
        player.play().await.expect("played");
        let expected_s = (timeline.events().len() - 1) as f64 / 10.0;
        let elapsed_s = start.elapsed().as_secs_f64();
        assert!(
            (expected_s..expected_s + 0.1).contains(&elapsed_s),
            "{elapsed_s} {expected_s}"
        );
    }
}
