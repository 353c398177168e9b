//! The first few values of each key, kept up to date.
//!
//! What differential's `reduce` computes when its logic takes the first values, without going through all values of a key whenever one
//! of them changes: each key's values are in order, so an epoch's changes cost their logarithm. Rules:
//!
//! 1. A key and all its values belong to one worker, by the key's hash.
//! 2. An epoch's changes are applied when no more of it can come, epoch by epoch. Then each key that changed is looked at once, and
//!    what came into its first values and what went out of them is given.
//! 3. A value that is there twice takes two places.
//!
//! Memory holds every value of every key once: one that leaves makes room for any other.

use std::collections::BTreeMap;
use std::hash::Hash;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, ExchangeData, Hashable, VecCollection};
use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

/// The first values of the keys of a collection.
pub trait TopK<'scope, K, V> {
    /// The `k` smallest values of each key; [`Reverse`](std::cmp::Reverse) makes them the largest.
    ///
    /// ```
    /// use std::cmp::Reverse;
    ///
    /// use tidefeed_operators::top_k::TopK;
    /// use differential_dataflow::input::Input;
    ///
    /// timely::example(|scope| {
    ///     let orders = [("north", 3), ("north", 9), ("south", 4), ("north", 7)];
    ///     let orders = scope.new_collection_from(orders.map(|(region, cents)| (region.to_owned(), Reverse(cents)))).1;
    ///     let largest = [("north", 9), ("north", 7), ("south", 4)];
    ///     let largest = scope.new_collection_from(largest.map(|(region, cents)| (region.to_owned(), Reverse(cents)))).1;
    ///     orders.top_k(2).assert_eq(largest);
    /// });
    /// ```
    fn top_k(self, k: usize) -> VecCollection<'scope, u64, (K, V), isize>;
}

impl<'scope, K: ExchangeData + Hash, V: ExchangeData> TopK<'scope, K, V>
    for VecCollection<'scope, u64, (K, V), isize>
{
    fn top_k(self, k: usize) -> VecCollection<'scope, u64, (K, V), isize> {
        type Update<K, V> = ((K, V), u64, isize);
        let by_key = Exchange::new(|((key, _), ..): &Update<K, V>| key.hashed());
        let name = format!("TopK: {k}");
        let updates = self
            .inner
            .unary_frontier::<CapacityContainerBuilder<Vec<Update<K, V>>>, _, _, _>(
                by_key,
                &name,
                |_cap, _info| {
                    let mut keys: HashMap<K, Ordered<V>> = HashMap::new();
                    let mut waiting: BTreeMap<u64, (Capability<u64>, Changes<K, V>)> =
                        BTreeMap::new();
                    move |(input, frontier), output| {
                        input.for_each(|cap, updates| {
                            for ((key, value), epoch, diff) in updates.drain(..) {
                                let new = || (cap.delayed(&epoch, 0), HashMap::new());
                                let (_, changes) = waiting.entry(epoch).or_insert_with(new);
                                changes.entry(key).or_default().push((value, diff));
                            }
                        });
                        while let Some(oldest) = waiting.first_entry()
                            && !frontier.less_equal(oldest.key())
                        {
                            let (epoch, (cap, changes)) = oldest.remove_entry();
                            let mut session = output.session(&cap);
                            for (key, changes) in changes {
                                let values = keys.entry(key.clone()).or_default();
                                for (value, diff) in values.apply(changes, k) {
                                    session.give(((key.clone(), value), epoch, diff));
                                }
                                if values.counts.is_empty() {
                                    keys.remove(&key);
                                }
                            }
                        }
                    }
                },
            );
        updates.as_collection()
    }
}

/// What comes and goes, by key.
type Changes<K, V> = HashMap<K, Vec<(V, isize)>>;

/// The values of one key, in order, with how often each is there.
struct Ordered<V> {
    counts: BTreeMap<V, isize>,
    /// What was given as its first values.
    first: Vec<(V, isize)>,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Ordered {
            counts: BTreeMap::new(),
            first: Vec::new(),
        }
    }
}

impl<V: Clone + Ord> Ordered<V> {
    /// Applies changes, and says what that changes of the first `k`.
    fn apply(&mut self, mut changes: Vec<(V, isize)>, k: usize) -> Vec<(V, isize)> {
        consolidate(&mut changes);
        let last = self.first.last().map(|(value, _)| value);
        let full = self.places() >= k as isize;
        // Behind the last of those that are full, nothing changes them.
        let matters = |(value, _): &(V, isize)| !full || last.is_some_and(|last| value <= last);
        let matter = changes.iter().any(matters);
        for (value, diff) in changes {
            let count = self.counts.entry(value.clone()).or_default();
            *count += diff;
            if *count == 0 {
                self.counts.remove(&value);
            }
        }
        if !matter {
            return Vec::new();
        }
        let now = self.first_of(k);
        let before = std::mem::replace(&mut self.first, now.clone());
        let mut changed = now;
        changed.extend(before.into_iter().map(|(value, times)| (value, -times)));
        consolidate(&mut changed);
        changed
    }

    /// Places that are taken.
    fn places(&self) -> isize {
        self.first.iter().map(|(_, times)| times).sum()
    }

    fn first_of(&self, k: usize) -> Vec<(V, isize)> {
        let mut left = k as isize;
        let mut first = Vec::new();
        // What was taken away before it came, by changes that are still under way elsewhere, takes no place.
        for (value, count) in self.counts.iter().filter(|(_, count)| **count > 0) {
            if left == 0 {
                break;
            }
            let times = (*count).min(left);
            left -= times;
            first.push((value.clone(), times));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use differential_dataflow::consolidation::consolidate_updates;
    use differential_dataflow::input::Input;
    use timely::dataflow::operators::Capture;
    use timely::dataflow::operators::capture::Extract;

    use super::*;

    type Row = (u8, u16);
    type Found = Vec<(Row, u64, isize)>;

    /// Rows come and go over epochs, on several workers; differential's own operator is beside it.
    #[test]
    fn first_values_are_those_of_differential() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let mut there: Vec<Row> = Vec::new();
            let mut updates: Found = Vec::new();
            for epoch in 0..10 {
                for _ in 0..random.usize(..30) {
                    let goes = !there.is_empty() && random.u8(..5) < 2;
                    let row = match goes {
                        true => there.swap_remove(random.usize(..there.len())),
                        false => (random.u8(..4), random.u16(..20)),
                    };
                    if !goes {
                        there.push(row);
                    }
                    updates.push((row, epoch, if goes { -1 } else { 1 }));
                }
            }
            let (k, workers) = (random.usize(1..6), random.usize(1..=3));
            let (ours, theirs) = both(updates, k, workers);
            assert_eq!(ours, theirs, "seed {seed}, round {round}");
        }
    }

    fn both(updates: Found, k: usize, workers: usize) -> (Found, Found) {
        let (to_ours, ours) = mpsc::channel();
        let (to_theirs, theirs) = mpsc::channel();
        let senders = Mutex::new((to_ours, to_theirs));
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let (to_ours, to_theirs) = senders.lock().expect("nobody panicked").clone();
            let (index, peers) = (worker.index(), worker.peers());
            let mut input = worker.dataflow::<u64, _, _>(|scope| {
                let (input, rows) = scope.new_collection::<Row, isize>();
                rows.clone().top_k(k).inner.capture_into(to_ours);
                let reduced = rows.reduce(move |_key, values, first| {
                    let all = values.iter();
                    let all = all.flat_map(|(value, count)| {
                        std::iter::repeat_n(**value, (*count).max(0) as usize)
                    });
                    first.extend(all.take(k).map(|value| (value, 1)));
                });
                reduced.inner.capture_into(to_theirs);
                input
            });
            for (at, (row, epoch, diff)) in updates.iter().enumerate() {
                if at % peers == index {
                    input.update_at(*row, *epoch, *diff);
                }
            }
            for epoch in 1..=10 {
                input.advance_to(epoch);
                input.flush();
                worker.step();
            }
        });
        drop(guards.expect("runs"));
        let all = |captured: mpsc::Receiver<_>| {
            let captured = captured.extract().into_iter();
            let mut all: Found = captured.flat_map(|(_, rows)| rows).collect();
            consolidate_updates(&mut all);
            all
        };
        (all(ours), all(theirs))
    }
}
