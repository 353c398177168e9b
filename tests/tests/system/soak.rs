//! A job that runs for long keeps its memory, its checkpoint and its positions bounded.
//!
//! The job is a child process over an embedded server. Orders change all the while, partitions split and merge a few times at the
//! beginning, and there are pauses in which everything is idle. After a third of the time what the job takes is looked at, and
//! it must not take much more at the end.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEFEED_SOAK_SECONDS` | how long it runs | 9, too short to find a slow leak; 600 is worth it |

use std::path::Path;
use std::time::{Duration, Instant};

use tidefeed_tests::checkpoint_files::{CheckpointFiles, objects};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, from_environment};

/// Splits and merges, all in the first third.
const TOPOLOGY_CHANGES: u32 = 8;

/// What the job takes.
#[derive(Clone, Copy, Debug)]
struct Taken {
    resident_kb: u64,
    checkpoint_bytes: u64,
    objects: usize,
    ranges: usize,
    token_bytes: usize,
}

impl Taken {
    fn of(run: &Run, checkpoint: &Path) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", run.id()));
        let status = status.expect("the job runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|kb| kb.trim().strip_suffix(" kB"));
        let commit = CheckpointFiles::of(checkpoint).commit;
        let commit = commit.expect("it has committed");
        let objects = objects(checkpoint);
        let sizes = objects.iter().map(|object| checkpoint.join(object));
        // Some are deleted while they are looked at.
        let bytes = sizes.filter_map(|path| Some(path.metadata().ok()?.len()));
        Taken {
            resident_kb: resident.and_then(|kb| kb.parse().ok()).expect("a number"),
            checkpoint_bytes: bytes.sum(),
            objects: objects.len(),
            ranges: commit.ranges,
            token_bytes: commit.token_bytes,
        }
    }
}

#[test]
fn what_a_job_takes_does_not_grow() {
    let seconds = from_environment("TIDEFEED_SOAK_SECONDS").unwrap_or(9);
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_SOAK_SECONDS={seconds}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let mut orders = Orders::new(random.u64(..));
    let run = Run::start(place.program(env!("CARGO_BIN_EXE_shop"), 2));
    let (begun, lasts) = (Instant::now(), Duration::from_secs(seconds));
    let mut early = None;
    let (mut changes, mut topology, mut least_kb) = (0, 0, u64::MAX);
    while begun.elapsed() < lasts {
        let part = begun.elapsed().as_secs_f64() / lasts.as_secs_f64();
        if part < 0.3 && topology < (part / 0.3 * f64::from(TOPOLOGY_CHANGES)) as u32 {
            place.change_partitions(&mut random);
            topology += 1;
        }
        // Of ten parts one is idle.
        if (part * 20.0) as u32 % 10 == 9 {
            wait(Duration::from_millis(20));
        } else {
            place.write(orders.change(20));
            changes += 20;
            wait(Duration::from_millis(2));
        }
        if part > 0.34 && early.is_none() {
            early = Some(Taken::of(&run, &place.checkpoint()));
        }
        if part > 0.9 {
            least_kb = least_kb.min(Taken::of(&run, &place.checkpoint()).resident_kb);
        }
    }
    let early = early.expect("it ran for long enough");
    let late = Taken::of(&run, &place.checkpoint());
    let (status, lines) = run.kill();
    assert_eq!(lines, Vec::<String>::new(), "{status}");
    eprintln!("{changes} changes; after a third {early:?}, at the end {late:?}");
    assert!(
        least_kb < early.resident_kb * 5 / 4 + 20_000,
        "memory: {early:?}, then {late:?}"
    );
    // The orders and their deletions are a few hundred kilobytes; what is not compacted yet comes on top.
    assert!(late.checkpoint_bytes < 64 << 20, "checkpoint: {late:?}");
    assert!(late.objects < 4000, "objects: {late:?}");
    // A position says where the reading is, and not where it has been.
    assert!(
        late.token_bytes < late.ranges << 10,
        "positions: {early:?}, then {late:?}"
    );
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    program.arg("--until-caught-up");
    let (status, lines) = Run::start(program).end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

#[expect(
    clippy::disallowed_methods,
    reason = "a pace, not a wait for something"
)]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
