//! Sorted rows: their order, where a client goes on in it, and the first few rows behind that place.
//!
//! Rows are ordered by their sort keys, then by the number of their document and their number within it, both in the
//! direction of the first key. No two rows are at the same place.

use std::cmp::Ordering;

use serde_json::Value;

use super::ast::Query;
use super::eval::Scope;
use super::order;

/// Values of the sort keys.
pub type SortKeys = Vec<Option<Value>>;

/// The sort keys of a row.
pub fn sort_keys(query: &Query, scope: Scope<'_>) -> SortKeys {
    query
        .order
        .iter()
        .map(|key| scope.owned(&key.key.expr))
        .collect()
}

/// The order by sort keys alone.
pub fn compare_keys(a: &[Option<Value>], b: &[Option<Value>], query: &Query) -> Ordering {
    let pairs = a.iter().zip(b).zip(&query.order);
    pairs.fold(Ordering::Equal, |so_far, ((a, b), key)| {
        so_far.then_with(|| {
            let order = order::compare(a.as_ref(), b.as_ref());
            if key.descending {
                order.reverse()
            } else {
                order
            }
        })
    })
}

/// The place of a row in the order.
#[derive(Clone, Debug, PartialEq)]
pub struct SortPlace {
    /// Sort keys.
    pub keys: SortKeys,
    /// Number of the document.
    pub document: u64,
    /// Number of the row among those of its document.
    pub row: u64,
}

impl SortPlace {
    /// The order of places.
    pub fn compare(&self, other: &Self, query: &Query) -> Ordering {
        let numbers = (self.document, self.row).cmp(&(other.document, other.row));
        compare_keys(&self.keys, &other.keys, query).then_with(|| directed(numbers, query))
    }
}

fn directed(order: Ordering, query: &Query) -> Ordering {
    if query.order.first().is_some_and(|key| key.descending) {
        order.reverse()
    } else {
        order
    }
}

/// Where a client resumes a sorted query by value: at rows with these keys, or behind them.
#[derive(Debug)]
pub struct Resume {
    /// Keys of the row.
    pub keys: SortKeys,
    /// Number of its document; without one, every row with these keys is meant.
    pub document: Option<u64>,
    /// Leave the row itself out.
    pub exclude: bool,
}

impl Resume {
    /// Whether a row is still to come.
    pub fn admits(&self, place: &SortPlace, query: &Query) -> bool {
        let order = compare_keys(&place.keys, &self.keys, query).then_with(|| {
            self.document.map_or(Ordering::Equal, |document| {
                directed(place.document.cmp(&document), query)
            })
        });
        order.is_gt() || order.is_eq() && !self.exclude
    }
}

/// The first rows of an order, of which at most twice as many as wanted are held.
pub struct First<'q, T> {
    query: &'q Query,
    wanted: usize,
    rows: Vec<(SortPlace, T)>,
}

impl<'q, T> First<'q, T> {
    /// Keeps the first `wanted` rows.
    pub fn new(query: &'q Query, wanted: usize) -> Self {
        Self {
            query,
            wanted,
            rows: Vec::new(),
        }
    }

    /// Offers a row.
    pub fn offer(&mut self, place: SortPlace, row: T) {
        self.rows.push((place, row));
        if self.rows.len() / 2 >= self.wanted.max(1) {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        let query = self.query;
        if self.wanted == 0 {
            self.rows.clear();
        } else if self.rows.len() > self.wanted {
            self.rows
                .select_nth_unstable_by(self.wanted - 1, |(a, _), (b, _)| a.compare(b, query));
            self.rows.truncate(self.wanted);
        }
    }

    /// The rows in order.
    pub fn into_sorted(mut self) -> Vec<(SortPlace, T)> {
        self.shrink();
        let query = self.query;
        self.rows.sort_by(|(a, _), (b, _)| a.compare(b, query));
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse::parse;
    use serde_json::json;
    use std::collections::HashMap;

    #[test]
    fn the_first_rows_equal_a_full_sort() {
        for text in [
            "SELECT * FROM c ORDER BY c.a",
            "SELECT * FROM c ORDER BY c.a DESC, c.b",
        ] {
            let query = parse(text, HashMap::new()).unwrap();
            let mut seed = 7u64;
            let mut next = |limit: u64| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) % limit
            };
            let places: Vec<SortPlace> = (0..500)
                .map(|document| SortPlace {
                    keys: (0..query.order.len())
                        .map(|_| (next(4) > 0).then(|| json!(next(9))))
                        .collect(),
                    document,
                    row: 0,
                })
                .collect();
            let mut sorted = places.clone();
            sorted.sort_by(|a, b| a.compare(b, &query));
            for wanted in [0, 1, 2, 7, 100, 499, 500, 1_000] {
                let mut first = First::new(&query, wanted);
                places
                    .iter()
                    .for_each(|place| first.offer(place.clone(), ()));
                assert!(first.rows.len() <= 2 * wanted.max(1));
                let first: Vec<SortPlace> = first
                    .into_sorted()
                    .into_iter()
                    .map(|(place, ())| place)
                    .collect();
                assert_eq!(first, sorted[..wanted.min(500)], "{text} {wanted}");
            }
        }
    }
}
