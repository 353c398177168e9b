//! A job as a cluster of real processes, of which one is killed, frozen or wrong: all end, with codes that tell why, and those
//! that start after them go on where the last commit was, with exactly right views.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidefeed::ErrorKind;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, SIGKILL};

use super::alone;

const SECRET: &str = "the secret of this test";
/// Long enough for a process that gets little of the machine.
const LEASE: &str = "settle_ms = 50\nlease_ms = 5000";
/// For a process that is frozen and keeps the lock of a directory that is not shared.
const SHARED: &str = "settle_ms = 50\nlease_ms = 5000\nshared = true";
const PEER_TIMEOUT_MS: u64 = 3000;
/// From the loss of a process to the end of all others: the silence, and requests that come to their end.
const NOTICED: Duration = Duration::from_millis(PEER_TIMEOUT_MS + 30_000);

fn place(checkpoint: &str) -> Place {
    let place = Place::new();
    place.configure(checkpoint);
    place
}

/// Starts all processes of a run.
fn start(place: &Place, processes: usize, workers: usize, arguments: &[&str]) -> Vec<Run> {
    let bound: Vec<_> = (0..processes)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let addresses = bound.iter().map(|l| l.local_addr().expect("bound"));
    let hosts: Vec<String> = addresses.map(|address| address.to_string()).collect();
    drop(bound);
    (0..processes)
        .map(|process| {
            let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
            program
                .args(["--process", &process.to_string()])
                .args(["--hosts", &hosts.join(",")])
                .args(["--peer-timeout", &PEER_TIMEOUT_MS.to_string()])
                .args(arguments)
                .env("TIDEFEED_CLUSTER_SECRET", SECRET);
            Run::start(program)
        })
        .collect()
}

/// Lets a run of another shape catch up, and compares.
fn verify(place: &Place, orders: &Orders, (processes, workers): (usize, usize)) {
    for run in start(place, processes, workers, &["--until-caught-up"]) {
        let (status, lines) = run.end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
    }
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

fn commits(place: &Place) -> Option<(u64, u64)> {
    let commit = CheckpointFiles::of(&place.checkpoint()).commit?;
    Some((commit.number, commit.generation))
}

/// Waits until the run commits something that is new to it.
fn wait_for_a_commit(place: &Place, orders: &mut Orders, runs: &mut [Run]) {
    let before = commits(place);
    let alive = runs[0].wait_until(|| {
        place.write(orders.change(10));
        commits(place) > before
    });
    assert!(alive, "process 0 has ended");
}

/// Whoever is left ends by itself and in time, because a process was lost.
fn lost(runs: Vec<Run>, within: Duration) {
    let began = Instant::now();
    for run in runs {
        let (status, lines) = run.end();
        let code = status.code();
        assert_eq!(
            code,
            Some(i32::from(ErrorKind::PeerLost.exit_code())),
            "{lines:#?}"
        );
        let said = lines.iter().filter(|line| line.starts_with("shop: "));
        assert_eq!(said.count(), 1, "one line says why: {lines:#?}");
        assert_eq!(lines.len(), 1, "and nothing else: {lines:#?}");
    }
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
}

#[test]
fn when_any_process_is_killed_all_end_and_the_next_run_is_right() {
    let _alone = alone();
    let place = place(LEASE);
    let mut orders = Orders::new(11);
    for (killed, next) in [(0, (2, 2)), (1, (1, 1)), (2, (3, 1))] {
        let mut runs = start(&place, 3, 1, &[]);
        wait_for_a_commit(&place, &mut orders, &mut runs);
        let (status, lines) = runs.remove(killed).kill();
        assert_eq!(status.signal(), Some(SIGKILL), "{lines:#?}");
        lost(runs, NOTICED);
        place.write(orders.change(50));
        verify(&place, &orders, next);
    }
}

/// Nothing is written all the while, so only the silence tells.
#[test]
fn a_frozen_process_is_noticed_and_writes_nothing_more() {
    let _alone = alone();
    let place = place(SHARED);
    let mut orders = Orders::new(12);
    for frozen in [1, 0] {
        let mut runs = start(&place, 3, 1, &[]);
        wait_for_a_commit(&place, &mut orders, &mut runs);
        let frozen = runs.remove(frozen);
        frozen.signal(Signal::STOP);
        lost(runs, NOTICED);
        place.write(orders.change(50));
        verify(&place, &orders, (2, 1));
        frozen.signal(Signal::CONT);
        let (status, lines) = frozen.end();
        let ended =
            [ErrorKind::PeerLost, ErrorKind::Fenced].map(|kind| i32::from(kind.exit_code()));
        assert!(
            status.code().is_some_and(|code| ended.contains(&code)),
            "{lines:#?}"
        );
        let differences = differences(&place.found(), &orders.expected());
        assert_eq!(
            differences,
            Vec::<String>::new(),
            "what had been frozen wrote"
        );
    }
}

#[test]
fn a_process_of_another_cluster_ends_with_what_differs() {
    let _alone = alone();
    let place = place(LEASE);
    let mut orders = Orders::new(13);
    place.write(orders.change(50));
    let bound: Vec<_> = (0..2)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let addresses = bound
        .iter()
        .map(|l| l.local_addr().expect("bound").to_string());
    let hosts = addresses.collect::<Vec<_>>().join(",");
    drop(bound);
    let process = |number: &str, workers: usize, secret: &str| {
        let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
        program
            .args(["--process", number, "--hosts", &hosts, "--until-caught-up"])
            .env("TIDEFEED_CLUSTER_SECRET", secret);
        Run::start(program)
    };
    let lead = process("0", 1, SECRET);
    for (workers, secret, says) in [
        (1, "another secret of it", "the same secret"),
        (2, SECRET, "workers of each process: 1 there, 2 here"),
    ] {
        let (status, lines) = process("1", workers, secret).end();
        assert_eq!(status.code(), Some(2), "{lines:#?}");
        assert!(lines.len() == 1 && lines[0].contains(says), "{lines:#?}");
    }
    for run in [process("1", 1, SECRET), lead] {
        let (status, lines) = run.end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
    }
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

/// The processes that a supervisor has said to have started last.
fn started(lines: &[String]) -> Option<Vec<i32>> {
    let says = |line: &&String| line.contains(": started ");
    let line = lines.iter().rfind(says)?;
    let (_, pids) = line.rsplit_once('[')?;
    let pids = pids.trim_end_matches(']').split(", ");
    pids.map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_supervisor_starts_all_again_and_ends_when_it_is_told() {
    let _alone = alone();
    let place = place(LEASE);
    let mut orders = Orders::new(14);
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    program
        .args([
            "--processes",
            "2",
            "--peer-timeout",
            &PEER_TIMEOUT_MS.to_string(),
        ])
        .env("RUST_LOG", "tidefeed=info");
    let mut supervisor = Run::start(program);
    let mut killed = Vec::new();
    for _ in 0..2 {
        let before = commits(&place);
        let alive = supervisor.wait_until(|| {
            place.write(orders.change(5));
            commits(&place) > before
        });
        assert!(alive, "the supervisor has ended");
        let pids = started(supervisor.lines()).expect("it says whom it starts");
        assert!(!killed.contains(&pids[1]), "it has started others");
        let pid = Pid::from_raw(pids[1]).expect("a process");
        kill_process(pid, Signal::KILL).expect("it runs");
        killed.push(pids[1]);
        let again = || "starting all again".to_owned();
        let says = |run: &Run| run.lines().iter().filter(|l| l.contains(&again())).count();
        supervisor.wait_until_says(|run| says(run) == killed.len());
    }
    let before = commits(&place);
    supervisor.wait_until(|| {
        place.write(orders.change(5));
        commits(&place) > before
    });
    supervisor.signal(Signal::TERM);
    let (status, lines) = supervisor.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    verify(&place, &orders, (1, 2));

    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    place.write(orders.change(50));
    program.args(["--processes", "3", "--until-caught-up"]);
    let (status, lines) = Run::start(program).end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

/// One certificate for all processes, which none but itself has signed.
#[test]
fn processes_that_encrypt_what_they_say_keep_the_views_right() {
    let _alone = alone();
    let place = place(LEASE);
    let mut orders = Orders::new(15);
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let certificate = made.cert.pem();
    for (name, text) in [
        ("ca.crt", &certificate),
        ("tls.crt", &certificate),
        ("tls.key", &made.signing_key.serialize_pem()),
    ] {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    let directory = directory.path().to_str().expect("UTF-8");
    let tls = ["--cluster-tls", directory];
    let mut runs = start(&place, 2, 2, &tls);
    wait_for_a_commit(&place, &mut orders, &mut runs);
    let (status, lines) = runs.remove(1).kill();
    assert_eq!(status.signal(), Some(SIGKILL), "{lines:#?}");
    lost(runs, NOTICED);
    place.write(orders.change(500));
    for run in start(&place, 2, 1, &[&tls[..], &["--until-caught-up"]].concat()) {
        let (status, lines) = run.end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
    }
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

/// Asks the job's run to go on in another shape, while it is written to.
fn rescale(place: &Place, to: &[&str]) {
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    program.args([&["rescale"], to].concat());
    let (status, lines) = Run::start(program).end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
}

#[test]
fn a_job_goes_on_in_another_shape_when_it_is_asked() {
    let _alone = alone();
    let place = place(LEASE);
    let mut orders = Orders::new(16);
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    program
        .args(["--processes", "2"])
        .env("RUST_LOG", "tidefeed=info");
    let mut supervisor = Run::start(program);
    let mut commit_again = |run: &mut Run| {
        wait_for_a_commit(&place, &mut orders, std::slice::from_mut(run));
    };
    commit_again(&mut supervisor);
    let (_, generation) = commits(&place).expect("a commit");
    rescale(&place, &["--processes", "3", "--workers", "2"]);
    let all = |run: &Run| started(run.lines()).map(|pids| pids.len());
    supervisor.wait_until_says(|run| all(run) == Some(3));
    commit_again(&mut supervisor);
    let now = CheckpointFiles::of(&place.checkpoint());
    assert_eq!(now.commit.expect("a commit").generation, generation + 1);
    supervisor.signal(Signal::TERM);
    let (status, lines) = supervisor.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");

    // Nobody watches over this one: it goes on by itself.
    let mut alone = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    alone.env("RUST_LOG", "tidefeed=info");
    let mut alone = Run::start(alone);
    commit_again(&mut alone);
    rescale(&place, &["--processes", "1", "--workers", "3"]);
    commit_again(&mut alone);
    rescale(&place, &["--processes", "2"]);
    let (status, lines) = alone.end();
    assert_eq!(status.code(), Some(11), "{lines:#?}");
    verify(&place, &orders, (2, 1));
}
