//! One run of the job: the real lease, fence and writers, around a model source and a model sink.
//!
//! It does what a job does, in one task: seal what can be read, write what is sealed, commit what is acknowledged, and now
//! and then compact and collect garbage. A failure ends the run in order: what is under way is finished, and then the
//! lease is given back. `sink.rs` and `commits.rs` are what comes after sealing.

mod commits;
mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::feed::{Change, Position, RANGES, SOURCE, position_of, to_record, token, tokens_of};
use super::oracle::{Found, replayed};
use super::remote::Remote;
use super::world::{FAULT, LEASE, SETTLE, World};
use super::*;
use crate::checkpoint::lock::Place as LockPlace;
use crate::checkpoint::names::ObjectName;
use crate::{Error, ErrorKind, Fence, Generation, Result};

type Received<T> = mpsc::UnboundedReceiver<T>;
type Sender<T> = mpsc::UnboundedSender<T>;

/// Epochs that may be sealed and not committed.
const IN_FLIGHT: usize = 4;

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    UntilTold,
    /// When everything is read, written, committed and tidied up.
    CaughtUp,
}

/// The keyed state of the model job: the view itself.
pub(super) struct State;

impl State {
    pub(super) const NAME: &'static str = "state:view";
}

/// What a commit says about a view.
pub(super) fn sink_state(view: &BTreeMap<u64, u64>) -> SinkState {
    let row = |(key, version): (&u64, &u64)| u128::from(key * 1_000_003 + version * 7919);
    SinkState {
        rows: view.len() as u64,
        hash: view.iter().map(row).sum(),
        ..SinkState::default()
    }
}

/// An epoch that is sealed.
struct Sealed {
    epoch: Epoch,
    changes: Vec<Change>,
    position: Position,
    /// `None` if an earlier run sealed it.
    seal: Option<SealRef>,
}

/// Epochs that the sink has acknowledged.
struct Acked {
    epoch: Epoch,
    position: Position,
    seals: Vec<SealRef>,
    sink: SinkState,
}

struct Run {
    world: Arc<World>,
    process: usize,
    generation: Generation,
    fence: Fence,
    goal: Goal,
    told: watch::Receiver<bool>,
    failure: Mutex<Option<Error>>,
    failed: watch::Sender<bool>,
    in_flight: AtomicUsize,
    /// A write to the sink that nobody waits for any more may still be carried out.
    abandoned: AtomicBool,
}

/// Runs the job in `process` until it is told to end, has reached its goal, or fails.
pub(super) async fn run(
    world: Arc<World>,
    process: usize,
    told: watch::Receiver<bool>,
    goal: Goal,
) -> Result<()> {
    let remote = Arc::new(Remote::new(&world, process));
    let store = CheckpointStore::over(remote, "job", LockPlace::Shared);
    let options = Options {
        fresh: false,
        retain_commits: world.knobs.retain_commits,
        lease: LeaseConfig {
            duration: LEASE,
            settle: SETTLE,
        },
        supervised: None,
    };
    let taken = take_over(&store, &identity(), options).await?;
    let generation = taken.resume().generation;
    world.ask(|oracle, _| oracle.took_over(process, generation));
    world.trace(format!("p{process} runs as generation {generation}"));
    world.count("generations");
    let Opened {
        resume,
        seals,
        states,
        commits,
        mut lease,
        ..
    } = taken.start(Default::default()).await?;
    let run = Run {
        process,
        generation,
        fence: lease.fence().clone(),
        goal,
        told,
        failure: Mutex::new(None),
        failed: watch::Sender::new(false),
        in_flight: AtomicUsize::new(0),
        abandoned: AtomicBool::new(false),
        world: Arc::clone(&world),
    };
    let settle = lease.settle();
    let ended = tokio::select! {
        biased;
        lost = lease.keep() => Err(lost),
        ended = run.work(&store, resume, (seals, states, commits), settle) => ended,
    };
    if ended.as_ref().is_err_and(|e| e.kind() == ErrorKind::Fenced) && run.fence.check().is_ok() {
        world.violation(format!(
            "generation {generation} is fenced while it holds its lease"
        ));
    }
    if run.fence.check().is_err() || run.abandoned.load(Ordering::Relaxed) {
        return ended;
    }
    let released = lease.release().await;
    world.trace(format!("p{process} released {:?}", released.is_ok()));
    match &released {
        Ok(()) => world.count("released"),
        // Without faults only a run that stood still for longer than its lease is too late.
        Err(error)
            if world.calm()
                && !error.report().contains("not renewed in time")
                && !error.report().contains(FAULT) =>
        {
            world.violation(format!("not released: {}", error.report()));
        }
        Err(_) => world.count("not released"),
    }
    ended
}

async fn find(store: &CheckpointStore, resume: &Resume) -> Result<Found> {
    let (collection, replay) = rehydrate(store, resume, Share::WHOLE).await?;
    Ok((collection, replay.into_iter().collect()))
}

impl Run {
    async fn work(
        &self,
        store: &CheckpointStore,
        resume: Resume,
        (seals, states, mut commits): (SealWriter, SealWriter, CommitWriter),
        settle: Duration,
    ) -> Result<()> {
        let found = find(store, &resume).await?;
        self.world
            .ask(|oracle, feed| oracle.resumed(feed, &resume, &found));
        if self.world.dice(0..2) == 0
            && let Some(compaction) = resume.compaction(store)
            && let Some(base) = compaction.run().await?
        {
            commits.set_base(base)?;
        }
        let committed = resume
            .commit
            .as_ref()
            .map(|commit| position_of(&commit.tokens));
        let committed = committed.unwrap_or_default();
        let last = resume.last_sealed.unwrap_or_default();
        let (sealed, sealed_in) = mpsc::unbounded_channel();
        let (acked, acked_in) = mpsc::unbounded_channel();
        let (compactions, compactions_in) = mpsc::unbounded_channel();
        let (bases, bases_in) = mpsc::unbounded_channel();
        let (collections, collections_in) = mpsc::unbounded_channel();
        let mut position = committed;
        for (epoch, parts) in &found.1 {
            let changes;
            (changes, position) = replayed(&self.world.feed, position, parts);
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            let replay = Sealed {
                epoch: *epoch,
                changes,
                position,
                seal: None,
            };
            let _ = sealed.send(replay);
        }
        let view = self.world.feed.view(committed);
        let replayed_through = found.1.last().map(|(epoch, _)| *epoch);
        tokio::join!(
            self.seal(seals, position, last, sealed),
            self.write((states, view, replayed_through), settle, sealed_in, acked),
            self.commit(commits, acked_in, (compactions, bases_in), collections),
            self.compact(compactions_in, bases),
            self.collect(collections_in),
        );
        self.failure.lock().take().map_or(Ok(()), Err)
    }

    /// Keeps the first failure and lets everything come to its end.
    fn fail(&self, error: Error) {
        self.world
            .trace(format!("p{} fails: {}", self.process, error.report()));
        self.failure.lock().get_or_insert(error);
        self.failed.send_replace(true);
    }

    fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Waits; true if the run is to end instead.
    async fn pause(&self, time: Duration) -> bool {
        let (mut told, mut failed) = (self.told.clone(), self.failed.subscribe());
        tokio::select! {
            biased;
            _ = failed.wait_for(|failed| *failed) => true,
            Ok(_) = told.wait_for(|told| *told) => true,
            () = sleep(time) => false,
        }
    }

    async fn seal(
        &self,
        mut seals: SealWriter,
        mut position: Position,
        mut last: Epoch,
        out: Sender<Sealed>,
    ) {
        let ms = Duration::from_millis;
        let skew = self.world.dice(0..10_000);
        let mut sequence = 0;
        while !self.pause(self.world.time_in(ms(200)..ms(4000))).await {
            if self.goal == Goal::CaughtUp && position == self.world.feed.end() {
                return;
            }
            let (changes, to) = self.read(position);
            if changes.is_empty() || self.in_flight.load(Ordering::Relaxed) >= IN_FLIGHT {
                continue;
            }
            let epoch = Epoch((millis(self.world.now()) + skew).max(last.0 + 1));
            sequence += 1;
            let name = ObjectName::Seal {
                kind: SealKind::Input,
                generation: self.generation,
                process: 0,
                sequence,
            };
            self.world
                .ask(|oracle, _| oracle.intend(name, epoch, &changes));
            let part = part_of(position, to, &changes);
            match seals.write(epoch, vec![part]).await {
                Ok(seal) => {
                    (last, position) = (epoch, to);
                    self.world.ask(|oracle, _| oracle.told_sealed(position));
                    self.world.count("seals");
                    self.in_flight.fetch_add(1, Ordering::Relaxed);
                    let sealed = Sealed {
                        epoch,
                        changes,
                        position,
                        seal: Some(seal),
                    };
                    // The sink is gone when the run is told to end.
                    let _ = out.send(sealed);
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    /// What can be read now of each range, and where that leads to.
    fn read(&self, from: Position) -> (Vec<Change>, Position) {
        let (mut changes, mut to) = (Vec::new(), from);
        for (range, read) in to.iter_mut().enumerate() {
            let most = match self.goal {
                Goal::UntilTold => self.world.dice(0..6) as usize,
                // Small steps, so that there is something to compact.
                Goal::CaughtUp => 1,
            };
            let page = self.world.feed.read(range, *read, self.world.now(), most);
            changes.extend_from_slice(page);
            *read += page.len() as u64;
        }
        (changes, to)
    }
}

fn part_of(from: Position, to: Position, changes: &[Change]) -> SealPart {
    let moved = (0..RANGES.len()).filter(|range| to[*range] > from[*range]);
    SealPart {
        source: SOURCE.to_owned(),
        ranges: moved.map(|range| token(RANGES[range], to[range])).collect(),
        records: changes.iter().map(to_record).collect(),
        marks: Default::default(),
    }
}

/// Nothing is ever lost or damaged here, so a run may only fail because of a fault, or because another one has taken over.
pub(super) fn judge(world: &World, error: &Error) {
    let report = error.report();
    world.trace(format!("ended: {report}"));
    match error.kind() {
        _ if report.contains(FAULT) => world.count("failed by a fault"),
        ErrorKind::Fenced => world.count("fenced"),
        _ => world.violation(format!("a run failed without a fault: {report}")),
    }
}
