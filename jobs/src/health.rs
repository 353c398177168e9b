//! How a job is: what it does, what holds it, and whether a new start would help.
//!
//! It exists before the job starts and outlives it, so that whoever asks is answered while the cluster assembles, while workers hang and
//! while the job ends. The job's start notes in it how far it has come; everything else is looked at when somebody asks, through what
//! counters and ledger have anyway.

mod look;
mod probes;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tidefeed_operators::target::Target;
use tidefeed_runtime::bridge::Tasks;
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::cluster::{Awaited, Told};
use tidefeed_runtime::stall::{Culprit, Explanation, Kind, Phase, explain};
use tidefeed_runtime::{Error, Generation, Result};
use tokio::sync::watch;

use crate::cluster::Position;
use crate::config::HttpConfig;
use crate::job::Targets;
use crate::logs::Identity;
use crate::running::Shared;
use crate::status::{JobFacts, LetterCounts, Teller, Totals};

pub(crate) use probes::Answer;

/// How often a member looks for what holds it, to tell process 0: less than the time after which a word is due by default.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How a job is. Clones are of the same job.
#[derive(Clone)]
pub struct Health {
    limits: HttpConfig,
    state: Arc<Mutex<State>>,
    started_at: SystemTime,
    /// Whose the lines of the log are.
    identity: Identity,
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

impl Health {
    /// Of a job that has not begun to start.
    pub(crate) fn new(limits: HttpConfig) -> Self {
        Health {
            limits,
            state: Arc::new(Mutex::new(State::new(Position::ALONE))),
            started_at: SystemTime::now(),
            identity: Identity::default(),
            ends: Arc::default(),
        }
    }

    /// The log learns from it whose its lines are.
    pub(crate) fn with_identity(self, identity: Identity) -> Self {
        Health { identity, ..self }
    }

    /// The run that has the checkpoint, if it is this process's.
    pub(crate) fn generation(&self) -> Option<Generation> {
        self.state.lock().generation
    }

    /// What holds the job, or that nothing does.
    pub fn explain(&self) -> Explanation {
        explain(&self.facts())
    }

    /// The start begins anew.
    ///
    /// Processes of a cluster say something at least every `word_due`.
    pub(crate) fn begin(&self, position: Position, word_due: Duration, job: JobFacts) {
        self.identity.begins(position.process);
        let mut state = self.state.lock();
        let past = state.totals(state.figures().as_ref()).ended();
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
            past: state.totals(state.figures().as_ref()).ended(),
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
        self.identity.has(generation);
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

    /// In a member: tells process 0 what holds this process, and how it does, until the run ends.
    pub(crate) fn tell_lead(&self, shared: &Shared, tasks: &Tasks) {
        let (health, ledger) = (self.clone(), shared.ledger.clone());
        let mut end = ledger.end();
        tasks.spawn("the watch for stalls", async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut teller = Teller::default();
            let looking = async {
                loop {
                    look.tick().await;
                    ledger.hold(to_tell(health.explain()));
                    look.tick().await;
                    ledger.hold(to_tell(health.explain()));
                    if let Some(report) = teller.told(health.look()) {
                        ledger.tell_report(report);
                    }
                }
            };
            tokio::select! {
                () = looking => {}
                // The sender is in the ledger, so it cannot be gone.
                _ = end.wait_for(|ended| *ended) => {}
            }
        });
    }
}

impl State {
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tidefeed_runtime::ErrorKind;
    use tidefeed_runtime::stall::{Facts, LedgerFacts, RunState};

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
