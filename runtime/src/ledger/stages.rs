//! When each epoch came to each stage, for displays: the last epochs that had something in them, those in flight among them.
//!
//! 1. An epoch is known from when it is minted. A member of a cluster does not mint: it knows those that it has attached a page
//!    to, from the first page on.
//! 2. It is **sealed** when this process has sealed it, its **frontier** has passed when every sink on every worker of this process
//!    has said so ([`Ledger::sink_gauge`]), it is **written** when every sink of the run has acknowledged it, and **committed** by the
//!    first commit that covers it. A member hears of the last two from process 0, and so a little later.
//! 3. A stage covers all epochs up to the one that is named: of several that are committed together each has its own times.
//! 4. An epoch that is written has come behind the frontier, also where a worker has not looked at its frontier since.
//! 5. An epoch in which nothing changed is forgotten: it takes no place among the last ones, and is in no histogram.
//! 6. Histograms take an epoch in when it is committed, so each has the same epochs.
//!
//! # Limits
//!
//! - What is replayed from seals was minted by an earlier run, and is not here.
//! - Beyond [`OPEN`] epochs that wait for a commit the oldest are dropped, and are in no histogram: so much is kept whatever
//!   becomes of the checkpoint store.
//! - Sealing and computing go on at the same time. So every time is since the epoch was minted, and not since the stage before.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Ledger;
use crate::{Durations, Epoch};

/// How many epochs are told of.
const RECENT: usize = 120;
/// How many may wait for a commit.
const OPEN: usize = 4096;

/// When an epoch came to each stage, since it was minted; `None` where it has not come yet, and where that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStages {
    /// Which one.
    pub epoch: Epoch,
    /// In a member of a cluster: when it first had something of it.
    pub minted_at: Instant,
    /// Its seal of this process is durable.
    pub sealed: Option<Duration>,
    /// Every sink of this process has all of it.
    pub frontier: Option<Duration>,
    /// Every sink's writes of it are acknowledged.
    pub written: Option<Duration>,
    /// A commit that covers it is durable.
    pub committed: Option<Duration>,
}

/// How long epochs took from being minted to each stage, since the run began: of those that are committed.
#[derive(Clone, Debug, Default)]
pub struct StageHistograms {
    /// Until the seal was durable.
    pub sealed: Durations,
    /// Until every sink had all of it.
    pub frontier: Durations,
    /// Until every write was acknowledged.
    pub written: Durations,
    /// Until the commit was durable.
    pub committed: Durations,
}

impl StageHistograms {
    /// All of another run.
    pub fn merge(&mut self, other: &StageHistograms) {
        self.sealed.merge(&other.sealed);
        self.frontier.merge(&other.frontier);
        self.written.merge(&other.written);
        self.committed.merge(&other.committed);
    }
}

#[derive(Clone, Copy)]
enum Stage {
    Sealed,
    Frontier,
    Written,
}

impl EpochStages {
    fn new(epoch: Epoch, minted_at: Instant) -> Self {
        EpochStages {
            epoch,
            minted_at,
            sealed: None,
            frontier: None,
            written: None,
            committed: None,
        }
    }

    fn stage(&mut self, stage: Stage) -> &mut Option<Duration> {
        match stage {
            Stage::Sealed => &mut self.sealed,
            Stage::Frontier => &mut self.frontier,
            Stage::Written => &mut self.written,
        }
    }
}

impl StageHistograms {
    fn add(&mut self, one: &EpochStages) {
        for (durations, took) in [
            (&mut self.sealed, one.sealed),
            (&mut self.frontier, one.frontier),
            (&mut self.written, one.written),
            (&mut self.committed, one.committed),
        ] {
            took.into_iter().for_each(|took| durations.add(took));
        }
    }
}

/// The times of epochs. It has no clock.
#[derive(Debug, Default)]
struct Stages {
    /// Not committed.
    open: BTreeMap<Epoch, EpochStages>,
    committed: VecDeque<EpochStages>,
    histograms: StageHistograms,
}

impl Stages {
    /// Only the first time counts.
    fn minted(&mut self, epoch: Epoch, at: Instant) {
        let new = || EpochStages::new(epoch, at);
        self.open.entry(epoch).or_insert_with(new);
        if self.open.len() > OPEN {
            self.open.pop_first();
        }
    }

    fn sealed(&mut self, through: Epoch, at: Instant) {
        self.come(Stage::Sealed, Bound::Included(through), at);
    }

    fn frontier_passed(&mut self, bound: Epoch, at: Instant) {
        self.come(Stage::Frontier, Bound::Excluded(bound), at);
    }

    fn written(&mut self, bound: Epoch, at: Instant) {
        self.come(Stage::Written, Bound::Excluded(bound), at);
    }

    /// All epochs up to `end` have come to a stage. Those before one that came earlier have come as well.
    fn come(&mut self, stage: Stage, end: Bound<Epoch>, at: Instant) {
        let upto = self.open.range_mut((Bound::Unbounded, end)).rev();
        for one in upto.map(|(_, one)| one) {
            if one.stage(stage).is_some() {
                return;
            }
            *one.stage(stage) = Some(at.saturating_duration_since(one.minted_at));
        }
    }

    fn committed(&mut self, through: Epoch, at: Instant) {
        while let Some(oldest) = self.open.first_entry().filter(|one| *one.key() <= through) {
            let mut one = oldest.remove();
            one.committed = Some(at.saturating_duration_since(one.minted_at));
            self.histograms.add(&one);
            self.committed.push_back(one);
        }
        let surplus = self.committed.len().saturating_sub(RECENT);
        self.committed.drain(..surplus);
    }

    fn forget(&mut self, after: Epoch, through: Epoch) {
        self.open
            .retain(|epoch, _| *epoch <= after || *epoch > through);
    }

    fn recent(&self) -> Vec<EpochStages> {
        let newest_first = self.open.values().rev().chain(self.committed.iter().rev());
        let mut recent: Vec<_> = newest_first.copied().take(RECENT).collect();
        recent.reverse();
        recent
    }
}

/// The times of this process's epochs, and what the sinks say of their frontiers.
#[derive(Debug, Default)]
pub(super) struct Watched {
    stages: Mutex<Stages>,
    /// The epoch below which each sink has everything.
    sinks: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Watched {
    pub(super) fn minted(&self, epoch: Epoch, at: Instant) {
        self.stages.lock().minted(epoch, at);
    }

    pub(super) fn sealed(&self, through: Epoch) {
        self.stages.lock().sealed(through, Instant::now());
    }

    /// Rule 4.
    pub(super) fn written(&self, bound: Epoch) {
        let now = Instant::now();
        let sinks = !self.sinks.lock().is_empty();
        let mut stages = self.stages.lock();
        if sinks {
            stages.frontier_passed(bound, now);
        }
        stages.written(bound, now);
    }

    pub(super) fn committed(&self, through: Epoch, at: Instant) {
        self.stages.lock().committed(through, at);
    }

    pub(super) fn forget(&self, after: Epoch, through: Epoch) {
        self.stages.lock().forget(after, through);
    }
}

impl Ledger {
    /// The last epochs that had something in them, oldest first, at most 120, those in flight among them.
    pub fn stages(&self) -> Vec<EpochStages> {
        self.0.stages.stages.lock().recent()
    }

    /// How long epochs took to each stage.
    pub fn stage_histograms(&self) -> StageHistograms {
        self.0.stages.stages.lock().histograms.clone()
    }

    /// One more sink on one more worker of this process, which has nothing yet. Said while its dataflow is built: no frontier
    /// moves before all workers have built theirs.
    pub(crate) fn sink_frontier(&self, frontier: Arc<AtomicU64>) {
        self.0.stages.sinks.lock().push(frontier);
    }

    /// The frontier of some sink has moved. The one that is furthest behind counts.
    pub(crate) fn frontier_passed(&self) {
        let sinks = self.0.stages.sinks.lock();
        let frontiers = sinks.iter().map(|one| one.load(Ordering::Relaxed));
        if let Some(bound) = frontiers.min() {
            let mut stages = self.0.stages.stages.lock();
            stages.frontier_passed(Epoch(bound), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
