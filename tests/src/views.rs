//! The test job's dataflow, and its recomputation from scratch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidefeed::prelude::*;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Identity.
    pub id: String,
    /// Partition key of the source, never changes.
    pub region: String,
    /// Partition key of one view, may change.
    pub customer: String,
    /// Amount in cents.
    pub cents: i64,
}

/// An order as it is stored and as the job reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrderDocument {
    /// The order.
    #[serde(flatten)]
    pub order: Order,
    /// How an order is deleted where the feed carries no deletes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// Orders of at least this are large.
pub const LARGE_CENTS: i64 = 900;

/// The sinks of the test job with their partition keys.
pub const SINKS: [(&str, &str); 4] = [
    ("totals", "/id"),
    ("large", "/region"),
    ("by_customer", "/customer"),
    ("shares", "/region"),
];

/// The rows of every view by sink, each by the JSON array of its partition key and its id.
pub type Contents = BTreeMap<String, BTreeMap<String, Value>>;

/// What each view should hold, computed from the orders from scratch.
pub fn recompute<'a>(orders: impl IntoIterator<Item = &'a Order>) -> Contents {
    let mut totals: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut spent: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut views: Contents = SINKS
        .map(|(sink, _)| (sink.to_owned(), BTreeMap::new()))
        .into();
    let mut add = |sink: &str, partition_key: &str, row: Value| {
        let key = json!([partition_key, row["id"]]).to_string();
        let rows = views.get_mut(sink).expect("one of the sinks");
        assert!(rows.insert(key, row).is_none(), "one row for each key");
    };
    for order in orders {
        let Order {
            id,
            region,
            customer,
            cents,
        } = order;
        let total = totals.entry(region).or_default();
        *total = (total.0 + 1, total.1 + cents);
        *spent.entry((region, customer)).or_default() += cents;
        if *cents >= LARGE_CENTS {
            let row = json!({"id": id, "region": region, "cents": cents});
            add("large", region, row);
        }
        let id = format!("{region}-{id}");
        let row = json!({"id": id, "customer": customer, "cents": cents});
        add("by_customer", customer, row);
    }
    for (&region, &(orders, cents)) in &totals {
        let mean = cents as f64 / orders as f64;
        let row = json!({"id": region, "orders": orders, "cents": cents, "mean": mean});
        add("totals", region, row);
    }
    for ((region, customer), cents) in spent {
        let of = totals[region].1;
        let row = json!({"id": customer, "region": region, "cents": cents, "of": of});
        add("shares", region, row);
    }
    views
}

/// A row of the totals.
#[derive(Clone, Serialize)]
struct Total {
    id: String,
    orders: isize,
    cents: isize,
    mean: f64,
}

/// A row of the large orders.
#[derive(Clone, Serialize)]
struct Large {
    id: String,
    region: String,
    cents: i64,
}

/// A row of the orders by customer.
#[derive(Clone, Serialize)]
struct ByCustomer {
    id: String,
    customer: String,
    cents: i64,
}

/// What a customer spent in a region, and what all customers did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Share {
    id: String,
    region: String,
    cents: isize,
    of: isize,
}

/// Builds the test job's dataflow.
///
/// # Errors
/// When a source or a sink is used twice.
pub fn views(flow: &mut Flow<'_>) -> Result<()> {
    views_of(flow, false)
}

/// A newer version of the same job: the large orders are found in another way, and are the same.
///
/// # Errors
/// As [`views`].
pub fn next_views(flow: &mut Flow<'_>) -> Result<()> {
    views_of(flow, true)
}

fn views_of(flow: &mut Flow<'_>, next: bool) -> Result<()> {
    let orders = flow
        .change_feed::<OrderDocument>("orders")?
        .filter(|document| !document.deleted)
        .map(|document| document.order);
    let totals = orders
        .clone()
        .explode(|order| Some((order.region, (1isize, order.cents as isize))))
        .count_total();
    let spent = orders.clone().explode(|order| {
        let key = (order.region, order.customer);
        Some((key, (1isize, order.cents as isize)))
    });
    let spent = spent
        .count_total()
        .map(|((region, customer), (_, cents))| (region, (customer, cents)));
    let shares = spent.join_map(totals.clone(), |region, (customer, cents), (_, of)| Share {
        id: customer.clone(),
        region: region.clone(),
        cents: *cents,
        of: *of,
    });
    flow.upsert("shares", shares)?;
    let totals = totals.map(|(id, (orders, cents))| Total {
        id,
        orders,
        cents,
        mean: cents as f64 / orders as f64,
    });
    flow.upsert("totals", totals)?;
    let mut large = orders.clone().filter(|order| order.cents >= LARGE_CENTS);
    if next {
        large = large.filter(|order| order.cents > 0);
    }
    let large = large.map(|order| Large {
        id: order.id,
        region: order.region,
        cents: order.cents,
    });
    flow.upsert("large", large)?;
    let by_customer = orders.map(|order| ByCustomer {
        // An order that moves to another region may be seen in both for a while: two feed ranges have no common order.
        id: format!("{}-{}", order.region, order.id),
        customer: order.customer,
        cents: order.cents,
    });
    flow.upsert("by_customer", by_customer)
}
