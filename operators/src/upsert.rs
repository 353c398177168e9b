//! Upserts become a collection: the newest value of each document, with what it replaces retracted.
//!
//! Each worker keeps the current value of its documents, by key, and emits the difference that an upsert makes: the new value,
//! and what it takes the place of. Rules:
//!
//! 1. A document belongs to one worker, by the hash of its key.
//! 2. An upsert is applied when no earlier epoch can bring another one. For upserts at the frontier of the records that is at
//!    once, for the others when that frontier has come to them. So what a checkpoint holds goes straight into place, piece by
//!    piece, and epochs are worked on while those before are being sealed. The collection's own frontier waits for the seals:
//!    the source's other stream is an input too, and timely lets no output run ahead of an input (I1).
//! 3. Of several upserts of a document in one epoch the last to arrive wins. They come from the worker that holds the document's
//!    feed range, and one worker's upserts stay in order on their way.
//! 4. An upsert to the same value, and the removal of a document that is not there, emit nothing.
//!
//! This is what differential's `arrange_from_upsert` computes, with a hash table in place of its arrangement: nothing else
//! reads that arrangement, and sorting, batching and merging every document took most of the time of a recovery.

use std::collections::BTreeMap;

use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::de::DeserializeOwned;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::portable::Portable;
use crate::source::DocumentKey;
use crate::source::rows::{Upsert, Upserts};

/// Turns a stream of upserts into the collection of current values.
pub trait UpsertToCollection<'scope, V> {
    /// The collection of the newest value of every document.
    ///
    /// Memory holds one value and one key for each live document.
    fn upsert_to_collection(self, name: &str) -> VecCollection<'scope, u64, V, isize>;
}

impl<'scope, V: ExchangeData> UpsertToCollection<'scope, V> for Upserts<'scope, V> {
    fn upsert_to_collection(self, name: &str) -> VecCollection<'scope, u64, V, isize> {
        // The bits by which a loader chooses a worker, so that what is loaded stays where it is; the table uses the others.
        let exchange = Exchange::new(|(key, ..): &Upsert<V>| worker_hash(key));
        let name = format!("Upsert: {name}");
        let updates =
            self.records
                .binary_frontier(self.unsealed, exchange, Pipeline, &name, |_, _| {
                    let mut documents = Documents::default();
                    let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<Upsert<V>>)> =
                        BTreeMap::new();
                    move |(input, frontier), (unsealed, _), output| {
                        // It carries nothing, but an input must be read.
                        unsealed.for_each(|_, _| {});
                        let bound = frontier.frontier().as_option().copied();
                        while let Some(first) = waiting.first_entry()
                            && bound.is_none_or(|bound| *first.key() <= bound)
                        {
                            let (cap, upserts) = first.remove();
                            let mut session = output.session(&cap);
                            for upsert in upserts {
                                documents.apply(upsert, |update| session.give(update));
                            }
                        }
                        input.for_each(|cap, upserts| {
                            // Nothing earlier waits: that would be below the bound, and is applied.
                            if bound.is_none_or(|bound| *cap.time() <= bound) {
                                let mut session = output.session(&cap);
                                for upsert in upserts.drain(..) {
                                    documents.apply(upsert, |update| session.give(update));
                                }
                                return;
                            }
                            let at = waiting.entry(*cap.time());
                            let (_, waiting) = at.or_insert_with(|| (cap.retain(0), Vec::new()));
                            waiting.append(upserts);
                        });
                    }
                });
        updates.as_collection()
    }
}

/// Which worker has a document, modulo their number.
pub(crate) fn worker_hash(key: &DocumentKey) -> u64 {
    key.hash() >> 32
}

/// Parts of the table. Each grows by itself, so that no epoch waits for millions of documents to be moved at once.
const PARTS: usize = 256;

/// The current value of every document of one worker.
struct Documents<V> {
    parts: Vec<HashTable<Document<V>>>,
}

struct Document<V> {
    key: DocumentKey,
    value: V,
}

impl<V> Default for Documents<V> {
    fn default() -> Self {
        Documents {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
        }
    }
}

impl<V: Clone + Eq + DeserializeOwned> Documents<V> {
    /// Applies an upsert and emits what it changes.
    fn apply(&mut self, (key, value, time): Upsert<V>, mut emit: impl FnMut((V, u64, isize))) {
        let hash = key.hash();
        let value = value.map(Portable::into_value);
        // Of the lower half, the bits that a table of up to 2^24 documents does not use.
        let part = &mut self.parts[(hash >> 24) as usize % PARTS];
        let entry = part.entry(
            hash,
            |document| document.key == key,
            |document| document.key.hash(),
        );
        match (entry, value) {
            (Entry::Occupied(mut entry), Some(value)) => {
                let current = &mut entry.get_mut().value;
                if *current != value {
                    emit((std::mem::replace(current, value.clone()), time, -1));
                    emit((value, time, 1));
                }
            }
            (Entry::Occupied(entry), None) => {
                let (gone, _) = entry.remove();
                emit((gone.value, time, -1));
            }
            (Entry::Vacant(entry), Some(value)) => {
                emit((value.clone(), time, 1));
                entry.insert(Document { key, value });
            }
            (Entry::Vacant(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::operators::Capture;
    use timely::dataflow::operators::capture::Extract;
    use timely::dataflow::operators::core::UnorderedInput;

    use super::*;

    const EPOCHS: u64 = 20;

    /// What a map makes of the same upserts.
    fn expected(upserts: &[Upsert<u8>]) -> Vec<(u8, u64, isize)> {
        let mut sorted = upserts.to_vec();
        sorted.sort_by_key(|(_, _, time)| *time);
        let mut current: HashMap<DocumentKey, u8> = HashMap::new();
        let mut updates = Vec::new();
        for (key, value, time) in sorted {
            let value = value.map(Portable::into_value);
            let before = match value {
                Some(value) => current.insert(key, value),
                None => current.remove(&key),
            };
            if before != value {
                updates.extend(before.map(|gone| (gone, time, -1)));
                updates.extend(value.map(|come| (come, time, 1)));
            }
        }
        updates
    }

    fn consolidated(mut updates: Vec<(u8, u64, isize)>) -> Vec<(u8, u64, isize)> {
        let updates = updates
            .drain(..)
            .map(|(value, time, diff)| ((value, time), diff));
        let mut updates: Vec<_> = updates.collect();
        differential_dataflow::consolidation::consolidate(&mut updates);
        updates
            .into_iter()
            .map(|((value, time), diff)| (value, time, diff))
            .collect()
    }

    /// Epochs come mixed up and while the frontier stands below them, on several workers, with several upserts of a document
    /// in an epoch; the collection changes at each epoch as it does when they come in order.
    #[test]
    fn any_order_of_arrival_makes_the_same_collection() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let mut upserts: Vec<Upsert<u8>> = Vec::new();
            for time in 0..EPOCHS {
                for _ in 0..random.u8(..40) {
                    let key = DocumentKey::from([random.u8(..30)].as_slice());
                    let value = random.bool().then(|| Portable::Here(random.u8(..3)));
                    upserts.push((key, value, time));
                }
            }
            let expected = consolidated(expected(&upserts));
            let workers = random.usize(1..=3);
            let (sender, receiver) = std::sync::mpsc::channel();
            let sender = std::sync::Mutex::new(sender);
            let guards = timely::execute(timely::Config::process(workers), move |worker| {
                let mut random = fastrand::Rng::with_seed(seed ^ round);
                let sender = sender.lock().expect("nobody panicked").clone();
                let (index, peers) = (worker.index(), worker.peers());
                let ((mut input, mut cap), (_unsealed, mut unsealed_cap)) = worker
                    .dataflow::<u64, _, _>(|scope| {
                        let (input, records) = scope.new_unordered_input();
                        let (other, unsealed) =
                            scope.new_unordered_input::<CapacityContainerBuilder<Vec<()>>>();
                        let rows = Upserts { records, unsealed }.upsert_to_collection("test");
                        rows.inner.capture_into(sender);
                        (input, other)
                    });
                // Each worker brings the documents that it holds, three epochs at a time mixed up, each in order.
                for first in (0..EPOCHS).step_by(3) {
                    cap = cap.delayed(&first);
                    let mut due: Vec<VecDeque<_>> = (first..first + 3)
                        .map(|time| {
                            let held = |(key, _, at): &&Upsert<u8>| {
                                *at == time && usize::from(key.as_bytes()[0]) % peers == index
                            };
                            upserts.iter().filter(held).cloned().collect()
                        })
                        .collect();
                    while due.iter().any(|epoch| !epoch.is_empty()) {
                        let Some(upsert) = due[random.usize(..3)].pop_front() else {
                            continue;
                        };
                        input
                            .activate()
                            .session(&cap.delayed(&upsert.2))
                            .give(upsert);
                        if random.bool() {
                            worker.step();
                        }
                        // Seals come late or early; neither may change anything but the frontier.
                        if random.u8(0..8) == 0 {
                            let sealed = random.u64(*unsealed_cap.time()..=first);
                            unsealed_cap.downgrade(&sealed);
                        }
                    }
                }
            });
            drop(guards.expect("runs"));
            let captured = receiver.extract().into_iter();
            let found = captured.flat_map(|(_, updates)| updates).collect();
            assert_eq!(consolidated(found), expected, "{workers} workers");
        }
    }

    /// The stream of records runs ahead of what is durable; the collection must not (I1).
    #[test]
    fn the_collection_waits_for_the_seal_and_the_next_epoch_does_not() {
        timely::execute_directly(|worker| {
            let (((mut input, mut cap), (_unsealed, mut unsealed_cap)), probe, rows) = worker
                .dataflow::<u64, _, _>(|scope| {
                    let (input, records) = scope.new_unordered_input();
                    let (other, unsealed) =
                        scope.new_unordered_input::<CapacityContainerBuilder<Vec<()>>>();
                    let rows = Upserts { records, unsealed }.upsert_to_collection("test");
                    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
                    let count = std::rc::Rc::clone(&seen);
                    let rows = rows.inspect(move |_| count.set(count.get() + 1));
                    let (probe, _) = rows.probe();
                    ((input, other), probe, seen)
                });
            for epoch in 1..=3 {
                let key = DocumentKey::from([epoch as u8].as_slice());
                cap.downgrade(&epoch);
                let value = Some(Portable::Here(1u8));
                input.activate().session(&cap).give((key, value, epoch));
            }
            cap.downgrade(&4);
            for _ in 0..100 {
                worker.step();
            }
            assert_eq!(rows.get(), 3, "all three epochs are worked on");
            assert!(
                !probe.less_than(&0) && probe.less_equal(&0),
                "none is sealed"
            );
            unsealed_cap.downgrade(&2);
            for _ in 0..100 {
                worker.step();
            }
            assert!(
                !probe.less_equal(&1) && probe.less_equal(&2),
                "one is sealed"
            );
        });
    }
}
