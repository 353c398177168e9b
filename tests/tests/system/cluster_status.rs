//! Process 0 of a cluster tells of all of it: `/status`, as `JOB status` asks for it.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::Place;
use tidefeed_tests::process::Run;
use tidefeed_tests::producer::free_address;
use tidefeed_tests::views::Contents;

use super::alone;

/// A process that is frozen is silent after two fifths of it, and lost after all of it.
const PEER_TIMEOUT_MS: u64 = 12_000;
const DEADLINE: Duration = Duration::from_secs(120);

/// Starts two processes with a worker each, which answer at these addresses.
fn start(place: &Place, at: [SocketAddr; 2]) -> [Run; 2] {
    let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let hosts = bound.map(|one| one.local_addr().expect("bound").to_string());
    [0, 1].map(|process: usize| {
        let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
        program
            .args(["--process", &process.to_string()])
            .args(["--hosts", &hosts.join(",")])
            .args(["--peer-timeout", &PEER_TIMEOUT_MS.to_string()])
            .args(["--http", &at[process].to_string()])
            .env("TIDEFEED_CLUSTER_SECRET", "the secret of this test");
        Run::start(program)
    })
}

/// What `JOB status` prints; with `json`, as one value.
fn asked(at: SocketAddr, arguments: &[&str]) -> Option<String> {
    let asked = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args(["status", "--http", &at.to_string()])
        .args(arguments)
        .output()
        .expect("it runs");
    let text = String::from_utf8(asked.stdout).expect("UTF-8");
    asked.status.success().then_some(text)
}

/// Asks until the report is so.
fn status(run: &mut Run, at: SocketAddr, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    let mut last = Value::Null;
    let alive = run.wait_until(|| {
        if let Some(text) = asked(at, &["--json"]) {
            last = serde_json::from_str(&text).expect("JSON");
        }
        assert!(began.elapsed() < DEADLINE, "not {what}: {last:#}");
        so(&last)
    });
    assert!(alive, "it has ended: {:#?}", run.lines());
    last
}

fn named<'a>(report: &'a Value, of: &str, name: &str) -> Option<&'a Value> {
    let all = report[of].as_array()?;
    all.iter().find(|one| one["name"] == name)
}

fn number(report: &Value, of: &str, name: &str, field: &str) -> u64 {
    let one = named(report, of, name);
    one.and_then(|one| one[field].as_u64()).unwrap_or(0)
}

/// The processes whose feed ranges are told of.
fn ranges_of(report: &Value) -> Vec<u64> {
    let ranges = named(report, "sources", "orders").and_then(|one| one["ranges"].as_array());
    let processes = ranges.into_iter().flatten();
    let mut processes: Vec<_> = processes
        .filter_map(|one| one["process"].as_u64())
        .collect();
    processes.sort_unstable();
    processes.dedup();
    processes
}

fn rows(expected: &Contents, sink: &str) -> u64 {
    expected[sink].len() as u64
}

#[test]
fn process_0_tells_of_all_processes_and_keeps_what_a_silent_one_has_told() {
    let _alone = alone();
    let place = Place::new();
    place.configure("settle_ms = 50\nlease_ms = 60000");
    let at = [free_address(), free_address()];
    let mut runs = start(&place, at);
    let mut orders = Orders::new(21);
    // Each order is written once, so each row of these two views is too.
    let written: Vec<_> = orders.change(150);
    let records = written.len() as u64;
    let expected = orders.expected();
    place.write(written);
    let all = |report: &Value| {
        number(report, "sinks", "by_customer", "upserts") >= rows(&expected, "by_customer")
            && number(report, "sinks", "large", "upserts") >= rows(&expected, "large")
            && ranges_of(report) == [0, 1]
    };
    let whole = status(&mut runs[0], at[0], "all written", all);
    let whole_is = |field: &str| number(&whole, "sinks", "by_customer", field);
    assert_eq!(whole_is("upserts"), rows(&place.found(), "by_customer"));
    assert_eq!(whole_is("deletes"), 0);
    assert_eq!(number(&whole, "sources", "orders", "records"), records);
    for (process, found) in whole["processes"]
        .as_array()
        .expect("listed")
        .iter()
        .enumerate()
    {
        assert_eq!(found["process"], process, "{found}");
        assert!(
            found["state"].is_string() && found["missing"].is_null(),
            "{found}"
        );
        assert!(found["memory_bytes"].as_u64() > Some(1 << 20), "{found}");
        assert_eq!(found["workers"][0]["worker"], process, "{found}");
    }
    // The other knows of itself, and has done some of it.
    let own = status(&mut runs[1], at[1], "told", |report| {
        ranges_of(report) == [1]
    });
    let own = number(&own, "sinks", "by_customer", "upserts");
    assert!(own > 0 && own < whole_is("upserts"), "{own}");
    let operators = |report: &Value| report["graph"]["operators"].as_array().map(Vec::len);
    assert!(operators(&whole) > Some(10));
    let text = asked(at[0], &[]).expect("answers");
    assert!(
        text.contains("process 0  ") && text.contains("process 1 at 127.0.0.1:"),
        "{text}"
    );

    runs[1].signal(Signal::STOP);
    let silent = |report: &Value| report["processes"][1]["state"].is_null();
    let still = status(&mut runs[0], at[0], "silent", silent);
    let member = &still["processes"][1];
    assert!(
        member["heard_ms"].as_u64() >= Some(PEER_TIMEOUT_MS * 2 / 5),
        "{member}"
    );
    let memory = member["memory_bytes"].as_u64();
    assert!(memory > Some(1 << 20), "its last figures: {member}");
    assert_eq!(
        number(&still, "sinks", "by_customer", "upserts"),
        whole_is("upserts")
    );
    assert_eq!(ranges_of(&still), [0, 1]);
    assert_eq!(
        still["holds"]["culprit"]["process"], 1,
        "{:#}",
        still["holds"]
    );
    // Which kills them, also the one that is frozen.
    drop(runs);
}
