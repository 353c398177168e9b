//! What passes between a writer and its [driver](super::driver).

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidefeed_runtime::Result;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::letters::Letters;
use super::metrics::BulkMetrics;
use super::operation::{GroupId, Operation, Summary};
use super::stop::Reason;

/// What callers ask for.
pub(super) enum Call {
    Submit(Submission),
    Withdraw(GroupId),
    /// Tell what became of everything that has come in since the last time, once it is done.
    Flush(oneshot::Sender<Result<Summary>>),
    /// Nothing is sent any more.
    Close,
}

/// Operations that are acknowledged together.
pub(super) struct Submission {
    pub(super) operations: Vec<Operation>,
    pub(super) bytes: usize,
    /// Whether operations in different partitions may have to follow each other.
    pub(super) is_ordered_across_partitions: bool,
    /// Whether more is about to come, so that requests that are not full wait for it.
    pub(super) more_follows: bool,
    /// Told when they have come in. Gone if nobody wants them any more.
    pub(super) admitted: oneshot::Sender<GroupId>,
    pub(super) done: oneshot::Sender<Result<Summary>>,
}

/// What the driver shares with the writers.
#[derive(Default)]
pub(super) struct Shared {
    /// By itself, so that whoever looks at it keeps nothing else alive.
    pub(super) metrics: Arc<Mutex<BulkMetrics>>,
    /// Since when operations are under way and none was acknowledged.
    pub(super) waiting_since: Mutex<Option<Instant>>,
    /// Why nothing more is written.
    pub(super) reason: Mutex<Option<Reason>>,
    /// Where refused writes go, once that is known.
    pub(super) letters: OnceLock<Letters>,
}
