//! The writes of a batch on their way to the target, and what is counted of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidefeed_runtime::failpoint::Step;
use tidefeed_runtime::{Ledger, Result};

use crate::moves::Moves;
use crate::target::{Applied, DocumentWrite, Target};

/// What a sink has written so far.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Documents upserted, created, replaced or patched.
    pub upserts: AtomicU64,
    /// Documents deleted.
    pub deletes: AtomicU64,
    /// Writes that their own condition turned away, as their strategy wants it.
    pub ignored: AtomicU64,
    /// Requests sent, retries included.
    pub requests: AtomicU64,
    /// Requests answered with throttling.
    pub throttled: AtomicU64,
    /// Request units charged, in thousandths.
    pub charge_milli_ru: AtomicU64,
    /// Since when each worker has had a batch at the target.
    writing: Mutex<BTreeMap<usize, Instant>>,
    /// Since when each worker has been reading the container.
    scanning: Mutex<BTreeMap<usize, Instant>>,
}

/// A worker has a batch at the target, or reads the container, until this is dropped.
pub(super) struct Busy {
    counters: Arc<SinkCounters>,
    with: fn(&SinkCounters) -> &Mutex<BTreeMap<usize, Instant>>,
    worker: usize,
}

impl Drop for Busy {
    fn drop(&mut self) {
        (self.with)(&self.counters).lock().remove(&self.worker);
    }
}

impl SinkCounters {
    /// A worker sends a batch; it has one at a time.
    pub(super) fn writes(self: &Arc<Self>, worker: usize) -> Busy {
        self.busy(worker, |counters| &counters.writing)
    }

    /// A worker reads the container.
    pub(super) fn scans(self: &Arc<Self>, worker: usize) -> Busy {
        self.busy(worker, |counters| &counters.scanning)
    }

    fn busy(
        self: &Arc<Self>,
        worker: usize,
        with: fn(&SinkCounters) -> &Mutex<BTreeMap<usize, Instant>>,
    ) -> Busy {
        with(self).lock().insert(worker, Instant::now());
        Busy {
            counters: Arc::clone(self),
            with,
            worker,
        }
    }

    /// The oldest batch that is at the target: its worker, and for how long.
    pub fn writing(&self) -> Option<(usize, Duration)> {
        oldest(&self.writing)
    }

    /// The worker that has been reading the container for longest, and for how long.
    pub fn scanning(&self) -> Option<(usize, Duration)> {
        oldest(&self.scanning)
    }

    pub(super) fn add(&self, upserts: usize, deletes: usize, applied: &Applied) {
        let (upserts, deletes, ignored) = (upserts as u64, deletes as u64, applied.ignored);
        // A strategy whose deletes can be ignored has no other writes.
        let (upserts, deletes) = match upserts {
            0 => (0, deletes.saturating_sub(ignored)),
            _ => (upserts.saturating_sub(ignored), deletes),
        };
        let charge_milli_ru = (applied.charge_ru * 1000.0) as u64;
        for (counter, more) in [
            (&self.upserts, upserts),
            (&self.deletes, deletes),
            (&self.ignored, ignored),
            (&self.requests, applied.requests),
            (&self.throttled, applied.throttled),
            (&self.charge_milli_ru, charge_milli_ru),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }
}

fn oldest(of: &Mutex<BTreeMap<usize, Instant>>) -> Option<(usize, Duration)> {
    let of = of.lock();
    let (worker, began) = of.iter().min_by_key(|(_, began)| **began)?;
    Some((*worker, began.elapsed()))
}

/// Upserts and deletes of a batch, and what became of it.
pub(super) type Acknowledgement = (usize, usize, Result<Applied>);

/// Writes a batch, in the order that moves need.
pub(super) async fn write(
    target: Arc<dyn Target>,
    ledger: Ledger,
    moves: Moves,
    writes: Vec<DocumentWrite>,
) -> Acknowledgement {
    let deletes = writes
        .iter()
        .filter(|write| write.action.is_delete())
        .count();
    let upserts = writes.len() - deletes;
    ledger.failpoints().before(Step::SinkWrite);
    let in_order = async {
        let (first, then) = moves.split(writes);
        let mut applied = target.apply(first).await?;
        if !then.is_empty() {
            applied += target.apply(then).await?;
        }
        Ok(applied)
    };
    let applied = ledger.fence().guard(in_order).await;
    ledger.failpoints().after(Step::SinkWrite);
    (upserts, deletes, applied.and_then(|applied| applied))
}
