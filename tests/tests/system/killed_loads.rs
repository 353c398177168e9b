//! A job that reads all versions from the beginning, and is killed again and again before it has loaded the newest ones, ends with
//! exactly right views: a load goes on from its last durable page, and what was deleted while it went on goes away.
//!
//! [`killing`](super::killing) says what goes on meanwhile. Pages are small and slow, so that a load takes a while. When it is done, or
//! a few runs have died over it, every row of every view is compared, and once more after a kill in the stream that follows.
//!
//! `TIDEFEED_SEED` is the seed, random by default and printed; `TIDEFEED_KILLS` is the number of kills, 12 by default.

use std::sync::Arc;
use std::sync::mpsc::channel;

use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::moments::Moment;
use tidefeed_tests::place::{LOCAL, Place};
use tidefeed_tests::process::from_environment;

use super::killing::{Job, Versions, Writing};

/// Changes before the first run: about as many orders as there ever are.
const BEFORE: usize = 900;
/// Runs that die over one load, at most.
const DEATHS: u64 = 5;
/// Documents in a page.
const PAGES: &str = "page_size = 2\n";

fn slow(database: &str) -> Vec<FaultRule> {
    let delay = FaultAction::Delay {
        ms: 5,
        jitter_ms: 10,
    };
    let rule = FaultRule::new(delay).on(&[FaultOperation::ChangeFeed]);
    vec![rule.in_container(database, "orders")]
}

#[test]
fn loads_that_are_killed_are_gone_on_with() {
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(12);
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Emulator::start(EmulatorConfig::default()).expect("a free port");
    let server = Arc::new(server);
    let (mut loads, mut killed, mut begun) = (0, 0, 0);
    while killed < kills {
        let database = format!("shop{loads}");
        let place = Place::within(&server, &database, LOCAL);
        let writing = Writing::new(&place, Versions::All, PAGES, slow(&database), &mut random);
        writing.write(BEFORE);
        std::thread::scope(|threads| {
            let (stop, end) = channel();
            let (writer, topology) = (&writing, random.fork());
            threads.spawn(move || writer.run(&end, topology));
            let mut job = Job::new(&writing, random.fork());
            for _ in 0..job.random.u64(1..=DEATHS) {
                let moment = match job.random.u8(0..4) {
                    0 => Moment::Requests(job.random.u64(20..200)),
                    1 => Moment::at_start(&mut job.random),
                    _ => Moment::Committed(job.random.u64(0..20)),
                };
                job.kill_at(moment);
                killed += 1;
                let Some(commit) = job.files.commit else {
                    continue;
                };
                if !commit.loading {
                    break;
                }
                begun += u64::from(commit.ranges_loading > 0);
            }
            job.verify(&format!("load {loads}"));
            let later = Moment::Written(writing.written() + 100, job.random.u64(0..100));
            job.kill_at(later);
            killed += 1;
            job.verify(&format!("load {loads}, and a kill after it"));
            drop(stop);
        });
        loads += 1;
    }
    eprintln!("{killed} kills over {loads} loads; {begun} of them found a load that had begun");
    assert!(kills < 10 || begun > 0, "no load was killed on its way");
}
