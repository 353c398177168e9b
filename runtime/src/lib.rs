//! Epochs, sealing, commits and recovery for dataflows on timely.
//!
//! This crate is the part of Tidefeed that knows timely, tokio and storage, and nothing of Cosmos DB or of
//! differential dataflow. An epoch's way through it:
//!
//! ```text
//!     worker 0                   every worker                                    every worker        worker 0
//!     ticks --epoch--> source: attach pages that have arrived --records--> job --changes--> sink --> commit
//!                        |  holds the capability for the epoch                     |  holds it until    (frontier)
//!                        +--> sealer: records and tokens durable --> drops it      |  all is written
//! ```
//!
//! # Invariants
//!
//! - **I1** A sink writes nothing of an epoch before every process has sealed it: a source holds its capability until then,
//!   and a sink acts only behind the frontier.
//! - **I2** A token becomes durable only together with the records that it covers: both are in one seal.
//! - **I3** An epoch that was not sealed was never visible outside; recovery replays exactly the seals that the start
//!   record pins.
//! - **I4** A commit for an epoch exists only when all writes of epochs up to it are acknowledged, and all changes of keyed
//!   state durable.
//! - **I5** Per document at most one write is in flight, in epoch order.
//! - **I6** The feed ranges of a source tile its key space: those with a sealed position are in every commit and start record,
//!   and the rest begin where a fresh run would.
//! - **I7** One run at a time: a lease on the checkpoint, a fence that every write asks, and after a run that did not end in
//!   order a wait until its last requests cannot act any more.
//! - **I8** Each commit carries an order-independent hash of every view; a resumed run that rebuilds something else stops,
//!   unless the view is one whose container is to be brought in line with it.
//!
//! The promise is exactly-once *effect*: after recovery the target equals the view of the source as of the frontier.
//! Epochs may be visible half-written across documents.

pub mod bridge;
pub mod checkpoint;
pub mod cluster;
pub mod committer;
pub mod dataflow;
mod durations;
pub mod episode;
mod error;
#[doc(hidden)]
pub mod failpoint;
mod feed_range;
mod fence;
mod ids;
mod ledger;
pub mod line_limit;
pub mod loader;
pub mod observe;
mod record;
mod records;
pub mod sealer;
pub mod stall;
pub mod states;
mod ticker;
pub mod watermarks;
mod workers;

pub use committer::CommitConfig;
pub use durations::Durations;
pub use error::{Context, Error, ErrorKind, Result};
pub use feed_range::FeedRangeId;
pub use fence::Fence;
pub use ids::{ContinuationToken, Epoch, Generation};
pub use ledger::{
    AtWork, EpochFigures, EpochStages, Ledger, MemberReport, RoomWanted, StageHistograms,
};
pub use loader::LoadConfig;
pub use record::Record;
pub use records::{RecordRef, Records, RecordsWriter};
pub use ticker::{Decision, EpochConfig, Observed, Ticker};
pub use workers::{run_encoded_workers, run_workers};
