//! A source's changes as a plain stream: each has its effect once, whatever splits and fails.

use std::collections::BTreeMap;

use serde::Serialize;
use tidefeed::prelude::*;
use tidefeed::timely::dataflow::operators::vec::Map;
use tidefeed::{CheckpointStore, ErrorKind, Job, RunningJob};
use tidefeed_tests::{Order, Shop, config};

/// An order as a record.
#[derive(Clone, Serialize)]
struct Paid {
    id: String,
    cents: i64,
    orders: u64,
}

fn count(flow: &mut Flow<'_>) -> Result<()> {
    let changes = flow.change_stream::<Order>("orders")?;
    let paid = changes.flat_map(|change| {
        let order = change.value?;
        let (id, cents) = (order.customer, order.cents);
        Some((
            0,
            Paid {
                id,
                cents,
                orders: 1,
            },
        ))
    });
    let sums = PatchSpec::new().increment("/cents").increment("/orders");
    flow.write_stream("paid", Strategy::Patch(sums.create_missing()), paid)
}

fn start(shop: &Shop, store: &CheckpointStore, workers: usize) -> Result<RunningJob> {
    Job::new("shop", config(workers), shop.clone(), count)
        .checkpoint_store(store.clone())
        .start()
}

/// Orders only come, and each is one change, so the sums are exact or something was lost or counted twice.
#[test]
fn every_change_of_a_stream_counts_once() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let shop = Shop::new(seed);
        let store = CheckpointStore::in_memory("shop");
        let mut expected: BTreeMap<String, (i64, u64)> = BTreeMap::new();
        let mut number = 0;
        let mut come = |random: &mut fastrand::Rng| {
            for _ in 0..50 {
                number += 1;
                let order = Order {
                    id: format!("o{number}"),
                    region: format!("r{}", number % 40),
                    customer: format!("c{}", random.u8(..6)),
                    cents: random.i64(1..100),
                };
                let sum = expected.entry(order.customer.clone()).or_default();
                *sum = (sum.0 + order.cents, sum.1 + 1);
                shop.put(&order);
            }
            if random.u8(..4) == 0 {
                shop.orders.split(random.usize(..4));
            }
        };
        for round in 0..6 {
            come(&mut random);
            let job = start(&shop, &store, random.usize(1..4)).expect("starts");
            (0..random.usize(..10)).for_each(|_| come(&mut random));
            match random.u8(..3) {
                _ if round == 5 => {}
                0 => job.stop(),
                1 => shop.views["paid"].fail_next_batch(ErrorKind::Rejected),
                _ => {}
            }
            job.finish_when_caught_up();
            // Whether a failure came in time is a race, and either is fine.
            let _ = job.join();
        }
        // A failure that was injected and not met before is met by at most one run.
        let ended = (0..2).any(|_| {
            let job = start(&shop, &store, 2).expect("starts");
            job.finish_when_caught_up();
            job.join().is_ok()
        });
        assert!(ended, "seed {seed}");
        let sums = shop.views["paid"].contents().into_values().map(|body| {
            let sum: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let field = |name: &str| sum[name].as_i64().expect("a number");
            let customer = sum["id"].as_str().expect("text").to_owned();
            (customer, (field("cents"), field("orders") as u64))
        });
        assert_eq!(sums.collect::<BTreeMap<_, _>>(), expected, "seed {seed}");
    }
}
