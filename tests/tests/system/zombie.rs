//! A run that was frozen while it wrote, and has lost its lease to another run, writes nothing more when it wakes up.
//!
//! `TIDEFEED_SEED` is the seed of the changes and of the moments; random by default, and printed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tidefeed::ErrorKind;
use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::checkpoint_files::{CheckpointFiles, newest_generation, objects};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, from_environment};
use tidefeed_tests::{SINKS, until};

/// The lease decides and not the lock, as on a store that several machines share. It is long enough for a run that gets a
/// tenth of a processor to renew it.
const SHARED: &str = "shared = true\nlease_ms = 3000\nsettle_ms = 200";
/// Runs that are frozen.
const ROUNDS: u64 = 3;

fn start(place: &Place, workers: usize, arguments: &[&str]) -> Run {
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
    program.args(arguments);
    Run::start(program)
}

/// Holds the writes of every view at the server.
fn hold(place: &Place) -> Vec<FaultRule> {
    on_views(place, FaultAction::Freeze)
}

/// Refuses the writes of every view, to be repeated soon.
fn throttle(place: &Place) -> Vec<FaultRule> {
    let throttled = FaultAction::Status {
        status: 429,
        substatus: Some(3200),
        retry_after_ms: Some(30),
        message: None,
    };
    on_views(place, throttled)
}

fn on_views(place: &Place, action: FaultAction) -> Vec<FaultRule> {
    let on = |(sink, _)| {
        let rule = FaultRule::new(action.clone()).on(&[FaultOperation::Writes]);
        rule.in_container(place.database(), sink)
    };
    SINKS.map(on).into()
}

/// Hits every write and changes nothing: its hits are the writes that the server had.
fn count_writes() -> FaultRule {
    FaultRule::new(FaultAction::delay(0)).on(&[FaultOperation::Writes])
}

/// When a run is frozen.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Any,
    Held,
}

/// Freezes a run in the middle of its writes, with some changes that it has not seen.
///
/// At [`Moment::Any`] that may be within a request. At [`Moment::Held`] every request that it has begun is held by the server,
/// and refused while the run is frozen: when it wakes up it finds refusals, and wants to repeat what they are about.
fn freeze(place: &Place, orders: &mut Orders, random: &mut fastrand::Rng, moment: Moment) -> Run {
    let folder = place.checkpoint();
    let server = place.server();
    let mut run = start(place, random.usize(1..=3), &[]);
    run.wait_until(|| CheckpointFiles::of(&folder).commit.is_some());
    for _ in 0..random.usize(5..25) {
        place.write(orders.change(10));
        assert!(
            run.wait_for(Duration::from_millis(random.u64(2..12))),
            "it runs"
        );
    }
    if moment == Moment::Any {
        run.signal(Signal::STOP);
        place.write(orders.change(50));
        return run;
    }
    server.set_faults(0, hold(place)).expect("valid rules");
    let hits = || server.fault_hits().iter().sum::<u64>();
    let mut held = 0;
    while held == 0 || held != hits() {
        held = hits();
        place.write(orders.change(10));
        assert!(run.wait_for(Duration::from_millis(300)), "it runs");
    }
    run.signal(Signal::STOP);
    server.set_faults(0, throttle(place)).expect("valid rules");
    until("refusals of what was held", || hits() >= held);
    server.clear_faults();
    place.write(orders.change(50));
    run
}

/// Without this the test below would prove nothing.
#[test]
fn a_frozen_run_that_wakes_up_in_time_repeats_its_writes() {
    let _alone = super::alone();
    let server = Arc::new(Emulator::start(EmulatorConfig::default()).expect("a free port"));
    let place = Place::within(&server, "in-time", "shared = true");
    let mut orders = Orders::new(1);
    place.write(orders.change(100));
    let mut random = fastrand::Rng::with_seed(1);
    let mut frozen = freeze(&place, &mut orders, &mut random, Moment::Held);
    server
        .set_faults(0, vec![count_writes()])
        .expect("a valid rule");
    frozen.signal(Signal::CONT);
    assert!(frozen.wait_until(|| server.fault_hits() != [0]), "it runs");
}

fn round(server: &Arc<Emulator>, seed: u64, moment: Moment) {
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::within(server, &format!("round-{seed}"), SHARED);
    let mut orders = Orders::new(seed);
    place.write(orders.change(100));
    let frozen = freeze(&place, &mut orders, &mut random, moment);
    let old_generation = newest_generation(&place.checkpoint());

    let next = start(&place, random.usize(1..=3), &["--until-caught-up"]);
    let (status, lines) = next.end();
    assert_eq!(status.code(), Some(0), "seed {seed}: {lines:#?}");
    let found = place.found();
    let wrong = differences(&found, &orders.expected());
    assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");

    let before = objects(&place.checkpoint());
    server
        .set_faults(0, vec![count_writes()])
        .expect("a valid rule");
    frozen.signal(Signal::CONT);
    let (status, lines) = frozen.end();
    let fenced = i32::from(ErrorKind::Fenced.exit_code());
    assert_eq!(status.code(), Some(fenced), "seed {seed}: {lines:#?}");
    let [line] = lines.as_slice() else {
        panic!("seed {seed}: {lines:#?}");
    };
    assert!(line.starts_with("shop: "), "{line}");
    assert_eq!(
        server.fault_hits(),
        [0],
        "seed {seed}: writes of the frozen run"
    );
    // An object that was on its way to the disk when the run was frozen arrives: one seal, one commit. Its generation is in
    // its name, so nobody ever looks at it.
    let arrived = objects(&place.checkpoint());
    let arrived: Vec<_> = arrived.difference(&before).collect();
    let old = format!("/{old_generation:010}/");
    let of_old = |name: &&&PathBuf| name.to_string_lossy().contains(&old);
    assert!(
        arrived.len() <= 2 && arrived.iter().filter(of_old).count() == arrived.len(),
        "seed {seed}: {arrived:?}"
    );
    assert_eq!(place.found(), found, "seed {seed}");
    server.clear_faults();
}

#[test]
fn a_frozen_run_that_lost_its_lease_writes_nothing_more() {
    let _alone = super::alone();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    eprintln!("TIDEFEED_SEED={seed}");
    let server = Emulator::start(EmulatorConfig::default()).expect("a free port");
    let server = Arc::new(server);
    for number in 0..ROUNDS {
        round(&server, seed + 2 * number, Moment::Held);
        round(&server, seed + 2 * number + 1, Moment::Any);
    }
}
