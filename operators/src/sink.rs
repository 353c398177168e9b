//! The sink operator: acts on an epoch only behind the frontier, and holds the epoch until its writes are acknowledged.
//!
//! Numbered rules, per worker and sink:
//!
//! 1. Updates wait until the input frontier has passed their epoch; then the epoch is sealed by every process (I1) and complete.
//! 2. Epochs at or before the commit that the run resumed from are in the container already: they only rebuild the view's hash.
//! 3. No write leaves before the rebuilt views were compared with the commit (I8).
//! 4. All epochs that are complete by then are folded together, so a slow target gets only the newest value of a document.
//!    Some strategies fold fewer ([`WriteRule::fold_before`]).
//! 5. One batch is under way at a time, with at most one write per document: that is I5. Of a row that moves to another
//!    partition key the old document goes when the new one is there ([`Moves`]).
//! 6. A view has at most one row under each key, in every epoch; a second one ends the run before anything of it is written.
//!    A plain stream may have any number, and has no rows to verify.
//! 7. The capabilities of a batch's epochs are dropped when every write is acknowledged, never sooner (I4).
//!
//! A sink that is rebuilt ([`mod@crate::reconcile`]) begins with other rules:
//!
//! 8. It writes nothing and lets go of its epochs, and takes what is complete into its copy of the view. So commits go on, and
//!    say that the sink is being rebuilt; a crash at any moment resumes with a rebuild.
//! 9. It keeps a capability at its input frontier. Once the resumed views are verified (I8) and the sources have caught up
//!    for the first time, the capability stays where it is, and the container is brought in line with the view as of there:
//!    all of every epoch below, nothing of a later one.
//! 10. When every write of that is acknowledged, it reports so at the capability's epoch, drops it, and goes on by rules 1 to 7.

mod rebuild;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidefeed_runtime::bridge::{Inbox, InboxSender, Tasks, Waker};
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::failpoint::Step;
use tidefeed_runtime::{Epoch, Error, Ledger, Result};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use xxhash_rust::xxh3::xxh3_128;

use crate::fold::{ViewUpdate, fold};
use crate::moves::Moves;
use crate::reconcile::{ContainerScan, HeldView};
use crate::strategy::{RowKind, WriteRule};
use crate::target::{DocumentWrite, Target};
use crate::unique::{LiveRows, SeveralRows};

pub use written::SinkCounters;

use rebuild::Rebuild;
use written::{Acknowledgement, write};

/// What a sink operator works with, on one worker.
pub struct SinkParts {
    /// The sink's name, as in the configuration.
    pub name: String,
    /// What is written for the rows that come and go.
    pub rule: WriteRule,
    /// The container.
    pub target: Arc<dyn Target>,
    /// Runs the writes.
    pub tasks: Tasks,
    /// How rows are written whose partition key changes.
    pub moves: Moves,
    /// The epoch of the commit that the run resumes from; 0 on a fresh start.
    pub resumed: Epoch,
    /// The newest epoch that an earlier run sealed, and so may have written in part; 0 on a fresh start.
    pub rewrite_through: Epoch,
    /// Set when the sink is rebuilt: what its container holds, for all workers of the process.
    pub rebuild: Option<Arc<ContainerScan>>,
    /// The process's ledger.
    pub ledger: Ledger,
    /// Counters of the sink, over all workers.
    pub counters: Arc<SinkCounters>,
}

/// Writes what the rows of a view, or the records of a plain stream, come to.
pub trait UpsertDocuments<'scope> {
    /// Brings the target to the view, epoch by epoch, or writes what another rule says. Returns how the view changed, for the
    /// committer: this stream's frontier passes an epoch when every write of the epoch is acknowledged.
    fn upsert_documents(self, parts: SinkParts) -> StreamVec<'scope, u64, Report>;
}

impl<'scope> UpsertDocuments<'scope> for StreamVec<'scope, u64, ViewUpdate> {
    fn upsert_documents(self, parts: SinkParts) -> StreamVec<'scope, u64, Report> {
        let moves = parts.moves;
        let by_key =
            Exchange::new(move |(row, ..): &ViewUpdate| moves.hash(&row.partition_key, &row.id));
        let name = format!("Upsert: {}", parts.name);
        let scope = self.scope();
        self.unary_frontier(by_key, &name, move |cap, info| {
            let waker = || {
                let waker = Waker::default();
                waker.attach(scope.worker().sync_activator_for(info.address.to_vec()));
                waker
            };
            parts.ledger.wake_when_writable(waker());
            let (sender, acknowledged) = Inbox::new(1);
            acknowledged.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            let scan = parts.rebuild.clone();
            let operator = format!("Upsert: {}", parts.name);
            let mark = parts.ledger.operator(scope.index(), &operator);
            let gauge = parts.ledger.sink_gauge(scope.index(), info.global_id);
            let mut sink = Sink {
                parts,
                sender,
                acknowledged,
                waiting: BTreeMap::new(),
                under_way: None,
                live: LiveRows::default(),
                broken: false,
                share: (scope.index(), scope.peers()),
                // Dropped here unless the sink is rebuilt.
                rebuild: scan.map(|scan| Rebuild {
                    scan,
                    view: Some(HeldView::default()),
                    cap,
                }),
            };
            move |(input, frontier), output| {
                let _inside = mark.enter();
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
                if let Some(rebuilt) = sink.acknowledge() {
                    let sink = sink.parts.name.clone();
                    output.session(&rebuilt.cap).give(Report::Rebuilt { sink });
                }
                // 3. Report complete epochs, and start the next batch.
                let bound = frontier.frontier().as_option().copied();
                gauge.frontier(bound);
                sink.report(bound, |cap, report| output.session(cap).give(report));
                if matches!(sink.parts.rule.rows, RowKind::Collection) {
                    gauge.rows(sink.live.rows() as u64);
                    gauge.bytes(sink.live.bytes() as u64);
                }
                sink.hold(bound);
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
    under_way: Option<Held>,
    /// Live rows of this worker's share of the view.
    live: LiveRows,
    /// Set when two of them share a key: nothing more is written.
    broken: bool,
    /// This worker's index, and how many share the view.
    share: (usize, usize),
    rebuild: Option<Rebuild>,
}

impl Sink {
    /// Returns the rebuild that has come to its end, if one has.
    fn acknowledge(&mut self) -> Option<Rebuild> {
        let (upserts, deletes, applied) = self.acknowledged.try_next()?;
        match applied {
            Ok(applied) => {
                self.parts.counters.add(upserts, deletes, &applied);
                // Dropped: every write of these epochs is acknowledged.
                let failpoints = self.parts.ledger.failpoints();
                failpoints.before(Step::Acknowledge);
                self.under_way = None;
                failpoints.after(Step::Acknowledge);
                self.rebuild.take()
            }
            // The capabilities stay: nothing of these epochs may count as written.
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    fn fail(&self, error: Error) {
        let error = error.wrap(format!("sink {} stopped", self.parts.name));
        self.parts.ledger.fail(error);
    }

    /// Reports each epoch below the frontier once, and lets go of those that the container already holds.
    fn report(&mut self, bound: Option<u64>, mut give: impl FnMut(&Capability<u64>, Report)) {
        if self.broken {
            return;
        }
        for (epoch, waiting) in self
            .waiting
            .iter_mut()
            .take_while(|(epoch, _)| is_below(**epoch, bound))
        {
            if std::mem::replace(&mut waiting.reported, true) {
                continue;
            }
            let (rows, hash) = match self.parts.rule.rows {
                RowKind::Stream => (0, 0),
                RowKind::Collection => {
                    if let Err(conflict) = self.live.apply(&waiting.updates) {
                        let epoch = *epoch;
                        return self.several_rows(epoch, conflict);
                    }
                    view_change(&waiting.updates)
                }
            };
            let sink = self.parts.name.clone();
            give(&waiting.cap, Report::View { sink, rows, hash });
        }
        if self.rebuild.as_ref().is_some_and(Rebuild::holds) {
            // The capabilities go at once: the rebuild's own one stands at the frontier.
            let (_, complete) = take_below(&mut self.waiting, bound);
            let rebuild = self.rebuild.as_mut();
            let held = rebuild.and_then(|rebuild| rebuild.view.as_mut());
            if let Some(view) = held {
                view.absorb(complete);
            }
            return;
        }
        let complete_muted = bound.map_or(self.parts.resumed.0 + 1, |bound| {
            bound.min(self.parts.resumed.0 + 1)
        });
        if self.parts.resumed > Epoch(0) {
            self.waiting = self.waiting.split_off(&complete_muted);
        }
    }

    /// Ends the run, with both rows in the error: what has come and is not written yet has the other, or the container.
    fn several_rows(&mut self, epoch: u64, mut conflict: SeveralRows) {
        self.broken = true;
        for (_, before) in self.waiting.range(..epoch) {
            conflict.look_in(&before.updates);
        }
        if conflict.is_whole() {
            return self.fail(conflict.into_error());
        }
        let target = Arc::clone(&self.parts.target);
        let name = format!("the end of sink {}", self.parts.name);
        let found = async move {
            // Without it the error is as true.
            if let Ok(Some(row)) = target.find(&conflict.partition_key, &conflict.id).await {
                conflict.add(row);
            }
            (0, 0, Err(conflict.into_error()))
        };
        self.parts
            .tasks
            .spawn_into(name, self.sender.clone(), found);
    }

    fn start_batch(&mut self, bound: Option<u64>) {
        let ledger = &self.parts.ledger;
        let busy = self.under_way.is_some() || self.rebuild.is_some();
        if busy || self.broken || !ledger.writable() || ledger.stopped() {
            return;
        }
        while let Some((caps, folded)) = self.next_batch(bound) {
            match folded {
                // With nothing to write the capabilities go, and with them the epochs.
                Ok(writes) if writes.is_empty() => {}
                Ok(writes) => {
                    self.under_way = Some(caps);
                    return self.send(writes);
                }
                Err(error) => {
                    self.under_way = Some(caps);
                    return self.fail(error);
                }
            }
        }
    }

    /// What the oldest complete epochs write, as many together as may be folded, and the capabilities that hold them.
    fn next_batch(&mut self, bound: Option<u64>) -> Option<(Held, Result<Vec<DocumentWrite>>)> {
        let (rule, rewrite_through) = (&self.parts.rule, self.parts.rewrite_through);
        let complete = self.waiting.keys().copied();
        let mut complete = complete
            .take_while(|epoch| is_below(*epoch, bound))
            .peekable();
        complete.peek()?;
        let bound = rule.fold_before(complete, rewrite_through).or(bound);
        let (caps, updates) = take_below(&mut self.waiting, bound);
        Some((caps, fold(updates, rule, rewrite_through)))
    }

    fn send(&self, writes: Vec<DocumentWrite>) {
        let target = Arc::clone(&self.parts.target);
        let name = format!("the write of sink {}", self.parts.name);
        let write = write(target, self.parts.ledger.clone(), self.parts.moves, writes);
        let writing = self.parts.counters.writes(self.share.0);
        let write = async move {
            let acknowledged = write.await;
            drop(writing);
            acknowledged
        };
        self.parts
            .tasks
            .spawn_into(name, self.sender.clone(), write);
    }
}

fn is_below(epoch: u64, bound: Option<u64>) -> bool {
    bound.is_none_or(|bound| epoch < bound)
}

/// What holds epochs whose writes are not acknowledged.
type Held = Vec<Capability<u64>>;

/// Takes the epochs below `bound` out of what waits: their capabilities, and their updates in order of time.
fn take_below(waiting: &mut BTreeMap<u64, Waiting>, bound: Option<u64>) -> (Held, Vec<ViewUpdate>) {
    let later = bound.map_or_else(BTreeMap::new, |bound| waiting.split_off(&bound));
    let complete = std::mem::replace(waiting, later);
    let (caps, updates): (Vec<_>, Vec<_>) =
        complete.into_values().map(|w| (w.cap, w.updates)).unzip();
    (caps, updates.into_iter().flatten().collect())
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
    use crate::document::ViewDocument;

    #[test]
    fn a_view_hash_forgets_order_and_what_was_retracted() {
        let row = |body: &str, diff| {
            let document = ViewDocument {
                partition_key: "[]".into(),
                id: "a".into(),
                body: body.as_bytes().into(),
                position: 0,
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
