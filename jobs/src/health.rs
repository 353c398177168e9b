//! How a job is: what it does, what holds it, and whether a new start would help.
//!
//! It exists before the job starts and outlives it, so that whoever asks is answered while the cluster assembles, while workers hang and
//! while the job ends. The job's start notes in it how far it has come; everything else is looked at when somebody asks, through what
//! counters and ledger have anyway.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use tidefeed_operators::reader::{RangeStatus, SourceCounters};
use tidefeed_operators::sink::SinkCounters;
use tidefeed_operators::target::Target;
use tidefeed_runtime::bridge::Tasks;
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::cluster::{Awaited, Told};
use tidefeed_runtime::stall::{
    Culprit, Explanation, Facts, Kind, Phase, RangeFact, RunState, SinkFact, explain,
};
use tidefeed_runtime::{Error, FeedRangeId, Generation, Result};
use tokio::sync::watch;

use crate::cluster::Position;
use crate::config::HttpConfig;
use crate::job::Targets;
use crate::running::Shared;
use crate::status::{EpochLook, JobFacts, LetterCounts, Look, ProcessFigures, Totals};

/// How often a member looks for what holds it, to tell process 0: less than the time after which a word is due by default.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How a job is. Clones are of the same job.
#[derive(Clone)]
pub struct Health {
    limits: HttpConfig,
    state: Arc<Mutex<State>>,
    started_at: SystemTime,
    /// How often a start or a run has ended.
    ends: Arc<watch::Sender<u64>>,
}

struct State {
    phase: Phase,
    since: Instant,
    position: Position,
    word_due: Duration,
    awaited: Awaited,
    store: Option<CheckpointStore>,
    shared: Option<Shared>,
    /// Not kept alive by whoever asks.
    targets: BTreeMap<String, Weak<dyn Target>>,
    code: Vec<String>,
    /// What the last start or run has ended with.
    failure: Option<String>,
    job: JobFacts,
    generation: Option<Generation>,
    /// Dead letters of each sink and source, by the name that they have there.
    letters: LetterCounts,
    tasks: Option<tokio::runtime::Handle>,
    /// Of the runs that have ended.
    past: Totals,
}

/// What a probe is told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Answer<T> {
    /// Whether it is as the probe wants it.
    #[serde(skip)]
    pub(crate) well: bool,
    /// The same in a word.
    pub(crate) status: &'static str,
    pub(crate) state: RunState,
    /// For how long the state has been what it is.
    pub(crate) since_ms: u64,
    /// Why it is not well, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(flatten)]
    pub(crate) rest: T,
}

/// What `/healthz` says beside: `ok` or `stuck`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Liveness {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) culprit: Option<Culprit>,
}

/// What `/readyz` says beside: `ready` or `not-ready`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    /// The processes that have not come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) waiting_for: Vec<WaitingFor>,
    /// How far it is behind, milliseconds, if that was asked for and is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag_ms: Option<u64>,
}

/// A process that has not come.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WaitingFor {
    pub(crate) process: u32,
    pub(crate) name: String,
    pub(crate) since_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Health {
    /// Of a job that has not begun to start.
    pub(crate) fn new(limits: HttpConfig) -> Self {
        Health {
            limits,
            state: Arc::new(Mutex::new(State::new(Position::ALONE))),
            started_at: SystemTime::now(),
            ends: Arc::default(),
        }
    }

    /// What holds the job, or that nothing does.
    pub fn explain(&self) -> Explanation {
        explain(&self.facts())
    }

    /// The start begins anew.
    ///
    /// Processes of a cluster say something at least every `word_due`.
    pub(crate) fn begin(&self, position: Position, word_due: Duration, job: JobFacts) {
        let mut state = self.state.lock();
        let past = state.totals().ended();
        *state = State {
            word_due,
            job,
            past,
            ..State::new(position)
        };
    }

    /// The start or the run has come to another phase.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = self.state.lock();
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// The run is over, and what it kept for those who ask.
    pub(crate) fn end<T>(&self, ended: &Result<T>) {
        self.over(ended.as_ref().err());
    }

    /// The process ends with this error, which may be that of the run that has ended.
    pub(crate) fn ends_with(&self, error: &Error) {
        let noted = self.state.lock().failure.is_some();
        if !noted {
            self.over(Some(error));
        }
    }

    fn over(&self, error: Option<&Error>) {
        let mut state = self.state.lock();
        *state = State {
            phase: Phase::Ended,
            failure: error.map(|error| Told::of(error).summary()),
            past: state.totals().ended(),
            job: std::mem::take(&mut state.job),
            generation: state.generation,
            ..State::new(state.position)
        };
        drop(state);
        self.ends.send_modify(|ends| *ends += 1);
    }

    /// Changes when a start or a run has ended.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ends.subscribe()
    }

    /// Whom the cluster waits for is noted there.
    pub(crate) fn awaited(&self) -> Awaited {
        self.state.lock().awaited.clone()
    }

    /// The checkpoint is taken over from here.
    pub(crate) fn takes_over(&self, store: &CheckpointStore) {
        self.state.lock().store = Some(store.clone());
        self.enter(Phase::TakingOver);
    }

    /// The checkpoint is this run's.
    pub(crate) fn has_taken_over(&self, generation: Generation) {
        self.state.lock().generation = Some(generation);
    }

    /// Where dead letters are counted.
    pub(crate) fn letters(&self) -> LetterCounts {
        self.state.lock().letters.clone()
    }

    /// The operators of the job's code.
    pub(crate) fn knows_code(&self, code: Vec<String>) {
        self.state.lock().code = code;
    }

    /// The workers begin.
    pub(crate) fn runs(&self, shared: &Shared, targets: &Targets) {
        let weak =
            |(name, target): (&String, &Arc<dyn Target>)| (name.clone(), Arc::downgrade(target));
        let mut state = self.state.lock();
        state.targets = targets.iter().map(weak).collect();
        state.shared = Some(shared.clone());
        state.tasks = tokio::runtime::Handle::try_current().ok();
        drop(state);
        self.enter(Phase::Running);
    }

    /// In a member: tells process 0 what holds this process, until the run ends.
    pub(crate) fn tell_lead(&self, shared: &Shared, tasks: &Tasks) {
        let (health, ledger) = (self.clone(), shared.ledger.clone());
        let mut end = ledger.end();
        tasks.spawn("the watch for stalls", async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            let looking = async {
                loop {
                    look.tick().await;
                    ledger.hold(to_tell(health.explain()));
                }
            };
            tokio::select! {
                () = looking => {}
                // The sender is in the ledger, so it cannot be gone.
                _ = end.wait_for(|ended| *ended) => {}
            }
        });
    }

    /// Whether the process makes progress, or is right to wait.
    pub(crate) fn liveness(&self) -> Answer<Liveness> {
        let facts = self.facts();
        let found = explain(&facts);
        let stuck = found.stuck(self.limits.stuck_after_ms);
        Answer {
            well: stuck.is_none(),
            status: if stuck.is_some() { "stuck" } else { "ok" },
            state: found.state,
            since_ms: millis(facts.phase.1),
            reason: stuck.map(ToString::to_string),
            rest: Liveness {
                culprit: stuck.cloned(),
            },
        }
    }

    /// Whether the process is part of a run that does its work.
    pub(crate) fn readiness(&self) -> Answer<Readiness> {
        let facts = self.facts();
        let found = explain(&facts);
        let runs = matches!(found.state, RunState::Running | RunState::Idle);
        let failed = facts
            .ledger
            .as_ref()
            .and_then(|known| known.failure.clone());
        let lag = self
            .limits
            .ready_lag_ms
            .map(|most| (most, self.lag(&facts)));
        let behind = lag.filter(|(most, lag)| lag.is_none_or(|lag| millis(lag) > *most));
        let ready = runs && failed.is_none() && behind.is_none();
        let reason = match behind {
            Some((most, lag)) if runs && failed.is_none() => {
                let by = lag.map_or("an unknown time".to_owned(), |lag| {
                    format!("{} ms", millis(lag))
                });
                format!("it is behind by {by}, and may be by {most} ms")
            }
            _ => failed.unwrap_or_else(|| found.sentence.clone()),
        };
        let waiting_for = facts.awaited.iter().map(|awaited| WaitingFor {
            process: awaited.process,
            name: awaited.name.clone(),
            since_ms: millis(awaited.since),
            why: awaited.why.clone(),
        });
        Answer {
            well: ready,
            status: if ready { "ready" } else { "not-ready" },
            state: found.state,
            since_ms: millis(facts.phase.1),
            reason: (!ready).then_some(reason),
            rest: Readiness {
                waiting_for: waiting_for.collect(),
                lag_ms: lag.and_then(|(_, lag)| lag).map(millis),
            },
        }
    }

    /// How far the process is behind; `None` while a feed range has not caught up.
    fn lag(&self, facts: &Facts) -> Option<Duration> {
        let shared = self.state.lock().shared.clone()?;
        let oldest = facts.ledger.as_ref().and_then(|known| known.oldest);
        let mut lag = oldest.map_or(Duration::ZERO, |(_, age)| age);
        for counters in shared.sources.values() {
            for status in counters.ranges().into_values() {
                lag = lag.max(status.behind?);
            }
        }
        Some(lag)
    }

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

    fn facts(&self) -> Facts {
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
    fn totals(&self) -> Totals {
        let run = self.shared.as_ref();
        run.map_or_else(
            || self.past.clone(),
            |run| self.past.with(run, &self.job, &self.letters),
        )
    }

    fn new(position: Position) -> Self {
        State {
            phase: Phase::Starting,
            since: Instant::now(),
            position,
            word_due: Duration::ZERO,
            awaited: Awaited::default(),
            store: None,
            shared: None,
            targets: BTreeMap::new(),
            code: Vec::new(),
            failure: None,
            job: JobFacts::default(),
            generation: None,
            letters: LetterCounts::default(),
            tasks: None,
            past: Totals::default(),
        }
    }
}

/// What process 0 is to hear from a member: not that it waits for process 0.
fn to_tell(found: Explanation) -> Option<Culprit> {
    let mut all = found.culprit.into_iter().chain(found.also);
    all.find(|one| one.kind != Kind::Verifying)
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidefeed_runtime::ErrorKind;
    use tidefeed_runtime::stall::LedgerFacts;

    use super::*;

    #[test]
    fn a_job_that_starts_lives_and_is_not_ready() {
        let health = Health::new(HttpConfig::default());
        assert_eq!(health.liveness().status, "ok");
        let ready = health.readiness();
        assert_eq!(
            (ready.status, ready.state),
            ("not-ready", RunState::Starting)
        );
        health.enter(Phase::Assembling);
        assert_eq!(health.readiness().state, RunState::Assembling);
    }

    #[test]
    fn what_a_start_has_ended_with_is_known() {
        let health = Health::new(HttpConfig::default());
        let refused: Result<()> = Err(Error::new(ErrorKind::Config, "a secret"));
        health.end(&refused);
        let found = health.explain();
        assert_eq!(found.culprit.map(|one| one.kind), Some(Kind::Failed));
        assert_eq!(found.state, RunState::Ended);
        assert!(
            health
                .readiness()
                .reason
                .is_some_and(|r| r.contains("exit code 2"))
        );
        health.begin(Position::ALONE, Duration::ZERO, JobFacts::default());
        assert!(!health.explain().stalled);
    }

    #[test]
    fn a_step_of_the_start_that_does_not_end_is_stuck() {
        let limits = HttpConfig {
            stuck_after_ms: 0,
            stalled_after_ms: 0,
            ..HttpConfig::default()
        };
        let health = Health::new(limits);
        health.enter(Phase::Opening);
        let live = health.liveness();
        assert_eq!((live.status, live.state), ("stuck", RunState::TakingOver));
        assert!(
            live.reason
                .is_some_and(|r| r.contains("opens sources and sinks"))
        );
    }

    /// Or process 0 would hear that the other waits for it, and name that instead of what both wait for.
    #[test]
    fn a_member_does_not_tell_process_0_that_it_waits_for_it() {
        let age = Some(Duration::from_secs(9));
        let waiting = |unsettled| Facts {
            phase: (Phase::Running, Duration::from_secs(10)),
            follows: true,
            ledger: Some(LedgerFacts {
                unverified: age,
                unsettled,
                ..LedgerFacts::default()
            }),
            ..Facts::default()
        };
        let found = explain(&waiting(None));
        assert!(found.stalled, "whoever asks the member is told");
        assert_eq!(to_tell(found), None);
        let told = to_tell(explain(&waiting(age))).map(|one| one.kind);
        assert_eq!(told, Some(Kind::Settling));
    }
}
