//! What the whole-system tests share: a small job, its recomputation from scratch, and ways to run it.
//!
//! The job reads orders and keeps four views, chosen for what they stress: totals per region (updates of few rows), large
//! orders (inserts and deletes), orders by customer (partition keys that change, with the document moving from one to the
//! other), and each customer's share of a region (a join of which both sides change).
//!
//! - [`views`](mod@views) is the dataflow and the recomputation; [`orders`] makes random changes and knows what is left.
//! - [`expiring`](mod@expiring) is another job over the same orders, which come and go by time.
//! - [`billed`](mod@billed) is another job over the same orders, whose windows are final.
//! - [`ledger`](mod@ledger) is another job over the same orders, which adds up by patches.
//! - [`Shop`] has its containers in memory, for jobs inside the test's process.
//! - [`place`] has them in an embedded server, for the program `shop`, which is the job as a process that can be killed;
//!   [`network`] has hosts for several of them, [`process`] runs it, [`producer`] posts orders to it, [`moments`] says when to kill, and [`checkpoint_files`] looks at what a kill left.

pub mod billed;
pub mod checkpoint_files;
pub mod expiring;
pub mod held;
pub mod ledger;
pub mod moments;
#[cfg(target_os = "linux")]
pub mod network;
pub mod orders;
pub mod place;
pub mod process;
pub mod producer;
pub mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use tidefeed::config::{DeadLettersConfig, JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::{MemoryContainer, MemoryOptions};
use tidefeed::prelude::Result;
use tidefeed::target::Target;
use tidefeed::{CheckpointStore, Connect, Job, RunningJob};
use tidefeed_operators::dead_letter::{DeadLetters, MemoryDeadLetters};

pub use billed::billed;
pub use expiring::expiring;
pub use held::held;
pub use ledger::{LEDGER_SINKS, ledger};
pub use views::{Contents, LARGE_CENTS, Order, SINKS, next_views, recompute, views};

/// The containers of the test job. Clones are the same containers.
#[derive(Clone)]
pub struct Shop {
    /// The source.
    pub orders: MemoryContainer,
    /// The targets, by sink name.
    pub views: BTreeMap<String, MemoryContainer>,
}

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
            views: SINKS.into_iter().chain(LEDGER_SINKS).map(view).collect(),
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

    /// Some random changes: new orders, updates, key moves and deletes.
    pub fn change(&self, random: &mut fastrand::Rng, changes: usize) {
        for _ in 0..changes {
            let number = random.u32(0..200);
            let (id, region) = (format!("o{number}"), format!("r{}", number % 7));
            if random.u8(0..5) == 0 {
                self.delete(&region, &id);
            } else {
                self.put(&Order {
                    id,
                    region,
                    customer: format!("c{}", random.u8(0..10)),
                    cents: random.i64(1..1000),
                });
            }
        }
    }

    /// What each view should hold, computed from the source from scratch.
    pub fn expected(&self) -> Contents {
        let orders: Vec<Order> = self
            .orders
            .contents()
            .values()
            .map(|body| serde_json::from_slice(body).expect("the source holds orders"))
            .collect();
        recompute(&orders)
    }

    /// What each view holds.
    pub fn found(&self) -> Contents {
        let value = |body: &[u8]| serde_json::from_slice(body).expect("a view holds JSON");
        let rows = |view: &MemoryContainer| {
            view.contents()
                .iter()
                .map(|(key, body)| (key.clone(), value(body)))
                .collect()
        };
        SINKS
            .into_iter()
            .map(|(name, _)| (name.to_owned(), rows(&self.views[name])))
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

/// A [`Shop`] with a place for dead letters.
#[derive(Clone)]
pub struct LettersShop {
    /// Its containers.
    pub shop: Shop,
    /// The letters.
    pub letters: Arc<MemoryDeadLetters>,
}

#[async_trait]
impl Connect for LettersShop {
    async fn source(&self, name: &str, config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        self.shop.source(name, config).await
    }

    async fn sink(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn Target>> {
        self.shop.sink(name, config).await
    }

    async fn dead_letters(
        &self,
        _job: &str,
        _place: &DeadLettersConfig,
    ) -> Result<Arc<dyn DeadLetters>> {
        Ok(self.letters.clone())
    }
}

/// The configuration of the test job with a container for dead letters.
pub fn config_with_letters(workers: usize) -> JobConfig {
    let mut config = config(workers);
    config.dead_letters = Some(DeadLettersConfig {
        account: None,
        database: "shop".to_owned(),
        container: "letters".to_owned(),
    });
    config
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
    let text = format!(
        "workers = {workers}\n{}",
        config_text("shop", "settle_ms = 0")
    );
    JobConfig::parse(&text).expect("the test configuration is valid")
}

/// The configuration of the test job over a database, with these lines about the checkpoint.
pub fn config_text(database: &str, checkpoint: &str) -> String {
    let source = format!(
        "[source.orders]
database = \"{database}\"
container = \"orders\"
poll_ms = 1
poll_max_ms = 5
refresh_ms = 20
"
    );
    config_text_with(&source, database, checkpoint)
}

/// The same with another source of orders.
pub fn config_text_with(source: &str, database: &str, checkpoint: &str) -> String {
    let mut text = source.to_owned();
    text +=
        &format!("[epoch]\nmin_ms = 0\nmax_ms = 20\nload_ms = 20\n[checkpoint]\n{checkpoint}\n");
    for (sink, key) in LEDGER_SINKS.into_iter().chain(SINKS) {
        text += &format!(
            "[sink.{sink}]\ndatabase = \"{database}\"\ncontainer = \"{sink}\"\npartition_key = [\"{key}\"]\n"
        );
        // A server in this machine carries out a request at once or never, and throttles whatever the pace is.
        text += "settle_ms = 20\nthrottled_share = 0.3\nthroughput_ru = { manual = 40000 }\n";
    }
    text
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
