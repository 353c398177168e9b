//! What was counted since the process began, over all runs that it has seen: so that no counter goes back when the next run begins.

use std::collections::BTreeMap;

use tidefeed_runtime::StageHistograms;

use super::look::SinkLook;
use super::sources::SourceLook;
use super::{JobFacts, LetterCounts};
use crate::running::Shared;

/// What sources, sinks and the committer have counted.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    pub(super) sources: BTreeMap<String, SourceLook>,
    pub(super) sinks: BTreeMap<String, SinkLook>,
    pub(super) commits: u64,
    pub(super) seals: u64,
    /// How long epochs took to each stage.
    pub(super) stages: StageHistograms,
}

impl Totals {
    /// With what a run has counted by now.
    pub(crate) fn with(&self, run: &Shared, job: &JobFacts, letters: &LetterCounts) -> Totals {
        let mut all = self.clone();
        for (name, counters) in &run.sources {
            let kind = job.sources.get(name).copied().unwrap_or("custom");
            let look = SourceLook::of(name, kind, counters);
            let look = look.after(self.sources.get(name));
            all.sources.insert(name.clone(), look);
        }
        for (name, counters) in &run.sinks {
            let look = SinkLook::of(counters, letters.of(name));
            let look = look.after(self.sinks.get(name));
            all.sinks.insert(name.clone(), look);
        }
        let figures = run.ledger.figures();
        all.commits += figures.committed;
        all.seals += figures.sealed;
        all.stages.merge(&run.ledger.stage_histograms());
        all
    }

    /// When the run has ended: what was so only then is so no more.
    pub(crate) fn ended(mut self) -> Totals {
        for source in self.sources.values_mut() {
            source.ranges.clear();
        }
        for sink in self.sinks.values_mut() {
            sink.writing = None;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use tidefeed_operators::reader::SourceCounters;
    use tidefeed_operators::sink::SinkCounters;
    use tidefeed_runtime::{Epoch, Ledger};

    use super::*;

    fn run(records: u64, upserts: u64) -> Shared {
        let (source, sink) = (SourceCounters::default(), SinkCounters::default());
        source.changes.store(records, Ordering::Relaxed);
        sink.upserts.store(upserts, Ordering::Relaxed);
        Shared {
            ledger: Ledger::new(Epoch(0), Epoch(0)),
            sources: [("orders".to_owned(), Arc::new(source))].into(),
            sinks: [("view".to_owned(), Arc::new(sink))].into(),
            resumed: Default::default(),
            asked: Arc::default(),
        }
    }

    #[test]
    fn no_counter_goes_back_when_the_next_run_begins() {
        let (job, letters) = (JobFacts::default(), LetterCounts::default());
        let counts = |totals: &Totals| {
            (
                totals.sources["orders"].records,
                totals.sinks["view"].upserts,
            )
        };
        let first = Totals::default().with(&run(100, 7), &job, &letters);
        assert_eq!(counts(&first), (100, 7));
        let past = first.ended();
        assert_eq!(counts(&past), (100, 7), "between two runs");
        let then = past.with(&run(3, 0), &job, &letters);
        assert_eq!(counts(&then), (103, 7));
        // A look is no addition.
        assert_eq!(counts(&past.with(&run(3, 0), &job, &letters)), (103, 7));
    }
}
