//! The crash table: a job that dies just before or just after any step of its protocol ends, once restarted, with the
//! containers of a job that never died.
//!
//! For each step, on both sides, at its first time and at a later one, a child process runs until it aborts at that point. A
//! point that is never reached fails the test. In half of the cases the run that recovers dies too. The rest of the changes
//! are written while nothing runs, then a run with another number of workers catches up. Each case has a database of its own
//! in one server; all see the same changes.
//!
//! `TIDEFEED_SEED` is the seed of the changes and of the numbers of workers; random by default, and printed.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use tidefeed::failpoint::{Failpoint, Side, Step};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_tests::Contents;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::process::{Run, SIGABRT, from_environment};

/// The changes of a case come in so many parts of so many changes.
const PARTS: usize = 100;
const CHANGES: usize = 10;
/// Parts that are there before the run to die begins.
const PARTS_AT_FIRST: usize = 3;
/// Parts that the run to die leaves to the one that recovers: a renewal of the lease may come long after all the others.
const PARTS_TO_RECOVER: usize = 5;
/// Parts that make a history of commits: more seals than a base has objects, so that the next run compacts if it is told to.
const PARTS_OF_HISTORY: usize = 72;
/// What every run does that finds changes.
const ALWAYS: [Step; 10] = [
    Step::LeasePut,
    Step::Claim,
    Step::Pin,
    Step::Tick,
    Step::Attach,
    Step::SealPut,
    Step::CapabilityDrop,
    Step::SinkWrite,
    Step::Acknowledge,
    Step::CommitPut,
];
/// Of the checkpoint: a lease that is renewed, and waited out.
const SHARED: &str = "shared = true\nlease_ms = 1500\nsettle_ms = 50";
/// Of the checkpoint: what a history has sealed is worth a base.
const COMPACTING: &str = "settle_ms = 50\ncompact_min_bytes = 65536";
/// Cases that run at the same time.
const GROUPS: usize = 2;

/// Every step on both sides, at its first time and, if it has one, at a later one.
fn points() -> Vec<Failpoint> {
    let mut points = Vec::new();
    for step in Step::ALL {
        let later = match step {
            Step::Claim | Step::Pin => None,
            Step::LeasePut => Some(2),
            Step::SealPut | Step::CommitPut | Step::GarbageDelete => Some(3),
            Step::Tick | Step::Attach | Step::CapabilityDrop => Some(5),
            Step::SinkWrite | Step::Acknowledge => Some(7),
            Step::BaseWrite => Some(9),
        };
        for side in Side::BOTH {
            let times = [Some(1), later].into_iter().flatten();
            points.extend(times.map(|time| Failpoint { step, side, time }));
        }
    }
    points
}

/// One database with its changes, and the runs over it.
struct Case {
    place: Place,
    orders: Orders,
    parts_left: usize,
    random: fastrand::Rng,
}

impl Case {
    fn new(server: &Arc<Emulator>, database: &str, seed: u64, checkpoint: &str) -> Self {
        Case {
            place: Place::within(server, database, checkpoint),
            orders: Orders::new(seed),
            parts_left: PARTS,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    fn write(&mut self, parts: usize) {
        for _ in 0..parts.min(self.parts_left) {
            self.place.write(self.orders.change(CHANGES));
            self.parts_left -= 1;
        }
    }

    fn start(&mut self, arguments: &[&str], point: Option<Failpoint>) -> Run {
        let workers = self.random.usize(1..=3);
        let mut program = self.place.program(env!("CARGO_BIN_EXE_shop"), workers);
        program.args(arguments);
        if let Some(point) = point {
            program.env("SHOP_FAILPOINT", point.to_string());
        }
        Run::start(program)
    }

    /// Runs with a commit for each part, and ends when asked to.
    fn make_history(&mut self) {
        let folder = self.place.checkpoint();
        let mut run = self.start(&[], None);
        for _ in 0..PARTS_OF_HISTORY {
            let before = CheckpointFiles::of(&folder).commit;
            self.write(1);
            run.wait_until(|| CheckpointFiles::of(&folder).commit != before);
        }
        run.signal(Signal::TERM);
        let (status, lines) = run.end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
    }

    /// Runs to the point, and writes all but so many parts meanwhile. Each part waits for a commit, so that there is a later
    /// time for everything that happens at all.
    fn die_at(&mut self, point: Failpoint, parts_to_keep: usize) {
        let folder = self.place.checkpoint();
        let mut run = self.start(&[], Some(point));
        while self.parts_left > parts_to_keep {
            let before = CheckpointFiles::of(&folder).commit;
            self.write(1);
            if !run.wait_until(|| CheckpointFiles::of(&folder).commit != before) {
                break;
            }
        }
        let (status, lines) = run.end();
        assert_eq!(status.signal(), Some(SIGABRT), "{point}: {lines:#?}");
        assert_eq!(lines, [format!("failpoint {point}")]);
    }

    /// Writes the rest of the changes, lets a run catch up and returns what the containers hold.
    fn finish(mut self, what: &str) -> Contents {
        self.write(PARTS);
        let (status, lines) = self.start(&["--until-caught-up"], None).end();
        assert_eq!(status.code(), Some(0), "{what}: {lines:#?}");
        assert_eq!(lines, Vec::<String>::new(), "{what}");
        let found = self.place.found();
        let differences = differences(&found, &self.orders.expected());
        assert_eq!(differences, Vec::<String>::new(), "{what}");
        found
    }
}

#[test]
fn a_run_that_died_at_any_step_ends_like_one_that_never_died() {
    let _alone = super::alone();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEFEED_SEED={seed}");
    let server = Emulator::start(EmulatorConfig::default()).expect("a free port");
    let server = Arc::new(server);
    let never_died =
        Case::new(&server, "never-died", seed, LOCAL).finish("the run that never died");
    let points = points();
    let next = AtomicUsize::new(0);
    let run_cases = || {
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let database = point.to_string().replace(':', "-");
            let checkpoint = match point.step {
                Step::LeasePut => SHARED,
                _ => LOCAL,
            };
            let mut case = Case::new(&server, &database, seed, checkpoint);
            if matches!(point.step, Step::BaseWrite | Step::GarbageDelete) {
                case.make_history();
                case.place.configure(COMPACTING);
            }
            case.write(PARTS_AT_FIRST);
            case.die_at(*point, PARTS_TO_RECOVER);
            if point.time > 1 {
                // The run that recovers dies as well.
                let step = ALWAYS[case.random.usize(..ALWAYS.len())];
                let side = Side::BOTH[case.random.usize(..2)];
                let point = Failpoint {
                    step,
                    side,
                    time: 1,
                };
                case.die_at(point, 0);
            }
            let found = case.finish(&database);
            assert_eq!(
                differences(&found, &never_died),
                Vec::<String>::new(),
                "{point}"
            );
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..GROUPS {
            threads.spawn(run_cases);
        }
    });
}
