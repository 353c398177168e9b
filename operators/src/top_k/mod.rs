//! The first few values of each key, kept up to date.
//!
//! What differential's `reduce` computes when its logic takes the first values, without going through all values of a key whenever one
//! of them changes. Rules:
//!
//! 1. A key and all its values belong to one worker, by the key's hash.
//! 2. An epoch's changes are applied when no more of it can come, epoch by epoch. Then each key whose first values changed is looked at
//!    once, and what came into them and what went out of them is given.
//! 3. A value that is there twice takes two places. One that is taken away before it has come takes none.
//!
//! Of a key, the first values are kept in order, at least `k` and at most some times as many. Those behind are a list that is only
//! appended to, and sorted in parts (`runs.rs`). When so many of the first have gone that fewer than `k` are left, the next move up.
//!
//! With `n` values of a key, a change takes time in `O(log n)`, amortised, whether it is among the first or behind, and most take less:
//! one comparison, and their part in sorting. A value that moves up takes time in `O(log n)`. Each epoch, a key whose first values
//! changed takes time in `O(k)`. Where more of a key goes than has come, what is missing among the first takes time in each such epoch.
//!
//! Memory holds every value of every key once: one that leaves makes room for any other. Where values come and go, it holds up to twice
//! as many as there are. What has come of epochs under way is held besides.

mod runs;
mod values;

use std::hash::Hash;

use differential_dataflow::{AsCollection, ExchangeData, Hashable, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::by_epoch::ByEpoch;
use values::Keys;

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
        type Builder<K, V> = CapacityContainerBuilder<Vec<Update<K, V>>>;
        let by_key = Exchange::new(|((key, _), ..): &Update<K, V>| key.hashed());
        let name = format!("TopK: {k}");
        let updates =
            self.inner
                .unary_frontier::<Builder<K, V>, _, _, _>(by_key, &name, |_cap, _info| {
                    let mut keys = Keys::new(k);
                    let mut epochs = ByEpoch::<Vec<_>>::new();
                    move |(input, frontier), output| {
                        input.for_each(|cap, updates| {
                            let add = |came: &mut Vec<_>, row, diff| came.push((row, diff));
                            epochs.add(&cap, updates.drain(..), add);
                        });
                        while let Some((epoch, cap, changes)) = epochs.next_complete(frontier) {
                            let mut session = output.session(&cap);
                            keys.apply(changes, |row, diff| session.give((row, epoch, diff)));
                        }
                    }
                });
        updates.as_collection()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{Found, both};

    type Row = (u8, u16);

    /// Rows come and go over epochs, on several workers; differential's own operator is beside it.
    #[test]
    fn first_values_are_those_of_differential() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let updates = updates(&mut random);
            let (k, workers) = (random.usize(..5), random.usize(1..=3));
            let (ours, theirs) = both(
                updates,
                workers,
                move |rows| rows.top_k(k),
                move |rows| {
                    rows.reduce(move |_key, values, first| {
                        let all = values.iter();
                        let all = all.flat_map(|(value, count)| {
                            std::iter::repeat_n(**value, (*count).max(0) as usize)
                        });
                        first.extend(all.take(k).map(|value| (value, 1)));
                    })
                },
            );
            assert_eq!(ours, theirs, "seed {seed}, round {round}");
        }
    }

    fn updates(random: &mut fastrand::Rng) -> Found<Row> {
        // With few values some are there more than once, with many most are behind those in order.
        let values = [20, 2_000, 60_000][random.usize(..3)];
        let most = [50, 500][random.usize(..2)];
        let mut there: Vec<Row> = Vec::new();
        let mut missing: Vec<Row> = Vec::new();
        let mut updates: Found<Row> = Vec::new();
        for epoch in 0..10 {
            // Now most come, now most go; at times the smallest.
            let (share, smallest) = (random.u8(1..9), random.bool());
            for _ in 0..random.usize(..most) {
                let goes = !there.is_empty() && random.u8(..10) < share;
                let some = (random.u8(..3), random.u16(..values));
                let row = match goes {
                    // Of some more go than have come; most of those come later.
                    true if random.u8(..20) == 0 => {
                        missing.push(some);
                        some
                    }
                    true if smallest => {
                        let rows = there.iter().enumerate();
                        let at = rows.min_by_key(|(_, row)| **row).map_or(0, |(at, _)| at);
                        there.swap_remove(at)
                    }
                    true => there.swap_remove(random.usize(..there.len())),
                    false if random.u8(..10) == 0 => missing.pop().unwrap_or(some),
                    false => some,
                };
                if !goes {
                    there.push(row);
                }
                updates.push((row, epoch, if goes { -1 } else { 1 }));
            }
            // All of a key go.
            if random.u8(..4) == 0 {
                let key = random.u8(..3);
                let gone = there.extract_if(.., |row| row.0 == key);
                updates.extend(gone.map(|row| (row, epoch, -1)));
            }
        }
        updates
    }
}
