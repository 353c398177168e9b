//! A job that is killed again and again, at any moment and over a server that misbehaves, ends with exactly right views.
//!
//! [`killing`](super::killing) says what goes on meanwhile. The server throttles, fails and loses the answers of requests that it
//! has carried out; where the job reads all versions, some of its reads freeze as well. Every few kills the writing pauses, a run
//! catches up, and every row of every view is compared with a recomputation: none is missing, wrong, left over or back from the dead.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEFEED_SEED` | seed of the changes, the moments, the faults and the numbers of workers | random; printed |
//! | `TIDEFEED_KILLS` | number of kills | 20; 10 where all versions are read |
//! | `TIDEFEED_WORKERS` | workers of every run | random for each run, 1 to 3 |
//!
//! A seed repeats the draws, not the scheduling of the operating system.

use std::sync::mpsc::channel;
use std::time::Instant;

use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::SINKS;
use tidefeed_tests::moments::Moment;
use tidefeed_tests::place::Place;
use tidefeed_tests::process::from_environment;

use super::killing::{Job, Versions, Writing};

/// Changes for each kill, so that the writing goes on as long as the killing.
const CHANGES_PER_KILL: u64 = 600;

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

/// Reads of orders that wait until the server lets them go.
fn freezes() -> FaultRule {
    FaultRule::new(FaultAction::Freeze)
        .on(&[FaultOperation::ChangeFeed])
        .in_container("shop", "orders")
        .probability(0.002)
}

fn kill_again_and_again(versions: Versions, kills: usize, faults: Vec<FaultRule>) {
    let began = Instant::now();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").map_or(kills, |kills| kills as usize);
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills} {versions:?}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let writing = Writing::new(&place, versions, "", faults, &mut random);
    let moments = Moment::draw(&mut random, kills, kills as u64 * CHANGES_PER_KILL, 2000);
    let (mut resumed, mut verified) = (0, 0);
    std::thread::scope(|threads| {
        let (stop, end) = channel();
        let writer = &writing;
        let topology = random.fork();
        threads.spawn(move || writer.run(&end, topology));
        let mut job = Job::new(&writing, random);
        let mut next_look = job.random.usize(1..=4);
        for (kill, moment) in moments.into_iter().enumerate() {
            resumed += u64::from(job.kill_at(moment));
            if kill == next_look {
                job.verify(&format!("after kill {kill}, at {moment:?}"));
                next_look += job.random.usize(1..=6);
                verified += 1;
            }
        }
        for nothing_left in [false, true] {
            job.verify(&format!("at the end, nothing left to do: {nothing_left}"));
        }
        drop(stop);
    });
    assert!(kills < 10 || resumed > 0, "no run resumed from a commit");
    let met = writing.faults_met();
    let (of_containers, others) = met.split_at((SINKS.len() + 1) * KINDS);
    let kind = |kind: usize| of_containers.iter().skip(kind).step_by(KINDS).sum::<u64>();
    let all = (0..KINDS).all(|number| kind(number) > 0) && others.iter().all(|met| *met > 0);
    assert!(kills < 10 || all, "every kind of fault was met: {met:?}");
    eprintln!(
        "{kills} kills, {resumed} runs resumed from a commit, {verified} comparisons in between; {} changes; faults met: {met:?}; {:.1} s",
        writing.written(),
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn killed_anywhere_over_a_faulty_server_every_row_is_right() {
    kill_again_and_again(Versions::Latest, 20, faults());
}

#[test]
fn killed_while_documents_are_deleted_every_row_is_right() {
    let faults = [faults(), vec![freezes()]].concat();
    kill_again_and_again(Versions::All, 10, faults);
}
