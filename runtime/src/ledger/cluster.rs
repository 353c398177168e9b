//! The ledgers of a cluster's processes: what each tells, and what it makes of what it hears.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::Ledger;
use crate::cluster::{Finish, MemberFacts, RunFacts, Told};
use crate::{Epoch, Error};

/// What a ledger knows of other processes. Nothing, for a run of one.
pub(super) struct Cluster {
    /// What each member has told last, in process 0.
    members: Mutex<Vec<MemberFacts>>,
    /// Whether process 0 is another one.
    following: AtomicBool,
    /// Bytes attached to each epoch, in a member.
    attached: Mutex<BTreeMap<Epoch, u64>>,
    failure: Mutex<Option<Told>>,
    /// Whether, and when, the run is to end in order.
    finish: watch::Sender<Finish>,
    news: watch::Sender<()>,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            members: Mutex::default(),
            following: AtomicBool::new(false),
            attached: Mutex::default(),
            failure: Mutex::default(),
            finish: watch::Sender::new(Finish::No),
            news: watch::Sender::new(()),
        }
    }
}

impl Ledger {
    /// This process leads a run with so many members. To be said before anything is read.
    pub fn lead(&self, members: usize) {
        *self.0.cluster.members.lock() = vec![MemberFacts::default(); members];
    }

    /// This process is a member of a run: no sink writes before process 0 says that it may.
    pub fn follow(&self) {
        self.0.cluster.following.store(true, Ordering::Release);
        self.0.verified.store(false, Ordering::Release);
    }

    /// Asks the run to end once everything is read that was there by now.
    pub fn finish(&self) {
        self.end_at(Finish::CaughtUp);
    }

    /// Asks the run to end with a commit of what it has read by now, and to read no more. A run that is not done with its first
    /// load, or may not write yet, has nothing to commit soon: it ends at once.
    pub fn drain(&self) {
        match self.loaded() && self.writable() {
            true => self.end_at(Finish::Here),
            false => self.stop(),
        }
    }

    fn end_at(&self, finish: Finish) {
        let sooner = |now: &mut Finish| {
            let sooner = finish > *now;
            *now = finish.max(*now);
            sooner
        };
        if self.0.cluster.finish.send_if_modified(sooner) {
            self.tell();
        }
    }

    /// Changes when the run is to end in order.
    pub fn finishing(&self) -> watch::Receiver<Finish> {
        self.0.cluster.finish.subscribe()
    }

    /// Changes whenever there is something new to tell.
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.cluster.news.subscribe()
    }

    /// What this process tells process 0.
    pub fn member_facts(&self) -> MemberFacts {
        // Before the pages that wait: rule 2.
        let ranges = self.0.ranges.lock().done;
        MemberFacts {
            ranges,
            sealed_through: self.sealed_through(),
            pages_waiting: self.0.pages_waiting.load(Ordering::Acquire) as u64,
            bytes_waiting: self.0.bytes_waiting.load(Ordering::Acquire),
            room_wanted: self.0.room_wanted.load(Ordering::Acquire) as u64,
            attached: self.0.cluster.attached.lock().clone(),
            finish: *self.0.cluster.finish.borrow(),
            stopped: self.stopped_early(),
            failure: self.0.cluster.failure.lock().clone(),
            holding: self.0.holds.holding(),
        }
    }

    /// Takes note of what member `process` has told. `peer` is what to call it.
    pub fn hear_member(&self, process: u32, peer: &str, facts: MemberFacts) {
        let (failure, stopped) = (facts.failure.clone(), facts.stopped);
        self.0.holds.heard(process, peer);
        self.end_at(facts.finish);
        if let Some(at) = (process as usize).checked_sub(1)
            && let Some(told) = self.members().get_mut(at)
        {
            *told = facts;
        }
        self.look_at_ranges();
        match failure {
            Some(failure) => self.fail(failure.heard_from(peer)),
            None if stopped => self.stop(),
            None => {}
        }
    }

    /// What process 0 tells every member.
    pub fn run_facts(&self) -> RunFacts {
        let oldest_in_flight = {
            let epochs = self.0.epochs.lock();
            let oldest = epochs.in_flight.keys().next();
            oldest.copied().unwrap_or_else(|| self.committed_through())
        };
        RunFacts {
            committed_through: self.committed_through(),
            oldest_in_flight,
            writable: self.writable(),
            loaded_by: self
                .loaded()
                .then(|| Epoch(self.0.loaded_by.load(Ordering::Acquire))),
            finish: *self.0.cluster.finish.borrow(),
            stopped: self.stopped_early(),
            failure: self.0.cluster.failure.lock().clone(),
        }
    }

    /// Takes note of what process 0 has told. `peer` is what to call it.
    pub fn hear_run(&self, peer: &str, facts: RunFacts) {
        let committed = &self.0.committed_through;
        committed.fetch_max(facts.committed_through.0, Ordering::AcqRel);
        // What is not in flight any more is written, and so is what is committed.
        let through = facts.committed_through;
        let stages = &self.0.stages;
        stages.written(facts.oldest_in_flight.max(Epoch(through.0 + 1)));
        stages.committed(through, Instant::now());
        {
            let mut attached = self.0.cluster.attached.lock();
            *attached = attached.split_off(&facts.oldest_in_flight);
        }
        self.end_at(facts.finish);
        if let Some(by) = facts.loaded_by
            && !self.loaded()
        {
            self.tell_loaded(by);
            self.complete_load(by);
        }
        if facts.writable && !self.writable() {
            self.settle();
            self.verify();
        }
        match facts.failure {
            Some(failure) => self.fail(failure.heard_from(peer)),
            None if facts.stopped => self.stop(),
            None => {}
        }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Vec<MemberFacts>> {
        self.0.cluster.members.lock()
    }

    /// Sums over the members; `sealed_through` is what all of them have sealed.
    pub(super) fn waiting_at_members(&self) -> MemberFacts {
        let none = MemberFacts {
            sealed_through: Epoch(u64::MAX),
            ..MemberFacts::default()
        };
        let members = self.members();
        members.iter().fold(none, |sum, member| MemberFacts {
            sealed_through: sum.sealed_through.min(member.sealed_through),
            pages_waiting: sum.pages_waiting + member.pages_waiting,
            bytes_waiting: sum.bytes_waiting + member.bytes_waiting,
            room_wanted: sum.room_wanted + member.room_wanted,
            ..sum
        })
    }

    /// Bytes that members have attached to these epochs.
    pub(super) fn attached_by_members<'a>(&self, epochs: impl Iterator<Item = &'a Epoch>) -> u64 {
        let members = self.members();
        let at = |epoch: &Epoch| -> u64 {
            let attached = members.iter().filter_map(|m| m.attached.get(epoch));
            attached.sum()
        };
        epochs.map(at).sum()
    }

    /// In a member, which does not mint, keeps the bytes of an epoch for process 0.
    pub(super) fn attached_elsewhere(&self, epoch: Epoch, bytes: u64) {
        if self.following() {
            *self.0.cluster.attached.lock().entry(epoch).or_default() += bytes;
            self.0.stages.minted(epoch, Instant::now());
            self.tell();
        }
    }

    fn following(&self) -> bool {
        self.0.cluster.following.load(Ordering::Acquire)
    }

    /// Tells process 0, where that is another one.
    pub(super) fn tell_lead(&self) {
        if self.following() {
            self.tell();
        }
    }

    /// Why the run has failed, also when its failure was taken.
    pub(super) fn told_failure(&self) -> Option<String> {
        let failure = self.0.cluster.failure.lock();
        failure.as_ref().map(Told::summary)
    }

    /// Whether the run has failed, also when its failure was taken.
    pub fn failed(&self) -> bool {
        self.0.cluster.failure.lock().is_some()
    }

    pub(super) fn will_tell_of(&self, error: &Error) {
        let mut failure = self.0.cluster.failure.lock();
        failure.get_or_insert_with(|| Told::of(error));
    }

    /// Tells the other processes, if there are any.
    pub(super) fn tell(&self) {
        if self.0.cluster.news.receiver_count() > 0 {
            self.0.cluster.news.send_replace(());
        }
    }

    /// Whether the run was ended while its dataflow went on.
    fn stopped_early(&self) -> bool {
        self.stopped() && !self.0.completed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
