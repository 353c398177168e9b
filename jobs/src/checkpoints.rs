//! `JOB checkpoints ...`: looking at the job's checkpoint and mending it by hand.
//!
//! It needs the place of the checkpoint and nothing else: no account, and none of the job's code is built. What changes
//! something is refused while a run lives.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use indicatif::{HumanBytes, ProgressBar};
use serde_json::json;
use tidefeed_runtime::checkpoint::inspect::{self, Overview};
use tidefeed_runtime::checkpoint::{CheckpointStore, CommitRecord, LeaseConfig};
use tidefeed_runtime::watermarks::Watermarks;
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::inspection::{age, block_on, json_flag, print_json};
use crate::rfc3339::written_time;

/// The name of the subcommand.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// The subcommand with those below it.
pub(crate) fn command() -> Command {
    let number = || {
        Arg::new("number")
            .value_name("N")
            .required(true)
            .value_parser(value_parser!(u64))
            .help("The number of a commit, as `list` shows it")
    };
    Command::new(CHECKPOINTS)
        .about("Look at the job's checkpoint, and mend it by hand")
        .subcommand_required(true)
        .arg(json_flag())
        .subcommand(
            Command::new("list").about("The commits that the job could go on from, newest first"),
        )
        .subcommand(
            Command::new("show")
                .about("One commit: tokens, watermarks, sinks, and what its state consists of")
                .arg(number()),
        )
        .subcommand(Command::new("verify").about(
            "Read every object and follow everything that a run could start from; exits with 7 if anything is damaged",
        ))
        .subcommand(
            Command::new("rewind")
                .about(
                    "Make the next run start from an older commit: the feeds are read again from its tokens, and every \
                     sink is reconciled with its container",
                )
                .arg(number()),
        )
        .subcommand(
            Command::new("gc").about("Delete what neither the kept commits nor the next run can reach"),
        )
}

/// Carries out one of the subcommands. `retain` is the number of commits to keep.
///
/// # Errors
/// As [`inspect`]'s functions.
pub(crate) fn run(
    matches: &ArgMatches,
    store: &CheckpointStore,
    retain: usize,
    lease: LeaseConfig,
) -> Result<ExitCode> {
    let json = matches.get_flag("json");
    let number = |matches: &ArgMatches| matches.get_one::<u64>("number").copied();
    block_on(async {
        match matches.subcommand() {
            Some(("show", of_show)) => show(store, number(of_show), json).await,
            Some(("verify", _)) => verify(store, json).await,
            Some(("rewind", of_rewind)) => rewind(store, number(of_rewind), lease, json).await,
            Some(("gc", _)) => collect(store, retain, lease, json).await,
            _ => list(store, json).await,
        }
    })
}

async fn list(store: &CheckpointStore, json: bool) -> Result<ExitCode> {
    let seen = inspect::overview(store).await?;
    if json {
        let pending = seen.start.as_ref().map(|start| &start.rebuild);
        print_json(&json!({
            "job": store.job(), "lease": seen.lease, "generation": seen.generation, "objects": seen.objects,
            "pending_rebuild": pending, "commits": seen.commits,
        }))?;
    } else {
        print_list(store.job(), &seen);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_list(job: &str, seen: &Overview) {
    let held = match &seen.lease {
        Some(lease) if lease.held => {
            let age = age(lease.written_at_ms);
            format!("held by generation {} ({age})", lease.generation)
        }
        Some(lease) => format!("given back by generation {}", lease.generation),
        None => "never held".to_owned(),
    };
    println!("job {job}: {} objects, {held}", seen.objects);
    let rebuild = seen.start.iter().flat_map(|start| &start.rebuild);
    let rebuild: Vec<&str> = rebuild.map(String::as_str).collect();
    if !rebuild.is_empty() {
        println!(
            "the run that started last was to rebuild: {}",
            rebuild.join(", ")
        );
    }
    if seen.commits.is_empty() {
        println!("no commits");
        return;
    }
    println!(
        "{:>8} {:>10} {:>14} {:>16} {:>8} {:>10}  rows by sink",
        "commit", "generation", "epoch", "written", "seals", "base"
    );
    for commit in &seen.commits {
        let sinks = commit
            .sinks
            .iter()
            .map(|(name, state)| format!("{name} {}", state.rows));
        let base = base_bytes(commit).map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string());
        println!(
            "{:>8} {:>10} {:>14} {:>16} {:>8} {:>10}  {}",
            commit.number,
            commit.generation,
            commit.epoch,
            age(commit.written_at_ms),
            seals(commit),
            base,
            sinks.collect::<Vec<_>>().join(", ")
        );
    }
}

fn seals(commit: &CommitRecord) -> u64 {
    let runs = commit.runs.iter();
    runs.map(|run| run.last - run.first + 1).sum()
}

fn base_bytes(commit: &CommitRecord) -> Option<u64> {
    let base = commit.base.as_ref()?;
    Some(base.buckets.iter().map(|bucket| bucket.length).sum())
}

async fn show(store: &CheckpointStore, number: Option<u64>, json: bool) -> Result<ExitCode> {
    let seen = inspect::overview(store).await?;
    let found = seen
        .commits
        .into_iter()
        .find(|commit| Some(commit.number) == number);
    let commit = found.ok_or_else(|| {
        let number = number.unwrap_or_default();
        let context =
            format!("there is no commit {number}: `checkpoints list` shows those there are");
        Error::new(ErrorKind::Config, context)
    })?;
    match json {
        true => print_json(&commit)?,
        false => print_commit(&commit),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_commit(commit: &CommitRecord) {
    println!(
        "commit {} of generation {}, epoch {}, written {}{}",
        commit.number,
        commit.generation,
        commit.epoch,
        age(commit.written_at_ms),
        if commit.loading {
            ", during the first load"
        } else {
            ""
        }
    );
    for (source, ranges) in &commit.tokens {
        println!("source {source}");
        for (range, token) in ranges {
            println!("  {range:<20} {}", token.0);
        }
    }
    for line in watermark_lines(&commit.marks) {
        println!("{line}");
    }
    for (sink, state) in &commit.sinks {
        let rebuilding = if state.rebuilding {
            ", being rebuilt"
        } else {
            ""
        };
        println!(
            "sink {sink}: {} rows, hash {:032x}{rebuilding}",
            state.rows, state.hash
        );
    }
    match (&commit.base, base_bytes(commit)) {
        (Some(base), Some(bytes)) => println!(
            "base of epoch {}: {} in {} buckets",
            base.epoch,
            HumanBytes(bytes),
            base.buckets.len()
        ),
        _ => println!("no base"),
    }
    for run in &commit.runs {
        println!(
            "{:?} seals {} to {} of generation {}, process {}",
            run.kind, run.first, run.last, run.generation, run.process
        );
    }
}

/// Where each source whose event time is read stands in it, and each of its ranges.
fn watermark_lines(marks: &BTreeMap<String, Watermarks>) -> Vec<String> {
    let at = |at_ms| match at_ms {
        0 => "none yet".to_owned(),
        at_ms => written_time(at_ms),
    };
    let mut lines = Vec::new();
    for (source, stands) in marks {
        lines.push(format!(
            "watermark of {source}: {}",
            at(stands.watermark_ms)
        ));
        for (range, mark) in &stands.ranges {
            let idle = if mark.idle { ", idle" } else { "" };
            lines.push(format!("  {range:<20} {}{idle}", at(mark.at_ms)));
        }
    }
    lines
}

async fn verify(store: &CheckpointStore, json: bool) -> Result<ExitCode> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0).with_message("reading objects"),
        false => ProgressBar::hidden(),
    };
    let found = inspect::verify(store, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    let found = found.await?;
    bar.finish_and_clear();
    if json {
        print_json(&json!({
            "objects": found.objects, "bytes": found.bytes, "damage": found.damage,
        }))?;
    } else {
        println!(
            "{} objects, {} read",
            found.objects,
            HumanBytes(found.bytes)
        );
        found.damage.iter().for_each(|line| println!("{line}"));
        if found.damage.is_empty() {
            println!("all of it can be used");
        }
    }
    Ok(match found.damage.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(ErrorKind::Checkpoint.exit_code()),
    })
}

async fn rewind(
    store: &CheckpointStore,
    number: Option<u64>,
    lease: LeaseConfig,
    json: bool,
) -> Result<ExitCode> {
    let commit = inspect::rewind(store, number.unwrap_or_default(), lease).await?;
    if json {
        print_json(&json!({"commit": commit.number, "epoch": commit.epoch}))?;
    } else {
        println!(
            "the next run starts from commit {}, epoch {}, and reconciles every sink with its container",
            commit.number, commit.epoch
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn collect(
    store: &CheckpointStore,
    retain: usize,
    lease: LeaseConfig,
    json: bool,
) -> Result<ExitCode> {
    let report = inspect::collect_garbage(store, retain, lease).await?;
    if json {
        print_json(&json!({"listed": report.listed, "deleted": report.deleted}))?;
    } else {
        println!("{} of {} objects deleted", report.deleted, report.listed);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_told_by_source_and_range() {
        let marks = r#"{"orders":{"watermark_ms":1769817600000,"ranges":{
            "-80":{"at_ms":1769817600500,"idle":false},"80-FF":{"at_ms":0,"idle":true}}}}"#;
        let marks = serde_json::from_str(marks).expect("as in a commit");
        let expected = [
            "watermark of orders: 2026-01-31T00:00:00.000Z",
            "  -80                  2026-01-31T00:00:00.500Z",
            "  80-FF                none yet, idle",
        ];
        assert_eq!(watermark_lines(&marks), expected);
        assert!(watermark_lines(&BTreeMap::new()).is_empty());
    }
}
