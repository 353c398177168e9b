//! What a job says on standard error as JSON: through a start, a split, throttling, a dead letter, a kill, a resume and an end.
//!
//! `TIDEFEED_SEED` is the seed of the changes; random by default, and printed.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;
use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::SINKS;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::Place;
use tidefeed_tests::process::{Run, from_environment};

fn orders() -> Orders {
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEFEED_SEED={seed}");
    Orders::new(seed)
}

fn start(place: &Place, arguments: &[&str]) -> Run {
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 2);
    program.args(["--log-format", "json"]).args(arguments);
    program.env_remove("RUST_LOG");
    Run::start(program)
}

/// What the lines say; each has to be an object with what every line has.
fn parsed(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["timestamp", "level", "target", "message", "event"] {
            assert!(value[member].is_string(), "{line} has no {member}");
        }
        assert_eq!(value["job"], "shop", "{line}");
        value
    };
    lines.iter().map(parse).collect()
}

fn says(run: &Run, event: &str, about: &str) -> bool {
    let event = format!("\"event\":\"{event}\"");
    run.lines()
        .iter()
        .any(|line| line.contains(&event) && line.contains(about))
}

#[track_caller]
fn wait_for(run: &mut Run, event: &str, about: &str) {
    let said = run.wait_until_says(|run| says(run, event, about));
    assert!(said, "no {event}: {:#?}", run.lines());
}

/// The first line about an event, and where it is.
#[track_caller]
fn first<'a>(lines: &'a [Value], event: &str, about: &str) -> (usize, &'a Value) {
    let is_it = |line: &Value| line["event"] == event && line.to_string().contains(about);
    let at = lines.iter().position(is_it);
    let at = at.unwrap_or_else(|| panic!("no {event} about {about}: {lines:#?}"));
    (at, &lines[at])
}

fn rule(place: &Place, status: u16, operation: FaultOperation, container: &str) -> FaultRule {
    let rule = FaultRule::new(FaultAction::status(status)).on(&[operation]);
    rule.in_container(place.database(), container)
}

fn split_a_partition(place: &Place) {
    let (server, database) = (place.server(), place.database());
    let ids = server.partitions(database, "orders").expect("it is there");
    let mut split = ids
        .iter()
        .map(|id| server.split(database, "orders", *id).is_ok());
    assert!(split.any(|split| split), "none of {ids:?} can be split");
}

#[test]
fn a_life_of_a_job_is_told_in_order() {
    let place = Place::new();
    let mut orders = orders();
    let (last, _) = SINKS[SINKS.len() - 1];
    place.configure_last_sink("dead_letters_per_minute = 1000\n");
    place.write(orders.change(100));
    let mut run = start(&place, &[]);
    wait_for(&mut run, "caught_up", "");
    split_a_partition(&place);
    wait_for(&mut run, "split", "");

    let server = place.server().clone();
    let throttled = vec![
        rule(&place, 429, FaultOperation::Writes, "totals"),
        rule(&place, 400, FaultOperation::BulkItem, last).times(1),
    ];
    server.set_faults(1, throttled).expect("sound rules");
    place.write(orders.change(100));
    wait_for(&mut run, "throttle_begin", "\"write\"");
    wait_for(&mut run, "dead_letter", "");
    let throttled = vec![rule(&place, 429, FaultOperation::ChangeFeed, "orders")];
    server.set_faults(1, throttled).expect("sound rules");
    wait_for(&mut run, "throttle_begin", "\"read\"");
    server.clear_faults();
    wait_for(&mut run, "throttle_end", "\"write\"");
    wait_for(&mut run, "throttle_end", "\"read\"");
    let (_, lines) = run.kill();
    let first_run = parsed(&lines);

    let (begin, started) = first(&first_run, "start", "");
    let generation = started["generation"].as_u64().expect("a generation");
    assert_eq!(
        (&started["process"], &started["workers"]),
        (&0.into(), &2.into())
    );
    let mut at = begin;
    for (event, about) in [
        ("caught_up", ""),
        ("split", "\"orders\""),
        ("throttle_begin", "\"write\""),
        ("throttle_begin", "\"read\""),
    ] {
        let (later, line) = first(&first_run, event, about);
        assert!(later > at, "{event} comes too early: {first_run:#?}");
        assert_eq!(line["generation"].as_u64(), Some(generation), "{line}");
        at = later;
    }
    for (event, number) in [
        ("caught_up", "epoch"),
        ("split", "epoch"),
        ("split", "parts"),
        ("throttle_end", "count"),
    ] {
        let (_, line) = first(&first_run, event, "");
        assert!(line[number].as_u64() > Some(1), "{line}");
    }
    let (_, split) = first(&first_run, "split", "");
    assert!(
        split["range"].is_string() && split["into"].is_string(),
        "{split}"
    );
    for side in ["\"read\"", "\"write\""] {
        let (begun, _) = first(&first_run, "throttle_begin", side);
        let (over, line) = first(&first_run, "throttle_end", side);
        assert!(
            begun < over && line["range"].is_string() && line["lasted_s"].is_f64(),
            "{line}"
        );
    }
    let (_, letter) = first(&first_run, "dead_letter", "");
    assert_eq!(
        (&letter["of"], &letter["status"]),
        (&last.into(), &400.into())
    );
    assert_eq!(
        (letter.get("id"), letter.get("partition_key")),
        (None, None)
    );

    place.write(orders.change(100));
    let mut run = start(&place, &[]);
    wait_for(&mut run, "resume", "");
    run.signal(Signal::TERM);
    let (status, lines) = run.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let second_run = parsed(&lines);
    let (resume, line) = first(&second_run, "resume", "");
    assert!(line["generation"].as_u64() > Some(generation), "{line}");
    assert!(
        line["epoch"].as_u64() > Some(0)
            && line["sealed_through"].as_u64() >= line["epoch"].as_u64(),
        "{line}"
    );
    let (stopping, _) = first(&second_run, "stopping", "");
    // A signal in the middle of a start ends the process at once.
    if let Some(shutdown) = second_run
        .iter()
        .position(|line| line["event"] == "shutdown")
    {
        assert!(resume < stopping && stopping < shutdown, "{second_run:#?}");
        assert_eq!(second_run[shutdown]["failed"], false);
    }
}

/// What depends on how fast the machine is, and on what it has done with the ranges before it ended.
const BY_CHANCE: [&str; 7] = [
    "base",
    "commit_slow",
    "commit_slow_end",
    "failed_call",
    "ranges_changed",
    "slow_call",
    "split",
];

/// How often there was each event.
fn counts(lines: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let event = line["event"].as_str().expect("text").to_owned();
        if !BY_CHANCE.contains(&&*event) {
            *counts.entry(event).or_default() += 1;
        }
    }
    counts
}

#[test]
fn records_have_no_lines() {
    let place = Place::new();
    let mut orders = orders();
    let mut run = |changes: usize| {
        place.write(orders.change(changes));
        let (status, lines) = start(&place, &["--until-caught-up"]).end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        counts(&parsed(&lines))
    };
    run(50);
    let (few, many) = (run(10), run(2000));
    assert_eq!(few, many);
    assert_eq!(few.get("shutdown"), Some(&1), "{few:?}");
}

#[test]
fn a_process_that_fails_says_so_in_the_same_form() {
    let place = Place::new();
    place.configure("nonsense = 1");
    let (status, lines) = start(&place, &[]).end();
    assert_eq!(status.code(), Some(2), "{lines:#?}");
    let lines = parsed(&lines);
    let line = lines.last().expect("a line");
    assert_eq!(
        (&line["event"], &line["kind"], &line["exit_code"]),
        (&"failed".into(), &"config".into(), &2.into())
    );
    assert_eq!(line["level"], "ERROR");
}
