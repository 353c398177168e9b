//! Rows of a query over one document, or of a subquery over one row around it.
//!
//! [`expand`] makes the combinations of sources that pass the filter; what happens to them is the caller's affair.
//! [`rows`] is the whole of it for subqueries and small lists: everything in memory, nothing in pages.

use std::collections::HashSet;
use std::ops::ControlFlow;

use serde_json::Value;

use super::ast::{Expr, Query, Select, Values};
use super::budget::Budget;
use super::distinct::fingerprint;
use super::eval::Scope;
use super::groups::Groups;
use super::sorting::{SortKeys, compare_keys, sort_keys};
use crate::json::{write_text, write_value};

/// What a visitor of [`expand`] is called with and answers.
pub type Visit<'v> = dyn FnMut(Scope<'_>) -> ControlFlow<()> + 'v;

/// Visits every combination of a query's sources that passes its filter. `outside` are the slots around the query.
pub fn expand(
    query: &Query,
    outside: &[Option<&Value>],
    budget: &Budget,
    visit: &mut Visit<'_>,
) -> ControlFlow<()> {
    bind(query, 0, outside, budget, visit)
}

fn bind(
    query: &Query,
    source: usize,
    slots: &[Option<&Value>],
    budget: &Budget,
    visit: &mut Visit<'_>,
) -> ControlFlow<()> {
    if budget.step().is_none() {
        return ControlFlow::Break(());
    }
    let scope = Scope::of(slots, budget);
    let Some(next) = query.sources.get(source) else {
        let passes = match &query.filter {
            Some(filter) => scope.holds(&filter.expr),
            None => true,
        };
        return if passes {
            visit(scope)
        } else {
            ControlFlow::Continue(())
        };
    };
    let mut with = |value: &Value| {
        let mut slots = slots.to_vec();
        slots.push(Some(value));
        bind(query, source + 1, &slots, budget, visit)
    };
    match &next.values {
        Values::One(expr) => match scope.eval(expr) {
            Some(value) => with(&value),
            None => ControlFlow::Continue(()),
        },
        Values::Elements(expr) => match scope.eval(expr).as_deref() {
            Some(Value::Array(items)) => items.iter().try_for_each(with),
            _ => ControlFlow::Continue(()),
        },
        Values::Rows(subquery) => rows(subquery, slots, budget).iter().try_for_each(with),
    }
}

/// The row of a combination, if it has one: a single value may be undefined.
pub fn shape<'a>(query: &'a Query, scope: Scope<'a>) -> Option<Value> {
    match &query.select {
        Select::Star => {
            let value = scope.slots.get(query.first_slot).copied().flatten()?;
            scope.budget.copy(value)?;
            Some(value.clone())
        }
        Select::Value(item) => scope.owned(&item.expr),
        Select::List(items) => scope.object(items.iter().map(|(name, item)| (name, &item.expr))),
    }
}

/// Writes a row with its members in the order of the select list.
pub fn write_row(query: &Query, row: &Value, out: &mut Vec<u8>) {
    let (Select::List(items), Value::Object(members)) = (&query.select, row) else {
        write_value(out, row);
        return;
    };
    out.push(b'{');
    let defined = items
        .iter()
        .filter_map(|(name, _)| members.get_key_value(name));
    for (index, (name, value)) in defined.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

/// All rows of a subquery.
pub fn rows(query: &Query, outside: &[Option<&Value>], budget: &Budget) -> Vec<Value> {
    let mut collector = Collector::new(query);
    // A budget that is used up ends the rows early, and whoever asked sees it in the budget.
    let _ = expand(query, outside, budget, &mut |scope| collector.add(scope));
    collector.finish(budget)
}

/// Whether a subquery has a row.
pub fn exist(query: &Query, outside: &[Option<&Value>], budget: &Budget) -> bool {
    if query.is_grouped() || query.top.is_some() || query.window.is_some() {
        return !rows(query, outside, budget).is_empty();
    }
    let mut found = false;
    let _ = expand(query, outside, budget, &mut |scope| {
        found = shape(query, scope).is_some();
        if found {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    found
}

/// Collects the rows of a query in memory.
pub struct Collector<'q> {
    query: &'q Query,
    groups: Groups<'q>,
    rows: Vec<(SortKeys, Value)>,
}

impl<'q> Collector<'q> {
    /// Nothing yet.
    pub fn new(query: &'q Query) -> Self {
        Self {
            query,
            groups: Groups::new(query),
            rows: Vec::new(),
        }
    }

    /// Takes in a combination; breaks when no further one can matter.
    pub fn add(&mut self, scope: Scope<'_>) -> ControlFlow<()> {
        let query = self.query;
        if query.is_grouped() {
            self.groups.add(scope);
            return ControlFlow::Continue(());
        }
        if let Some(row) = shape(query, scope) {
            self.rows.push((sort_keys(query, scope), row));
        }
        let wanted = query.offset().saturating_add(query.limit());
        if query.order.is_empty() && !query.distinct && self.rows.len() as u64 >= wanted {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// The rows in order, without doubles, within the window.
    pub fn finish(mut self, budget: &Budget) -> Vec<Value> {
        let query = self.query;
        if query.is_grouped() {
            let rows = self.groups.into_rows(budget).into_iter();
            self.rows = rows.map(|(_, row)| (Vec::new(), row)).collect();
        }
        if !query.order.is_empty() {
            self.rows
                .sort_by(|(a, _), (b, _)| compare_keys(a, b, query));
        }
        let mut seen = HashSet::new();
        self.rows
            .into_iter()
            .map(|(_, row)| row)
            .filter(|row| !query.distinct || seen.insert(fingerprint([Some(row)])))
            .skip(to_usize(query.offset()))
            .take(to_usize(query.limit()))
            .collect()
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Whether an expression is just the only source of a query.
pub fn is_whole_source(query: &Query, expr: &Expr) -> bool {
    *expr == Expr::Slot(query.first_slot)
}
