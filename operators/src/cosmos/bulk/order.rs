//! Operations in the order of their documents: the only place that decides what may be sent at all.
//!
//! ```text
//!     push --> Waiting --its predecessors are done--> Ready <--> InFlight --> done
//!                 ^ a newer one takes its place        ^ too      `--> Letter --> done
//! ```
//!
//! 1. Operations with one order key form a chain. Only the first of a chain is released (ready, in flight, or becoming a
//!    dead letter), and it stays released until it is done. So retries never let a successor pass.
//! 2. An unconditional upsert or delete that has not been sent, or whose attempts certainly had no effect, gives its place to
//!    a newer one of the same document, if that is wanted. Whoever waits for it waits for the newer one.
//! 3. After an attempt that may still take effect, the same content can be sent again at once: it lands on itself. What
//!    comes after it in the chain waits until the chain is quiet, also if it comes later: the old attempt could land on it.
//!
//! Memory: [`BYTES_FOR_EACH`] operation, beside the operation itself.

use std::cmp::Reverse;
use std::collections::hash_map::{self, OccupiedEntry};
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::operation::{Operation, OrderKey};

/// Names an operation from `push` until `finish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(usize);

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Ready,
    InFlight,
    Letter,
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Arc<Operation>,
    pub(crate) state: State,
    /// Whose it is: the position of its group.
    pub(crate) group: usize,
    /// The groups of the operations whose place it took, with how many.
    pub(crate) superseded: Vec<(usize, u32)>,
    /// The position of its range in the routing map.
    pub(crate) partition: u32,
    /// Its size in a request.
    pub(crate) bytes: usize,
    /// Whether an attempt at it may have taken effect.
    pub(crate) ambiguous: bool,
    /// Attempts that failed by its own fault.
    pub(crate) attempts: u32,
    /// The most operations that a request with it may have.
    pub(crate) company: u8,
    next: Option<Slot>,
}

#[derive(Debug, Default)]
struct Chain {
    /// First and last, or none while only the wait for quiet is left.
    ends: Option<(Slot, Slot)>,
    /// Until then an attempt of an earlier operation may still take effect.
    quiet_from: Duration,
    /// Whether it is among those that wait for quiet.
    waits: bool,
}

/// What is kept for an operation here and in the queue of its partition, in bytes: its entry, its chain, if it has one of its
/// own, and a place in the queue. The three grow by doubling, so a third of their room is empty on average.
pub(crate) const BYTES_FOR_EACH: usize =
    (size_of::<Entry>() + size_of::<(OrderKey, Chain)>() + 2 * size_of::<Slot>()) * 3 / 2;

/// What became of a pushed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It can be sent.
    Released(Slot),
    /// It comes after others.
    Waiting(Slot),
    /// It took the place of an older one.
    Superseded {
        /// What it takes in memory.
        bytes: usize,
        /// What the older one took.
        replaced: usize,
    },
}

/// All operations under way.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    slab: Slab<Entry>,
    chains: Chains,
    /// Chains whose first operation, if any, waits for quiet. Each is here once.
    quiet: BinaryHeap<Reverse<(Duration, OrderKey)>>,
}

type Chains = HashMap<OrderKey, Chain, BuildHasherDefault<PassThrough>>;

impl KeyOrder {
    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The operation with this name.
    pub(crate) fn get(&self, slot: Slot) -> &Entry {
        &self.slab[slot.0]
    }

    /// The operation with this name, to change.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.slab[slot.0]
    }

    /// Everything under way.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slab.iter().map(|(_, entry)| entry)
    }

    /// Everything under way, to change.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slab.iter_mut().map(|(_, entry)| entry)
    }

    /// Takes in a new operation of a group.
    pub(crate) fn push(
        &mut self,
        operation: Operation,
        group: usize,
        partition: u32,
        coalesce: bool,
    ) -> Pushed {
        let chain = self.chains.entry(operation.order).or_default();
        if let Some((_, last)) = chain.ends
            && coalesce
            && self.slab[last.0].gives_way_to(&operation)
        {
            let bytes = operation.memory_bytes();
            let replaced = self.slab[last.0].replace(operation, group);
            return Pushed::Superseded { bytes, replaced };
        }
        // A chain without operations is there only while it is not quiet.
        let is_released = chain.ends.is_none() && chain.quiet_from.is_zero();
        let slot = Slot(self.slab.insert(Entry {
            bytes: operation.size_bytes(),
            operation: Arc::new(operation),
            state: if is_released {
                State::Ready
            } else {
                State::Waiting
            },
            group,
            superseded: Vec::new(),
            partition,
            ambiguous: false,
            attempts: 0,
            company: u8::MAX,
            next: None,
        }));
        if let Some((_, last)) = chain.ends {
            self.slab[last.0].next = Some(slot);
        }
        let first = chain.ends.map_or(slot, |(first, _)| first);
        chain.ends = Some((first, slot));
        match is_released {
            true => Pushed::Released(slot),
            false => Pushed::Waiting(slot),
        }
    }

    /// Says that an attempt at the operation may have taken effect, or may still until `until`.
    pub(crate) fn ambiguous(&mut self, slot: Slot, until: Duration) {
        let entry = &mut self.slab[slot.0];
        entry.ambiguous = true;
        let chain = self.chains.get_mut(&entry.operation.order);
        let chain = chain.expect("a chain is there while it has operations");
        chain.quiet_from = chain.quiet_from.max(until);
    }

    /// Takes out an operation that is done, the first of its chain. Returns it, and its successor if that can be sent now.
    pub(crate) fn finish(&mut self, slot: Slot, now: Duration) -> (Entry, Option<Slot>) {
        let entry = self.slab.remove(slot.0);
        let mut chain = occupied(&mut self.chains, entry.operation.order);
        let (first, last) = chain
            .get()
            .ends
            .expect("a chain with an operation has ends");
        assert_eq!(first, slot, "only the first of a chain is released");
        chain.get_mut().ends = entry.next.map(|next| (next, last));
        let next = release(chain, &mut self.slab, &mut self.quiet, now);
        (entry, next)
    }

    /// Takes out what is not in flight and not wanted any more. Returns that, and what can be sent now in its place.
    pub(crate) fn withdraw(
        &mut self,
        now: Duration,
        mut wanted: impl FnMut(&Entry) -> bool,
    ) -> (Vec<(Slot, Entry)>, Vec<Slot>) {
        let (mut removed, mut changed) = (Vec::new(), Vec::new());
        let slab = &mut self.slab;
        for (order, chain) in &mut self.chains {
            let was_first = chain.ends.map(|(first, _)| first);
            let mut kept: Option<(Slot, Slot)> = None;
            let mut at = was_first;
            while let Some(slot) = at {
                let entry = &slab[slot.0];
                at = entry.next;
                if matches!(entry.state, State::Waiting | State::Ready) && !wanted(entry) {
                    removed.push((slot, slab.remove(slot.0)));
                    continue;
                }
                slab[slot.0].next = None;
                if let Some((_, last)) = kept {
                    slab[last.0].next = Some(slot);
                }
                kept = Some((kept.map_or(slot, |(first, _)| first), slot));
            }
            chain.ends = kept;
            if kept.map(|(first, _)| first) != was_first {
                changed.push(*order);
            }
        }
        // The map has them in any order.
        changed.sort_unstable();
        let released = changed.into_iter().filter_map(|order| {
            let chain = occupied(&mut self.chains, order);
            release(chain, &mut self.slab, &mut self.quiet, now)
        });
        (removed, released.collect())
    }

    /// When to call [`wake`](Self::wake) next.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.quiet.peek().map(|Reverse((due, _))| *due)
    }

    /// Releases an operation whose chain has become quiet by `now`. To be called until it returns `None`.
    pub(crate) fn wake(&mut self, now: Duration) -> Option<Slot> {
        while let Some(&Reverse((due, order))) = self.quiet.peek()
            && due <= now
        {
            self.quiet.pop();
            let mut chain = occupied(&mut self.chains, order);
            chain.get_mut().waits = false;
            let released = release(chain, &mut self.slab, &mut self.quiet, now);
            if released.is_some() {
                return released;
            }
        }
        None
    }
}

fn occupied(chains: &mut Chains, order: OrderKey) -> OccupiedEntry<'_, OrderKey, Chain> {
    match chains.entry(order) {
        hash_map::Entry::Occupied(chain) => chain,
        hash_map::Entry::Vacant(_) => {
            unreachable!("a chain is there while it has operations or is not quiet")
        }
    }
}

/// After the first operation of a chain has gone: releases the next, waits for quiet, or forgets the chain.
fn release(
    mut entry: OccupiedEntry<'_, OrderKey, Chain>,
    slab: &mut Slab<Entry>,
    quiet: &mut BinaryHeap<Reverse<(Duration, OrderKey)>>,
    now: Duration,
) -> Option<Slot> {
    let order = *entry.key();
    let chain = entry.get_mut();
    if chain.quiet_from > now {
        // Withdrawing comes here again during the wait, which nothing can make longer.
        if !std::mem::replace(&mut chain.waits, true) {
            quiet.push(Reverse((chain.quiet_from, order)));
        }
        return None;
    }
    chain.quiet_from = Duration::ZERO;
    let Some((first, _)) = chain.ends else {
        entry.remove();
        return None;
    };
    slab[first.0].state = State::Ready;
    Some(first)
}

impl Entry {
    /// Whether a newer operation can take the place of this one.
    fn gives_way_to(&self, newer: &Operation) -> bool {
        matches!(self.state, State::Waiting | State::Ready)
            && !self.ambiguous
            && self.operation.is_plain()
            && newer.is_plain()
            && self.operation.key == newer.key
    }

    /// Puts a newer operation in the place of this one. Returns what the old one took in memory.
    fn replace(&mut self, newer: Operation, group: usize) -> usize {
        match self.superseded.last_mut() {
            Some((last, count)) if *last == self.group => *count += 1,
            _ => self.superseded.push((self.group, 1)),
        }
        self.group = group;
        self.bytes = newer.size_bytes();
        std::mem::replace(&mut self.operation, Arc::new(newer)).memory_bytes()
    }
}

/// Order keys are hashes already.
#[derive(Default)]
pub(crate) struct PassThrough(u64);

impl Hasher for PassThrough {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("an order key hashes as one u128");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
