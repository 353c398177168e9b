//! What a source can be told: all versions and deletes, positions that expire, ends in time.
//!
//! `TIDEFEED_SEED` is the seed of the changes; random by default, and printed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::time::{OffsetDateTime, to_rfc3339};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::process::from_environment;

struct Job {
    place: Place,
    orders: Orders,
}

impl Job {
    /// A job whose source has these lines, over a server whose feeds reach back an hour.
    fn new(source: &str) -> Self {
        let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
        eprintln!("TIDEFEED_SEED={seed}");
        let server = Emulator::start(EmulatorConfig {
            retention: Duration::from_secs(3600),
            ..EmulatorConfig::default()
        });
        let server = Arc::new(server.expect("a free port"));
        let place = Place::within(&server, "shop", LOCAL);
        place.configure_orders(source);
        let orders = Orders::new(seed);
        Job { place, orders }
    }

    /// Changes orders; those that are deleted go from the container.
    fn change(&mut self) {
        let changed = self.orders.change(150);
        self.place.write_and_delete(changed);
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut program = self.place.program(env!("CARGO_BIN_EXE_shop"), 2);
        let program = program.args(arguments).env("RUST_LOG", "warn");
        let output = program.output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("text");
        (output.status.code().expect("an exit code"), said)
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    fn check(&self, when: &str) {
        let differences = differences(&self.place.found(), &self.orders.expected());
        assert_eq!(differences, Vec::<String>::new(), "{when}");
    }
}

const ALL: &str = "mode = \"all_versions_and_deletes\"\n";

#[test]
fn deleted_documents_leave_the_views() {
    let mut job = Job::new(ALL);
    for run in 0..4 {
        job.change();
        job.change();
        job.succeeds(&["--until-caught-up"]);
        job.check(&format!("run {run}"));
    }
}

/// What was deleted while nobody read, for longer than the feed reaches back, goes when the job starts over.
#[test]
fn a_job_that_was_down_for_too_long_says_so_and_may_start_over() {
    let mut job = Job::new(ALL);
    job.change();
    job.succeeds(&["--until-caught-up"]);
    let down = |job: &mut Job| {
        for _ in 0..3 {
            job.change();
        }
        job.place.server().advance_clock(Duration::from_secs(7200));
    };
    down(&mut job);
    let (code, said) = job.run(&["--until-caught-up"]);
    assert_eq!(code, 7, "{said}");
    assert!(
        said.contains("lost for good") && said.contains("--fresh"),
        "{said}"
    );
    job.place.configure_orders("on_expired = \"reload\"\n");
    let said = job.succeeds(&["--until-caught-up"]);
    assert!(said.contains("starts over"), "{said}");
    job.check("started over");
    // And from there as ever.
    job.change();
    let said = job.succeeds(&["--until-caught-up"]);
    assert!(!said.contains("starts over"), "{said}");
    job.check("after it");
}

#[test]
fn documents_that_say_that_they_are_deleted_leave_the_views() {
    let mut job = Job::new("deleted = { path = \"/deleted\" }\n");
    for run in 0..3 {
        let changed = job.orders.change(150);
        job.place.write(changed);
        job.succeeds(&["--until-caught-up"]);
        job.check(&format!("run {run}"));
    }
}

#[test]
fn a_run_until_a_time_has_all_that_was_changed_before_and_ends() {
    let mut job = Job::new("");
    job.change();
    let started = Instant::now();
    let time = OffsetDateTime::now_utc() + azure_core::time::Duration::seconds(2);
    job.succeeds(&["--until", &to_rfc3339(&time)]);
    assert!(
        started.elapsed() > Duration::from_secs(2),
        "before the time"
    );
    job.check("at the end");
    // A time that has passed is an end as soon as what is there has been read.
    job.change();
    job.succeeds(&["--until", "2020-01-01T00:00:00Z"]);
}
