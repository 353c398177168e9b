//! The first few values of each key, kept up to date.
//!
//! What differential's `reduce` computes when its logic takes the first values, without going through all values of a key whenever one
//! of them changes. Rules:
//!
//! 1. A key and all its values belong to one worker, by the key's hash.
//! 2. An epoch's changes are applied when no more of it can come, epoch by epoch. Then each key that changed is looked at once, and
//!    what came into its first values and what went out of them is given.
//! 3. A value that is there twice takes two places.
//!
//! Memory holds every value of every key once: one that leaves makes room for any other.

use std::collections::{BTreeMap, btree_map};
use std::hash::Hash;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, ExchangeData, Hashable, VecCollection};
use hashbrown::{HashMap, hash_map};
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

impl<'scope, K: ExchangeData + Hash, V: ExchangeData + Hash> TopK<'scope, K, V>
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
                    let mut keys: HashMap<K, Values<V>> = HashMap::new();
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

/// The values of one key, with how often each is there.
///
/// Only the first of them are kept in order, some times `k`: what is behind them comes and goes in a hash table, which is looked through
/// when so many of the first have gone that others must take their place.
struct Values<V> {
    counts: HashMap<V, isize>,
    /// The values up to `bound`, or all if there is none.
    first: BTreeMap<V, isize>,
    bound: Option<V>,
    /// What was given.
    given: Vec<(V, isize)>,
}

/// Values that are kept in order, for each that is given; four times as many before those behind are let go.
const SPARE: usize = 4;

impl<V> Default for Values<V> {
    fn default() -> Self {
        Values {
            counts: HashMap::new(),
            first: BTreeMap::new(),
            bound: None,
            given: Vec::new(),
        }
    }
}

impl<V: Clone + Ord + Hash> Values<V> {
    /// Applies changes, and says what that changes of the first `k`.
    fn apply(&mut self, mut changes: Vec<(V, isize)>, k: usize) -> Vec<(V, isize)> {
        consolidate(&mut changes);
        let mut touched = false;
        for (value, diff) in changes {
            if self.bound.as_ref().is_none_or(|bound| value <= *bound) {
                touched = true;
                self.change_first(value.clone(), diff);
            }
            self.change_count(value, diff);
        }
        if !touched {
            return Vec::new();
        }
        self.keep_enough(k);
        let now = self.first_of(k);
        let before = std::mem::replace(&mut self.given, now.clone());
        let mut changed = now;
        changed.extend(before.into_iter().map(|(value, times)| (value, -times)));
        consolidate(&mut changed);
        changed
    }

    fn change_first(&mut self, value: V, diff: isize) {
        match self.first.entry(value) {
            btree_map::Entry::Vacant(entry) => drop(entry.insert(diff)),
            btree_map::Entry::Occupied(entry) if *entry.get() + diff == 0 => drop(entry.remove()),
            btree_map::Entry::Occupied(mut entry) => *entry.get_mut() += diff,
        }
    }

    fn change_count(&mut self, value: V, diff: isize) {
        match self.counts.entry(value) {
            hash_map::Entry::Vacant(entry) => drop(entry.insert(diff)),
            hash_map::Entry::Occupied(entry) if *entry.get() + diff == 0 => drop(entry.remove()),
            hash_map::Entry::Occupied(mut entry) => *entry.get_mut() += diff,
        }
    }

    /// Keeps enough of the first values in order, and not many more. What was taken away before it has come is not there.
    fn keep_enough(&mut self, k: usize) {
        let spare = SPARE * k;
        let there = self.first.values().filter(|count| **count > 0);
        let (mut values, places) = there.fold((0, 0), |(n, sum), count| (n + 1, sum + count));
        if self.bound.is_some() && places < k as isize {
            return self.look_through(spare);
        }
        if values <= 4 * spare {
            return;
        }
        while values > spare
            && let Some((_, count)) = self.first.pop_last()
        {
            values -= usize::from(count > 0);
        }
        self.bound = self.first.last_key_value().map(|(last, _)| last.clone());
    }

    /// Looks for the first `spare` values and puts them in order.
    fn look_through(&mut self, spare: usize) {
        let there = self.counts.iter().filter(|(_, count)| **count > 0);
        let mut there: Vec<&V> = there.map(|(value, _)| value).collect();
        let bound = (there.len() > spare).then(|| (*there.select_nth_unstable(spare).1).clone());
        let within = |value: &V| bound.as_ref().is_none_or(|bound| value <= bound);
        let first = self.counts.iter().filter(|(value, _)| within(value));
        self.first = first
            .map(|(value, count)| (value.clone(), *count))
            .collect();
        self.bound = bound;
    }

    fn first_of(&self, k: usize) -> Vec<(V, isize)> {
        let mut left = k as isize;
        let mut first = Vec::new();
        // What is taken away before it has come takes no place.
        for (value, count) in self.first.iter().filter(|(_, count)| **count > 0) {
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
            // With few values some are there more than once, with many most are behind those in order.
            let values = [20, 2000][random.usize(..2)];
            let mut there: Vec<Row> = Vec::new();
            let mut updates: Found = Vec::new();
            for epoch in 0..10 {
                // Now most come, now most go.
                let share = random.u8(1..9);
                for _ in 0..random.usize(..120) {
                    let goes = !there.is_empty() && random.u8(..10) < share;
                    let some = (random.u8(..3), random.u16(..values));
                    let row = match goes {
                        // Of some more go than have come.
                        true if random.u8(..20) == 0 => some,
                        true => there.swap_remove(random.usize(..there.len())),
                        false => some,
                    };
                    if !goes {
                        there.push(row);
                    }
                    updates.push((row, epoch, if goes { -1 } else { 1 }));
                }
            }
            let (k, workers) = (random.usize(1..4), random.usize(1..=3));
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
