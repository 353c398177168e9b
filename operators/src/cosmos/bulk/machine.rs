//! The whole protocol: what goes in and what comes out, see the [rules](super). What answers mean is in `answer.rs`, what the
//! container's ranges are in `ranges.rs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::Duration;

use super::admission::Held;
use super::classify::{Classifier, Refresh};
use super::config::{BulkConfig, Policy};
use super::groups::{Groups, Settled};
use super::operation::{GroupId, Operation, Refusal, Request, RequestId};
use super::order::{Entry, KeyOrder, Pushed, Slot, State};
use super::output::{LetterId, Output};
use super::partition::{Batch, Next, Pace, Partition};
use super::routing::{RangeId, RoutingMap};
use crate::dead_letter::LetterRate;

/// A request in flight.
#[derive(Debug)]
pub(super) struct Sent<S> {
    pub(super) range: RangeId,
    pub(super) slots: Vec<Slot>,
    pub(super) at: Duration,
    /// The map that it was routed by.
    pub(super) version: u64,
    /// The group that it is counted for.
    pub(super) group: usize,
    pub(super) pace: S,
}

/// The protocol of one writer.
#[derive(Debug)]
pub(crate) struct Machine<P: Pace> {
    pub(super) config: BulkConfig,
    pub(super) classifier: Classifier,
    pub(super) pace: P::Config,
    pub(super) provisioned_ru_per_s: Option<f64>,
    pub(super) order: KeyOrder,
    pub(super) groups: Groups,
    pub(super) map: RoutingMap,
    /// How many maps there were.
    pub(super) version: u64,
    /// In the order of the map.
    pub(super) partitions: Vec<Partition<P>>,
    /// Whose turn it is.
    turn: usize,
    held_bytes: usize,
    /// Operations that are done, and not because they were dropped.
    acknowledged: u64,
    pub(super) sent: HashMap<RequestId, Sent<P::Sent>>,
    requests: u64,
    /// Released operations that wait by themselves.
    pub(super) later: BinaryHeap<Reverse<(Duration, Slot)>>,
    /// Released operations that wait for a map.
    pub(super) adrift: Vec<Slot>,
    pub(super) wanted: Option<Refresh>,
    pub(super) reading: Option<Refresh>,
    /// The earliest time of the next reading.
    pub(super) read_from: Duration,
    pub(super) letters: BTreeMap<LetterId, (Slot, Refusal)>,
    pub(super) letter_count: u64,
    /// The minute of the last letters, and how many it has.
    pub(super) letter_rate: LetterRate,
    /// When something had to be read again that should never change. If the next request fails as well, it is fatal.
    pub(super) suspect_since: Option<Duration>,
    /// Nothing more is sent.
    pub(super) is_ending: bool,
    pub(super) out: Vec<Output>,
}

impl<P: Pace> Machine<P> {
    /// A writer to a container with these ranges. `provisioned_ru_per_s` is what the container has, if that is known.
    pub(crate) fn new(
        config: BulkConfig,
        classifier: Classifier,
        pace: P::Config,
        map: RoutingMap,
        provisioned_ru_per_s: Option<f64>,
        now: Duration,
    ) -> Self {
        let mut machine = Machine {
            config,
            classifier,
            pace,
            provisioned_ru_per_s,
            order: KeyOrder::default(),
            groups: Groups::default(),
            map: map.clone(),
            version: 0,
            partitions: Vec::new(),
            turn: 0,
            held_bytes: 0,
            acknowledged: 0,
            sent: HashMap::new(),
            requests: 0,
            later: BinaryHeap::new(),
            adrift: Vec::new(),
            wanted: None,
            reading: None,
            read_from: now,
            letters: BTreeMap::new(),
            letter_count: 0,
            letter_rate: LetterRate::default(),
            suspect_since: None,
            is_ending: false,
            out: Vec::new(),
        };
        machine.new_map(now, map);
        machine
    }

    /// Takes in operations that are acknowledged together, in their order and after all earlier ones.
    pub(crate) fn submit(&mut self, now: Duration, group: GroupId, operations: Vec<Operation>) {
        let Some(group) = self.groups.open(group, operations.len()) else {
            return;
        };
        if self.is_ending {
            self.groups.refuse(group, operations.len());
            return;
        }
        let mut released = Vec::with_capacity(operations.len());
        for operation in operations {
            let partition = self.map.position_of(&operation.routing);
            let at = u32::try_from(partition).expect("fewer than 2^32 ranges");
            let (more, less) = match self.order.push(operation, group, at, self.config.coalesce) {
                Pushed::Released(slot) => {
                    released.push(slot);
                    (self.order.get(slot).operation.memory_bytes(), 0)
                }
                Pushed::Waiting(slot) => (self.order.get(slot).operation.memory_bytes(), 0),
                Pushed::Superseded { bytes, replaced } => (bytes, replaced),
            };
            let held = &mut self.partitions[partition].held_bytes;
            *held = *held + more - less;
            self.held_bytes = self.held_bytes + more - less;
        }
        if self.config.policy == Policy::Transactional {
            // Released operations are on different documents, so their order is free: those that can share a batch follow
            // each other.
            let key = |slot: &Slot| &self.order.get(*slot).operation.key.partition_key;
            released.sort_by(|a, b| key(a).cmp(key(b)));
        }
        for slot in released {
            self.enqueue(now, slot);
        }
    }

    /// No more comes for now: what is queued does not wait for it.
    pub(crate) fn hurry(&mut self) {
        self.partitions.iter_mut().for_each(Partition::hurry);
    }

    /// Nobody waits for this group any more: what has not been sent is dropped, what is in flight is not repeated, and there
    /// is no output for it. An operation that took the place of another group's stays, as that one's content is gone.
    pub(crate) fn withdraw(&mut self, now: Duration, group: GroupId) {
        self.groups.withdraw(group);
        self.drop_unwanted(now, |groups, entry| groups.wants(entry));
    }

    /// From now on nothing is sent. Groups finish as soon as what they have in flight has been answered and their dead
    /// letters are durable, with the rest unwritten.
    pub(crate) fn close(&mut self, now: Duration) {
        self.is_ending = true;
        self.drop_unwanted(now, |_, _| false);
    }

    /// [`close`](Self::close) that waits for no dead letters: when they cannot be written, or the container is another one.
    pub(crate) fn stop(&mut self, now: Duration) {
        self.close(now);
        for (slot, _) in std::mem::take(&mut self.letters).into_values() {
            self.finish(now, slot, Settled::Unwritten);
        }
    }

    /// Whether nothing is under way, so that a closed writer can go.
    pub(crate) fn is_idle(&self) -> bool {
        self.order.is_empty()
    }

    /// What the operations under way take in memory. Who submits keeps them in bounds, see [`Admission`](super::admission::Admission).
    pub(crate) fn held(&self) -> Held {
        let of_partition = |partition: &Partition<P>| partition.held_bytes;
        Held {
            bytes: self.held_bytes,
            partitions: self.partitions.iter().map(of_partition).collect(),
        }
    }

    /// How many operations were acknowledged so far: carried out, turned away by their condition, or kept as dead letters.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether operations are under way that may still be carried out.
    pub(crate) fn is_busy(&self) -> bool {
        !self.is_ending && !self.is_idle()
    }

    /// The partitions that operations are for, with how many. Looks at every operation.
    pub(crate) fn loads(&self) -> Vec<(RangeId, usize)> {
        let mut loads = vec![0; self.partitions.len()];
        for entry in self.order.iter() {
            loads[entry.partition as usize] += 1;
        }
        let ranges = self.partitions.iter().map(|one| one.range.clone());
        ranges.zip(loads).filter(|(_, load)| *load > 0).collect()
    }

    /// What all operations under way take in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Does what is due, and appends what the driver is to do. To be called after every other call, and at the latest at the
    /// time that it returns.
    pub(crate) fn poll(&mut self, now: Duration, out: &mut Vec<Output>) -> Option<Duration> {
        while let Some(slot) = self.order.wake(now) {
            self.enqueue(now, slot);
        }
        while let Some(&Reverse((due, slot))) = self.later.peek()
            && due <= now
        {
            self.later.pop();
            let at = self.order.get(slot).partition;
            self.partitions[at as usize].push_again(slot);
        }
        let read_at = self.refresh(now);
        let send_at = self.fill(now);
        let finished = self.groups.drain_finished();
        let finished = finished.map(|(group, summary)| Output::Finished(group, summary));
        self.out.extend(finished);
        out.append(&mut self.out);
        let later_at = self.later.peek().map(|Reverse((due, _))| *due);
        let times = [self.order.next_wake(), later_at, read_at, send_at];
        times.into_iter().flatten().min()
    }

    /// Starts requests, one for each partition in turn, until none can start. Returns when the next one can.
    fn fill(&mut self, now: Duration) -> Option<Duration> {
        let mut next_at: Option<Duration> = None;
        let mut passed = 0;
        while !self.is_ending && passed < self.partitions.len() {
            if self.sent.len() >= self.config.max_connections.get() {
                return None;
            }
            let at = self.turn % self.partitions.len();
            self.turn = at + 1;
            match self.partitions[at].next(now, &self.order, &self.config) {
                Next::Send(batch) => {
                    self.send(now, at, batch);
                    passed = 0;
                    next_at = None;
                    continue;
                }
                Next::At(due) => next_at = Some(next_at.map_or(due, |at| at.min(due))),
                Next::Idle => {}
            }
            passed += 1;
        }
        next_at
    }

    fn send(&mut self, now: Duration, at: usize, batch: Batch) {
        let Batch {
            slots,
            bytes,
            route,
        } = batch;
        let mut operations = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let entry = self.order.get_mut(slot);
            debug_assert_eq!(entry.state, State::Ready, "an operation is in one place");
            entry.state = State::InFlight;
            operations.push(entry.operation.clone());
        }
        let group = self.order.get(slots[0]).group;
        self.groups.sent(group);
        let partition = &mut self.partitions[at];
        let id = RequestId(self.requests);
        self.requests += 1;
        let sent = Sent {
            range: partition.range.clone(),
            at: now,
            version: self.version,
            group,
            pace: partition.pace.sent(now, slots.len(), bytes),
            slots,
        };
        self.out.push(Output::Send(Request {
            id,
            range: sent.range.clone(),
            route,
            operations,
        }));
        self.sent.insert(id, sent);
    }

    /// How often any of the operations of a request that is under way was sent before.
    pub(crate) fn retries(&self, request: RequestId) -> usize {
        let slots = self.sent.get(&request).into_iter();
        let slots = slots.flat_map(|sent| &sent.slots);
        let attempts = slots.map(|slot| self.order.get(*slot).attempts);
        attempts.max().unwrap_or(0) as usize
    }

    /// An operation is done, and its successor can go.
    pub(super) fn finish(&mut self, now: Duration, slot: Slot, how: Settled) {
        let (entry, next) = self.order.finish(slot, now);
        self.settle(&entry, how);
        if let Some(next) = next {
            self.enqueue(now, next);
        }
    }

    fn settle(&mut self, entry: &Entry, how: Settled) {
        let bytes = entry.operation.memory_bytes();
        self.held_bytes -= bytes;
        self.partitions[entry.partition as usize].held_bytes -= bytes;
        self.acknowledged += u64::from(!matches!(how, Settled::Unwritten));
        self.groups.settle(entry, how);
    }

    fn enqueue(&mut self, now: Duration, slot: Slot) {
        let at = self.order.get(slot).partition;
        self.partitions[at as usize].push(now, slot);
    }

    /// Drops what is not in flight and not wanted.
    fn drop_unwanted(&mut self, now: Duration, wanted: impl Fn(&Groups, &Entry) -> bool) {
        let groups = &self.groups;
        let (removed, released) = self.order.withdraw(now, |entry| wanted(groups, entry));
        let gone: HashSet<Slot> = removed.iter().map(|(slot, _)| *slot).collect();
        for partition in &mut self.partitions {
            partition.forget(&gone);
        }
        self.adrift.retain(|slot| !gone.contains(slot));
        self.later.retain(|Reverse((_, slot))| !gone.contains(slot));
        for (_, entry) in removed {
            self.settle(&entry, Settled::Unwritten);
        }
        for slot in released {
            self.enqueue(now, slot);
        }
    }
}
