//! One look at a job's counters, and the report that two of them make.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidefeed_operators::sink::SinkCounters;
use tidefeed_runtime::stall::{Explanation, LedgerFacts, RunState};
use tidefeed_runtime::{Epoch, EpochFigures};

use super::process::ProcessFigures;
use super::report::{Checkpoint, Epochs, FORM, Graph, Job, Process, Report, Sink, Worker};
use super::sources;
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
    pub(crate) process: ProcessFigures,
    pub(crate) tokio_tasks: u64,
}

/// How far the epochs are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpochLook {
    pub(crate) sealed: Epoch,
    pub(crate) committed: Epoch,
    pub(crate) figures: EpochFigures,
}

impl EpochLook {
    fn report(&self, minted: Option<Epoch>) -> Epochs {
        let figures = self.figures;
        Epochs {
            // What is sealed elsewhere may be newer than what is minted here.
            minted: minted.unwrap_or(self.sealed).max(self.sealed).0,
            sealed: self.sealed.0,
            committed: self.committed.0,
            oldest_ms: figures.oldest_uncommitted.map(millis),
            latency_p50_ms: figures.commit_latency_p50_ms,
            latency_p99_ms: figures.commit_latency_p99_ms,
            recent: Vec::new(),
        }
    }
}

/// What a sink has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinkLook {
    pub(super) upserts: u64,
    pub(super) deletes: u64,
    pub(super) ignored: u64,
    pub(super) requests: u64,
    pub(super) throttled: u64,
    pub(super) ru: f64,
    pub(super) dead_letters: u64,
    pub(super) writing: Option<Duration>,
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

impl SinkLook {
    pub(super) fn of(counters: &SinkCounters, dead_letters: u64) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SinkLook {
            upserts: read(&counters.upserts),
            deletes: read(&counters.deletes),
            ignored: read(&counters.ignored),
            requests: read(&counters.requests),
            throttled: read(&counters.throttled),
            ru: read(&counters.charge_milli_ru) as f64 / 1000.0,
            dead_letters,
            writing: counters.writing().map(|(_, since)| since),
        }
    }

    /// With what it counted in earlier runs of this process, so that nothing goes back.
    pub(super) fn after(mut self, past: Option<&SinkLook>) -> Self {
        let Some(past) = past else { return self };
        self.upserts += past.upserts;
        self.deletes += past.deletes;
        self.ignored += past.ignored;
        self.requests += past.requests;
        self.throttled += past.throttled;
        self.ru += past.ru;
        self.dead_letters += past.dead_letters;
        self
    }

    fn report(&self, name: &str, budget: Option<f64>, before: Option<&Sink>, rate: Rate) -> Sink {
        let was = |of: fn(&Sink) -> u64| before.map(of);
        let requests = self.requests
            - was(|sink| sink.requests)
                .unwrap_or(self.requests)
                .min(self.requests);
        let throttled = self.throttled
            - was(|sink| sink.throttled)
                .unwrap_or(self.throttled)
                .min(self.throttled);
        Sink {
            name: name.to_owned(),
            kind: "cosmos".to_owned(),
            upserts: self.upserts,
            deletes: self.deletes,
            documents_per_s: rate.of(
                self.upserts + self.deletes,
                was(|sink| sink.upserts + sink.deletes),
            ),
            ignored: self.ignored,
            ru: self.ru,
            ru_per_s: rate.of_f64(self.ru, before.map(|sink| sink.ru)),
            ru_budget_per_s: budget,
            requests: self.requests,
            requests_per_s: rate.of(self.requests, was(|sink| sink.requests)),
            in_flight: None,
            throttled: self.throttled,
            throttled_share: if requests == 0 {
                0.0
            } else {
                throttled as f64 / requests as f64
            },
            dead_letters: self.dead_letters,
            writing_ms: self.writing.map(millis),
            partitions: Vec::new(),
        }
    }
}

/// Counts of two looks become rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    seconds: f64,
}

impl Rate {
    /// Between two moments. Without a former one, or when the clock was set back, there are none.
    fn between(before: Option<u64>, now: u64) -> Self {
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
    /// What a look comes to, after a former report of the same process.
    pub(crate) fn of(look: Look, before: Option<&Report>) -> Report {
        let at_ms = unix_ms(look.at);
        let rate = Rate::between(before.map(|report| report.at_ms), at_ms);
        let source_before = |name: &str| before?.sources.iter().find(|one| one.name == name);
        let sink_before = |name: &str| before?.sinks.iter().find(|one| one.name == name);
        let own = before.and_then(|report| report.processes.first());
        Report {
            form: FORM,
            at_ms,
            job: job(&look),
            epochs: look.epochs.map_or_else(Epochs::default, |epochs| {
                let oldest = look.facts.as_ref().and_then(|facts| facts.oldest);
                epochs.report(oldest.map(|(epoch, _)| epoch))
            }),
            checkpoint: Checkpoint {
                location: look.job.checkpoint.clone(),
                last_commit_at_ms: look
                    .epochs
                    .and_then(|epochs| epochs.figures.since_commit)
                    .map(|since| at_ms.saturating_sub(millis(since))),
                commits: look.totals.commits,
                seals: look.totals.seals,
                ..Checkpoint::default()
            },
            sources: look
                .totals
                .sources
                .values()
                .map(|source| {
                    sources::report(
                        source,
                        look.position.process,
                        source_before(&source.name),
                        rate,
                    )
                })
                .collect(),
            sinks: look
                .totals
                .sinks
                .iter()
                .map(|(name, sink)| {
                    let budget = look.job.budgets.get(name).copied();
                    sink.report(name, budget, sink_before(name), rate)
                })
                .collect(),
            graph: Graph::default(),
            processes: processes(&look, own, rate),
            holds: look.holds,
        }
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

/// This one first, then those that it has heard of.
fn processes(look: &Look, own_before: Option<&Process>, rate: Rate) -> Vec<Process> {
    let workers = look.facts.iter().flat_map(|facts| &facts.workers);
    let cpu_ms = look.process.cpu.as_secs_f64() * 1000.0;
    let own = Process {
        process: look.position.process,
        state: Some(look.state()),
        heard_ms: Some(0),
        memory_bytes: look.process.memory_bytes,
        cpu: rate.of_f64(cpu_ms, own_before.map(|own| own.cpu_ms)) / 1000.0,
        cpu_ms,
        open_files: look.process.open_files,
        tokio_tasks: look.tokio_tasks,
        workers: workers
            .map(|fact| Worker {
                worker: u32::try_from(fact.worker).unwrap_or(u32::MAX),
                ..Worker::default()
            })
            .collect(),
        ..Process::default()
    };
    let members = look.facts.iter().flat_map(|facts| &facts.members);
    let members = members.map(|member| Process {
        process: member.process,
        address: Some(member.name.clone()),
        heard_ms: member.heard.map(millis),
        ..Process::default()
    });
    std::iter::once(own).chain(members).collect()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(at: SystemTime) -> u64 {
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

    #[test]
    fn a_throttled_share_is_of_the_requests_since_the_last_look() {
        let look = |requests, throttled| SinkLook {
            requests,
            throttled,
            ..SinkLook::default()
        };
        let rate = Rate::between(Some(0), 1_000);
        let first = look(100, 90).report("v", Some(400.0), None, rate);
        assert_eq!(
            (first.throttled_share, first.ru_budget_per_s),
            (0.0, Some(400.0))
        );
        let then = look(200, 115).report("v", None, Some(&first), rate);
        assert_eq!((then.throttled_share, then.requests_per_s), (0.25, 100.0));
        let anew = look(0, 0).report("v", None, Some(&then), rate);
        assert_eq!((anew.throttled_share, anew.requests_per_s), (0.0, 0.0));
    }
}
