//! One physical partition: what can be sent to it, and when.
//!
//! Queue and pace are its own, so a slow partition keeps nothing from the others. What comes back from a failed request goes
//! to the head of the queue.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::config::{BulkConfig, Policy};
use super::flow::{Figures, Permit, Seen};
use super::operation::Route;
use super::order::{KeyOrder, Slot};
use super::routing::RangeId;

/// An operation of more bytes than this goes by itself, by the SDK: what a batch wraps around it must not cost it the
/// service's limit of 2 MB.
const MOST_BYTES_IN_BATCH: usize = 1_900_000;

/// What decides when a partition takes how much. [`Flow`](super::flow::Flow) is the one in use.
pub(crate) trait Pace {
    /// Its settings.
    type Config;
    /// What it remembers about a request in flight.
    type Sent;

    /// A pace for a partition with this share of the container.
    fn new(config: &Self::Config, share: Share, now: Duration) -> Self;
    /// Whether a request may start now.
    fn permit(&mut self, now: Duration) -> Permit;
    /// A request has started.
    fn sent(&mut self, now: Duration, operations: usize, bytes: usize) -> Self::Sent;
    /// A request has ended, in any way.
    fn answered(&mut self, now: Duration, sent: Self::Sent, seen: &Seen);
    /// The partition has this share of the container now.
    fn share(&mut self, share: Share);
    /// Where it stands.
    fn figures(&self, now: Duration) -> Figures;
}

/// What a physical partition has of its container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// Of the throughput, 0 to 1.
    pub(crate) fraction: f64,
    /// In request units a second, if the container's throughput is known.
    pub(crate) ru_per_s: Option<f64>,
}

/// The next request of a partition.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) slots: Vec<Slot>,
    pub(crate) bytes: usize,
    pub(crate) route: Route,
}

/// What a partition can do now.
#[derive(Debug)]
pub(crate) enum Next {
    Send(Batch),
    /// Nothing before then.
    At(Duration),
    /// Nothing until something happens.
    Idle,
}

#[derive(Debug)]
pub(crate) struct Partition<P> {
    pub(crate) range: RangeId,
    pub(crate) pace: P,
    /// What the operations on its documents take in memory, wherever they are.
    pub(crate) held_bytes: usize,
    /// The service says that the range has changed: nothing is sent before the map has been read again.
    pub(crate) is_stale: bool,
    /// Failed requests come back here, and go first.
    again: VecDeque<Slot>,
    fresh: VecDeque<Slot>,
    /// Since when the queue has something to send.
    since: Duration,
    /// What is queued does not wait for more.
    is_urgent: bool,
    failures: u32,
    failed_at: Duration,
    paused_until: Duration,
}

impl<P: Pace> Partition<P> {
    pub(crate) fn new(range: RangeId, pace: P) -> Self {
        Partition {
            range,
            pace,
            held_bytes: 0,
            is_stale: false,
            again: VecDeque::new(),
            fresh: VecDeque::new(),
            since: Duration::ZERO,
            is_urgent: false,
            failures: 0,
            failed_at: Duration::ZERO,
            paused_until: Duration::ZERO,
        }
    }

    /// Queues an operation that has just been released.
    pub(crate) fn push(&mut self, now: Duration, slot: Slot) {
        if self.fresh.is_empty() {
            self.since = now;
        }
        self.fresh.push_back(slot);
    }

    /// Lets what is queued go without waiting for more.
    pub(crate) fn hurry(&mut self) {
        self.is_urgent = !self.fresh.is_empty();
    }

    /// Queues an operation that has waited by itself, before all that have never been sent.
    pub(crate) fn push_again(&mut self, slot: Slot) {
        self.again.push_back(slot);
    }

    /// Puts an operation back to the head of the queue. The last of a request comes first.
    pub(crate) fn put_back(&mut self, slot: Slot) {
        self.again.push_front(slot);
    }

    /// Forgets operations.
    pub(crate) fn forget(&mut self, gone: &HashSet<Slot>) {
        self.again.retain(|slot| !gone.contains(slot));
        self.fresh.retain(|slot| !gone.contains(slot));
    }

    /// Everything queued, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Slot> {
        self.again.drain(..).chain(self.fresh.drain(..))
    }

    /// A request that was sent at `sent_at` has failed as a whole. `wait` says how long the n-th failure in a row pauses the
    /// partition. Requests that were under way together count as one failure. Returns how many there are in a row now.
    pub(crate) fn failed(
        &mut self,
        now: Duration,
        sent_at: Duration,
        wait: impl FnOnce(u32) -> Duration,
    ) -> u32 {
        if self.failures == 0 || sent_at >= self.failed_at {
            self.paused_until = now + wait(self.failures);
            self.failures = self.failures.saturating_add(1);
            self.failed_at = now;
        }
        self.failures
    }

    /// The partition has answered.
    pub(crate) fn recovered(&mut self) {
        self.failures = 0;
    }

    /// The next request, if it is time for one.
    pub(crate) fn next(&mut self, now: Duration, order: &KeyOrder, config: &BulkConfig) -> Next {
        if self.is_stale || (self.again.is_empty() && self.fresh.is_empty()) {
            return Next::Idle;
        }
        if now < self.paused_until {
            return Next::At(self.paused_until);
        }
        let (max_ops, max_bytes) = match self.pace.permit(now) {
            Permit::Go { max_ops, max_bytes } => (max_ops, max_bytes.min(config.max_batch_bytes)),
            Permit::Wait(wait) => return Next::At(now + wait),
            Permit::AwaitAnswer => return Next::Idle,
        };
        let max_ops = match config.policy {
            Policy::Point => 1,
            _ => max_ops.clamp(1, config.max_operations),
        };
        let due = self.since + config.linger;
        let may_wait = self.again.is_empty() && !self.is_urgent;
        if may_wait && self.fresh.len() < max_ops && now < due {
            return Next::At(due);
        }
        self.since = now;
        let batch = self.take(order, max_ops, max_bytes, config.policy);
        self.is_urgent &= !self.fresh.is_empty();
        Next::Send(batch)
    }

    fn take(
        &mut self,
        order: &KeyOrder,
        max_ops: usize,
        max_bytes: usize,
        policy: Policy,
    ) -> Batch {
        let mut batch = Batch {
            slots: Vec::with_capacity(max_ops.min(self.again.len() + self.fresh.len())),
            bytes: 0,
            route: match policy {
                Policy::Bulk => Route::Bulk,
                Policy::Transactional => Route::Transactional,
                Policy::Point => Route::Point,
            },
        };
        let mut most = max_ops;
        while let Some(&slot) = self.again.front().or_else(|| self.fresh.front()) {
            let entry = order.get(slot);
            let is_large = entry.bytes > MOST_BYTES_IN_BATCH;
            most = most.min(usize::from(entry.company));
            if let Some(&first) = batch.slots.first() {
                let keys = [first, slot].map(|slot| &order.get(slot).operation.key.partition_key);
                let fits = batch.slots.len() < most
                    && batch.bytes + entry.bytes <= max_bytes
                    && !is_large
                    && (batch.route == Route::Bulk || keys[0] == keys[1]);
                if !fits {
                    break;
                }
            }
            if self.again.pop_front().is_none() {
                self.fresh.pop_front();
            }
            batch.slots.push(slot);
            batch.bytes += entry.bytes;
            if is_large {
                batch.route = Route::Point;
                break;
            }
        }
        batch
    }
}
