//! A checkpoint that is looked at, damaged and mended by hand with the program's own commands ends in right views.
//!
//! `TIDEFEED_SEED` is the seed of the changes; random by default, and printed.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::from_environment;

/// A job, and the commands over its checkpoint.
pub(super) struct Job {
    pub(super) place: Place,
    orders: Orders,
}

impl Job {
    pub(super) fn new() -> Self {
        let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
        eprintln!("TIDEFEED_SEED={seed}");
        Job {
            place: Place::new(),
            orders: Orders::new(seed),
        }
    }

    /// The program with these arguments: its exit code and what it said, on both outputs.
    pub(super) fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut program = self.place.program(env!("CARGO_BIN_EXE_shop"), 2);
        let output = program.args(arguments).output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("text");
        (output.status.code().expect("an exit code"), said)
    }

    pub(super) fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.succeeds(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }

    pub(super) fn change(&mut self) {
        self.place.write(self.orders.change(60));
    }

    /// Writes changes and lets a run commit them; the views must be right then.
    pub(super) fn go_on(&mut self) {
        self.change();
        self.succeeds(&["--until-caught-up"]);
        self.check("after a run");
    }

    pub(super) fn check(&self, when: &str) {
        let differences = differences(&self.place.found(), &self.orders.expected());
        assert_eq!(differences, Vec::<String>::new(), "{when}");
    }

    fn newest_commit(&self) -> PathBuf {
        let folder = self.place.checkpoint();
        let commit = CheckpointFiles::of(&folder).commit.expect("a commit");
        folder.join(format!(
            "commit/{:010}/{:012}",
            commit.generation, commit.number
        ))
    }
}

pub(super) fn flip_a_bit(file: &Path) {
    let mut bytes = std::fs::read(file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).expect("written");
}

fn numbers(list: &Value) -> Vec<u64> {
    let commits = list["commits"].as_array().expect("commits");
    let number = |commit: &Value| commit["number"].as_u64().expect("a number");
    commits.iter().map(number).collect()
}

#[test]
fn a_job_goes_back_and_its_views_come_right_again() {
    let mut job = Job::new();
    for _ in 0..4 {
        job.go_on();
    }
    let kept = numbers(&job.json(&["checkpoints", "list"]));
    assert!(
        kept.len() >= 3 && kept.is_sorted_by(|a, b| a > b),
        "{kept:?}"
    );
    let oldest = kept.last().expect("several").to_string();
    let shown = job.json(&["checkpoints", "show", &oldest]);
    assert_eq!(shown["number"].to_string(), oldest);
    assert!(shown["tokens"]["orders"].is_object(), "{shown}");
    let (code, said) = job.run(&["checkpoints", "rewind", "999999"]);
    assert!(
        code == 2 && said.contains("no commit 999999"),
        "{code}: {said}"
    );

    // Everything since is forgotten, and the containers are further: a start reconciles them.
    job.succeeds(&["checkpoints", "rewind", &oldest]);
    let plan = job.json(&["check"]);
    assert_eq!(plan["commit"]["number"].to_string(), oldest);
    assert_eq!(plan["sinks"]["totals"]["becomes"], "rebuild", "{plan}");
    job.go_on();
    job.succeeds(&["checkpoints", "gc"]);
    assert_eq!(
        job.json(&["checkpoints", "verify"])["damage"],
        Value::Array(Vec::new())
    );
    job.go_on();
}

#[test]
fn a_damaged_commit_is_named_and_can_be_left_behind() {
    let mut job = Job::new();
    for _ in 0..3 {
        job.go_on();
    }
    let kept = numbers(&job.json(&["checkpoints", "list"]));
    let damaged = job.newest_commit();
    flip_a_bit(&damaged);
    let name = format!("{:012}", kept[0]);
    for arguments in [
        ["checkpoints", "verify"].as_slice(),
        &["--until-caught-up"],
        &["check"],
    ] {
        let (code, said) = job.run(arguments);
        assert!(
            code == 7 && said.contains(&name),
            "{arguments:?}: {code}: {said}"
        );
    }
    job.check("nothing was written");
    job.succeeds(&["checkpoints", "rewind", &kept[1].to_string()]);
    job.go_on();
}
