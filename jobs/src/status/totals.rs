//! What was counted since the process began, over all runs that it has seen: so that no counter goes back when the next run begins.

use std::collections::BTreeMap;

use tidefeed_operators::letters::OF_SOURCE;
use tidefeed_runtime::checkpoint::StoreFigures;
use tidefeed_runtime::{EpochFigures, FeedRangeId, StageHistograms};

use super::sinks::SinkLook;
use super::sources::{RangeLook, SourceLook};
use super::{JobFacts, LetterCounts};
use crate::running::Shared;

/// What sources, sinks, the committer and the checkpoint store have counted.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    pub(super) sources: BTreeMap<String, SourceLook>,
    pub(super) sinks: BTreeMap<String, SinkLook>,
    pub(super) commits: u64,
    pub(super) seals: u64,
    /// How long epochs took to each stage.
    pub(super) stages: StageHistograms,
    /// What this process did with the checkpoint store.
    pub(super) store: StoreFigures,
}

impl Totals {
    /// With what a run has done with the checkpoint store by now.
    pub(crate) fn stored(mut self, store: &StoreFigures) -> Totals {
        self.store = store.clone().after(&self.store);
        self
    }

    /// With what a run has counted by now; `figures` are those of its ledger.
    pub(crate) fn with(
        &self,
        run: &Shared,
        figures: &EpochFigures,
        job: &JobFacts,
        letters: &LetterCounts,
    ) -> Totals {
        let mut all = self.clone();
        for (name, counters) in &run.sources {
            let kind = job.sources.get(name).copied().unwrap_or("custom");
            let letters = letters.of(&format!("{OF_SOURCE}{name}"));
            let look = SourceLook::of(name, kind, counters, letters);
            let look = look.after(self.sources.get(name));
            all.sources.insert(name.clone(), look);
        }
        for (name, counters) in &run.sinks {
            let traffic = run.traffic.get(name).map(|counters| counters.traffic());
            let look = SinkLook::of(counters, letters.of(name), traffic);
            let look = look.after(self.sinks.get(name));
            all.sinks.insert(name.clone(), look);
        }
        all.commits += figures.committed;
        all.seals += figures.sealed;
        all.stages.merge(&run.ledger.stage_histograms());
        all
    }

    /// The feed ranges that each source reads now.
    pub(crate) fn sources(
        &self,
    ) -> impl Iterator<Item = (&str, &BTreeMap<FeedRangeId, RangeLook>)> {
        let sources = self.sources.iter();
        sources.map(|(name, source)| (name.as_str(), &source.ranges))
    }

    /// When the run has ended: what was so only then is so no more.
    pub(crate) fn ended(mut self) -> Totals {
        for source in self.sources.values_mut() {
            source.ranges.clear();
        }
        for sink in self.sinks.values_mut() {
            sink.ended();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_counter_goes_back_when_the_next_run_begins() {
        let (job, letters) = (JobFacts::default(), LetterCounts::default());
        let with = |totals: &Totals, run: Shared| {
            let figures = run.ledger.figures();
            totals.with(&run, &figures, &job, &letters)
        };
        let counts = |totals: &Totals| {
            (
                totals.sources["orders"].records,
                totals.sinks["view"].counted.upserts,
            )
        };
        let first = with(&Totals::default(), Shared::counted(100, 7));
        assert_eq!(counts(&first), (100, 7));
        let past = first.ended();
        assert_eq!(counts(&past), (100, 7), "between two runs");
        assert_eq!(counts(&with(&past, Shared::counted(3, 0))), (103, 7));
        // A look is no addition.
        assert_eq!(counts(&with(&past, Shared::counted(3, 0))), (103, 7));
    }

    #[test]
    fn objects_of_earlier_runs_stay_counted() {
        let wrote = |objects_written| StoreFigures {
            objects_written,
            ..StoreFigures::default()
        };
        let past = Totals::default().stored(&wrote(5)).ended();
        assert_eq!(past.clone().stored(&wrote(2)).store.objects_written, 7);
        assert_eq!(past.clone().stored(&wrote(2)).store.objects_written, 7);
    }
}
