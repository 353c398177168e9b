//! One look at a job's counters, and the report that two of them make.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidefeed_runtime::observe::WorkerFigures;
use tidefeed_runtime::stall::{Explanation, LedgerFacts, RunState};
use tidefeed_runtime::{Epoch, EpochFigures, EpochStages, MemberReport};

use super::graph::Snapshots;
use super::process::ProcessFigures;
use super::report::{Checkpoint, Epochs, FORM, Job, Process, Report};
use super::sinks::SinkLook;
use super::sources::{self, SourceLook};
use super::totals::Totals;
use crate::cluster::Position;

/// What a job is, from its start on.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobFacts {
    pub(crate) name: String,
    /// Of each process.
    pub(crate) workers: u32,
    /// Where the checkpoint is, without secrets.
    pub(crate) checkpoint: String,
    /// What each source reads.
    pub(crate) sources: BTreeMap<String, &'static str>,
    /// What each sink may use, request units a second.
    pub(crate) budgets: BTreeMap<String, f64>,
}

/// A job at a moment: counts, and what is so now.
pub(crate) struct Look {
    pub(crate) at: SystemTime,
    pub(crate) job: JobFacts,
    pub(crate) position: Position,
    pub(crate) generation: Option<u64>,
    pub(crate) started_at: SystemTime,
    /// For how long the state has been what it is.
    pub(crate) state_for: Duration,
    pub(crate) holds: Explanation,
    /// From when there is a ledger.
    pub(crate) epochs: Option<EpochLook>,
    pub(crate) facts: Option<LedgerFacts>,
    pub(crate) totals: Totals,
    pub(crate) workers: Vec<WorkerFigures>,
    pub(crate) process: ProcessFigures,
    pub(crate) tokio_tasks: u64,
    /// What members have told of themselves, in process 0.
    pub(crate) told: Vec<MemberReport>,
    /// A member that says nothing for so long is silent.
    pub(crate) silent_after: Duration,
}

/// How far the epochs are.
pub(crate) struct EpochLook {
    pub(crate) sealed: Epoch,
    pub(crate) committed: Epoch,
    pub(crate) figures: EpochFigures,
    /// Of the last of them.
    pub(crate) stages: Vec<EpochStages>,
}

impl Look {
    /// What the process is doing, in a word.
    pub(super) fn state(&self) -> String {
        word(self.holds.state)
    }
}

/// A state in a word.
pub(super) fn word(state: RunState) -> String {
    let text = serde_json::to_value(state).ok();
    let text = text.as_ref().and_then(serde_json::Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// Counts of two looks become rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    seconds: f64,
}

impl Rate {
    /// Between two moments. Without a former one, or when the clock was set back, there are none.
    pub(super) fn between(before: Option<u64>, now: u64) -> Self {
        let past = before.and_then(|before| now.checked_sub(before));
        Rate {
            seconds: past.unwrap_or(0) as f64 / 1000.0,
        }
    }

    pub(super) fn of(self, now: u64, before: Option<u64>) -> f64 {
        self.of_f64(now as f64, before.map(|before| before as f64))
    }

    /// What begins anew has no rate yet.
    pub(super) fn of_f64(self, now: f64, before: Option<f64>) -> f64 {
        match before {
            Some(before) if self.seconds > 0.0 => (now - before).max(0.0) / self.seconds,
            _ => 0.0,
        }
    }
}

impl Report {
    /// What a look comes to, after a former one at the same process.
    pub(crate) fn of(look: &Look, before: Option<&Look>) -> Report {
        let at_ms = unix_ms(look.at);
        let rate = Rate::between(before.map(|before| unix_ms(before.at)), at_ms);
        let past = before.map(|before| &before.totals);
        let snapshots = Snapshots {
            now: &look.workers,
            before: before.map_or(&[], |before| &before.workers),
            at_ms,
            rate,
        };
        let source = |(name, source): (&String, &SourceLook)| {
            let before = past.and_then(|past| past.sources.get(name));
            sources::report(source, look.position.process, before, rate)
        };
        let sink = |(name, sink): (&String, &SinkLook)| {
            let before = past.and_then(|past| past.sinks.get(name));
            sink.report(name, look.job.budgets.get(name).copied(), before, rate)
        };
        Report {
            form: FORM,
            at_ms,
            job: job(look),
            holds: look.holds.clone(),
            epochs: epochs(look),
            checkpoint: checkpoint(look, past, rate, at_ms),
            sources: look.totals.sources.iter().map(source).collect(),
            sinks: look.totals.sinks.iter().map(sink).collect(),
            graph: snapshots.graph(&look.totals),
            processes: vec![process(look, before, &snapshots)],
        }
    }
}

fn epochs(look: &Look) -> Epochs {
    let Some(epochs) = &look.epochs else {
        return Epochs::default();
    };
    let figures = epochs.figures;
    let newest = epochs
        .stages
        .last()
        .map_or(epochs.sealed, |newest| newest.epoch);
    let now = Instant::now();
    let recent = epochs.stages.iter().map(|stages| {
        let after = |stage: Option<Duration>| stage.map(|after| after.as_secs_f64() * 1000.0);
        super::report::Epoch {
            epoch: stages.epoch.0,
            minted_at_ms: unix_ms(look.at - now.saturating_duration_since(stages.minted_at)),
            sealed_ms: after(stages.sealed),
            frontier_ms: after(stages.frontier),
            written_ms: after(stages.written),
            committed_ms: after(stages.committed),
        }
    });
    Epochs {
        minted: newest.max(epochs.sealed).0,
        sealed: epochs.sealed.0,
        committed: epochs.committed.0,
        oldest_ms: figures.oldest_uncommitted.map(millis),
        latency_p50_ms: figures.commit_latency_p50_ms,
        latency_p99_ms: figures.commit_latency_p99_ms,
        recent: recent.collect(),
    }
}

fn checkpoint(look: &Look, past: Option<&Totals>, rate: Rate, at_ms: u64) -> Checkpoint {
    let store = &look.totals.store;
    let quantile = |share| {
        let took = store.writes.quantile(share);
        took.map(|took| took.as_secs_f64() * 1000.0)
    };
    let figures = look.epochs.as_ref().map(|epochs| epochs.figures);
    let since_commit = figures.and_then(|figures| figures.since_commit);
    Checkpoint {
        location: look.job.checkpoint.clone(),
        last_commit_at_ms: since_commit.map(|since| at_ms.saturating_sub(millis(since))),
        last_base_at_ms: store.last_base_at.map(unix_ms),
        commits: look.totals.commits,
        bases: Some(store.bases),
        seals: look.totals.seals,
        objects_written: Some(store.objects_written),
        bytes_written: Some(store.bytes_written),
        bytes_per_s: Some(rate.of(
            store.bytes_written,
            past.map(|past| past.store.bytes_written),
        )),
        objects_deleted: Some(store.objects_deleted),
        write_p50_ms: quantile(0.5),
        write_p99_ms: quantile(0.99),
    }
}

fn job(look: &Look) -> Job {
    Job {
        name: look.job.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: look.generation,
        process: look.position.process,
        processes: look.position.processes,
        workers: look.job.workers * look.position.processes,
        started_at_ms: unix_ms(look.started_at),
        state_for_ms: millis(look.state_for),
    }
}

/// This one.
fn process(look: &Look, before: Option<&Look>, snapshots: &Snapshots<'_>) -> Process {
    let cpu = |look: &Look| look.process.cpu.as_secs_f64();
    Process {
        process: look.position.process,
        state: Some(look.state()),
        heard_ms: Some(0),
        memory_bytes: look.process.memory_bytes,
        cpu: snapshots.rate.of_f64(cpu(look), before.map(cpu)),
        open_files: look.process.open_files,
        tokio_tasks: look.tokio_tasks,
        workers: snapshots.workers(),
        ..Process::default()
    }
}

/// The share that one time is of another, at most 1: two clocks may differ a little.
pub(super) fn share(of: Duration, all: Duration) -> f64 {
    match all.is_zero() {
        true => 0.0,
        false => (of.as_secs_f64() / all.as_secs_f64()).min(1.0),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_two_looks_and_a_clock_that_goes_on() {
        let rate = Rate::between(Some(1_000), 3_000);
        assert_eq!(rate.of(50, Some(10)), 20.0);
        assert_eq!(rate.of(50, None), 0.0, "it was not there");
        assert_eq!(rate.of(5, Some(10)), 0.0, "it began anew");
        assert_eq!(Rate::between(Some(3_000), 1_000).of(50, Some(10)), 0.0);
        assert_eq!(Rate::between(None, 1_000).of(50, Some(10)), 0.0);
    }
}
