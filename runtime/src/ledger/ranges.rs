//! How many feed ranges are still to be read: rule 1 of [`facts`](crate::cluster::facts).

use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::Ledger;
use crate::Epoch;
use crate::cluster::{MemberFacts, RangeCounts};

/// The feed ranges of all sources. What is to be done is counted where the enumerators are, which is process 0; what is done,
/// wherever it is done.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    opened: u64,
    to_catch_up: u64,
    to_fix: u64,
    /// Of this process.
    pub(super) done: RangeCounts,
}

impl Ranges {
    fn done(&self, members: &[MemberFacts], of: fn(&RangeCounts) -> u64) -> u64 {
        let told: u64 = members.iter().map(|member| of(&member.ranges)).sum();
        of(&self.done) + told
    }

    /// Whether a range has not been read to where it catches up for the first time.
    pub(super) fn behind(&self, members: &[MemberFacts]) -> bool {
        self.to_catch_up > self.done(members, |counts| counts.read_up)
    }

    /// Whether every range that there was has ended.
    pub(super) fn all_ended(&self, members: &[MemberFacts]) -> bool {
        self.opened > 0 && self.opened == self.done(members, |counts| counts.ended)
    }

    /// The newest epoch of the first load, when all of it is attached.
    pub(super) fn loaded_by(&self, members: &[MemberFacts]) -> Option<Epoch> {
        let all = self.to_catch_up == self.done(members, |counts| counts.caught_up);
        let told = members.iter().map(|member| member.ranges.caught_up_in);
        let newest = told.fold(self.done.caught_up_in, Epoch::max);
        (all && self.to_catch_up > 0).then_some(newest)
    }

    fn unfixed(&self, members: &[MemberFacts]) -> u64 {
        let fixed = self.done(members, |counts| counts.fixed);
        self.to_fix.saturating_sub(fixed)
    }
}

impl Ledger {
    /// So many more feed ranges are to be read. To be said of all before any is.
    pub fn open_ranges(&self, ranges: usize) {
        self.0.ranges.lock().opened += ranges as u64;
    }

    /// Everything is read of a feed range that was asked for. The last one completes the input.
    pub fn range_ended(&self) {
        self.0.ranges.lock().done.ended += 1;
        self.look_at_ranges();
    }

    /// So many more feed ranges have to catch up before the load is complete. To be said of all before any is read.
    pub fn expect_to_catch_up(&self, ranges: usize) {
        self.0.ranges.lock().to_catch_up += ranges as u64;
    }

    /// A feed range was read to where it catches up for the first time; to be said before its last page arrives. When
    /// there is no other, what waits is all that there is to wait for.
    pub fn read_up(&self) {
        self.0.ranges.lock().done.read_up += 1;
        self.tell_lead();
    }

    /// A feed range has caught up for the first time, and what it had to read is in the epochs through `by`. The last one
    /// completes the load.
    pub fn caught_up(&self, by: Epoch) {
        {
            let done = &mut self.0.ranges.lock().done;
            done.caught_up += 1;
            done.caught_up_in = done.caught_up_in.max(by);
        }
        self.look_at_ranges();
    }

    /// So many parts take the place of a feed range, from an epoch on that every process has sealed; `loading` says whether they
    /// still have to catch up for the first time. To be said before any of them is read.
    pub fn handed_over(&self, parts: usize, loading: bool) {
        let more = parts.saturating_sub(1);
        self.open_ranges(more);
        if loading {
            self.expect_to_catch_up(more);
        }
    }

    /// So many more feed ranges start at now, and have no durable position yet.
    pub fn expect_to_fix(&self, ranges: usize) {
        self.0.ranges.lock().to_fix += ranges as u64;
        self.look_at_ranges();
    }

    /// A feed range that starts at now has got a durable position.
    pub fn range_fixed(&self) {
        self.0.ranges.lock().done.fixed += 1;
        self.look_at_ranges();
    }

    /// How many feed ranges start at now and have no durable position yet.
    pub fn unfixed(&self) -> watch::Receiver<u64> {
        self.0.unfixed.subscribe()
    }

    pub(super) fn tell_loaded(&self, by: Epoch) {
        if !self.loaded() {
            tracing::info!(
                event = "caught_up",
                epoch = by.0,
                "every source has caught up for the first time"
            );
        }
    }

    /// Sees what follows from a change of what is done.
    pub(super) fn look_at_ranges(&self) {
        let (ended, loaded_by, unfixed) = {
            let ranges = self.0.ranges.lock();
            let members = self.members();
            (
                ranges.all_ended(&members),
                ranges.loaded_by(&members),
                ranges.unfixed(&members),
            )
        };
        if ended {
            self.0.input_complete.store(true, Ordering::Release);
        }
        if let Some(by) = loaded_by {
            self.tell_loaded(by);
            self.complete_load(by);
        }
        self.0
            .unfixed
            .send_if_modified(|now| std::mem::replace(now, unfixed) != unfixed);
        self.changed();
    }
}
