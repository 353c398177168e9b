//! Metrics of the job as a whole, of its epochs and of the process.

use std::time::{SystemTime, UNIX_EPOCH};

use tidefeed_runtime::StageHistograms;

use super::{Metric, Series, Value, counter, gauge, histogram, one, some};
use crate::status::look::Look;

pub(super) fn of_job(look: &Look) -> Vec<Metric> {
    let info = Series {
        labels: vec![
            ("job_name", look.job.name.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("process", look.position.process.to_string()),
        ],
        value: Value::Number(1.0),
    };
    let state = Series {
        labels: vec![("state", look.state())],
        value: Value::Number(1.0),
    };
    vec![
        gauge(
            "tidefeed_info",
            "Which job and process this is.",
            vec![info],
        ),
        gauge("tidefeed_state", "What the process is doing.", vec![state]),
        gauge(
            "tidefeed_stalled",
            "Whether anything holds the job.",
            one(f64::from(u8::from(look.holds.stalled))),
        ),
        gauge(
            "tidefeed_generation",
            "The number of the run that has the checkpoint.",
            some(look.generation.map(|generation| generation as f64)),
        ),
    ]
}

pub(super) fn of_epochs(look: &Look) -> Vec<Metric> {
    let figures = look.epochs.as_ref().map(|epochs| epochs.figures);
    let oldest = figures.map(|figures| figures.oldest_uncommitted.unwrap_or_default());
    let since_commit = figures.and_then(|figures| figures.since_commit);
    vec![
        counter(
            "tidefeed_commits",
            "Commits made durable.",
            one(look.totals.commits as f64),
        ),
        counter(
            "tidefeed_seals",
            "Seals made durable by this process.",
            one(look.totals.seals as f64),
        ),
        histogram(
            "tidefeed_epoch_stage_seconds",
            "Time from minting an epoch until it came to a stage, of committed ones.",
            of_stages(&look.totals.stages),
        ),
        gauge(
            "tidefeed_oldest_uncommitted_epoch_age_seconds",
            "Age of the oldest epoch that is not committed; 0 when all are.",
            some(oldest.map(|age| age.as_secs_f64())),
        ),
        gauge(
            "tidefeed_since_commit_seconds",
            "Time since the last commit was durable.",
            some(since_commit.map(|since| since.as_secs_f64())),
        ),
    ]
}

/// What this process does with the checkpoint store.
pub(super) fn of_store(look: &Look) -> Vec<Metric> {
    let store = &look.totals.store;
    let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok();
    let last_base = store.last_base_at.and_then(since_epoch);
    let writes = Series {
        labels: Vec::new(),
        value: Value::Durations(store.writes.clone()),
    };
    vec![
        counter(
            "tidefeed_checkpoint_written_objects",
            "Objects written to the checkpoint store.",
            one(store.objects_written as f64),
        ),
        counter(
            "tidefeed_checkpoint_written_bytes",
            "Bytes of those objects.",
            one(store.bytes_written as f64),
        ),
        counter(
            "tidefeed_checkpoint_deleted_objects",
            "Objects deleted from the checkpoint store.",
            one(store.objects_deleted as f64),
        ),
        histogram(
            "tidefeed_checkpoint_write_seconds",
            "Time until an object was durable in the checkpoint store.",
            vec![writes],
        ),
        counter(
            "tidefeed_checkpoint_bases",
            "Commits that name a new base.",
            one(store.bases as f64),
        ),
        gauge(
            "tidefeed_checkpoint_last_base_timestamp_seconds",
            "When the last of those was durable, since the UNIX epoch.",
            some(last_base.map(|at| at.as_secs_f64())),
        ),
    ]
}

/// From minted to each stage.
fn of_stages(stages: &StageHistograms) -> Vec<Series> {
    let all = [
        ("sealed", &stages.sealed),
        ("frontier", &stages.frontier),
        ("written", &stages.written),
        ("committed", &stages.committed),
    ];
    let series = all.map(|(stage, durations)| Series {
        labels: vec![("stage", stage.to_owned())],
        value: Value::Durations(durations.clone()),
    });
    series.into()
}

/// The names that every Prometheus client has.
pub(super) fn of_process(look: &Look) -> Vec<Metric> {
    let process = look.process;
    let started = look.started_at.duration_since(UNIX_EPOCH);
    vec![
        counter(
            "process_cpu_seconds",
            "Processor time, of all cores.",
            one(process.cpu.as_secs_f64()),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            one(process.memory_bytes as f64),
        ),
        gauge(
            "process_open_fds",
            "Open files and connections.",
            one(process.open_files as f64),
        ),
        gauge(
            "process_start_time_seconds",
            "When the process began, since the UNIX epoch.",
            some(started.ok().map(|started| started.as_secs_f64())),
        ),
        gauge(
            "tidefeed_tokio_tasks",
            "Tasks of the I/O runtime.",
            one(look.tokio_tasks as f64),
        ),
    ]
}
