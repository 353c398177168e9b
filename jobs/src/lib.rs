//! Tidefeed: views in Azure Cosmos DB, maintained incrementally from change feeds and exactly right after any crash.
//!
//! A job is a function that builds a dataflow: [`Flow::change_feed`] brings a container's documents in as a differential
//! collection, differential dataflow's operators compute, and [`Flow::upsert`] keeps another container equal to the
//! result. [`main`](main()) is the whole program around it; [`Job`] is the same for programs with a main of their own.

mod asked;
mod asking;
mod build;
mod check;
mod checkpoints;
mod cli;
mod cluster;
pub mod config;
mod connect;
mod cosmos;
mod deadletters;
mod decision;
mod ending;
mod flow;
mod graph;
mod health;
mod http;
mod inspection;
mod job;
mod keep;
mod logs;
mod milestones;
#[cfg(feature = "otlp")]
mod otlp;
mod plan;
mod preparing;
mod progress;
mod ranges;
mod rescale;
mod rfc3339;
mod running;
mod starting;
mod status;
mod trial;
mod why;
mod wire;

pub use check::{CheckReport, CommitReport, RefusalReport, SinkFate, SinkReport, SourceReport};
#[doc(hidden)]
pub use cli::main_failing_at;
pub use cli::{main, prepare_process};
pub use cluster::Member;
pub use config::JobConfig;
pub use connect::Connect;
pub use cosmos::Cosmos;
pub use flow::{Finals, Flow, View, Watermark};
pub use health::Health;
pub use job::Job;
pub use running::{JobStatus, RunningJob, SinkStatus, WatermarkStatus};
pub use tidefeed_operators::reader::RangeStatus;
pub use tidefeed_operators::source::DocumentKey;
pub use tidefeed_operators::source::rows::Change;
pub use tidefeed_operators::strategy::{PatchSpec, Strategy};
pub use tidefeed_operators::time::finals::{FinalWindows, Late};
pub use tidefeed_operators::time::schedule::NEVER;
pub use tidefeed_operators::time::windowed::Windowed;
pub use tidefeed_operators::time::windows::Window;
pub use tidefeed_operators::{feed, memory, target};
pub use tidefeed_runtime::checkpoint::CheckpointStore;
pub use tidefeed_runtime::checkpoint::request::Shape;
pub use tidefeed_runtime::cluster::{Hosts, Secret, Tls};
#[doc(hidden)]
pub use tidefeed_runtime::failpoint;
pub use tidefeed_runtime::stall;
pub use tidefeed_runtime::{ContinuationToken, FeedRangeId, Record};
pub use tidefeed_runtime::{Error, ErrorKind, Result};
/// The engines below, for operators that the prelude does not have.
pub use {differential_dataflow, timely};

/// What most jobs import: the flow and differential dataflow's operators.
pub mod prelude {
    pub use crate::{FinalWindows, Flow, PatchSpec, Result, Strategy, View, Window, Windowed};
    pub use differential_dataflow::operators::*;
    pub use tidefeed_operators::sum_by::SumBy;
    pub use tidefeed_operators::top_k::TopK;
}

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
