//! What the next commit contains: runs of seals and a base. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::{BaseRef, CommitRecord, SealRef, SealRun, Series};
use super::recovery::run_of;
use crate::{Epoch, Error, Generation, Result};

/// The state of the commit chain in one run.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    generation: Generation,
    epoch: Option<Epoch>,
    base: Option<BaseRef>,
    runs: BTreeMap<Series, SealRun>,
    /// Pinned by the start record and not contained in a commit yet, in order per process.
    waiting: Vec<SealRef>,
    /// The processes whose positions recovery may ask a commit of this generation for.
    pinned: BTreeSet<Series>,
}

impl Ledger {
    /// The ledger of a run that starts from `commit` with the seals `waiting` beyond it.
    pub(super) fn new(
        generation: Generation,
        commit: Option<&CommitRecord>,
        waiting: Vec<SealRef>,
    ) -> Ledger {
        let runs = commit.map_or(&[][..], |commit| &commit.runs);
        Ledger {
            generation,
            epoch: commit.map(|commit| commit.epoch),
            base: commit.and_then(|commit| commit.base.clone()),
            runs: runs.iter().map(|run| (run.series(), *run)).collect(),
            pinned: waiting.iter().map(SealRef::series).collect(),
            waiting,
        }
    }

    pub(super) fn base(&self) -> Option<&BaseRef> {
        self.base.as_ref()
    }

    pub(super) fn runs(&self) -> Vec<SealRun> {
        self.runs.values().copied().collect()
    }

    /// Moves to `epoch`: takes in the pinned seals up to it and `seals`, the new ones of this generation.
    pub(super) fn advance(&mut self, epoch: Epoch, mut seals: Vec<SealRef>) -> Result<()> {
        if self.epoch.is_some_and(|last| epoch <= last) {
            return Err(Error::internal(format!(
                "a commit of epoch {epoch} does not go beyond the last one"
            )));
        }
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|seal| seal.epoch <= epoch);
        self.waiting = waiting;
        seals.sort_unstable_by_key(|seal| (seal.series(), seal.sequence));
        if let Some(seal) = seals.iter().find(|seal| seal.generation != self.generation) {
            return Err(misplaced(seal, "is not of this generation"));
        }
        let due: Vec<SealRef> = due;
        for seal in due.iter().chain(&seals) {
            self.take(seal, epoch)?;
        }
        self.epoch = Some(epoch);
        Ok(())
    }

    fn take(&mut self, seal: &SealRef, epoch: Epoch) -> Result<()> {
        if seal.epoch > epoch {
            return Err(misplaced(seal, "is beyond the epoch of the commit"));
        }
        if self.epoch.is_some_and(|last| seal.epoch <= last) {
            return Err(misplaced(seal, "was left out of the commit of its epoch"));
        }
        let expected = match self.position(seal.series()) {
            Some(last) => Some(last + 1),
            // Pinned runs begin where they begin; recovery has checked them.
            None if seal.generation < self.generation => None,
            None => Some(1),
        };
        if expected.is_some_and(|expected| seal.sequence != expected) {
            return Err(misplaced(seal, "does not follow the one before it"));
        }
        let run = self
            .runs
            .entry(seal.series())
            .or_insert_with(|| run_of(seal));
        run.last = seal.sequence;
        run.last_epoch = seal.epoch;
        run.last_checksum = seal.checksum;
        Ok(())
    }

    fn position(&self, series: Series) -> Option<u64> {
        let covers = self.base.iter().flat_map(|base| &base.covers);
        self.runs
            .values()
            .chain(covers)
            .filter(|run| run.series() == series)
            .map(|run| run.last)
            .max()
    }

    /// Replaces the base, and drops what the new one contains from the runs.
    pub(super) fn rebase(&mut self, mut base: BaseRef) -> Result<()> {
        let same = |old: &BaseRef| old.epoch == base.epoch && old.buckets == base.buckets;
        if self.base.as_ref().is_some_and(same) {
            return Ok(());
        }
        let known = self.epoch.is_some_and(|last| base.epoch <= last);
        let older = self.base.iter().any(|old| old.epoch >= base.epoch);
        if !known || older {
            return Err(Error::internal(format!(
                "a base of epoch {} does not fit the commits so far",
                base.epoch
            )));
        }
        for end in &base.covers {
            if let Some(run) = self.runs.get_mut(&end.series()) {
                run.first = run.first.max(end.last + 1);
            }
        }
        self.runs.retain(|_, run| run.first <= run.last);
        // Nobody asks for the position of a process that neither seals now nor has seals waiting: its generation is over.
        let asked = |run: &SealRun| {
            run.generation == self.generation || self.pinned.contains(&run.series())
        };
        base.covers.retain(asked);
        self.base = Some(base);
        Ok(())
    }
}

fn misplaced(seal: &SealRef, what: &str) -> Error {
    Error::internal(format!("{} {what}", seal.name()))
}

/// The ends of everything that a base of `commit` contains.
pub(super) fn covered_by(commit: &CommitRecord) -> Vec<SealRun> {
    let mut ends: BTreeMap<Series, SealRun> = BTreeMap::new();
    let before = commit.base.iter().flat_map(|base| &base.covers);
    for run in before.chain(&commit.runs) {
        ends.insert(run.series(), *run);
    }
    ends.into_values().collect()
}

/// Sizes that decide about compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Seals since the base, up to the commit; those of a first load that take the place of a base do not count.
    pub(crate) seals: u64,
    /// Their bytes in the store.
    pub(crate) seal_bytes: u64,
    /// Bytes that the collection would take in the store, estimated.
    pub(crate) live_bytes: u64,
    /// Buckets that are not empty: the objects of a base.
    pub(crate) buckets: u64,
}

/// Opening a small object costs about as much as reading this much of a large one (guess, not measured).
const SEAL_OVERHEAD_BYTES: u64 = 64 * 1024;

/// Whether reading the collection as a new base would be cheaper than reading the seals since the old one.
pub(super) fn should_compact(volume: &Volume) -> bool {
    let with_overhead = |bytes: u64, objects: u64| {
        bytes.saturating_add(objects.saturating_mul(SEAL_OVERHEAD_BYTES))
    };
    volume.seals > 0
        && with_overhead(volume.seal_bytes, volume.seals)
            > with_overhead(volume.live_bytes, volume.buckets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::frame::Checksum;
    use crate::checkpoint::objects::SealKind;

    fn seal(generation: u64, process: u32, sequence: u64, epoch: u64) -> SealRef {
        SealRef {
            kind: SealKind::Input,
            generation: Generation(generation),
            process,
            sequence,
            epoch: Epoch(epoch),
            checksum: Checksum(u128::from(sequence)),
            bytes: 1,
        }
    }

    fn runs(ledger: &Ledger) -> Vec<(u64, u32, u64, u64)> {
        let short = |run: &SealRun| (run.generation.0, run.process, run.first, run.last);
        ledger.runs().iter().map(short).collect()
    }

    fn base(epoch: u64, covers: Vec<SealRun>) -> BaseRef {
        BaseRef {
            generation: Generation(2),
            epoch: Epoch(epoch),
            buckets: Vec::new(),
            covers,
        }
    }

    #[test]
    fn pinned_seals_are_taken_in_when_the_commit_reaches_them() {
        let waiting = vec![seal(1, 0, 4, 10), seal(1, 0, 5, 20)];
        let mut ledger = Ledger::new(Generation(2), None, waiting);
        ledger.advance(Epoch(15), vec![]).unwrap();
        assert_eq!(runs(&ledger), [(1, 0, 4, 4)]);
        ledger.advance(Epoch(30), vec![seal(2, 0, 1, 30)]).unwrap();
        assert_eq!(runs(&ledger), [(1, 0, 4, 5), (2, 0, 1, 1)]);
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let mut ledger = Ledger::new(Generation(1), None, vec![]);
        let both = vec![seal(1, 0, 2, 6), seal(1, 0, 1, 5)];
        ledger.advance(Epoch(6), both).unwrap();
        for (epoch, bad) in [
            (6, vec![]),
            (8, vec![seal(1, 0, 4, 8)]),
            (8, vec![seal(1, 0, 2, 6)]),
            (8, vec![seal(1, 0, 3, 9)]),
            (8, vec![seal(1, 1, 2, 8)]),
            (8, vec![seal(1, 1, 1, 5)]),
            (8, vec![seal(2, 0, 1, 8)]),
        ] {
            let mut copy = ledger.clone();
            assert!(copy.advance(Epoch(epoch), bad.clone()).is_err(), "{bad:?}");
        }
        ledger.advance(Epoch(8), vec![seal(1, 0, 3, 8)]).unwrap();
        assert_eq!(runs(&ledger), [(1, 0, 1, 3)]);
    }

    #[test]
    fn a_base_takes_the_place_of_what_it_contains() {
        let waiting = vec![seal(1, 0, 4, 10), seal(1, 0, 5, 20)];
        let mut ledger = Ledger::new(Generation(2), None, waiting);
        ledger
            .advance(Epoch(10), vec![seal(2, 0, 1, 9), seal(2, 1, 1, 9)])
            .unwrap();
        let covers = ledger.runs();
        ledger.advance(Epoch(20), vec![seal(2, 0, 2, 20)]).unwrap();
        ledger.rebase(base(10, covers)).unwrap();
        assert_eq!(runs(&ledger), [(1, 0, 5, 5), (2, 0, 2, 2)]);
        ledger.advance(Epoch(30), vec![seal(2, 1, 2, 30)]).unwrap();
        assert_eq!(runs(&ledger), [(1, 0, 5, 5), (2, 0, 2, 2), (2, 1, 2, 2)]);
        // The same base again changes nothing, an older or a future one is none of this chain.
        ledger.rebase(base(10, vec![])).unwrap();
        assert_eq!(runs(&ledger), [(1, 0, 5, 5), (2, 0, 2, 2), (2, 1, 2, 2)]);
        assert!(ledger.rebase(base(9, vec![])).is_err());
        assert!(ledger.rebase(base(31, vec![])).is_err());
    }

    #[test]
    fn compaction_pays_when_the_seals_outweigh_the_collection() {
        let volume = |seals, seal_bytes, live_bytes| Volume {
            seals,
            seal_bytes,
            live_bytes,
            buckets: 64,
        };
        let mib = 1 << 20;
        assert!(!should_compact(&volume(0, 0, 0)));
        assert!(!should_compact(&volume(1, 100, 100)));
        assert!(!should_compact(&volume(10, 50 * mib, 100 * mib)));
        assert!(should_compact(&volume(10, 150 * mib, 100 * mib)));
        assert!(should_compact(&volume(10_000, mib, mib)));
        assert!(should_compact(&volume(u64::MAX, u64::MAX, 0)));
    }
}
