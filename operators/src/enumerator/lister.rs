//! Looks for partitions that have split or merged.

use std::sync::Arc;
use std::time::Duration;

use tidefeed_runtime::bridge::InboxSender;
use tidefeed_runtime::{FeedRangeId, Ledger};
use tokio::sync::Notify;
use tracing::warn;

use crate::feed::ChangeFeed;

/// Lists a container's partitions from time to time, and when a reader has met a split.
pub struct Lister {
    /// The container's feed.
    pub feed: Arc<dyn ChangeFeed>,
    /// The source's name.
    pub source: String,
    /// How often to look.
    pub every: Duration,
    /// Told when a reader has met a split.
    pub split_seen: Arc<Notify>,
    /// The process's ledger.
    pub ledger: Ledger,
    /// Where what is new goes.
    pub to: InboxSender<Vec<FeedRangeId>>,
}

impl Lister {
    /// Lists until the run ends. `known` is what there was at the start.
    pub async fn run(self, mut known: Vec<FeedRangeId>) {
        let mut end = self.ledger.end();
        loop {
            tokio::select! {
                // An error means that the ledger is gone, and with it the run.
                _ = end.wait_for(|ended| *ended) => return,
                () = tokio::time::sleep(self.every) => {}
                () = self.split_seen.notified() => {}
            }
            let listed = tokio::select! {
                _ = end.wait_for(|ended| *ended) => return,
                listed = self.feed.ranges() => listed,
            };
            match listed {
                Ok(live) if live == known => {}
                Ok(live) => {
                    tracing::info!(
                        source = self.source,
                        partitions = live.len(),
                        "the partitions have changed"
                    );
                    known.clone_from(&live);
                    if !self.to.send(live).await {
                        return;
                    }
                }
                // The readers go on as they are, and fail themselves if there is nothing left to read.
                Err(error) => warn!(
                    source = self.source,
                    error = error.report(),
                    "cannot list the partitions"
                ),
            }
        }
    }
}
