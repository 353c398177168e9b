//! The first load of a container: in few large seals, resumed where it was interrupted, and no later than it must be.

use tidefeed::config::JobConfig;
use tidefeed::memory::{MemoryContainer, MemoryOptions};
use tidefeed::{CheckpointStore, Job, RunningJob};
use tidefeed_tests::{Order, Shop, config, until, views};

const LOAD_BYTES: u64 = 256 << 10;
const ORDERS: u64 = 10_000;
const PAGE: usize = 10;

/// Orders of about 500 bytes, in small pages.
fn shop(orders: u64) -> Shop {
    let shop = Shop {
        orders: MemoryContainer::new(MemoryOptions {
            page_size: PAGE,
            ..Default::default()
        }),
        ..Shop::new(1)
    };
    for number in 0..orders {
        shop.put(&Order {
            id: format!("o{number}"),
            region: format!("r{}", number % 50),
            customer: format!("c{:0>400}", number % 10),
            cents: 100 + number as i64 % 7,
        });
    }
    shop
}

/// Epochs that only bytes, or the end of the load, call for.
fn patient(workers: usize, load_bytes: u64) -> JobConfig {
    let mut config = config(workers);
    config.epoch.max_ms = 60_000;
    config.epoch.load_ms = 60_000;
    config.epoch.load_bytes = load_bytes;
    config.epoch.max_in_flight = 8;
    config
}

fn start(shop: &Shop, config: JobConfig, store: &CheckpointStore) -> RunningJob {
    Job::new("shop", config, shop.clone(), views)
        .checkpoint_store(store.clone())
        .start()
        .expect("starts")
}

/// The sinks stand still, so nothing is committed and the load stops with eight epochs in flight: there the run is ended.
#[test]
fn an_interrupted_load_goes_on_from_its_last_seal_and_is_in_large_seals() {
    for workers in [1, 2] {
        let shop = shop(ORDERS);
        let contents = shop.orders.contents();
        let bytes: usize = contents
            .iter()
            .map(|(key, body)| key.len() + body.len())
            .sum();
        let store = CheckpointStore::in_memory("shop");
        let hold = |held| shop.views.values().for_each(|view| view.hold_writes(held));
        hold(true);
        let job = start(&shop, patient(workers, LOAD_BYTES), &store);
        until("load", || job.status().epochs.sealed >= 6);
        let first = job.status();
        job.stop();
        // Its last batches fail, because they are never let go.
        let _ = job.join();
        assert_eq!(first.epochs.committed, 0);
        hold(false);

        let job = start(&shop, patient(workers, LOAD_BYTES), &store);
        job.finish_when_caught_up();
        let second = job.join().expect("ends well");
        assert_eq!(shop.found(), shop.expected(), "{workers} workers");
        // The first epoch comes at once, with what is there by then, and a page may be on its way when an epoch is minted.
        let sealed = 5 * (LOAD_BYTES - 10_000);
        assert!(
            second.bytes_read + sealed <= bytes as u64,
            "{workers} workers: {} of {bytes} bytes were read after {} seals",
            second.bytes_read,
            first.epochs.sealed
        );
        let seals = first.epochs.sealed + second.epochs.sealed;
        let (most, pages) = (bytes as u64 / LOAD_BYTES + 6, ORDERS / PAGE as u64);
        assert!(
            seals <= most,
            "{workers} workers: {seals} seals of {pages} pages"
        );
    }
}

/// Less than an epoch of it, and a minute to wait for more: it is complete, so it must be there at once. So must what comes
/// after it.
#[test]
fn a_load_that_is_complete_does_not_wait() {
    let shop = shop(300);
    let store = CheckpointStore::in_memory("shop");
    let job = start(&shop, patient(2, 32 << 20), &store);
    until("load", || shop.found() == shop.expected());
    shop.put(&Order {
        id: "late".to_owned(),
        region: "r1".to_owned(),
        customer: "c1".to_owned(),
        cents: 5,
    });
    until("change", || shop.found() == shop.expected());
    job.stop();
    job.join().expect("ends well");
}

/// A page alone is more than may wait, and nobody waits for more.
#[test]
fn pages_larger_than_what_may_wait_are_loaded() {
    let shop = shop(ORDERS);
    let large = Shop {
        orders: MemoryContainer::new(MemoryOptions {
            page_size: 100_000,
            ranges: 2,
            ..Default::default()
        }),
        ..shop.clone()
    };
    for (key, body) in shop.orders.contents() {
        let [region, id]: [String; 2] = serde_json::from_str(&key).expect("a key");
        large.orders.upsert(&format!("[{region:?}]"), &id, body);
    }
    let mut config = patient(2, LOAD_BYTES);
    config.epoch.max_waiting_bytes = 1 << 20;
    let job = start(&large, config, &CheckpointStore::in_memory("shop"));
    until("load", || large.found() == large.expected());
    job.stop();
    job.join().expect("ends well");
}
