//! One look at everything that a job's health knows of.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tidefeed_operators::reader::SourceCounters;
use tidefeed_operators::sink::SinkCounters;
use tidefeed_operators::target::Target;
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::stall::{Facts, RangeFact, SinkFact, explain};
use tidefeed_runtime::{EpochFigures, FeedRangeId};

use super::{Health, State};
use crate::config::HttpConfig;
use crate::running::Shared;
use crate::status::{EpochLook, Look, ProcessFigures, RangeLook, Totals, ranges};

impl Health {
    /// Everything that there is to know now, each of it asked for once.
    pub(crate) fn look(&self) -> Look {
        // Probes wait for the lock, so what reads files comes before it.
        let process = ProcessFigures::now();
        let state = self.state.lock();
        let figures = state.figures();
        let totals = state.totals(figures.as_ref());
        let facts = state.facts(&self.limits, || {
            let sources = totals.sources();
            sources
                .flat_map(|(name, ranges)| range_facts(name, ranges))
                .collect()
        });
        let look = Look {
            at: SystemTime::now(),
            job: state.job.clone(),
            position: state.position,
            generation: state.generation.map(|generation| generation.0),
            started_at: self.started_at,
            state_for: facts.phase.1,
            holds: explain(&facts),
            epochs: state.shared.as_ref().zip(figures).map(epochs),
            totals,
            workers: state.shared.as_ref().map_or_else(Vec::new, |shared| {
                shared.ledger.operator_figures().snapshot()
            }),
            process,
            told: (state.shared.as_ref()).map_or_else(Vec::new, |run| run.ledger.member_reports()),
            silent_after: facts.word_due.max(facts.notice),
            tokio_tasks: state
                .tasks
                .as_ref()
                .map_or(0, |handle| handle.metrics().num_alive_tasks() as u64),
            facts: facts.ledger,
        };
        drop(state);
        look
    }

    pub(super) fn facts(&self) -> Facts {
        let state = self.state.lock();
        state.facts(&self.limits, || {
            let sources = state.shared.iter().flat_map(|run| &run.sources);
            let of_source = |(name, counters): (&String, &Arc<SourceCounters>)| {
                range_facts(name, &ranges(counters)).collect::<Vec<_>>()
            };
            sources.flat_map(of_source).collect()
        })
    }
}

impl State {
    /// What holds the job, of all that is known; `ranges` says what is known of the feed ranges of a run.
    fn facts(&self, limits: &HttpConfig, ranges: impl FnOnce() -> Vec<RangeFact>) -> Facts {
        let store = self.store.as_ref();
        let mut facts = Facts {
            process: self.position.process,
            notice: limits.notice(),
            word_due: self.word_due,
            phase: (self.phase, self.since.elapsed()),
            awaited: self.awaited.facts(),
            lease: store.and_then(CheckpointStore::lease_waited_out),
            follows: !self.position.leads(),
            code: self.code.clone(),
            ..Facts::default()
        };
        if let Some(shared) = &self.shared {
            facts.ledger = Some(shared.ledger.stall_facts());
            facts.ranges = ranges();
            facts.sinks = sinks(shared, &self.targets);
        } else if let Some(failure) = &self.failure {
            facts.ledger.get_or_insert_default().failure = Some(failure.clone());
        }
        facts
    }

    /// Of the epochs of the run, if there is one.
    pub(super) fn figures(&self) -> Option<EpochFigures> {
        self.shared.as_ref().map(|run| run.ledger.figures())
    }

    /// What was counted since the process began; `figures` are those of the present run.
    pub(super) fn totals(&self, figures: Option<&EpochFigures>) -> Totals {
        let totals = match self.shared.as_ref().zip(figures) {
            Some((run, figures)) => self.past.with(run, figures, &self.job, &self.letters),
            None => self.past.clone(),
        };
        match &self.store {
            Some(store) => totals.stored(&store.figures()),
            None => totals,
        }
    }
}

fn epochs((shared, figures): (&Shared, EpochFigures)) -> EpochLook {
    EpochLook {
        sealed: shared.ledger.sealed_through(),
        committed: shared.ledger.committed_through(),
        figures,
        stages: shared.ledger.stages(),
    }
}

/// What the feed ranges of a source have to do with a stall.
fn range_facts<'a>(
    source: &'a str,
    ranges: &'a BTreeMap<FeedRangeId, RangeLook>,
) -> impl Iterator<Item = RangeFact> + 'a {
    let fact = move |(range, (status, trouble)): (&FeedRangeId, &RangeLook)| RangeFact {
        source: source.to_owned(),
        worker: status.worker,
        // Whoever waits for room has nothing under way.
        asked: status.asked.filter(|_| status.waits_for_room.is_none()),
        answered: status.answered,
        trouble: trouble.clone(),
        waits_for_room: status.waits_for_room,
        range: range.clone(),
    };
    ranges.iter().map(fact)
}

fn sinks(shared: &Shared, targets: &BTreeMap<String, Weak<dyn Target>>) -> Vec<SinkFact> {
    let fact = |(name, counters): (&String, &Arc<SinkCounters>)| {
        let target = targets.get(name).and_then(Weak::upgrade);
        SinkFact {
            name: name.clone(),
            writing: counters.writing(),
            scanning: counters.scanning(),
            target: target.and_then(|target| target.waits()),
        }
    };
    shared.sinks.iter().map(fact).collect()
}

#[cfg(test)]
mod tests {
    use tidefeed_runtime::checkpoint::{self, Options, RunIdentity};

    use super::*;
    use crate::cluster::Position;
    use crate::job::Targets;
    use crate::status::JobFacts;
    use crate::status::report::Report;

    #[test]
    fn a_look_finds_what_the_probes_find() {
        let health = Health::new(HttpConfig::default());
        health.runs(&Shared::counted(100, 7), &Targets::new());
        let (look, found) = (health.look(), health.explain());
        assert_eq!(look.holds.state, found.state);
        assert_eq!(look.holds.stalled, found.stalled);
        let report = Report::of(&look, None);
        assert_eq!(
            (report.sources[0].records, report.sinks[0].upserts),
            (100, 7)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_stays_counted_when_the_run_ends() {
        let health = Health::new(HttpConfig::default());
        let report = || Report::of(&health.look(), None);
        let written = || report().checkpoint.objects_written.expect("counted");
        let store = CheckpointStore::in_memory("job");
        let identity = RunIdentity {
            job: "job".into(),
            fingerprint: Default::default(),
            processes: 1,
            workers_per_process: 1,
        };
        let mut all = 0;
        for _ in 0..2 {
            let store = store.clone().counted_anew();
            health.begin(Position::ALONE, Default::default(), JobFacts::default());
            assert_eq!(written(), all);
            health.takes_over(&store);
            let opened = checkpoint::open(&store, &identity, Options::default());
            let opened = opened.await.expect("opens");
            assert!(
                store.figures().objects_written >= 3,
                "lease, generation, start"
            );
            all += store.figures().objects_written;
            assert_eq!(written(), all);
            health.end(&Ok(()));
            assert_eq!(written(), all);
            drop(opened);
        }
    }
}
