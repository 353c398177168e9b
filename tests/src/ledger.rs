//! A job that adds up by patches: what every customer spends and how often, of orders that only come.
//!
//! Whether a patch was carried out twice or never shows in the sums, and nowhere else.

use std::collections::BTreeMap;

use serde::Serialize;
use tidefeed::prelude::*;
use tidefeed::timely::dataflow::operators::vec::{Delay, Map};

use crate::views::{Order, OrderDocument};

/// Each sink and its partition key.
pub const LEDGER_SINKS: [(&str, &str); 2] = [("spent", "/id"), ("paid", "/id")];

/// What a customer spends, as far as it is known.
#[derive(Clone, Serialize)]
struct Spent {
    id: String,
    cents: i64,
}

/// An order as a record.
#[derive(Clone, Serialize)]
struct Paid {
    id: String,
    cents: i64,
    orders: u64,
}

/// Adds up the orders twice: `spent` by the differences of a collection, `paid` by the records of a stream.
///
/// # Errors
/// When a source or a sink is used twice.
pub fn ledger(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow
        .change_feed::<OrderDocument>("orders")?
        .map(|document| document.order);
    let spent = orders
        .clone()
        .explode(|order| Some((order.customer, order.cents as isize)))
        .count_total()
        .map(|(id, cents)| Spent {
            id,
            cents: cents as i64,
        });
    let patch = PatchSpec::new().increment("/cents").create_missing();
    flow.write("spent", Strategy::Patch(patch), spent)?;
    let changes = orders.inner.delay(|(_order, epoch, _diff), _time| *epoch);
    let paid = changes.flat_map(|(order, _epoch, diff)| {
        let paid = Paid {
            id: order.customer,
            cents: order.cents,
            orders: 1,
        };
        (diff > 0).then_some((0, paid))
    });
    let patch = PatchSpec::new()
        .increment("/cents")
        .increment("/orders")
        .create_missing();
    flow.write_stream("paid", Strategy::Patch(patch), paid)
}

/// The sums of orders, by customer: cents and number.
pub fn sums<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<String, (i64, i64)> {
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for order in orders {
        let sum = sums.entry(order.customer.clone()).or_default();
        *sum = (sum.0 + order.cents, sum.1 + 1);
    }
    sums
}
