//! Views whose rows share keys: one row stays, the others are dead letters, whatever comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use tidefeed::config::{DuplicateRows, JobConfig};
use tidefeed::prelude::*;
use tidefeed::{CheckpointStore, Job};
use tidefeed_operators::dead_letter::{DeadLetter, MemoryDeadLetters};
use tidefeed_tests::{LettersShop, Order, Shop, config_with_letters};

/// One sink, whose rows are to be as many as the orders of a region.
fn configured(workers: usize, per_minute: u32) -> JobConfig {
    let mut config = config_with_letters(workers);
    config.sink.retain(|name, _| name == "totals");
    let sink = config.sink.get_mut("totals").expect("the sink");
    sink.duplicate_rows = DuplicateRows::DeadLetters;
    sink.dead_letters_per_minute = Some(per_minute);
    config
}

/// The forgotten `reduce`: one row for each order, under the id of its region.
fn row(order: Order) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([("id", json!(order.region)), ("order", json!(order.id))])
}

fn run(
    shop: &Shop,
    letters: &Arc<MemoryDeadLetters>,
    store: &CheckpointStore,
    config: JobConfig,
) -> Result<()> {
    let connect = LettersShop {
        shop: shop.clone(),
        letters: letters.clone(),
    };
    let job = Job::new("shop", config, connect, |flow: &mut Flow<'_>| {
        let orders = flow.change_feed::<Order>("orders")?;
        flow.upsert("totals", orders.map(row))
    });
    let job = job.checkpoint_store(store.clone()).start()?;
    job.finish_when_caught_up();
    job.join().map(drop)
}

/// Each region's rows as JSON, in order.
fn rows_of(shop: &Shop) -> BTreeMap<String, BTreeSet<String>> {
    let mut rows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for body in shop.orders.contents().values() {
        let order: Order = serde_json::from_slice(body).expect("an order");
        let region = order.region.clone();
        let row = serde_json::to_string(&row(order)).expect("JSON");
        rows.entry(region).or_default().insert(row);
    }
    rows
}

fn check(shop: &Shop, letters: &[DeadLetter], ever: &BTreeSet<String>, seed: u64) {
    let rows = rows_of(shop);
    let smallest = |(region, rows): (&String, &BTreeSet<String>)| {
        let row = rows.first().expect("a region has orders");
        let key = json!([region, region]).to_string();
        (key, serde_json::from_str(row).expect("JSON"))
    };
    let expected: BTreeMap<String, Value> = rows.iter().map(smallest).collect();
    assert_eq!(shop.found()["totals"], expected, "seed {seed}");
    let text = |letter: &DeadLetter| String::from_utf8(letter.body.clone()?.to_vec()).ok();
    let kept: BTreeSet<String> = letters.iter().filter_map(text).collect();
    let surplus = rows.values().flat_map(|rows| rows.iter().skip(1));
    for row in surplus {
        assert!(kept.contains(row), "seed {seed}: {row} is nowhere");
    }
    assert!(kept.is_subset(ever), "seed {seed}");
}

#[test]
fn one_row_stays_and_the_others_are_kept() {
    for seed in 0..6 {
        let (shop, letters) = (Shop::new(seed), Arc::new(MemoryDeadLetters::default()));
        let store = CheckpointStore::in_memory("shop");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ever = BTreeSet::new();
        for round in 0..4 {
            for _ in 0..60 {
                let (id, region) = (random.u8(0..30), random.u8(0..5));
                let (id, region) = (format!("o{id}"), format!("r{region}"));
                if random.bool() {
                    let customer = "c1".to_owned();
                    let (id, region) = (id.clone(), region.clone());
                    shop.put(&Order {
                        id,
                        region,
                        customer,
                        cents: 1,
                    });
                } else {
                    shop.delete(&region, &id);
                }
                ever.extend(rows_of(&shop).into_values().flatten());
            }
            if round == 2 {
                // Some of its documents are written, and the run ends; its letters may be there already.
                shop.views["totals"].fail_next_batch(tidefeed::ErrorKind::Rejected);
                run(&shop, &letters, &store, configured(2, 10_000)).expect_err("fails");
            }
            run(
                &shop,
                &letters,
                &store,
                configured(random.usize(1..4), 10_000),
            )
            .expect("ends well");
            check(&shop, &letters.letters(), &ever, seed);
            let before = letters.letters().len();
            run(&shop, &letters, &store, configured(1, 10_000)).expect("ends well");
            assert_eq!(
                letters.letters().len(),
                before,
                "seed {seed}: letters came with nothing new"
            );
        }
        assert_eq!(shop.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_view_does_not_drain_into_the_dead_letters() {
    let (shop, letters) = (Shop::new(1), Arc::new(MemoryDeadLetters::default()));
    let store = CheckpointStore::in_memory("shop");
    for n in 0..10 {
        shop.put(&Order {
            id: format!("o{n}"),
            region: "r1".to_owned(),
            customer: "c1".to_owned(),
            cents: 1,
        });
    }
    let error = run(&shop, &letters, &store, configured(1, 8)).expect_err("nine are surplus");
    let says = "more than 8 rows in a minute share their key";
    assert!(error.report().contains(says), "{}", error.report());
    assert_eq!(letters.letters().len(), 0);
    run(&shop, &letters, &store, configured(1, 9)).expect("nine are allowed");
    assert_eq!(letters.letters().len(), 9);
}
