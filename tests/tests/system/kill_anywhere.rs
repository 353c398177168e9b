//! A job that is killed again and again, at any moment and over a server that misbehaves, ends with exactly right views.
//!
//! The server lives in the test's process and keeps its data; the job is a child process that is killed with SIGKILL, so it
//! cleans nothing up. All the while the test writes: new orders, other amounts, deletions, moves to other customers and
//! regions. Partitions of the source split and merge. The server throttles, fails and loses the answers of requests that it has carried out. After each kill the
//! checkpoint directory is looked at, and every few kills the writing pauses, a run catches up, and every row of every view
//! is compared with a recomputation: none is missing, wrong, left over or back from the dead.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEFEED_SEED` | seed of the changes, the moments, the faults and the numbers of workers | random; printed |
//! | `TIDEFEED_KILLS` | number of kills | 20 |
//! | `TIDEFEED_WORKERS` | workers of every run | random for each run, 1 to 3 |
//!
//! A seed repeats the draws, not the scheduling of the operating system.

use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::SINKS;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::moments::{Moment, Watched};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, SIGKILL, from_environment};

/// Changes that are written together, and the pause after them.
const CHANGES: usize = 10;
const PAUSE: Duration = Duration::from_millis(8);
/// Changes for each kill, so that the writing goes on as long as the killing.
const CHANGES_PER_KILL: u64 = 600;

/// How many of them come, on average, before partitions of the source split or merge.
const CHANGES_PER_TOPOLOGY: usize = 40;

/// Kinds of faults that each container has.
const KINDS: usize = 5;

/// What the server does to the job: it refuses, or carries out and loses the answer. The writer of orders is spared, because
/// the test must know what the source holds.
fn faults() -> Vec<FaultRule> {
    let mut rules = Vec::new();
    let mut add = |operation, container: &str, probability, action| {
        let rule = FaultRule::new(action).on(&[operation]);
        rules.push(
            rule.in_container("shop", container)
                .probability(probability),
        );
    };
    let throttled = FaultAction::Status {
        status: 429,
        substatus: Some(3200),
        retry_after_ms: Some(5),
        message: None,
    };
    for (container, operation) in SINKS
        .map(|(sink, _)| (sink, FaultOperation::Writes))
        .into_iter()
        .chain([("orders", FaultOperation::Reads)])
    {
        add(operation, container, 0.02, throttled.clone());
        for status in [408, 449, 503] {
            add(operation, container, 0.005, FaultAction::status(status));
        }
        add(operation, container, 0.01, FaultAction::DropAfter);
    }
    rules
}

/// What is written, and how much of it.
struct Writing<'a> {
    place: &'a Place,
    /// Locked while a change is written, so whoever holds it sees a source that stands still.
    orders: Mutex<Orders>,
    changes: AtomicU64,
    requests: AtomicU64,
}

impl Writing<'_> {
    /// Changes orders at a steady pace until the other end of the channel is gone.
    fn run(&self, end: &Receiver<()>, mut random: fastrand::Rng) {
        while end.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            if random.usize(..CHANGES_PER_TOPOLOGY) == 0 {
                self.place.change_partitions(&mut random);
            }
            let mut orders = self.orders.lock().expect("no panic in between");
            let requests = self.place.write(orders.change(CHANGES));
            self.requests.fetch_add(requests, Ordering::Relaxed);
            self.changes.fetch_add(CHANGES as u64, Ordering::Relaxed);
        }
    }

    fn written(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Requests that the server had from the job.
    fn requests_of_the_job(&self) -> u64 {
        let written = self.requests.load(Ordering::Relaxed);
        self.place.server().stats().requests.saturating_sub(written)
    }
}

/// The job under the test.
struct Job<'a> {
    writing: &'a Writing<'a>,
    random: fastrand::Rng,
    files: CheckpointFiles,
}

impl Job<'_> {
    fn start(&mut self, arguments: &[&str]) -> Run {
        let drawn = self.random.u64(1..=3);
        let workers = from_environment("TIDEFEED_WORKERS").unwrap_or(drawn);
        let executable = env!("CARGO_BIN_EXE_shop");
        let mut program = self.writing.place.program(executable, workers as usize);
        program.args(arguments);
        Run::start(program)
    }

    /// Looks at what a run has left, and says whether it took over from a commit.
    fn look(&mut self) -> bool {
        let folder = self.writing.place.checkpoint();
        let now = CheckpointFiles::of(&folder);
        now.check_after(&self.files, &folder);
        let took_over = now.generation > self.files.generation;
        let from_commit = took_over && self.files.commit.is_some();
        self.files = now;
        from_commit
    }

    /// Kills a run at a moment.
    fn kill_at(&mut self, moment: Moment) -> bool {
        let mut run = self.start(&[]);
        let folder = self.writing.place.checkpoint();
        let watched = Watched {
            checkpoint: &folder,
            requests: &|| self.writing.requests_of_the_job(),
            written: &|| self.writing.written(),
        };
        moment.wait(&mut run, &watched);
        let (status, lines) = run.kill();
        assert_eq!(status.signal(), Some(SIGKILL), "{moment:?}: {lines:#?}");
        assert_eq!(lines, Vec::<String>::new(), "{moment:?}");
        self.look()
    }

    /// Lets a run catch up while the source stands still, and compares.
    fn verify(&mut self, when: &str) {
        let orders = self.writing.orders.lock().expect("no panic in between");
        let (status, lines) = self.start(&["--until-caught-up"]).end();
        assert_eq!(status.code(), Some(0), "{when}: {lines:#?}");
        self.look();
        let differences = differences(&self.writing.place.found(), &orders.expected());
        assert_eq!(differences, Vec::<String>::new(), "{when}");
    }
}

#[test]
fn killed_anywhere_over_a_faulty_server_every_row_is_right() {
    let began = Instant::now();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(20) as usize;
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    place
        .server()
        .set_faults(random.u64(..), faults())
        .expect("valid rules");
    let writing = Writing {
        place: &place,
        orders: Mutex::new(Orders::new(random.u64(..))),
        changes: AtomicU64::new(0),
        requests: AtomicU64::new(0),
    };
    let moments = Moment::draw(&mut random, kills, kills as u64 * CHANGES_PER_KILL, 2000);
    let (mut resumed, mut verified) = (0, 0);
    std::thread::scope(|threads| {
        let (stop, end) = channel();
        let writer = &writing;
        let topology = random.fork();
        threads.spawn(move || writer.run(&end, topology));
        let mut job = Job {
            writing: &writing,
            random,
            files: CheckpointFiles::default(),
        };
        let mut next_look = job.random.usize(1..=4);
        for (kill, moment) in moments.into_iter().enumerate() {
            resumed += u64::from(job.kill_at(moment));
            if kill == next_look {
                job.verify(&format!("after kill {kill}, at {moment:?}"));
                next_look += job.random.usize(1..=6);
                verified += 1;
            }
        }
        drop(stop);
        for nothing_left in [false, true] {
            job.verify(&format!("at the end, nothing left to do: {nothing_left}"));
        }
    });
    assert!(kills < 10 || resumed > 0, "no run resumed from a commit");
    let hits = place.server().fault_hits();
    let kind = |kind: usize| hits.iter().skip(kind).step_by(KINDS).sum::<u64>();
    assert!(
        kills < 10 || (0..KINDS).all(|number| kind(number) > 0),
        "every kind of fault was met: {hits:?}"
    );
    eprintln!(
        "{kills} kills, {resumed} runs resumed from a commit, {verified} comparisons in between; {} changes; faults met: {}; {:.1} s",
        writing.written(),
        hits.iter().sum::<u64>(),
        began.elapsed().as_secs_f64()
    );
}
