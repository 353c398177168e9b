//! A sink that brings its container in line with its view before it goes on: rules 8 to 10.

use std::sync::Arc;

use tidefeed_runtime::{Context, Epoch, ErrorKind};
use timely::dataflow::operators::Capability;

use super::Sink;
use super::written::write;
use crate::reconcile::{ContainerScan, HeldView, reconcile};
use crate::target::Applied;

/// A sink that is rebuilt, until it is.
pub(super) struct Rebuild {
    pub(super) scan: Arc<ContainerScan>,
    /// The view below `cap`; taken when the container is brought in line with it.
    pub(super) view: Option<HeldView>,
    /// Where the view stands. Dropped when the container is in line and that is reported.
    pub(super) cap: Capability<u64>,
}

impl Rebuild {
    /// True until the container is being brought in line.
    pub(super) fn holds(&self) -> bool {
        self.view.is_some()
    }
}

impl Sink {
    /// Moves the capability of a rebuild along with the frontier, until the time has come to bring the container in line.
    pub(super) fn hold(&mut self, bound: Option<u64>) {
        let ledger = &self.parts.ledger;
        let Some(rebuild) = self.rebuild.as_mut().filter(|rebuild| rebuild.holds()) else {
            return;
        };
        // Behind the last epoch when there is no frontier any more: the resumed views are verified behind this operator.
        let last = *rebuild.cap.time();
        let bound_or_end = bound.unwrap_or(last.max(self.parts.rewrite_through.0 + 1));
        rebuild.cap.downgrade(&bound_or_end);
        // Without a frontier nothing more can be loaded.
        let loaded = bound.is_none_or(|bound| ledger.loaded_by(Epoch(bound.saturating_sub(1))));
        if loaded
            && !self.broken
            && ledger.writable()
            && !ledger.stopped()
            && let Some(view) = rebuild.view.take()
        {
            let scan = Arc::clone(&rebuild.scan);
            self.bring_in_line(scan, view);
        }
    }

    /// Reads this worker's share of the container, and writes what differs from the view.
    fn bring_in_line(&self, scan: Arc<ContainerScan>, view: HeldView) {
        let (worker, peers) = self.share;
        let target = Arc::clone(&self.parts.target);
        let ledger = self.parts.ledger.clone();
        let moves = self.parts.moves;
        let sender = self.sender.clone();
        let stamp_epoch = self.parts.rule.stamp_epoch;
        let mut end = ledger.end();
        let name = format!("the rebuild of sink {}", self.parts.name);
        let counters = Arc::clone(&self.parts.counters);
        let scanning = counters.scans(worker);
        self.parts.tasks.spawn(name.clone(), async move {
            let differences = async {
                let existing = scan.take_share(worker, peers).await?;
                // Off the threads that serve the requests: a large view takes a while.
                tokio::task::spawn_blocking(move || reconcile(view, existing, stamp_epoch))
                    .await
                    .context(ErrorKind::Internal, || format!("{name} ended badly"))?
            };
            // A run that ends does not wait for a scan; once writes have begun it does.
            let differences = tokio::select! {
                _ = end.wait_for(|ended| *ended) => return,
                differences = differences => differences,
            };
            let writing = counters.writes(worker);
            drop(scanning);
            let acknowledgement = match differences {
                Ok(writes) if writes.is_empty() => (0, 0, Ok(Applied::default())),
                Ok(writes) => write(target, ledger, moves, writes).await,
                Err(error) => (0, 0, Err(error)),
            };
            drop(writing);
            sender.send(acknowledgement).await;
        });
    }
}
