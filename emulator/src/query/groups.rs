//! Groups of rows and their aggregates, in memory; a query without group keys has one group.

use std::collections::BTreeMap;

use serde_json::Value;

use super::aggregate::Accumulator;
use super::ast::Query;
use super::budget::Budget;
use super::distinct::fingerprint;
use super::eval::Scope;
use super::rows::shape;

struct Group {
    keys: Vec<Option<Value>>,
    accumulators: Vec<Accumulator>,
}

/// The groups of a query.
pub struct Groups<'q> {
    query: &'q Query,
    /// By the fingerprint of the keys: an order that does not depend on what else there is, so that pages can go on in it.
    groups: BTreeMap<u128, Group>,
}

impl<'q> Groups<'q> {
    /// No rows yet.
    pub fn new(query: &'q Query) -> Self {
        let mut groups = Self {
            query,
            groups: BTreeMap::new(),
        };
        if query.groups.is_empty() {
            // The group of everything is there even if nothing is.
            groups.group(Vec::new());
        }
        groups
    }

    fn group(&mut self, keys: Vec<Option<Value>>) -> &mut Group {
        let query = self.query;
        let place = fingerprint(keys.iter().map(Option::as_ref));
        self.groups.entry(place).or_insert_with(|| Group {
            keys,
            accumulators: query
                .aggregates
                .iter()
                .map(|(aggregation, _)| Accumulator::new(*aggregation))
                .collect(),
        })
    }

    /// Takes in a row.
    pub fn add(&mut self, scope: Scope<'_>) {
        let query = self.query;
        let keys = query.groups.iter().map(|key| scope.owned(&key.expr));
        let keys = keys.collect();
        let group = self.group(keys);
        for (accumulator, (_, argument)) in group.accumulators.iter_mut().zip(&query.aggregates) {
            accumulator.add(scope.eval(&argument.expr).as_deref());
        }
    }

    /// The rows, each with the place of its group.
    pub fn into_rows(self, budget: &Budget) -> Vec<(u128, Value)> {
        let row = |group: &Group| {
            let results: Vec<Option<Value>> =
                group.accumulators.iter().map(Accumulator::result).collect();
            let scope = Scope {
                slots: &[],
                results: &results,
                keys: &group.keys,
                budget,
            };
            shape(self.query, scope)
        };
        self.groups
            .iter()
            .filter_map(|(place, group)| Some((*place, row(group)?)))
            .collect()
    }
}
