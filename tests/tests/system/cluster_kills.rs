//! A supervised cluster of which one process after the other is killed, under load: it commits again soon, and the views are
//! exactly right.
//!
//! [`killing`](super::killing) says what goes on meanwhile. The lease has its default length, so a run that waited it out after
//! a kill would be seen. The times from a kill to what follows are printed, and where they go.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEFEED_SEED` | seed of the changes and the moments | random; printed |
//! | `TIDEFEED_CLUSTER_KILLS` | number of kills | 3 |
//!
//! With more kills than in CI, each run lasts for so long that the supervisor's pause begins anew.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidefeed_tests::checkpoint_files::{CheckpointFiles, newest_generation};
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, from_environment};

use super::alone;
use super::killing::{Versions, Writing};

const PROCESSES: usize = 3;
const KILLS: u64 = 3;
/// Kills between two comparisons of the views.
const KILLS_PER_COMPARISON: u64 = 10;
/// The default of `checkpoint.lease_ms`.
const LEASE: Duration = Duration::from_secs(10);
/// A run that has lasted so long is started again after the first pause.
const LASTED: Duration = Duration::from_millis(10_500);

const AGAIN: &str = "starting all again";
const STARTED: &str = "started 3 processes";

/// When something was so, counted from a kill.
#[derive(Clone, Copy)]
struct Recovery {
    others_ended: Duration,
    started: Duration,
    took_over: Duration,
    committed: Duration,
}

impl Recovery {
    /// In the order in which they come.
    fn stages(&self) -> [Duration; 4] {
        [
            self.others_ended,
            self.started,
            self.took_over,
            self.committed,
        ]
    }
}

fn supervisor(place: &Place, arguments: &[&str]) -> Run {
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 2);
    program
        .args(["--processes", &PROCESSES.to_string()])
        .args(arguments)
        .env("RUST_LOG", "tidefeed=info");
    Run::start(program)
}

fn count(run: &Run, what: &str) -> usize {
    run.lines()
        .iter()
        .filter(|line| line.contains(what))
        .count()
}

/// The processes that it has said to have started last.
fn started(supervisor: &Run) -> Vec<i32> {
    let lines = supervisor.lines().iter();
    let line = lines.rev().find(|line| line.contains(STARTED));
    let pids = line.and_then(|line| line.rsplit_once('['));
    let (_, pids) = pids.expect("it says whom it starts");
    let pids = pids.trim_end_matches(']').split(", ");
    pids.map(|pid| pid.parse().expect("a process")).collect()
}

/// Waits until a run later than `generation` has committed.
fn wait_for_a_commit(supervisor: &mut Run, place: &Place, generation: u64) {
    let newer = || {
        let commit = CheckpointFiles::of(&place.checkpoint()).commit;
        commit.is_some_and(|commit| commit.generation > generation)
    };
    let alive = supervisor.wait_until(newer);
    assert!(alive, "the supervisor has ended: {:#?}", supervisor.lines());
}

fn kill(supervisor: &mut Run, place: &Place, process: usize) -> Recovery {
    let pid = Pid::from_raw(started(supervisor)[process]).expect("a process");
    let generation = newest_generation(&place.checkpoint());
    let before = [AGAIN, STARTED].map(|what| count(supervisor, what));
    let killed = Instant::now();
    kill_process(pid, Signal::KILL).expect("it runs");
    let mut says = |at: usize, what: &str| {
        let there = supervisor.wait_until_says(|run| count(run, what) > before[at]);
        assert!(there, "the supervisor has ended: {:#?}", supervisor.lines());
        killed.elapsed()
    };
    let others_ended = says(0, AGAIN);
    let started = says(1, STARTED);
    supervisor.wait_until(|| newest_generation(&place.checkpoint()) > generation);
    let took_over = killed.elapsed();
    wait_for_a_commit(supervisor, place, generation);
    Recovery {
        others_ended,
        started,
        took_over,
        committed: killed.elapsed(),
    }
}

/// Ends the run, lets another catch up while the source stands still, and compares.
fn verify(supervisor: Run, place: &Place, writing: &Writing<'_>) {
    supervisor.signal(Signal::TERM);
    let (status, lines) = supervisor.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let orders = writing.stand_still();
    let (status, lines) = self::supervisor(place, &["--until-caught-up"]).end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

/// Middle and longest, in seconds.
fn shown(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let at = |at: usize| times.get(at).map_or(0.0, Duration::as_secs_f64);
    let last = times.len().saturating_sub(1);
    format!("p50 {:.2} s, max {:.2} s", at(last / 2), at(last))
}

#[test]
fn a_supervised_cluster_commits_soon_after_any_process_is_killed() {
    let _alone = alone();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_CLUSTER_KILLS").unwrap_or(KILLS);
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_CLUSTER_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let writing = Writing::new(&place, Versions::Latest, "", Vec::new(), &mut random);
    let mut recoveries = Vec::new();
    std::thread::scope(|scope| {
        let (writes, end) = channel();
        let (writing, draws) = (&writing, random.fork());
        scope.spawn(move || writing.run(&end, draws));
        let mut run = supervisor(&place, &[]);
        wait_for_a_commit(&mut run, &place, 0);
        let mut began = Instant::now();
        for number in 0..kills {
            let rest = LASTED.saturating_sub(began.elapsed());
            let rest = if kills > KILLS { rest } else { Duration::ZERO };
            let moment = rest + Duration::from_millis(random.u64(0..300));
            assert!(run.wait_for(moment), "it runs: {:#?}", run.lines());
            let recovery = kill(&mut run, &place, number as usize % PROCESSES);
            began = Instant::now();
            let wait = recovery.took_over.saturating_sub(recovery.started);
            assert!(wait < LEASE, "seed {seed}: it took over after {wait:?}");
            recoveries.push(recovery);
            if (number + 1) % KILLS_PER_COMPARISON == 0 {
                let generation = newest_generation(&place.checkpoint());
                verify(run, &place, writing);
                run = supervisor(&place, &[]);
                wait_for_a_commit(&mut run, &place, generation + 1);
                began = Instant::now();
            }
        }
        verify(run, &place, writing);
        drop(writes);
    });
    let stages = [
        "the others have ended",
        "all are started again",
        "the checkpoint is taken over",
        "the first commit",
    ];
    for (at, stage) in stages.into_iter().enumerate() {
        let shown = shown(recoveries.iter().map(|recovery| recovery.stages()[at]));
        eprintln!("from a kill until {stage}: {shown}");
    }
}
