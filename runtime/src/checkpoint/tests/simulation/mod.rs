//! The protocol under a clock, dice and faults of our own: whole lives of a job in virtual time, and the same seed always
//! lives the same life.
//!
//! Two or three processes try to run the job on one store (`process.rs` runs the real lease, fence, seal and commit writers,
//! compaction and collection of garbage). Requests take time, fail before or after they have taken effect, and are carried out
//! late, when their sender is long gone (`network.rs`, `remote.rs`). Processes are killed and frozen between any two steps
//! (`life.rs`) and cut off from the store and the sink. A model source says what every view must be (`feed.rs`), and an
//! oracle looks at each step (`oracle.rs`). At the end faults cease, one more run catches up, and everything must be right.
//!
//! `TIDEFEED_SIM_SEEDS=5000` lives that many lives instead of a handful, `TIDEFEED_SEED=17` one, with its whole trace.
//!
//! # Limits
//!
//! Objects are never lost or damaged; that is for `crash.rs` and `damage.rs`. A run has one process, and feed ranges do not
//! split. The fence also looks at the real clock: a test that stands still for the length of a lease ends differently.

mod feed;
mod life;
mod network;
mod oracle;
mod process;
mod remote;
mod scenario;
mod world;

use std::time::Duration;

use scenario::live;

use super::*;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("the simulation is short")
}

/// Lines of a trace that are worth printing when nobody asked for all.
const LAST_LINES: usize = 60;

/// Lives one life and panics if anything was wrong in it.
fn check(seed: u64) -> world::Report {
    let report = live(seed);
    if let Some(violation) = &report.violation {
        let from = report.trace.len().saturating_sub(LAST_LINES);
        report.trace[from..]
            .iter()
            .for_each(|line| println!("{line}"));
        panic!(
            "{violation}\nseed {seed}; for all of it: TIDEFEED_SEED={seed} cargo test --profile quick -p tidefeed-runtime \
             simulation::lives -- --nocapture"
        );
    }
    report
}

#[test]
fn lives() {
    if let Some(seed) = number("TIDEFEED_SEED") {
        let report = live(seed);
        report.trace.iter().for_each(|line| println!("{line}"));
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let mut counts = BTreeMap::new();
    for seed in 0..number("TIDEFEED_SIM_SEEDS").unwrap_or(24) {
        for (what, count) in check(seed).counts {
            *counts.entry(what).or_insert(0) += count;
        }
    }
    println!("{counts:?}");
    for what in [
        "generations",
        "fenced",
        "killed",
        "frozen",
        "bases",
        "collections",
        "released",
    ] {
        assert!(counts.contains_key(what), "no {what}: {counts:?}");
    }
}

#[test]
fn the_same_seed_lives_the_same_life() {
    for seed in 0..4 {
        let (first, second) = (check(seed), check(seed));
        let lines = first.trace.iter().zip(&second.trace);
        let differs = lines.enumerate().find(|(_, (a, b))| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert!(first == second, "seed {seed}: one trace is longer");
    }
}
