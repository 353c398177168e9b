//! Sums by key, kept up to date.
//!
//! What differential's `explode` and `count_total` compute, for rows that are many and keys that are fewer. Those sort every change of
//! every row; here each worker adds up an epoch's changes by key first, in a hash table, and only the sums travel. Rules:
//!
//! 1. A worker adds up what it has of an epoch, and gives one change for each key when no more of that epoch can come.
//! 2. A key belongs to one worker, by its hash. There its changes of an epoch are added to its sum, epoch by epoch, and the old sum
//!    gives way to the new one. A sum of zero is no row.
//!
//! Memory holds one key and one sum for each key whose sum is not zero, and the same for the keys that change in epochs under way.

use std::hash::Hash;

use differential_dataflow::difference::{Multiply, Semigroup};
use differential_dataflow::{AsCollection, ExchangeData, Hashable, VecCollection};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;

use crate::by_epoch::ByEpoch;

/// Sums of the rows of a collection.
pub trait SumBy<'scope, R> {
    /// The sum of each key, of what `logic` makes of each row: keys, and what the row adds to each. A row that goes takes that away
    /// again. Keys whose sum is zero are not there.
    ///
    /// A tuple adds up part by part, so `(amount, 1)` makes a sum and a count. Use integers: floats do not come back to zero.
    ///
    /// ```
    /// use tidefeed_operators::sum_by::SumBy;
    /// use differential_dataflow::input::Input;
    ///
    /// timely::example(|scope| {
    ///     let orders = scope.new_collection_from([("north", 3isize), ("south", 4), ("north", 5)]).1;
    ///     let totals = orders.sum_by(|(region, amount)| [(region.to_owned(), (amount, 1isize))]);
    ///     let expected = scope.new_collection_from([("north".to_owned(), (8, 2)), ("south".to_owned(), (4, 1))]).1;
    ///     totals.assert_eq(expected);
    /// });
    /// ```
    fn sum_by<K, S, I>(
        self,
        logic: impl FnMut(R) -> I + 'static,
    ) -> VecCollection<'scope, u64, (K, S), isize>
    where
        K: ExchangeData + Hash,
        S: ExchangeData + Semigroup + Multiply<isize, Output = S>,
        I: IntoIterator<Item = (K, S)>;
}

impl<'scope, R: Clone + 'static> SumBy<'scope, R> for VecCollection<'scope, u64, R, isize> {
    fn sum_by<K, S, I>(
        self,
        logic: impl FnMut(R) -> I + 'static,
    ) -> VecCollection<'scope, u64, (K, S), isize>
    where
        K: ExchangeData + Hash,
        S: ExchangeData + Semigroup + Multiply<isize, Output = S>,
        I: IntoIterator<Item = (K, S)>,
    {
        total(combine(self, logic)).as_collection()
    }
}

/// Changes of the sums of keys.
type Changes<K, S> = HashMap<K, S>;

fn add<K: Eq + Hash, S: Semigroup>(changes: &mut Changes<K, S>, key: K, change: S) {
    match changes.entry(key) {
        Entry::Occupied(mut sum) => sum.get_mut().plus_equals(&change),
        Entry::Vacant(sum) => drop(sum.insert(change)),
    }
}

/// One change for each key that a worker's rows change in an epoch.
fn combine<'scope, R, K, S, I>(
    rows: VecCollection<'scope, u64, R, isize>,
    mut logic: impl FnMut(R) -> I + 'static,
) -> StreamVec<'scope, u64, (K, u64, S)>
where
    R: Clone + 'static,
    K: ExchangeData + Hash,
    S: ExchangeData + Semigroup + Multiply<isize, Output = S>,
    I: IntoIterator<Item = (K, S)>,
{
    type Builder<K, S> = CapacityContainerBuilder<Vec<(K, u64, S)>>;
    rows.inner.unary_frontier::<Builder<K, S>, _, _, _>(
        Pipeline,
        "SumBy: combine",
        |_cap, _info| {
            let mut epochs = ByEpoch::<Changes<K, S>>::new();
            move |(input, frontier), output| {
                input.for_each(|cap, updates| {
                    epochs.add(&cap, updates.drain(..), |changes, row, diff| {
                        for (key, sum) in logic(row) {
                            add(changes, key, sum.multiply(&diff));
                        }
                    });
                });
                while let Some((epoch, cap, changes)) = epochs.next_complete(frontier) {
                    let changed = changes.into_iter().filter(|(_, sum)| !sum.is_zero());
                    output
                        .session(&cap)
                        .give_iterator(changed.map(|(key, sum)| (key, epoch, sum)));
                }
            }
        },
    )
}

/// The sums, from their changes.
fn total<'scope, K, S>(
    changes: StreamVec<'scope, u64, (K, u64, S)>,
) -> StreamVec<'scope, u64, ((K, S), u64, isize)>
where
    K: ExchangeData + Hash,
    S: ExchangeData + Semigroup,
{
    type Builder<K, S> = CapacityContainerBuilder<Vec<((K, S), u64, isize)>>;
    let by_key = Exchange::new(|(key, ..): &(K, u64, S)| key.hashed());
    changes.unary_frontier::<Builder<K, S>, _, _, _>(by_key, "SumBy", |_cap, _info| {
        let mut sums: HashMap<K, S> = HashMap::new();
        let mut epochs = ByEpoch::<Changes<K, S>>::new();
        move |(input, frontier), output| {
            input.for_each(|cap, updates| epochs.add(&cap, updates.drain(..), add));
            while let Some((epoch, cap, changes)) = epochs.next_complete(frontier) {
                let mut session = output.session(&cap);
                for (key, change) in changes {
                    apply(&mut sums, key, change, |row, diff| {
                        session.give((row, epoch, diff))
                    });
                }
            }
        }
    })
}

/// Adds a change to a key's sum, and gives the rows that come and go.
fn apply<K: Clone + Eq + Hash, S: Clone + Semigroup>(
    sums: &mut HashMap<K, S>,
    key: K,
    change: S,
    mut give: impl FnMut((K, S), isize),
) {
    if change.is_zero() {
        return;
    }
    match sums.entry(key) {
        Entry::Vacant(entry) => {
            give((entry.key().clone(), change.clone()), 1);
            entry.insert(change);
        }
        Entry::Occupied(mut entry) => {
            let key = entry.key().clone();
            give((key.clone(), entry.get().clone()), -1);
            entry.get_mut().plus_equals(&change);
            match entry.get().is_zero() {
                true => drop(entry.remove()),
                false => give((key, entry.get().clone()), 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use differential_dataflow::input::Input;
    use differential_dataflow::operators::CountTotal;
    use timely::dataflow::operators::Capture;
    use timely::dataflow::operators::capture::Extract;

    use super::*;
    use crate::test_support::{Found, both};

    type Row = (u8, isize);

    /// Rows come and go over epochs, on several workers; differential's own operators are beside it.
    #[test]
    fn sums_are_those_of_differential() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let updates: Found<Row> = (0..random.usize(1..400))
                .map(|_| {
                    let row = (random.u8(..6), random.isize(-2..3));
                    (row, random.u64(..8), random.isize(-1..2))
                })
                .collect();
            let workers = random.usize(1..=3);
            let sum = |(key, amount): Row| [(key, (amount, 1isize))];
            let (ours, theirs) = both(
                updates,
                workers,
                move |rows| rows.sum_by(sum),
                move |rows| rows.explode(sum).count_total(),
            );
            assert_eq!(ours, theirs, "seed {seed}, round {round}");
        }
    }

    /// However many rows there are, one change of a key travels in an epoch.
    #[test]
    fn a_worker_gives_one_change_of_a_key() {
        let (sender, captured) = mpsc::channel();
        timely::execute_directly(move |worker| {
            let mut input = worker.dataflow::<u64, _, _>(|scope| {
                let (input, rows) = scope.new_collection::<u64, isize>();
                combine(rows, |row| [(row % 3, row as isize)]).capture_into(sender);
                input
            });
            for row in 0..10_000 {
                input.update(row, 1);
                if row % 100 == 0 {
                    input.flush();
                    worker.step();
                }
            }
        });
        let given = captured
            .extract()
            .into_iter()
            .flat_map(|(_, changes)| changes);
        assert_eq!(given.count(), 3);
    }
}
