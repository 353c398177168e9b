//! The sink operator: acts on an epoch only behind the frontier, and holds the epoch until its writes are acknowledged.
//!
//! Numbered rules, per worker and sink:
//!
//! 1. Updates wait until the input frontier has passed their epoch; then the epoch is sealed by every process (I1) and complete.
//! 2. Epochs at or before the commit that the run resumed from are in the container already: they only rebuild the view's hash.
//! 3. No write leaves before the rebuilt views were compared with the commit (I8).
//! 4. All epochs that are complete by then are folded together, so a slow target gets only the newest value of a document.
//! 5. One batch is under way at a time, with at most one write per document: that is I5.
//! 6. A view has at most one row under each key, in every epoch; a second one ends the run before anything of it is written.
//! 7. The capabilities of a batch's epochs are dropped when every write is acknowledged, never sooner (I4).

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidefeed_runtime::bridge::{Inbox, InboxSender, Tasks, Waker};
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::{Epoch, Ledger, Result};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::document::ViewDocument;
use crate::fold::{ViewUpdate, fold};
use crate::target::{Applied, DocumentWrite, Target};
use crate::unique::LiveRows;

/// What a sink has written so far.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Documents upserted.
    pub upserts: AtomicU64,
    /// Documents deleted.
    pub deletes: AtomicU64,
    /// Requests sent, retries included.
    pub requests: AtomicU64,
    /// Requests answered with throttling.
    pub throttled: AtomicU64,
    /// Request units charged, in thousandths.
    pub charge_milli_ru: AtomicU64,
}

/// What a sink operator works with, on one worker.
pub struct SinkParts {
    /// The sink's name, as in the configuration.
    pub name: String,
    /// The container.
    pub target: Arc<dyn Target>,
    /// Runs the writes.
    pub tasks: Tasks,
    /// The epoch of the commit that the run resumes from; 0 on a fresh start.
    pub resumed: Epoch,
    /// The newest epoch that an earlier run sealed, and so may have written in part; 0 on a fresh start.
    pub rewrite_through: Epoch,
    /// The process's ledger.
    pub ledger: Ledger,
    /// Counters of the sink, over all workers.
    pub counters: Arc<SinkCounters>,
}

type Acknowledgement = (usize, usize, Result<Applied>);

/// Writes the documents of a view to a target.
pub trait UpsertDocuments<'scope> {
    /// Brings the target to the view, epoch by epoch. Returns how the view changed, for the committer: this stream's frontier
    /// passes an epoch when every write of the epoch is acknowledged.
    fn upsert_documents(self, parts: SinkParts) -> StreamVec<'scope, u64, Report>;
}

impl<'scope> UpsertDocuments<'scope> for StreamVec<'scope, u64, ViewUpdate> {
    fn upsert_documents(self, parts: SinkParts) -> StreamVec<'scope, u64, Report> {
        let by_key = Exchange::new(|(document, ..): &ViewUpdate| key_hash(document));
        let name = format!("Upsert: {}", parts.name);
        let scope = self.scope();
        self.unary_frontier(by_key, &name, move |_cap, info| {
            let waker = || {
                let waker = Waker::default();
                waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
                waker
            };
            parts.ledger.wake_when_writable(waker());
            let (sender, acknowledged) = Inbox::new(1);
            acknowledged.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            let mut sink = Sink {
                parts,
                sender,
                acknowledged,
                waiting: BTreeMap::new(),
                under_way: None,
                live: LiveRows::default(),
            };
            move |(input, frontier), output| {
                // 1. Drain.
                input.for_each(|cap, updates| {
                    for (document, time, diff) in updates.drain(..) {
                        let waiting = sink
                            .waiting
                            .entry(time)
                            .or_insert_with(|| Waiting::new(cap.delayed(&time, 0)));
                        waiting.updates.push((document, time, diff));
                    }
                });
                // 2. Take the acknowledgement of the batch under way, and drop its capabilities.
                sink.acknowledge();
                // 3. Report complete epochs, and start the next batch.
                let bound = frontier.frontier().as_option().copied();
                sink.report(bound, |cap, report| output.session(cap).give(report));
                sink.start_batch(bound);
            }
        })
    }
}

/// Updates of one epoch, and the capability that holds the epoch.
struct Waiting {
    updates: Vec<ViewUpdate>,
    cap: Capability<u64>,
    reported: bool,
}

impl Waiting {
    fn new(cap: Capability<u64>) -> Self {
        Waiting {
            updates: Vec::new(),
            cap,
            reported: false,
        }
    }
}

struct Sink {
    parts: SinkParts,
    sender: InboxSender<Acknowledgement>,
    acknowledged: Inbox<Acknowledgement>,
    waiting: BTreeMap<u64, Waiting>,
    /// Capabilities of the epochs whose batch is at the target.
    under_way: Option<Vec<Capability<u64>>>,
    /// Live rows of this worker's share of the view.
    live: LiveRows,
}

impl Sink {
    fn acknowledge(&mut self) {
        let Some((upserts, deletes, applied)) = self.acknowledged.try_next() else {
            return;
        };
        let counters = &self.parts.counters;
        match applied {
            Ok(applied) => {
                counters
                    .upserts
                    .fetch_add(upserts as u64, Ordering::Relaxed);
                counters
                    .deletes
                    .fetch_add(deletes as u64, Ordering::Relaxed);
                counters
                    .requests
                    .fetch_add(applied.requests, Ordering::Relaxed);
                counters
                    .throttled
                    .fetch_add(applied.throttled, Ordering::Relaxed);
                counters
                    .charge_milli_ru
                    .fetch_add((applied.charge_ru * 1000.0) as u64, Ordering::Relaxed);
                // Dropped: every write of these epochs is acknowledged.
                self.under_way = None;
            }
            // The capabilities stay: nothing of these epochs may count as written.
            Err(error) => self
                .parts
                .ledger
                .fail(error.wrap(format!("sink {} stopped", self.parts.name))),
        }
    }

    /// Reports each epoch below the frontier once, and lets go of those that the container already holds.
    fn report(&mut self, bound: Option<u64>, mut give: impl FnMut(&Capability<u64>, Report)) {
        let complete = |epoch: &u64| bound.is_none_or(|bound| *epoch < bound);
        for (_, waiting) in self
            .waiting
            .iter_mut()
            .take_while(|(epoch, _)| complete(epoch))
        {
            if std::mem::replace(&mut waiting.reported, true) {
                continue;
            }
            if let Err(error) = self.live.apply(&waiting.updates) {
                let error = error.wrap(format!("sink {} stopped", self.parts.name));
                return self.parts.ledger.fail(error);
            }
            let (rows, hash) = view_change(&waiting.updates);
            let sink = self.parts.name.clone();
            give(&waiting.cap, Report::View { sink, rows, hash });
        }
        let complete_muted = bound.map_or(self.parts.resumed.0 + 1, |bound| {
            bound.min(self.parts.resumed.0 + 1)
        });
        if self.parts.resumed > Epoch(0) {
            self.waiting = self.waiting.split_off(&complete_muted);
        }
    }

    fn start_batch(&mut self, bound: Option<u64>) {
        if self.under_way.is_some() || !self.parts.ledger.writable() || self.parts.ledger.stopped()
        {
            return;
        }
        let later = bound.map_or_else(BTreeMap::new, |bound| self.waiting.split_off(&bound));
        let complete = std::mem::replace(&mut self.waiting, later);
        let (caps, updates): (Vec<_>, Vec<_>) =
            complete.into_values().map(|w| (w.cap, w.updates)).unzip();
        let updates = updates.into_iter().flatten().collect();
        let writes = fold(updates, self.parts.rewrite_through);
        // With nothing to write the capabilities go, and with them the epochs.
        if !writes.is_empty() {
            self.under_way = Some(caps);
            self.send(writes);
        }
    }

    fn send(&self, writes: Vec<DocumentWrite>) {
        let upserts = writes.iter().filter(|write| write.body.is_some()).count();
        let deletes = writes.len() - upserts;
        let target = Arc::clone(&self.parts.target);
        let fence = self.parts.ledger.fence().clone();
        let name = format!("the write of sink {}", self.parts.name);
        self.parts
            .tasks
            .spawn_into(name, self.sender.clone(), async move {
                let applied = fence.guard(target.apply(writes)).await;
                (upserts, deletes, applied.and_then(|applied| applied))
            });
    }
}

fn key_hash(document: &ViewDocument) -> u64 {
    let mut hasher = Xxh3Default::new();
    document.partition_key.hash(&mut hasher);
    document.id.hash(&mut hasher);
    hasher.finish()
}

/// Rows that came minus rows that went, and the same sum over their hashes.
fn view_change(updates: &[ViewUpdate]) -> (i64, u128) {
    updates
        .iter()
        .fold((0, 0), |(rows, hash), (document, _, diff)| {
            let row = xxh3_128(&document.body).wrapping_mul(*diff as i128 as u128);
            (rows + *diff as i64, hash.wrapping_add(row))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_hash_forgets_order_and_what_was_retracted() {
        let row = |body: &str, diff| {
            let document = ViewDocument {
                partition_key: "[]".into(),
                id: "a".into(),
                body: body.as_bytes().into(),
            };
            (document, 1, diff)
        };
        let direct = view_change(&[row("2", 1), row("3", 1)]);
        assert_eq!(
            direct,
            view_change(&[row("3", 1), row("1", 1), row("2", 1), row("1", -1)])
        );
        assert_ne!(direct, view_change(&[row("2", 2)]));
        assert_eq!(view_change(&[row("2", 1), row("2", -1)]), (0, 0));
    }
}
