//! What the tests have in common that kill a job again and again: a source that never stands still, and the job over it.
//!
//! The server lives in the test's process and keeps its data; the job is a child process that is killed with SIGKILL, so it
//! cleans nothing up. All the while the test writes: new orders, other amounts, deletions, moves to other customers and
//! regions. Partitions of the source split and merge. After each kill the checkpoint directory is looked at.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tidefeed_emulator::FaultRule;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::moments::{Moment, Watched};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, SIGKILL, from_environment};

/// Changes that are written together, and the pause after them.
const CHANGES: usize = 10;
const PAUSE: Duration = Duration::from_millis(8);

/// How many of them come, on average, before partitions of the source split or merge.
const CHANGES_PER_TOPOLOGY: usize = 40;
/// How many pauses pass, on average, before requests that are frozen are let go.
const PAUSES_PER_THAW: usize = 20;

/// What the job reads of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// The newest of each order. One that is deleted is a document that says so.
    Latest,
    /// All, and deletions: an order that is deleted goes from the container.
    All,
}

/// What is written, and how much of it.
pub(super) struct Writing<'a> {
    place: &'a Place,
    versions: Versions,
    faults: Vec<FaultRule>,
    /// How often each of the faults was met before the rules were set last.
    met: Mutex<Vec<u64>>,
    /// Locked while a change is written, so whoever holds it sees a source that stands still.
    orders: Mutex<Orders>,
    changes: AtomicU64,
    requests: AtomicU64,
}

impl<'a> Writing<'a> {
    /// Nothing is written yet. The source is configured for `versions`, with these lines more.
    pub(super) fn new(
        place: &'a Place,
        versions: Versions,
        lines: &str,
        faults: Vec<FaultRule>,
        random: &mut fastrand::Rng,
    ) -> Self {
        let mode = match versions {
            Versions::Latest => "latest_version",
            Versions::All => "all_versions_and_deletes",
        };
        place.configure_orders(&format!("mode = \"{mode}\"\n{lines}"));
        let writing = Writing {
            place,
            versions,
            met: Mutex::new(vec![0; faults.len()]),
            faults,
            orders: Mutex::new(Orders::new(random.u64(..))),
            changes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        };
        writing.set_faults(random.u64(..));
        writing
    }

    fn set_faults(&self, seed: u64) {
        let set = self.place.server().set_faults(seed, self.faults.clone());
        set.expect("valid rules");
    }

    /// Lets requests go that are frozen, which new rules do. The same fate may await them again.
    fn thaw(&self, seed: u64) {
        *self.met.lock() = self.faults_met();
        self.set_faults(seed);
    }

    /// How often each fault was met.
    pub(super) fn faults_met(&self) -> Vec<u64> {
        let now = self.place.server().fault_hits();
        let before = self.met.lock();
        now.iter()
            .zip(&*before)
            .map(|(now, then)| now + then)
            .collect()
    }

    /// Writes so many changes.
    pub(super) fn write(&self, changes: usize) {
        self.write_with(&mut self.orders.lock(), changes);
    }

    fn write_with(&self, orders: &mut Orders, changes: usize) {
        let documents = orders.change(changes);
        let requests = match self.versions {
            Versions::Latest => self.place.write(documents),
            Versions::All => self.place.write_and_delete(documents),
        };
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
    }

    /// Changes orders at a steady pace, unless the source is to stand still, until the other end of the channel is gone.
    pub(super) fn run(&self, end: &Receiver<()>, mut random: fastrand::Rng) {
        while end.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
            if random.usize(..CHANGES_PER_TOPOLOGY) == 0 {
                self.place.change_partitions(&mut random);
            }
            if random.usize(..PAUSES_PER_THAW) == 0 {
                self.thaw(random.u64(..));
            }
            if let Some(mut orders) = self.orders.try_lock() {
                self.write_with(&mut orders, CHANGES);
            }
        }
    }

    /// The orders, of which none changes as long as this is kept.
    pub(super) fn stand_still(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock()
    }

    /// Changes written so far.
    pub(super) fn written(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Requests that the server had from the job.
    fn requests_of_the_job(&self) -> u64 {
        let written = self.requests.load(Ordering::Relaxed);
        self.place.server().stats().requests.saturating_sub(written)
    }
}

/// The job under the test.
pub(super) struct Job<'a> {
    writing: &'a Writing<'a>,
    pub(super) random: fastrand::Rng,
    pub(super) files: CheckpointFiles,
}

impl<'a> Job<'a> {
    pub(super) fn new(writing: &'a Writing<'a>, random: fastrand::Rng) -> Self {
        Job {
            writing,
            random,
            files: CheckpointFiles::default(),
        }
    }

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

    /// Kills a run at a moment, and says whether it took over from a commit.
    pub(super) fn kill_at(&mut self, moment: Moment) -> bool {
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
    pub(super) fn verify(&mut self, when: &str) {
        let orders = self.writing.stand_still();
        let (status, lines) = self.start(&["--until-caught-up"]).end();
        assert_eq!(status.code(), Some(0), "{when}: {lines:#?}");
        self.look();
        let differences = differences(&self.writing.place.found(), &orders.expected());
        assert_eq!(differences, Vec::<String>::new(), "{when}");
    }
}
