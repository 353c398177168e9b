//! What is told of a job: what `/status`, `/events`, `status` and the page show. JSON is its form.
//!
//! Units are in the names: `_ms` are milliseconds, `_at_ms` milliseconds since the UNIX epoch, `_share` is from 0 to 1, `_per_s` is the
//! rate since the last look, of a second or so. Counts are since the process began. What is not known is left out. Nothing here is of a
//! document, a key or a secret.
//!
//! Process 0 of a cluster tells of all of it: `join.rs` says what each part comes to over processes, and does not compile while a field
//! has no place there.

use serde::{Deserialize, Serialize};
use tidefeed_runtime::stall::Explanation;

/// The form of reports.
pub const FORM: u32 = 1;

/// A job at a moment, as process 0 knows it, or what one of its members knows of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORM`]. Whoever reads another form should say so.
    pub form: u32,
    /// When it was made.
    pub at_ms: u64,
    pub job: Job,
    /// What holds the job, if anything.
    pub holds: Explanation,
    pub epochs: Epochs,
    pub checkpoint: Checkpoint,
    pub sources: Vec<Source>,
    pub sinks: Vec<Sink>,
    pub graph: Graph,
    /// The processes of the job, this one among them.
    pub processes: Vec<Process>,
}

/// Which job it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Of the checkpoint; counts the runs. None before it is taken over.
    pub generation: Option<u64>,
    /// The process that tells this.
    pub process: u32,
    pub processes: u32,
    /// In all processes.
    pub workers: u32,
    /// When the process began.
    pub started_at_ms: u64,
    /// For how long `holds.state` has been what it is.
    pub state_for_ms: u64,
}

/// The epochs of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Epochs {
    /// The newest.
    pub minted: u64,
    pub sealed: u64,
    pub committed: u64,
    /// Of the oldest that is not committed: how far the views are behind what was read.
    pub oldest_ms: Option<u64>,
    /// From minted to committed.
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    /// The last epochs that had something in them, oldest first, at most 120, those in flight among them.
    pub recent: Vec<Epoch>,
}

/// When an epoch came to each stage. A stage to which it has not come is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Epoch {
    pub epoch: u64,
    pub minted_at_ms: u64,
    /// After it was minted, as are the others.
    pub sealed_ms: Option<f64>,
    /// The frontier has passed it: every sink has all of it.
    pub frontier_ms: Option<f64>,
    /// Every sink's writes are acknowledged.
    pub written_ms: Option<f64>,
    pub committed_ms: Option<f64>,
}

/// The checkpoint store, as the processes use it. Commits and bases are process 0's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// Without secrets.
    pub location: String,
    pub last_commit_at_ms: Option<u64>,
    /// The last commit that holds everything, instead of what has changed since another.
    pub last_base_at_ms: Option<u64>,
    pub commits: u64,
    /// Commits of this process that name a base that the one before does not.
    pub bases: Option<u64>,
    pub seals: u64,
    /// Of every kind, dead letters that are kept there among them.
    pub objects_written: Option<u64>,
    pub bytes_written: Option<u64>,
    pub bytes_per_s: Option<f64>,
    pub objects_deleted: Option<u64>,
    /// Of one object until it was durable, since the process began; at the slowest process.
    pub write_p50_ms: Option<f64>,
    pub write_p99_ms: Option<f64>,
}

/// A source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    pub name: String,
    /// `cosmos`, `files`, `http`, ...
    pub kind: String,
    pub records: u64,
    pub records_per_s: f64,
    pub bytes: u64,
    pub bytes_per_s: f64,
    pub ru: f64,
    pub ru_per_s: f64,
    pub decode_errors: u64,
    /// Documents that did not decode, or did not fit, and are kept as dead letters.
    #[serde(default)]
    pub dead_letters: u64,
    /// In event time.
    pub watermark_at_ms: Option<u64>,
    /// By their names.
    pub ranges: Vec<Range>,
}

/// A feed range that is read now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Range {
    pub range: String,
    pub process: u32,
    /// Counted over all processes.
    pub worker: u32,
    pub state: RangeState,
    /// What the last answers were, if they were not as they should be.
    pub trouble: Option<String>,
    pub records: u64,
    pub records_per_s: f64,
    pub ru: f64,
    pub ru_per_s: f64,
    /// At most: everything written so long ago is read. None while it has not caught up.
    pub behind_ms: Option<u64>,
    /// Changes yet to be read, as the service estimates.
    pub remaining: Option<u64>,
    /// Since the continuation token last moved.
    pub token_age_ms: u64,
    /// Since the last answer.
    pub answered_ms: Option<u64>,
    pub decode_errors: u64,
}

/// What a feed range is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeState {
    /// It has not caught up.
    #[default]
    Reading,
    CaughtUp,
    /// Its page waits for room: the job is slower than the source.
    Backpressure,
    Throttled,
    /// Its requests fail and are repeated, or are not answered.
    Failing,
}

/// A sink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sink {
    pub name: String,
    pub kind: String,
    pub upserts: u64,
    pub deletes: u64,
    /// Upserts and deletes.
    pub documents_per_s: f64,
    /// Turned away by their own condition.
    pub ignored: u64,
    pub ru: f64,
    pub ru_per_s: f64,
    /// What the configuration lets it use, in all processes.
    pub ru_budget_per_s: Option<f64>,
    pub requests: u64,
    pub requests_per_s: f64,
    /// Requests under way.
    pub in_flight: Option<u64>,
    pub throttled: u64,
    /// Of the requests since the last look.
    pub throttled_share: f64,
    pub dead_letters: u64,
    /// For how long the oldest batch has been at the target.
    pub writing_ms: Option<u64>,
    /// By physical partition of the container, where the target knows them.
    pub partitions: Vec<Partition>,
}

/// A physical partition that a sink writes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Partition {
    /// The service's name of it.
    pub partition: String,
    /// Writes that the service carried out.
    pub documents_per_s: f64,
    pub ru_per_s: f64,
    pub in_flight: u64,
    /// Of the requests that ended since the last look.
    pub throttled_share: f64,
}

/// The dataflow: operators of all workers, taken together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Graph {
    /// In the order of the dataflow; a scope comes before what is in it.
    pub operators: Vec<Operator>,
    pub channels: Vec<Channel>,
}

/// An operator, or a scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operator {
    pub id: u64,
    pub name: String,
    /// The scope that it is in; none for the dataflow itself.
    pub scope: Option<u64>,
    pub is_scope: bool,
    /// The source or sink that it belongs to.
    pub source: Option<String>,
    pub sink: Option<String>,
    /// Of the time since the last look, of one worker, mean over the workers. Of a scope: everything in it.
    pub busy_share: f64,
    /// The same of the busiest worker.
    pub busiest_share: f64,
    pub records_in: u64,
    pub records_in_per_s: f64,
    /// How long ago the epoch was minted that its input frontier is at; of several processes that which is furthest behind.
    pub frontier_lag_ms: Option<u64>,
    pub frontier: Option<u64>,
    /// What it keeps arranged.
    pub arranged_rows: Option<u64>,
    pub arranged_bytes: Option<u64>,
    /// Records that came and were not taken yet.
    pub queued: u64,
}

/// What flows from one operator to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Channel {
    pub from: u64,
    pub to: u64,
    pub records: u64,
    pub records_per_s: f64,
    /// Between workers.
    pub exchanged: bool,
}

/// A process of the job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub process: u32,
    pub address: Option<String>,
    /// None of a process that does not answer: then its figures are the last that it told, and its rates are in no sum.
    pub state: Option<String>,
    /// Which figures of it are not known, and why.
    pub missing: Option<String>,
    /// Since it was last heard of.
    pub heard_ms: Option<u64>,
    pub memory_bytes: u64,
    /// Of one core: 2.0 is two of them.
    pub cpu: f64,
    pub open_files: u64,
    pub tokio_tasks: u64,
    pub workers: Vec<Worker>,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    pub worker: u32,
    /// Running operators; the rest of the time it was parked.
    pub busy_share: f64,
    pub queued: u64,
}
