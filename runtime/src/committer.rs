//! Writes commits, at most one per interval, each covering everything acknowledged since the one before.
//!
//! Worker 0 sends a request whenever the frontier behind all sinks has passed an epoch in which something changed (I4). While
//! a commit is being written further requests wait; they are merged, so commits never queue up behind a slow store.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::checkpoint::{CommitRequest, CommitWriter};
use crate::{Error, ErrorKind, Ledger, Result};

/// When commits are written and how many are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitConfig {
    /// Shortest time between two commits, milliseconds; default 0 (one for each acknowledged batch of epochs), at most
    /// 600000. Larger writes fewer objects; smaller repeats less work after a crash. Default: with local storage a
    /// commit costs about as much as a seal.
    pub interval_ms: u64,
    /// Commits kept for inspection and for going back; default 3, 1 to 1000.
    pub retain: usize,
}

impl Default for CommitConfig {
    fn default() -> Self {
        CommitConfig {
            interval_ms: 0,
            retain: 3,
        }
    }
}

impl CommitConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `Config`, naming the field and what is allowed.
    pub fn validate(&self) -> Result<()> {
        if self.interval_ms > 600_000 {
            return Err(Error::new(
                ErrorKind::Config,
                "checkpoint.interval_ms is out of range: allowed is 0 to 600000 milliseconds",
            ));
        }
        if !(1..=1000).contains(&self.retain) {
            return Err(Error::new(
                ErrorKind::Config,
                "checkpoint.retain is out of range: allowed is 1 to 1000 commits",
            ));
        }
        Ok(())
    }
}

/// Where the commit operator leaves its requests. Never blocks.
pub type CommitSender = mpsc::UnboundedSender<CommitRequest>;

/// Commits until the sender is gone; then everything requested is durable.
pub async fn run(
    mut requests: mpsc::UnboundedReceiver<CommitRequest>,
    interval: Duration,
    mut commits: CommitWriter,
    ledger: Ledger,
) {
    while let Some(mut request) = requests.recv().await {
        let started = Instant::now();
        while let Ok(next) = requests.try_recv() {
            merge(&mut request, next);
        }
        let epoch = request.epoch;
        match commits.commit(request).await {
            Ok(_) => ledger.committed(epoch, Instant::now()),
            Err(error) => return ledger.fail(error.wrap(format!("cannot commit epoch {epoch}"))),
        }
        // The last request of a run has nobody behind it, and then there is nothing to pace.
        if !requests.is_closed() {
            tokio::time::sleep(interval.saturating_sub(started.elapsed())).await;
        }
    }
}

/// Folds a newer request into an older one: positions and views of the newer, seals of both.
fn merge(request: &mut CommitRequest, newer: CommitRequest) {
    let mut seals = std::mem::take(&mut request.seals);
    seals.extend(newer.seals);
    *request = CommitRequest { seals, ..newer };
}
