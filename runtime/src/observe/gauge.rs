//! What an operator of Tidefeed's own says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Epoch, Ledger};

/// Nothing was said yet: no operator keeps so much.
const UNKNOWN: u64 = u64::MAX;
/// There is no frontier any more.
const ENDED: u64 = u64::MAX;

/// What one operator on one worker has said last.
#[derive(Debug)]
pub(super) struct Said {
    /// The epoch below which it has everything; 0 before it has said so.
    frontier: Arc<AtomicU64>,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Default for Said {
    fn default() -> Self {
        Said {
            frontier: Arc::default(),
            rows: AtomicU64::new(UNKNOWN),
            bytes: AtomicU64::new(UNKNOWN),
        }
    }
}

impl Said {
    /// The input frontier, if it is known and there is one.
    pub(super) fn frontier(&self) -> Option<Epoch> {
        let frontier = self.frontier.load(Ordering::Relaxed);
        (frontier != 0 && frontier != ENDED).then_some(Epoch(frontier))
    }

    pub(super) fn rows(&self) -> Option<u64> {
        Some(self.rows.load(Ordering::Relaxed)).filter(|rows| *rows != UNKNOWN)
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }
}

/// With this an operator says where its input frontier is, and what it keeps. Each is a store into an atomic, so it may be said in
/// every call; that a sink's frontier has moved is looked at once an epoch.
#[derive(Clone)]
pub struct OperatorGauge {
    said: Arc<Said>,
    /// Of a sink: who is told.
    ledger: Option<Ledger>,
}

impl OperatorGauge {
    /// Everything below `frontier` has come, or everything at all when there is none any more.
    pub fn frontier(&self, frontier: Option<u64>) {
        let frontier = frontier.unwrap_or(ENDED);
        let place = &self.said.frontier;
        if place.load(Ordering::Relaxed) == frontier {
            return;
        }
        place.store(frontier, Ordering::Relaxed);
        if let Some(ledger) = &self.ledger {
            ledger.frontier_passed();
        }
    }

    /// It keeps so many rows.
    pub fn rows(&self, rows: u64) {
        self.said.rows.store(rows, Ordering::Relaxed);
    }

    /// It keeps so many bytes.
    pub fn bytes(&self, bytes: u64) {
        self.said.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Ledger {
    /// What an operator says of itself with; `operator` is timely's number of it on its worker (`info.global_id`).
    pub fn operator_gauge(&self, worker: usize, operator: usize) -> OperatorGauge {
        OperatorGauge {
            said: self.operator_figures().said(worker, operator),
            ledger: None,
        }
    }

    /// The same for a sink: an epoch's frontier has passed when all of them on this process have said so
    /// ([`Ledger::stages`]). To be asked for while the dataflow is built.
    pub fn sink_gauge(&self, worker: usize, operator: usize) -> OperatorGauge {
        let gauge = self.operator_gauge(worker, operator);
        self.sink_frontier(Arc::clone(&gauge.said.frontier));
        OperatorGauge {
            ledger: Some(self.clone()),
            ..gauge
        }
    }
}
