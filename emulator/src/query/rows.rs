//! Rows of a query over a series of documents.
//!
//! Three ways: rows as the documents come; all rows sorted; one row of aggregates. The caller knows where documents come
//! from and how many rows make a page.

use std::cmp::Ordering;

use serde_json::Value;

use super::aggregate::Accumulator;
use super::ast::{Query, Select};
use super::eval::Scope;
use super::order;

/// The row of one document, if it has one: it passes the filter, and its value is defined.
pub fn row(query: &Query, document: &Value) -> Option<Value> {
    let scope = Scope::document(document);
    if !query
        .filter
        .as_ref()
        .is_none_or(|filter| scope.holds(filter))
    {
        return None;
    }
    shape(query, scope)
}

fn shape(query: &Query, scope: Scope<'_>) -> Option<Value> {
    match &query.select {
        Select::Star => scope.root.cloned(),
        Select::Value(expr) => scope.owned(expr),
        Select::List(items) => Some(scope.owned_object(items)),
    }
}

/// All aggregates of a query.
pub struct Totals<'a> {
    query: &'a Query,
    accumulators: Vec<Accumulator>,
}

impl<'a> Totals<'a> {
    /// Starts them.
    pub fn new(query: &'a Query) -> Self {
        let accumulators = query
            .aggregates
            .iter()
            .map(|(aggregation, _)| Accumulator::new(*aggregation))
            .collect();
        Self {
            query,
            accumulators,
        }
    }

    /// Takes in a document.
    pub fn add(&mut self, document: &Value) {
        let scope = Scope::document(document);
        if self
            .query
            .filter
            .as_ref()
            .is_none_or(|filter| scope.holds(filter))
        {
            for (accumulator, (_, expr)) in self.accumulators.iter_mut().zip(&self.query.aggregates)
            {
                accumulator.add(scope.eval(expr).as_deref());
            }
        }
    }

    /// The one row.
    pub fn row(&self) -> Option<Value> {
        let results: Vec<Option<Value>> =
            self.accumulators.iter().map(Accumulator::result).collect();
        shape(
            self.query,
            Scope {
                root: None,
                aggregates: &results,
            },
        )
    }
}

/// A row with what it is sorted by.
pub struct SortedRow {
    keys: Vec<Option<Value>>,
    /// Number of the document, which decides between equal keys.
    pub number: u64,
    /// The row.
    pub row: Value,
}

impl SortedRow {
    /// The row of a document, if it has one.
    pub fn of(query: &Query, document: &Value, number: u64) -> Option<Self> {
        let row = row(query, document)?;
        let scope = Scope::document(document);
        let keys = query
            .order
            .iter()
            .map(|key| scope.owned(&key.expr))
            .collect();
        Some(Self { keys, number, row })
    }

    /// The order of the result: by keys, then by number in the direction of the first key.
    pub fn compare(&self, other: &Self, query: &Query) -> Ordering {
        compare_keys(&self.keys, &other.keys, query)
            .then_with(|| directed(self.number.cmp(&other.number), query))
    }
}

fn compare_keys(a: &[Option<Value>], b: &[Option<Value>], query: &Query) -> Ordering {
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

fn directed(order: Ordering, query: &Query) -> Ordering {
    if query.order.first().is_some_and(|key| key.descending) {
        order.reverse()
    } else {
        order
    }
}

/// Where a client resumes a sorted query: at a row with these keys, or behind it.
pub struct Resume {
    /// Keys of the row.
    pub keys: Vec<Option<Value>>,
    /// Its number; without one, every row with these keys is meant.
    pub number: Option<u64>,
    /// Leave the row itself out.
    pub exclude: bool,
}

impl Resume {
    /// Whether a row is still to come.
    pub fn admits(&self, row: &SortedRow, query: &Query) -> bool {
        let order = compare_keys(&row.keys, &self.keys, query).then_with(|| {
            self.number.map_or(Ordering::Equal, |number| {
                directed(row.number.cmp(&number), query)
            })
        });
        order.is_gt() || order.is_eq() && !self.exclude
    }
}
