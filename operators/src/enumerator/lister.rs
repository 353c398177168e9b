//! Looks for partitions that have split or merged, and for independent ranges that have appeared.
//!
//! A run that ends where it has caught up must have read all that was there when its end was asked for. So where ranges
//! [appear](ChangeFeed::ranges_appear), the last listing is begun after that, and the run stays open until the enumerator has it.

use std::sync::Arc;
use std::time::Duration;

use tidefeed_runtime::bridge::InboxSender;
use tidefeed_runtime::cluster::Finish;
use tidefeed_runtime::line_limit::LineLimit;
use tidefeed_runtime::{FeedRangeId, Ledger};
use tokio::sync::{Notify, watch};

use crate::feed::ChangeFeed;
use crate::reader::changed;

/// The ranges that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In key order, if they tile.
    pub live: Vec<FeedRangeId>,
    /// No other follows, and the run waits for this one.
    pub last: bool,
}

/// Lists the ranges of a source from time to time, and when a reader has met a split.
pub struct Lister {
    /// The container's feed.
    pub feed: Arc<dyn ChangeFeed>,
    /// The source's name.
    pub source: String,
    /// How often to look.
    pub every: Duration,
    /// Told when a reader has met a split.
    pub split_seen: Arc<Notify>,
    /// Says when every range shall end.
    pub finish: watch::Receiver<Finish>,
    /// The process's ledger.
    pub ledger: Ledger,
    /// Where what is new goes.
    pub to: InboxSender<Listing>,
}

impl Lister {
    /// Lists until the run ends. `known` is what there was at the start.
    pub async fn run(mut self, known: Vec<FeedRangeId>) {
        let mut end = self.ledger.end();
        tokio::select! {
            // An error means that the ledger is gone, and with it the run.
            _ = end.wait_for(|ended| *ended) => {}
            () = self.list_again_and_again(known) => {}
        }
    }

    async fn list_again_and_again(&mut self, mut known: Vec<FeedRangeId>) {
        let appear = self.feed.ranges_appear();
        loop {
            let last = appear && *self.finish.borrow_and_update() != Finish::No;
            if !last {
                tokio::select! {
                    () = tokio::time::sleep(self.every) => {}
                    () = self.split_seen.notified() => {}
                    () = changed(&mut self.finish), if appear => continue,
                }
            }
            match self.feed.ranges().await {
                Ok(live) if live == known && !last => {}
                Ok(live) => {
                    if live != known {
                        tracing::info!(
                            event = "ranges_changed",
                            source = self.source,
                            ranges = live.len(),
                            before = known.len(),
                            "the feed ranges have changed"
                        );
                    }
                    known.clone_from(&live);
                    if !self.to.send(Listing { live, last }).await || last {
                        return;
                    }
                }
                // What has appeared might be missed.
                Err(error) if last => {
                    let source = format!("source {}", self.source);
                    return self.ledger.fail(error.wrap(source));
                }
                // The readers go on as they are, and fail themselves if there is nothing left to read.
                Err(error) => {
                    static LIMIT: LineLimit = LineLimit::rarely();
                    if let Some(held_back) = LIMIT.take() {
                        tracing::warn!(
                            event = "ranges_unknown",
                            source = self.source,
                            error = error.report(),
                            held_back,
                            "cannot list the feed ranges, will try again"
                        );
                    }
                }
            }
        }
    }
}
