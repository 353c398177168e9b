//! One look at everything that a job's health knows of.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tidefeed_operators::reader::{RangeStatus, SourceCounters};
use tidefeed_operators::sink::SinkCounters;
use tidefeed_operators::target::Target;
use tidefeed_runtime::FeedRangeId;
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::stall::{Facts, RangeFact, SinkFact, explain};

use super::{Health, State};
use crate::running::Shared;
use crate::status::{EpochLook, Look, ProcessFigures, Totals};

impl Health {
    /// Everything that there is to know now.
    pub(crate) fn look(&self) -> Look {
        let facts = self.facts();
        let holds = explain(&facts);
        let state = self.state.lock();
        Look {
            at: SystemTime::now(),
            job: state.job.clone(),
            position: state.position,
            generation: state.generation.map(|generation| generation.0),
            started_at: self.started_at,
            state_for: facts.phase.1,
            holds,
            epochs: state.shared.as_ref().map(|shared| EpochLook {
                sealed: shared.ledger.sealed_through(),
                committed: shared.ledger.committed_through(),
                figures: shared.ledger.figures(),
                stages: shared.ledger.stages(),
            }),
            totals: state.totals(),
            workers: state.shared.as_ref().map_or_else(Vec::new, |shared| {
                shared.ledger.operator_figures().snapshot()
            }),
            process: ProcessFigures::now(),
            tokio_tasks: state
                .tasks
                .as_ref()
                .map_or(0, |handle| handle.metrics().num_alive_tasks() as u64),
            facts: facts.ledger,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        let state = self.state.lock();
        let mut facts = Facts {
            process: state.position.process,
            notice: self.limits.notice(),
            word_due: state.word_due,
            phase: (state.phase, state.since.elapsed()),
            awaited: state.awaited.facts(),
            lease: state
                .store
                .as_ref()
                .and_then(CheckpointStore::lease_waited_out),
            follows: !state.position.leads(),
            code: state.code.clone(),
            ..Facts::default()
        };
        if let Some(shared) = &state.shared {
            facts.ledger = Some(shared.ledger.stall_facts());
            facts.ranges = ranges(shared);
            facts.sinks = sinks(shared, &state.targets);
        } else if let Some(failure) = &state.failure {
            facts.ledger.get_or_insert_default().failure = Some(failure.clone());
        }
        facts
    }
}

impl State {
    /// What was counted since the process began.
    pub(super) fn totals(&self) -> Totals {
        let run = self.shared.as_ref();
        run.map_or_else(
            || self.past.clone(),
            |run| self.past.with(run, &self.job, &self.letters),
        )
    }
}

fn ranges(shared: &Shared) -> Vec<RangeFact> {
    let of_source = |(source, counters): (&String, &Arc<SourceCounters>)| {
        let mut troubles = counters.troubles();
        let fact = |(range, status): (FeedRangeId, RangeStatus)| RangeFact {
            source: source.clone(),
            worker: status.worker,
            // Whoever waits for room has nothing under way.
            asked: status.asked.filter(|_| status.waits_for_room.is_none()),
            answered: status.answered,
            trouble: troubles.remove(&range),
            waits_for_room: status.waits_for_room,
            range,
        };
        let ranges = counters.ranges().into_iter();
        ranges.map(fact).collect::<Vec<_>>()
    };
    shared.sources.iter().flat_map(of_source).collect()
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
