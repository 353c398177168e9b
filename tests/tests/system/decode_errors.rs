//! Documents that do not decode: they end the run, or it goes on as if they were not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use tidefeed::prelude::*;
use tidefeed::{CheckpointStore, Job, JobStatus};
use tidefeed_operators::dead_letter::MemoryDeadLetters;
use tidefeed_operators::decode::DecodeErrors;
use tidefeed_tests::place::differences;
use tidefeed_tests::views::recompute;
use tidefeed_tests::{LettersShop, Order, Shop, config_with_letters, until, views};

fn run(
    place: &LettersShop,
    store: &CheckpointStore,
    workers: usize,
    policy: DecodeErrors,
) -> Result<JobStatus> {
    let mut config = config_with_letters(workers);
    let source = config.source.get_mut("orders").expect("the source");
    source.on_decode_error = policy;
    let job = Job::new("shop", config, place.clone(), views);
    let job = job.checkpoint_store(store.clone()).start()?;
    job.finish_when_caught_up();
    job.join()
}

/// A document without an amount, under the key of an order.
fn spoil(shop: &Shop, id: &str, note: u32) -> String {
    let body = json!({"id": id, "region": "r1", "note": note}).to_string();
    shop.orders.upsert(r#"["r1"]"#, id, body.clone());
    body
}

fn mend(shop: &Shop, id: &str, cents: i64) {
    shop.put(&Order {
        id: id.to_owned(),
        region: "r1".to_owned(),
        customer: "c1".to_owned(),
        cents,
    });
}

/// The views of the orders that decode.
fn assert_right(shop: &Shop, seed: u64) {
    let contents = shop.orders.contents();
    let orders: Vec<Order> = contents
        .values()
        .filter_map(|body| serde_json::from_slice(body).ok())
        .collect();
    let differences = differences(&shop.found(), &recompute(&orders));
    assert_eq!(differences, Vec::<String>::new(), "seed {seed}");
}

#[test]
fn a_document_that_does_not_decode_ends_the_run_and_is_named() {
    let (shop, letters) = (Shop::new(1), Arc::default());
    let place = LettersShop { shop, letters };
    let store = CheckpointStore::in_memory("shop");
    spoil(&place.shop, "o7", 1);
    let error = run(&place, &store, 2, DecodeErrors::Fail).expect_err("it does not decode");
    let says = r#"document ["r1","o7"] does not decode"#;
    assert!(error.report().starts_with(says), "{}", error.report());
    mend(&place.shop, "o7", 5);
    run(&place, &store, 2, DecodeErrors::Fail).expect("ends well");
    assert_right(&place.shop, 1);
}

#[test]
fn documents_that_do_not_decode_are_counted_for_their_range() {
    let (shop, letters) = (Shop::new(1), Arc::default());
    let place = LettersShop { shop, letters };
    let mut config = config_with_letters(2);
    let source = config.source.get_mut("orders").expect("the source");
    source.on_decode_error = DecodeErrors::Skip;
    let job = Job::new("shop", config, place.clone(), views);
    let store = CheckpointStore::in_memory("shop");
    let job = job.checkpoint_store(store).start().expect("starts");
    for number in 0..3 {
        spoil(&place.shop, &format!("o{number}"), 1);
    }
    let of_ranges = || {
        let status = job.status();
        let ranges = status.ranges["orders"].values();
        ranges.map(|range| range.decode_errors).collect::<Vec<_>>()
    };
    until("the documents", || of_ranges().iter().sum::<u64>() == 3);
    let with_any = of_ranges().iter().filter(|errors| **errors > 0).count();
    assert_eq!(with_any, 1, "they have the same partition key");
    job.finish_when_caught_up();
    assert_eq!(job.join().expect("ends well").decode_errors, 3);
}

/// Orders are spoiled and mended at random, between runs and in them, with restarts and batches that fail half way.
#[test]
fn spoiled_documents_are_as_if_they_were_not_there() {
    for seed in 0..8 {
        let policy = match seed % 2 {
            0 => DecodeErrors::Skip,
            _ => DecodeErrors::DeadLetters,
        };
        let letters: Arc<MemoryDeadLetters> = Arc::default();
        let place = LettersShop {
            shop: Shop::new(seed),
            letters: letters.clone(),
        };
        let shop = &place.shop;
        let store = CheckpointStore::in_memory("shop");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut spoiled = BTreeSet::new();
        for round in 0..5 {
            for number in 0..60 {
                let id = format!("o{}", random.u8(..20));
                match random.u8(..3) {
                    0 => drop(spoiled.insert(spoil(shop, &id, round * 100 + number))),
                    1 => mend(shop, &id, random.i64(1..900)),
                    _ => shop.delete("r1", &id),
                }
            }
            if round == 2 {
                shop.views["totals"].fail_next_batch(tidefeed::ErrorKind::Rejected);
                run(&place, &store, 2, policy).expect_err("fails");
            }
            run(&place, &store, random.usize(1..4), policy).expect("ends well");
            assert_right(shop, seed);
            let before = letters.letters().len();
            let again = run(&place, &store, random.usize(1..4), policy).expect("ends well");
            let contents = shop.orders.contents();
            let left = contents
                .values()
                .filter(|body| serde_json::from_slice::<Order>(body).is_err());
            assert_eq!(again.decode_errors, left.count() as u64, "seed {seed}");
            assert_eq!(
                letters.letters().len(),
                before,
                "seed {seed}: nothing is new"
            );
        }
        let texts = letters.letters().into_iter().map(|letter| {
            assert_eq!(letter.sink, "source:orders");
            assert!(
                letter.message.starts_with("it does not decode"),
                "{}",
                letter.message
            );
            String::from_utf8(letter.body.expect("a body").to_vec()).expect("text")
        });
        let kept: BTreeSet<String> = texts.collect();
        assert_eq!(kept.is_empty(), policy == DecodeErrors::Skip, "seed {seed}");
        assert!(kept.is_subset(&spoiled), "seed {seed}");
    }
}
