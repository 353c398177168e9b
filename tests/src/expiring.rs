//! A job over the same orders in which time alone changes the views: an order is there from one moment until another.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use serde_json::{Value, json};
use tidefeed::NEVER;
use tidefeed::prelude::*;
use tidefeed::timely::dataflow::operators::vec::{Delay, Map};

use crate::views::{Order, OrderDocument};

/// How long the orders of most customers are there.
pub const LIFE_MS: u64 = 400;

/// When an order is there: from the moment in its cents on, for [`LIFE_MS`], or for ever if its customer is a keeper.
pub fn lifetime(order: &Order) -> Range<u64> {
    let from = order.cents.unsigned_abs();
    match is_kept(order) {
        true => from..NEVER,
        false => from..from + LIFE_MS,
    }
}

fn is_kept(order: &Order) -> bool {
    order.customer.starts_with("keeper")
}

/// An order that is there.
#[derive(Clone, Serialize)]
struct There {
    id: String,
    region: String,
}

/// How many orders a customer has now, or ever had.
#[derive(Clone, Serialize)]
struct Count {
    id: String,
    cents: i64,
}

/// The orders that are there, in `large`; how many each customer has, by the differences of a collection, in `spent`; and how many of
/// each customer ever came, by the records of a stream, in `paid`.
///
/// # Errors
/// When a source or a sink is used twice.
pub fn expiring(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow
        .change_feed::<OrderDocument>("orders")?
        .filter(|document| !document.deleted)
        .map(|document| document.order);
    let there = flow.valid(orders, lifetime)?;
    let shown = there.clone().map(|order| There {
        id: order.id,
        region: order.region,
    });
    flow.upsert("large", shown)?;
    let adding = || PatchSpec::new().increment("/cents").create_missing();
    let counts = there.clone().map(|order| order.customer).count_total();
    let counts = counts.map(|(id, count)| Count {
        id,
        cents: count as i64,
    });
    flow.write("spent", Strategy::Patch(adding()), counts)?;
    let changes = there.inner.delay(|(_order, epoch, _diff), _time| *epoch);
    let came = changes.flat_map(|(order, _epoch, diff)| {
        let id = order.customer;
        (diff > 0).then_some((0, Count { id, cents: 1 }))
    });
    flow.write_stream("paid", Strategy::Patch(adding()), came)
}

/// What `large` should hold when everything that goes has gone.
pub fn kept<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<String, Value> {
    let kept = orders.into_iter().filter(|order| is_kept(order));
    let row = |order: &Order| {
        let row = json!({"id": order.id, "region": order.region});
        (json!([order.region, order.id]).to_string(), row)
    };
    kept.map(row).collect()
}

/// How many orders each keeper has.
pub fn kept_counts<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for order in orders.into_iter().filter(|order| is_kept(order)) {
        *counts.entry(order.customer.clone()).or_default() += 1;
    }
    counts
}
