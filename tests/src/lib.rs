//! What the whole-system tests share: a small job over containers in memory, and its recomputation from scratch.
//!
//! The job reads orders and keeps three views, chosen for what they stress: totals per region (updates of few rows), large
//! orders (inserts and deletes), and orders by customer (partition keys that change, with the document moving from one
//! to the other).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::{MemoryContainer, MemoryOptions};
use tidefeed::prelude::*;
use tidefeed::target::Target;
use tidefeed::{CheckpointStore, Connect, Job, RunningJob};

/// An order, as it is stored and as the job reads it.
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

/// Orders of at least this are large.
pub const LARGE_CENTS: i64 = 900;

/// The containers of the test job. Clones are the same containers.
#[derive(Clone)]
pub struct Shop {
    /// The source.
    pub orders: MemoryContainer,
    /// The targets, by sink name.
    pub views: BTreeMap<String, MemoryContainer>,
}

/// The sinks of the test job with their partition keys.
pub const SINKS: [(&str, &str); 3] = [
    ("totals", "/id"),
    ("large", "/region"),
    ("by_customer", "/customer"),
];

impl Shop {
    /// Empty containers. The feed carries deletes, so that every kind of change reaches the views.
    pub fn new(seed: u64) -> Self {
        let options = || MemoryOptions {
            deletes_in_feed: true,
            seed,
            ..Default::default()
        };
        let view = |(name, _): (&str, &str)| (name.to_owned(), MemoryContainer::new(options()));
        Shop {
            orders: MemoryContainer::new(options()),
            views: SINKS.into_iter().map(view).collect(),
        }
    }

    /// Writes an order.
    pub fn put(&self, order: &Order) {
        let body = serde_json::to_vec(order).expect("an order is JSON");
        self.orders
            .upsert(&partition_key(&order.region), &order.id, body);
    }

    /// Deletes an order.
    pub fn delete(&self, region: &str, id: &str) {
        self.orders.delete(&partition_key(region), id);
    }

    /// What each view should hold, computed from the source from scratch.
    pub fn expected(&self) -> BTreeMap<String, BTreeMap<String, Value>> {
        let orders: Vec<Order> = self
            .orders
            .contents()
            .values()
            .map(|body| serde_json::from_slice(body).expect("the source holds orders"))
            .collect();
        let mut totals: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let mut large = BTreeMap::new();
        let mut by_customer = BTreeMap::new();
        for order in &orders {
            let total = totals.entry(order.region.clone()).or_default();
            *total = (total.0 + 1, total.1 + order.cents);
            let document = json!({"id": order.id, "region": order.region, "cents": order.cents});
            if order.cents >= LARGE_CENTS {
                large.insert(json!([order.region, order.id]).to_string(), document);
            }
            let document =
                json!({"id": order.id, "customer": order.customer, "cents": order.cents});
            by_customer.insert(json!([order.customer, order.id]).to_string(), document);
        }
        let totals = totals
            .into_iter()
            .map(|(id, (orders, cents))| {
                let mean = cents as f64 / orders as f64;
                (
                    json!([id, id]).to_string(),
                    json!({"id": id, "orders": orders, "cents": cents, "mean": mean}),
                )
            })
            .collect();
        [
            ("totals", totals),
            ("large", large),
            ("by_customer", by_customer),
        ]
        .into_iter()
        .map(|(name, rows)| (name.to_owned(), rows))
        .collect()
    }

    /// What each view holds.
    pub fn found(&self) -> BTreeMap<String, BTreeMap<String, Value>> {
        let value = |body: &[u8]| serde_json::from_slice(body).expect("a view holds JSON");
        let rows = |view: &MemoryContainer| {
            view.contents()
                .iter()
                .map(|(key, body)| (key.clone(), value(body)))
                .collect()
        };
        self.views
            .iter()
            .map(|(name, view)| (name.clone(), rows(view)))
            .collect()
    }

    /// Broken promises that any view noticed.
    pub fn violations(&self) -> Vec<String> {
        self.views
            .values()
            .flat_map(MemoryContainer::violations)
            .collect()
    }
}

fn partition_key(region: &str) -> String {
    json!([region]).to_string()
}

#[async_trait]
impl Connect for Shop {
    async fn source(&self, _name: &str, _config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        Ok(Arc::new(self.orders.clone()))
    }

    async fn sink(&self, name: &str, _config: &SinkConfig) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(self.views[name].clone()))
    }
}

/// The configuration of the test job.
pub fn config(workers: usize) -> JobConfig {
    let mut text = format!(
        "workers = {workers}\n[source.orders]\ndatabase = \"shop\"\ncontainer = \"orders\"\npoll_ms = 1\npoll_max_ms = 5\n"
    );
    text += "[epoch]\nmin_ms = 0\nmax_ms = 20\n[checkpoint]\nsettle_ms = 0\n";
    for (sink, key) in SINKS {
        text += &format!(
            "[sink.{sink}]\ndatabase = \"shop\"\ncontainer = \"{sink}\"\npartition_key = [\"{key}\"]\n"
        );
    }
    JobConfig::parse(&text).expect("the test configuration is valid")
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

/// Builds the test job's dataflow.
pub fn views(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow.change_feed::<Order>("orders")?;
    let totals = orders
        .clone()
        .explode(|order| Some((order.region, (1isize, order.cents as isize))))
        .count_total()
        .map(|(id, (orders, cents))| Total {
            id,
            orders,
            cents,
            mean: cents as f64 / orders as f64,
        });
    flow.upsert("totals", totals)?;
    let large = orders
        .clone()
        .filter(|order| order.cents >= LARGE_CENTS)
        .map(
            |Order {
                 id, region, cents, ..
             }| Large { id, region, cents },
        );
    flow.upsert("large", large)?;
    flow.upsert(
        "by_customer",
        orders.map(
            |Order {
                 id,
                 customer,
                 cents,
                 ..
             }| ByCustomer {
                id,
                customer,
                cents,
            },
        ),
    )
}

/// Starts the test job.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn start(shop: &Shop, store: &CheckpointStore, workers: usize) -> Result<RunningJob> {
    Job::new("shop", config(workers), shop.clone(), views)
        .checkpoint_store(store.clone())
        .start()
}

/// Waits for a condition.
///
/// # Panics
/// When it does not hold within 10 s.
#[expect(clippy::disallowed_methods, reason = "a poll with a deadline")]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "no {what} within 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}
