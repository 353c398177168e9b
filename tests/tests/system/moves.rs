//! Rows whose partition key changes: whoever looks finds the document in its old place or in its new one.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tidefeed::config::{JobConfig, Moves, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::MemoryContainer;
use tidefeed::prelude::Result;
use tidefeed::target::{Applied, DocumentWrite, Target};
use tidefeed::{CheckpointStore, Connect, Job};
use tidefeed_tests::{Order, Shop, config, views};

/// A target that looks, before each batch, whether the documents that it deletes are somewhere else already.
struct Watched {
    view: MemoryContainer,
    gone: Arc<Mutex<Vec<String>>>,
}

fn id_of(key: &str) -> String {
    let key: Value = serde_json::from_str(key).expect("a key is JSON");
    let id = key.as_array().and_then(|key| key.last()?.as_str());
    id.expect("an id stands last").to_owned()
}

#[async_trait]
impl Target for Watched {
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied> {
        let there: Vec<String> = self.view.contents().keys().map(|key| id_of(key)).collect();
        let deleted = batch.iter().filter(|write| write.action.is_delete());
        let gone = deleted.filter(|write| there.iter().filter(|id| **id == write.id).count() < 2);
        self.gone.lock().extend(gone.map(|write| write.id.clone()));
        self.view.apply(batch).await
    }

    fn close(&self) {
        self.view.close();
    }
}

struct WatchedShop {
    shop: Shop,
    gone: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Connect for WatchedShop {
    async fn source(&self, name: &str, config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        self.shop.source(name, config).await
    }

    async fn sink(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn Target>> {
        if name != "by_customer" {
            return self.shop.sink(name, config).await;
        }
        let view = self.shop.views[name].clone();
        let gone = Arc::clone(&self.gone);
        Ok(Arc::new(Watched { view, gone }))
    }
}

/// Orders that change their customer, again and again, and are never deleted.
fn change_customers(shop: &Shop, random: &mut fastrand::Rng) {
    for _ in 0..2_000 {
        let number = random.u32(0..200);
        shop.put(&Order {
            id: format!("o{number}"),
            region: format!("r{}", number % 7),
            customer: format!("c{}", random.u8(0..10)),
            cents: i64::from(number),
        });
    }
}

/// Runs the job beside orders that change, and returns the moves that the view's target saw begin with the delete.
fn gone_in(config: JobConfig, seed: u64) -> Vec<String> {
    let shop = Shop::new(seed);
    let gone = Arc::default();
    let mut random = fastrand::Rng::with_seed(seed);
    let watched = WatchedShop {
        shop: shop.clone(),
        gone: Arc::clone(&gone),
    };
    let job = Job::new("shop", config, watched, views)
        .checkpoint_store(CheckpointStore::in_memory("shop"))
        .start()
        .expect("starts");
    let view = &shop.views["by_customer"];
    change_customers(&shop, &mut random);
    tidefeed_tests::until("first batch", || view.batches() > 0);
    change_customers(&shop, &mut random);
    job.finish_when_caught_up();
    let status = job.join().expect("ends well");
    assert_eq!(shop.found(), shop.expected());
    let moved = status.sinks["by_customer"].deletes;
    assert!(moved > 0, "nothing moved: {status:?}");
    std::mem::take(&mut *gone.lock())
}

#[test]
fn a_document_that_moves_is_never_missing() {
    for workers in 1..=3 {
        let gone = gone_in(config(workers), workers as u64);
        assert_eq!(gone, Vec::<String>::new(), "{workers} workers");
    }
}

/// What the option gives up, and what the test above would see.
#[test]
fn unordered_moves_may_begin_with_the_delete() {
    let mut config = config(1);
    let sink = config.sink.get_mut("by_customer").expect("a sink");
    sink.moves = Moves::Unordered;
    assert!(!gone_in(config, 1).is_empty());
}
