//! What has become of each epoch: the state that ticker, sources, sealer, sinks and committer of one process share, and what
//! the processes of a cluster tell each other (`ledger/cluster.rs`); and when it came to be so (`ledger/stages.rs`).
//!
//! An epoch goes through `minted -> sealed -> acknowledged -> committed`, in this order and each in epoch order. The
//! ledger records the steps, wakes whoever waits for one, and keeps the first failure of the process. It decides nothing:
//! decisions are in [`crate::Ticker`] and in the checkpoint protocol.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::bridge::Waker;
use crate::checkpoint::SealRef;
use crate::failpoint::Failpoints;
use crate::observe::Figures;
use crate::ticker::Observed;
use crate::{Epoch, Error, ErrorKind, Fence};

mod cluster;
mod holds;
mod ranges;
mod reports;
mod stages;

use cluster::Cluster;
pub use holds::AtWork;
use holds::Holds;
use ranges::Ranges;
pub use reports::MemberReport;
use reports::Reports;
use stages::Watched;
pub use stages::{EpochStages, StageHistograms};

/// The shared record of a process's epochs. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>, Failpoints);

struct Shared {
    epochs: Mutex<Epochs>,
    pages_waiting: AtomicUsize,
    bytes_waiting: AtomicU64,
    /// Readers that hold a page for which there is no room.
    room_wanted: AtomicUsize,
    sealed_through: AtomicU64,
    committed_through: AtomicU64,
    verified: AtomicBool,
    /// Requests of an earlier run may still be carried out.
    unsettled: AtomicBool,
    /// The epoch by which the sources had caught up for the first time; `NOT_LOADED` until then.
    loaded_by: AtomicU64,
    ranges: Mutex<Ranges>,
    /// Feed ranges that start at now and have no durable position yet.
    unfixed: watch::Sender<u64>,
    input_complete: AtomicBool,
    stopped: AtomicBool,
    /// The dataflow has come to its end, so that a stop from now on says nothing.
    completed: AtomicBool,
    cluster: Cluster,
    holds: Holds,
    reports: Reports,
    stages: Watched,
    figures: Figures,
    fence: Fence,
    failure: Mutex<Option<Error>>,
    ticker: Waker,
    sealed: Mutex<Vec<Waker>>,
    gated: Mutex<Vec<Waker>>,
    /// Told when a commit is durable, and when sinks may write.
    follower: Notify,
    end: watch::Sender<bool>,
}

struct Epochs {
    in_flight: BTreeMap<Epoch, u64>,
    minted_at: BTreeMap<Epoch, Instant>,
    seal_refs: VecDeque<SealRef>,
    seals_written: u64,
    commits_written: u64,
    last_commit_at: Option<Instant>,
    commit_latency: Histogram<u64>,
}

const NOT_LOADED: u64 = u64::MAX;

/// Figures of a run, for displays and summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochFigures {
    /// Seals that hold records or tokens, written by this process.
    pub sealed: u64,
    /// Commits written.
    pub committed: u64,
    /// Time since the last commit was durable.
    pub since_commit: Option<Duration>,
    /// Age of the oldest epoch that is not yet committed: how far the views are behind what was read.
    pub oldest_uncommitted: Option<Duration>,
    /// Median time from minting an epoch to its durable commit, milliseconds.
    pub commit_latency_p50_ms: f64,
    /// 99th percentile of the same.
    pub commit_latency_p99_ms: f64,
}

impl Ledger {
    /// A ledger in which everything through `resumed_through` is sealed, and everything through `committed` committed, of a
    /// run that nobody can fence.
    pub fn new(committed: Epoch, resumed_through: Epoch) -> Self {
        Self::fenced(committed, resumed_through, Fence::unlimited())
    }

    /// The same for a run that may write as long as `fence` is open.
    pub fn fenced(committed: Epoch, resumed_through: Epoch, fence: Fence) -> Self {
        // Three digits over one microsecond to one hour: the bounds are constants, so creation cannot fail.
        let commit_latency =
            Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("constant histogram bounds");
        let shared = Shared {
            epochs: Mutex::new(Epochs {
                in_flight: BTreeMap::new(),
                minted_at: BTreeMap::new(),
                seal_refs: VecDeque::new(),
                seals_written: 0,
                commits_written: 0,
                last_commit_at: None,
                commit_latency,
            }),
            pages_waiting: AtomicUsize::new(0),
            bytes_waiting: AtomicU64::new(0),
            room_wanted: AtomicUsize::new(0),
            sealed_through: AtomicU64::new(resumed_through.0),
            committed_through: AtomicU64::new(committed.0),
            verified: AtomicBool::new(committed == Epoch(0)),
            unsettled: AtomicBool::new(false),
            loaded_by: AtomicU64::new(NOT_LOADED),
            ranges: Mutex::new(Ranges::default()),
            unfixed: watch::Sender::new(0),
            input_complete: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            completed: AtomicBool::new(false),
            cluster: Cluster::default(),
            holds: Holds::default(),
            reports: Reports::default(),
            stages: Watched::default(),
            figures: Figures::default(),
            fence,
            failure: Mutex::new(None),
            ticker: Waker::default(),
            sealed: Mutex::new(Vec::new()),
            gated: Mutex::new(Vec::new()),
            follower: Notify::new(),
            end: watch::Sender::new(false),
        };
        Ledger(Arc::new(shared), Failpoints::default())
    }

    /// Fails where a test says.
    #[doc(hidden)]
    pub fn with_failpoints(mut self, failpoints: Failpoints) -> Self {
        self.1 = failpoints;
        self
    }

    /// Where a test makes the run fail.
    #[doc(hidden)]
    pub fn failpoints(&self) -> &Failpoints {
        &self.1
    }

    /// Says whether this run may still write (I7).
    pub fn fence(&self) -> &Fence {
        &self.0.fence
    }

    /// The ticker's waker, to be attached by the ticker.
    pub fn ticker_waker(&self) -> &Waker {
        &self.0.ticker
    }

    /// Asks to be woken whenever an epoch is sealed.
    pub fn wake_when_sealed(&self, waker: Waker) {
        self.0.sealed.lock().push(waker);
    }

    /// Asks to be woken when what sinks wait for has come: see [`Ledger::writable`] and [`Ledger::loaded`].
    pub fn wake_when_writable(&self, waker: Waker) {
        self.0.gated.lock().push(waker);
    }

    /// A page that an epoch is due for is on its way to a worker, with this many bytes.
    pub fn page_arrived(&self, bytes: u64) {
        self.0.bytes_waiting.fetch_add(bytes, Ordering::Relaxed);
        self.0.pages_waiting.fetch_add(1, Ordering::Release);
        self.changed();
    }

    /// A page waits for room until what this returns is dropped: no more arrives before an epoch has taken some of it.
    pub fn want_room(&self) -> RoomWanted {
        self.0.room_wanted.fetch_add(1, Ordering::Release);
        self.changed();
        RoomWanted(self.clone())
    }

    /// A page that had arrived was attached to an epoch, with this many bytes.
    pub fn page_attached(&self, epoch: Epoch, bytes: u64) {
        self.0.pages_waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(held) = self.0.epochs.lock().in_flight.get_mut(&epoch) {
            *held += bytes;
        }
        self.attached_elsewhere(epoch, bytes);
    }

    /// True when the ticker should close: the input is complete and everything that arrived is attached.
    pub fn drained(&self) -> bool {
        self.0.input_complete.load(Ordering::Acquire)
            && self.0.pages_waiting.load(Ordering::Acquire) == 0
            && self.waiting_at_members().pages_waiting == 0
    }

    /// What the ticker decides on.
    pub fn observe(&self) -> Observed {
        let behind = self.0.ranges.lock().behind(&self.members());
        let epochs = self.0.epochs.lock();
        let members = self.waiting_at_members();
        let pages = self.0.pages_waiting.load(Ordering::Acquire) as u64;
        let room_wanted = self.0.room_wanted.load(Ordering::Acquire) as u64;
        let sealed_through = self.sealed_through().min(members.sealed_through);
        let in_flight_bytes: u64 = epochs.in_flight.values().sum();
        Observed {
            data_waiting: pages + members.pages_waiting > 0,
            waiting_bytes: self.0.bytes_waiting.load(Ordering::Acquire) + members.bytes_waiting,
            full: room_wanted + members.room_wanted > 0,
            loading: behind && !self.loaded(),
            // What is not sealed is not acknowledged.
            unsealed: epochs
                .in_flight
                .range((Bound::Excluded(sealed_through), Bound::Unbounded))
                .count(),
            in_flight_epochs: epochs.in_flight.len(),
            in_flight_bytes: in_flight_bytes + self.attached_by_members(epochs.in_flight.keys()),
        }
    }

    /// An epoch was minted.
    pub fn minted(&self, epoch: Epoch, at: Instant) {
        let mut epochs = self.0.epochs.lock();
        epochs.in_flight.insert(epoch, 0);
        epochs.minted_at.insert(epoch, at);
        drop(epochs);
        self.0.stages.minted(epoch, at);
    }

    /// Everything through `epoch` is durable in this process's seals; `seal` is the object, if one was needed.
    pub fn sealed(&self, epoch: Epoch, seal: Option<SealRef>) {
        {
            let mut epochs = self.0.epochs.lock();
            epochs.seals_written += u64::from(seal.is_some());
            epochs.seal_refs.extend(seal);
        }
        self.0.sealed_through.store(epoch.0, Ordering::Release);
        self.0.stages.sealed(epoch);
        self.0.sealed.lock().iter().for_each(Waker::wake);
        self.changed();
    }

    /// The newest epoch that this process has made durable.
    pub fn sealed_through(&self) -> Epoch {
        Epoch(self.0.sealed_through.load(Ordering::Acquire))
    }

    /// Takes the seals through `epoch` that nobody has reported to the committer yet.
    pub fn take_seals(&self, epoch: Epoch) -> Vec<SealRef> {
        let mut epochs = self.0.epochs.lock();
        let upto = epochs
            .seal_refs
            .iter()
            .take_while(|seal| seal.epoch <= epoch)
            .count();
        epochs.seal_refs.drain(..upto).collect()
    }

    /// Every sink has acknowledged every epoch below `frontier` (all of them when there is no frontier any more). Returns
    /// the newest such epoch, if the call made any difference.
    pub fn acknowledged(&self, frontier: Option<u64>) -> Option<Epoch> {
        let mut epochs = self.0.epochs.lock();
        let bound = Epoch(frontier.unwrap_or(u64::MAX));
        let kept = epochs.in_flight.split_off(&bound);
        let passed = std::mem::replace(&mut epochs.in_flight, kept);
        drop(epochs);
        let newest = *passed.keys().next_back()?;
        self.0.stages.written(bound);
        self.0.ticker.wake();
        Some(newest)
    }

    /// The commit of `epoch` is durable.
    pub fn committed(&self, epoch: Epoch, at: Instant) {
        let mut epochs = self.0.epochs.lock();
        let kept = epochs.minted_at.split_off(&Epoch(epoch.0 + 1));
        for minted_at in std::mem::replace(&mut epochs.minted_at, kept).into_values() {
            let micros = at.saturating_duration_since(minted_at).as_micros();
            epochs
                .commit_latency
                .saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        }
        epochs.commits_written += 1;
        epochs.last_commit_at = Some(at);
        self.0.committed_through.store(epoch.0, Ordering::Release);
        drop(epochs);
        self.0.stages.committed(epoch, at);
        self.0.follower.notify_one();
        self.tell();
    }

    /// Resolves when a commit has become durable, or sinks may write, since it did so last. For whoever follows the commits, and
    /// nobody else.
    pub async fn progressed(&self) {
        self.0.follower.notified().await;
    }

    /// The newest committed epoch.
    pub fn committed_through(&self) -> Epoch {
        Epoch(self.0.committed_through.load(Ordering::Acquire))
    }

    /// Nothing changed in the epochs beyond `after` through `through`: they need no commit, and their age says nothing.
    pub fn forget(&self, after: Epoch, through: Epoch) {
        let mut epochs = self.0.epochs.lock();
        epochs
            .minted_at
            .retain(|epoch, _| *epoch <= after || *epoch > through);
        drop(epochs);
        self.0.stages.forget(after, through);
    }

    /// The resumed views equal what their commit recorded (I8).
    pub fn verify(&self) {
        self.0.verified.store(true, Ordering::Release);
        self.wake_gated();
    }

    /// Requests that the run before this one had sent may still be carried out: no sink writes until [`Ledger::settle`].
    pub fn unsettle(&self) {
        self.0.unsettled.store(true, Ordering::Release);
        self.0.holds.unsettled(true);
    }

    /// Nothing that an earlier run has sent can be carried out any more (I7).
    pub fn settle(&self) {
        self.0.unsettled.store(false, Ordering::Release);
        self.0.holds.unsettled(false);
        self.wake_gated();
    }

    /// True once sinks may write: the rehydrated views were compared with the commit, at once in a fresh run, and what an
    /// earlier run had sent has settled.
    pub fn writable(&self) -> bool {
        self.0.verified.load(Ordering::Acquire) && !self.0.unsettled.load(Ordering::Acquire)
    }

    /// Every source has caught up for the first time, and what they had to read is in the epochs through `by`. A run that
    /// resumes from a commit after that says so at once. Only the first call counts.
    pub fn complete_load(&self, by: Epoch) {
        let loaded_by = &self.0.loaded_by;
        let _ = loaded_by.compare_exchange(NOT_LOADED, by.0, Ordering::AcqRel, Ordering::Acquire);
        self.wake_gated();
    }

    /// True once the sources have caught up for the first time.
    pub fn loaded(&self) -> bool {
        self.0.loaded_by.load(Ordering::Acquire) != NOT_LOADED
    }

    /// Whether the epochs through `epoch` hold all that the sources had to read to catch up for the first time.
    pub fn loaded_by(&self, epoch: Epoch) -> bool {
        self.0.loaded_by.load(Ordering::Acquire) <= epoch.0
    }

    /// Whether `epoch` holds some of what the sources had to read to catch up for the first time. It may hold more.
    pub fn in_first_load(&self, epoch: Epoch) -> bool {
        epoch.0 <= self.0.loaded_by.load(Ordering::Acquire)
    }

    fn wake_gated(&self) {
        self.0.gated.lock().iter().for_each(Waker::wake);
        self.0.follower.notify_one();
        self.tell();
    }

    /// Wakes whoever decides on what waits and is sealed: the ticker, which may be in another process.
    fn changed(&self) {
        self.0.ticker.wake();
        self.tell_lead();
    }

    /// Records the first failure and ends the run. Later ones are consequences and only logged.
    pub fn fail(&self, error: Error) {
        let mut failure = self.0.failure.lock();
        match &*failure {
            None => {
                self.will_tell_of(&error);
                if error.kind() == ErrorKind::Fenced {
                    tracing::warn!(
                        event = "fenced",
                        epoch = self.committed_through().0,
                        error = %error.report(),
                        "this run may write nothing more, and ends"
                    );
                }
                *failure = Some(error);
            }
            Some(_) => tracing::debug!(error = %error.report(), "a later failure"),
        }
        drop(failure);
        self.stop();
    }

    /// Ends the run: workers leave their dataflows, tasks end.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.end.send_replace(true);
        self.0.ticker.wake();
        self.tell();
    }

    /// The dataflow has come to its end in this process: all of the run is through, and a stop from now on is no news to others.
    pub fn complete(&self) {
        self.0.completed.store(true, Ordering::Release);
    }

    /// True once the run is over, for good or ill.
    pub fn stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Resolves when the run is over.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.0.end.subscribe()
    }

    /// The failure that ended the run, if any.
    pub fn take_failure(&self) -> Option<Error> {
        self.0.failure.lock().take()
    }

    /// What the operators of this process are at.
    pub fn operator_figures(&self) -> &Figures {
        &self.0.figures
    }

    /// Figures so far.
    pub fn figures(&self) -> EpochFigures {
        let epochs = self.0.epochs.lock();
        let quantile = |q| epochs.commit_latency.value_at_quantile(q) as f64 / 1000.0;
        EpochFigures {
            sealed: epochs.seals_written,
            committed: epochs.commits_written,
            since_commit: epochs.last_commit_at.map(|at| at.elapsed()),
            oldest_uncommitted: epochs.minted_at.values().next().map(Instant::elapsed),
            commit_latency_p50_ms: quantile(0.5),
            commit_latency_p99_ms: quantile(0.99),
        }
    }
}

/// A page waits for room: see [`Ledger::want_room`].
pub struct RoomWanted(Ledger);

impl Drop for RoomWanted {
    fn drop(&mut self) {
        self.0.0.room_wanted.fetch_sub(1, Ordering::Release);
        self.0.tell_lead();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_in_flight_until_the_frontier_passes_it() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        ledger.page_arrived(500);
        ledger.minted(Epoch(10), Instant::now());
        ledger.page_attached(Epoch(10), 500);
        let seen = ledger.observe();
        assert_eq!(
            (seen.in_flight_epochs, seen.in_flight_bytes, seen.unsealed),
            (1, 500, 1)
        );
        ledger.sealed(Epoch(10), None);
        assert_eq!(ledger.observe().unsealed, 0);
        assert_eq!(
            ledger.acknowledged(Some(10)),
            None,
            "the frontier is a lower bound: 10 may still appear"
        );
        assert_eq!(ledger.acknowledged(Some(11)), Some(Epoch(10)));
        assert_eq!(ledger.acknowledged(None), None);
    }

    #[test]
    fn the_last_range_to_catch_up_completes_the_load_by_the_newest_epoch() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        ledger.expect_to_catch_up(1);
        ledger.expect_to_catch_up(2);
        for epoch in [5, 9] {
            ledger.caught_up(Epoch(epoch));
            assert!(!ledger.loaded());
        }
        ledger.caught_up(Epoch(7));
        assert!(ledger.loaded() && ledger.loaded_by(Epoch(9)) && !ledger.loaded_by(Epoch(8)));
        assert!(ledger.in_first_load(Epoch(9)) && !ledger.in_first_load(Epoch(10)));
    }

    #[test]
    fn epochs_are_stretched_until_the_last_range_is_read_up() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        assert!(!ledger.observe().loading, "there is nothing to load");
        ledger.expect_to_catch_up(2);
        ledger.page_arrived(300);
        ledger.page_arrived(200);
        let room = ledger.want_room();
        let seen = ledger.observe();
        assert!(seen.loading && seen.full && seen.data_waiting);
        assert_eq!(seen.waiting_bytes, 500);
        drop(room);
        ledger.minted(Epoch(10), Instant::now());
        ledger.page_attached(Epoch(10), 300);
        ledger.read_up();
        let seen = ledger.observe();
        assert!(seen.loading && !seen.full && seen.data_waiting);
        assert_eq!(seen.waiting_bytes, 200);
        ledger.read_up();
        assert!(!ledger.observe().loading && !ledger.loaded());
    }

    #[test]
    fn a_run_that_resumes_after_the_load_does_not_stretch_epochs() {
        let ledger = Ledger::new(Epoch(5), Epoch(7));
        ledger.complete_load(Epoch(5));
        ledger.expect_to_catch_up(2);
        assert!(!ledger.observe().loading && !ledger.in_first_load(Epoch(8)));
    }

    #[test]
    fn the_first_failure_is_the_one_reported() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        ledger.fail(Error::internal("cause"));
        ledger.fail(Error::internal("consequence"));
        assert!(ledger.stopped());
        assert_eq!(
            ledger.take_failure().map(|e| e.report()).as_deref(),
            Some("cause")
        );
    }
}
