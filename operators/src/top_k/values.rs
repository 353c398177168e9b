//! The values of keys: the first of them in order, the others behind.

use std::collections::{BTreeMap, btree_map};
use std::hash::Hash;

use differential_dataflow::consolidation::consolidate;
use hashbrown::{HashMap, hash_map};

use super::runs::Runs;

/// The values of the keys of one worker, of each of which the first `places` are given.
pub(super) struct Keys<K, V> {
    values: HashMap<K, Values<V>>,
    places: isize,
}

impl<K: Clone + Eq + Hash, V: Clone + Ord> Keys<K, V> {
    pub(super) fn new(k: usize) -> Self {
        Keys {
            values: HashMap::new(),
            places: isize::try_from(k).unwrap_or(isize::MAX),
        }
    }

    /// Applies what comes and goes in an epoch, and gives what that changes of the first values.
    pub(super) fn apply(
        &mut self,
        changes: Vec<((K, V), isize)>,
        mut give: impl FnMut((K, V), isize),
    ) {
        let mut touched = Vec::new();
        for ((key, value), diff) in changes {
            if diff == 0 {
                continue;
            }
            let mut values = match self.values.entry(key) {
                hash_map::Entry::Occupied(known) => known,
                hash_map::Entry::Vacant(new) => new.insert_entry(Values::default()),
            };
            if values.get_mut().change(value, diff, self.places) {
                touched.push(values.key().clone());
            }
        }
        for key in touched {
            let Some(values) = self.values.get_mut(&key) else {
                continue;
            };
            for (value, diff) in values.end_epoch(self.places) {
                give((key.clone(), value), diff);
            }
            if values.is_empty() {
                self.values.remove(&key);
            }
        }
    }
}

/// The values of one key, with how often each is there.
struct Values<V> {
    /// The values up to `bound`, or all if there is none.
    first: BTreeMap<V, isize>,
    /// The values behind it.
    rest: Runs<V>,
    bound: Option<V>,
    /// What was given.
    given: Vec<(V, isize)>,
    /// Whether the first have changed since.
    touched: bool,
}

/// Values that are put in order, for each place; four times as many before some are put behind.
const SPARE: usize = 4;

impl<V> Default for Values<V> {
    fn default() -> Self {
        Values {
            first: BTreeMap::new(),
            rest: Runs::default(),
            bound: None,
            given: Vec::new(),
            touched: false,
        }
    }
}

impl<V: Clone + Ord> Values<V> {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.rest.is_empty()
    }

    /// Applies a change. Says whether it is the first in an epoch that touches the first values.
    fn change(&mut self, value: V, diff: isize, places: isize) -> bool {
        if self.bound.as_ref().is_some_and(|bound| value > *bound) {
            self.rest.push(value, diff);
            return false;
        }
        self.change_first(value, diff);
        let spare = spare(places);
        if self.first.len() > spare.saturating_mul(4) {
            self.put_behind(spare);
        }
        !std::mem::replace(&mut self.touched, true)
    }

    fn change_first(&mut self, value: V, diff: isize) {
        match self.first.entry(value) {
            btree_map::Entry::Vacant(entry) => drop(entry.insert(diff)),
            btree_map::Entry::Occupied(entry) if *entry.get() + diff == 0 => drop(entry.remove()),
            btree_map::Entry::Occupied(mut entry) => *entry.get_mut() += diff,
        }
    }

    /// What has changed of the first values when the epoch is over.
    fn end_epoch(&mut self, places: isize) -> Vec<(V, isize)> {
        self.touched = false;
        // Even if nobody wants any, so that a key without values is found out.
        let least = places.max(1);
        if self.bound.is_some()
            && self.first_of(least).map(|(_, times)| times).sum::<isize>() < least
        {
            self.fill_up(spare(places));
        }
        let given = self.given.iter().map(|(value, times)| (value, *times));
        if self.first_of(places).eq(given) {
            return Vec::new();
        }
        let now = self.first_of(places);
        let now: Vec<_> = now.map(|(value, times)| (value.clone(), times)).collect();
        let before = std::mem::replace(&mut self.given, now.clone());
        let mut changed = now;
        changed.extend(before.into_iter().map(|(value, times)| (value, -times)));
        consolidate(&mut changed);
        changed
    }

    /// The first, with how many of the places each takes. What is taken away before it has come takes none.
    fn first_of(&self, places: isize) -> impl Iterator<Item = (&V, isize)> {
        let there = self.first.iter().filter(|(_, count)| **count > 0);
        there.scan(places, |left, (value, count)| {
            let times = (*count).min(*left);
            *left -= times;
            (times > 0).then_some((value, times))
        })
    }

    /// Keeps the first `spare` in order.
    fn put_behind(&mut self, spare: usize) {
        while self.first.len() > spare
            && let Some((value, count)) = self.first.pop_last()
        {
            self.rest.push(value, count);
        }
        self.bound = self.first.last_key_value().map(|(last, _)| last.clone());
    }

    /// Puts `spare` values of those behind in order.
    fn fill_up(&mut self, spare: usize) {
        let mut found = 0;
        while found < spare
            && let Some((value, count)) = self.rest.pop()
        {
            found += usize::from(count > 0);
            if count != 0 {
                self.first.insert(value, count);
            }
        }
        self.bound = match self.rest.is_empty() {
            true => None,
            false => self.first.last_key_value().map(|(last, _)| last.clone()),
        };
    }
}

fn spare(places: isize) -> usize {
    places.unsigned_abs().max(1).saturating_mul(SPARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_values_is_forgotten() {
        for places in [0, 1, 10] {
            let mut keys = Keys::new(places);
            let mut given = HashMap::new();
            let mut give = |row, diff| *given.entry(row).or_insert(0) += diff;
            let rows: Vec<_> = (0..5_000).map(|value| ("key", value)).collect();
            keys.apply(rows.iter().map(|row| (*row, 1)).collect(), &mut give);
            // What comes and goes behind the first touches nothing that is given.
            keys.apply(vec![(rows[4_999], -1), (rows[4_999], 1)], &mut give);
            assert_eq!(keys.values.len(), 1);
            // Those in front, those behind, and some before they have come.
            keys.apply(rows[..10].iter().map(|row| (*row, -1)).collect(), &mut give);
            keys.apply(
                rows[4_000..].iter().map(|row| (*row, -2)).collect(),
                &mut give,
            );
            keys.apply(
                rows[10..4_000].iter().map(|row| (*row, -1)).collect(),
                &mut give,
            );
            assert_eq!(keys.values.len(), 1, "more has gone than has come");
            keys.apply(
                rows[4_000..].iter().map(|row| (*row, 1)).collect(),
                &mut give,
            );
            assert!(keys.values.is_empty());
            assert!(given.values().all(|times| *times == 0));
        }
    }

    /// The smallest go again and again, and others come before, between and behind them.
    #[test]
    fn what_is_behind_moves_up() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..10 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let k = random.usize(1..12);
            let mut keys = Keys::new(k);
            let (mut there, mut given) = (BTreeMap::new(), BTreeMap::new());
            let mut from = 50_000;
            for epoch in 0..300 {
                let mut changes = Vec::new();
                for _ in 0..random.usize(..300) {
                    // The front goes down and up, and few of the values are taken away before they have come.
                    from = from.max(5) + random.u32(..10) - 5;
                    let value = from + random.u32(..20_000);
                    changes.push((value, [1, 1, 1, 1, 1, 1, 1, 2, -1][random.usize(..9)]));
                }
                let taken = there.iter().take(random.usize(..150));
                changes.extend(taken.map(|(value, count): (&u32, &isize)| (*value, -count)));
                random.shuffle(&mut changes);
                for (value, diff) in &changes {
                    *there.entry(*value).or_insert(0) += diff;
                }
                there.retain(|_, count| *count != 0);
                let changes = changes.iter().map(|(value, diff)| (((), *value), *diff));
                keys.apply(changes.collect(), |((), value), diff| {
                    *given.entry(value).or_insert(0) += diff;
                });
                given.retain(|_, count| *count != 0);
                let all = there.iter().flat_map(|(value, count)| {
                    std::iter::repeat_n(*value, usize::try_from(*count).unwrap_or(0))
                });
                let mut first = BTreeMap::new();
                all.take(k)
                    .for_each(|value| *first.entry(value).or_insert(0) += 1);
                assert_eq!(given, first, "seed {seed}, round {round}, epoch {epoch}");
            }
        }
    }

    #[test]
    fn there_may_be_more_places_than_values() {
        let mut keys = Keys::new(usize::MAX);
        let mut given = Vec::new();
        let rows = (0..1_000).map(|value| (("key", value), 1)).collect();
        keys.apply(rows, |(_, value), diff| given.push((value, diff)));
        assert_eq!(
            given,
            (0..1_000).map(|value| (value, 1)).collect::<Vec<_>>()
        );
    }
}
