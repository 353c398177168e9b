//! What the processes of one simulation share: clock, dice, faults, the trace, and the judge of it all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::feed::Feed;
use super::life::Life;
use super::network::{Fate, Moments, Plan};
use super::oracle::{Oracle, Verdict};
use super::*;

/// In every error that the simulation makes, so that errors of the product are told apart.
pub(super) const FAULT: &str = "a simulated fault";
/// Longer than any real pause of the test itself: the fence looks at the real clock too.
pub(super) const LEASE: Duration = Duration::from_secs(60);
pub(super) const SETTLE: Duration = Duration::from_secs(45);
/// How long things go wrong.
pub(super) const CHAOS: Duration = Duration::from_secs(25 * 60);
/// A request to the store is carried out at most this much later than it was sent.
const STORE_LATE: Duration = Duration::from_secs(3 * 60);
pub(super) const MOST_PROCESSES: usize = 3;

/// What differs from seed to seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knobs {
    pub(super) processes: usize,
    pub(super) retain_commits: usize,
    /// Of ten thousand requests, how many fail.
    faults: u64,
    /// Of ten thousand requests, how many take very long.
    slow: u64,
    /// Mean time between two disasters.
    pub(super) pause: Duration,
    /// Of ten runs that end in order, how many finish what they have sealed.
    pub(super) drain: u64,
    /// Of a hundred commits, how many are followed by a compaction, and by a collection of garbage.
    pub(super) compact: u64,
    pub(super) collect: u64,
}

impl Knobs {
    fn new(rng: &mut fastrand::Rng) -> Knobs {
        let mut one_of = |choices: &[u64]| choices[rng.usize(0..choices.len())];
        Knobs {
            processes: one_of(&[2, 2, 3]) as usize,
            retain_commits: one_of(&[1, 2, 3]) as usize,
            faults: one_of(&[0, 5, 20, 100]),
            slow: one_of(&[0, 5, 20]),
            pause: Duration::from_secs(one_of(&[20, 60, 120, 300])),
            drain: one_of(&[0, 5, 10]),
            compact: one_of(&[2, 10, 50]),
            collect: one_of(&[2, 10, 50]),
        }
    }
}

pub(super) struct World {
    pub(super) knobs: Knobs,
    pub(super) feed: Feed,
    pub(super) objects: InMemory,
    pub(super) violated: Notify,
    pub(super) moments: Moments,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    trace: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<String>,
    oracle: Oracle,
    calm: bool,
    store_away: Instant,
    processes: [Place; MOST_PROCESSES],
}

/// Where a process runs, one after the other.
#[derive(Clone)]
struct Place {
    life: Life,
    stop: watch::Sender<bool>,
    store_cut: Instant,
    sink_cut: Instant,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let knobs = Knobs::new(&mut rng);
        let keys = rng.u64(1..12);
        let began = Instant::now();
        let place = Place {
            life: Life::default(),
            stop: watch::Sender::new(false),
            store_cut: began,
            sink_cut: began,
        };
        World {
            knobs,
            feed: Feed::new(&mut rng, CHAOS * 4 / 3, keys),
            objects: InMemory::new(),
            violated: Notify::new(),
            moments: Moments::new(began),
            began,
            state: Mutex::new(State {
                rng,
                trace: vec![format!("{knobs:?}")],
                counts: BTreeMap::new(),
                violation: None,
                oracle: Oracle::default(),
                calm: false,
                store_away: began,
                processes: std::array::from_fn(|_| place.clone()),
            }),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn dice(&self, range: Range<u64>) -> u64 {
        self.state.lock().rng.u64(range)
    }

    pub(super) fn time_in(&self, range: Range<Duration>) -> Duration {
        self.state.lock().rng.time_in(range)
    }

    pub(super) fn trace(&self, line: String) {
        let line = format!("{:>8} {line}", millis(self.now()));
        self.state.lock().trace.push(line);
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.state.lock().counts.entry(what).or_default() += 1;
    }

    /// Asks the oracle; what it objects to ends the simulation.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&mut Oracle, &Feed) -> Verdict<T>) -> T
    where
        T: Default,
    {
        let verdict = question(&mut self.state.lock().oracle, &self.feed);
        verdict.unwrap_or_else(|violation| {
            self.violation(violation);
            T::default()
        })
    }

    pub(super) fn violation(&self, what: String) {
        self.trace(format!("VIOLATION {what}"));
        self.state.lock().violation.get_or_insert(what);
        self.violated.notify_one();
    }

    /// Faults are over.
    pub(super) fn calm_down(&self) {
        self.trace("calm".to_owned());
        self.state.lock().calm = true;
    }

    pub(super) fn calm(&self) -> bool {
        self.state.lock().calm
    }

    pub(super) fn report(&self) -> Report {
        let state = self.state.lock();
        Report {
            trace: state.trace.clone(),
            counts: state.counts.clone(),
            violation: state.violation.clone(),
        }
    }

    /// A process starts.
    pub(super) fn born(&self, process: usize) -> (Life, watch::Receiver<bool>) {
        let (life, stop) = (Life::default(), watch::Sender::new(false));
        let told = stop.subscribe();
        let mut state = self.state.lock();
        state.oracle.born(process);
        let place = &mut state.processes[process];
        (place.life, place.stop) = (life.clone(), stop);
        (life, told)
    }

    pub(super) fn life(&self, process: usize) -> Life {
        self.state.lock().processes[process].life.clone()
    }

    /// Tells a process to end in order.
    pub(super) fn tell(&self, process: usize) {
        self.state.lock().processes[process].stop.send_replace(true);
    }

    pub(super) fn cut_store(&self, process: usize, time: Duration) {
        self.state.lock().processes[process].store_cut = Instant::now() + time;
    }

    pub(super) fn cut_sink(&self, process: usize, time: Duration) {
        self.state.lock().processes[process].sink_cut = Instant::now() + time;
    }

    pub(super) fn store_away(&self, time: Duration) {
        self.state.lock().store_away = Instant::now() + time;
    }

    pub(super) fn plan_store(&self, process: usize) -> Plan {
        let mut state = self.state.lock();
        let away = state.store_away.max(state.processes[process].store_cut);
        let plan = state.plan(&self.knobs, away, STORE_LATE);
        drop(state);
        plan
    }

    /// A write to the sink is carried out within [`SETTLE`] of being sent, or never.
    pub(super) fn plan_sink(&self, process: usize) -> Plan {
        let mut state = self.state.lock();
        let cut = state.processes[process].sink_cut;
        let mut plan = state.plan(&self.knobs, cut, SETTLE);
        if cut > Instant::now() {
            plan.fate = Fate::NeverArrives;
        }
        plan
    }

    /// Whether a client's own repetition of a request is what gets the answer.
    pub(super) fn put_twice(&self) -> bool {
        let mut state = self.state.lock();
        !state.calm && state.rng.u64(0..50) == 0
    }

    pub(super) fn begin_mutation(&self, process: usize, path: &Path) {
        self.ask(|oracle, _| oracle.begin_mutation(process, path.as_ref()));
    }

    pub(super) fn stored(&self, path: &Path, bytes: &Bytes) {
        self.ask(|oracle, feed| oracle.stored(feed, path.as_ref(), bytes));
    }
}

impl State {
    /// `late` bounds when a request is carried out.
    fn plan(&mut self, knobs: &Knobs, away: Instant, late: Duration) -> Plan {
        let ms = Duration::from_millis;
        let now = Instant::now();
        let usual = Plan {
            before: self.rng.time_in(ms(1)..ms(40)),
            after: self.rng.time_in(ms(1)..ms(40)),
            fate: Fate::Answered,
            late: None,
        };
        if self.calm {
            return usual;
        }
        let fails = self.rng.u64(0..10_000) < knobs.faults;
        let slow = self.rng.u64(0..10_000) < knobs.slow;
        let fate = match (away > now || fails, self.rng.u8(0..3)) {
            (false, _) => Fate::Answered,
            (true, 0) => Fate::AnswerLost,
            (true, _) => Fate::NeverArrives,
        };
        let before = match (away > now, slow) {
            (true, _) if self.rng.bool() => (away - now).min(late),
            (true, _) => self.rng.time_in(ms(1)..ms(500)),
            (false, true) => self.rng.time_in(ms(1)..late),
            (false, false) => usual.before,
        };
        Plan {
            before,
            fate,
            late: self
                .rng
                .bool()
                .then(|| self.rng.time_in(ms(0)..late - before + ms(1))),
            ..usual
        }
    }
}

trait Dice {
    fn time_in(&mut self, range: Range<Duration>) -> Duration;
}

impl Dice for fastrand::Rng {
    /// In whole milliseconds, as tokio's timers count.
    fn time_in(&mut self, range: Range<Duration>) -> Duration {
        Duration::from_millis(self.u64(millis(range.start)..millis(range.end)))
    }
}

/// How a simulation went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Everything that happened, with its time.
    pub(super) trace: Vec<String>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) violation: Option<String>,
}
