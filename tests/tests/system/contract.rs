//! What a job's code, its configuration and its checkpoint promise each other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidefeed::config::JobConfig;
use tidefeed::prelude::*;
use tidefeed::{CheckpointStore, ErrorKind, Job};
use tidefeed_tests::{Order, Shop, config, start, until, views};

fn order(id: &str, region: &str, cents: i64) -> Order {
    Order {
        id: id.to_owned(),
        region: region.to_owned(),
        customer: "c1".to_owned(),
        cents,
    }
}

#[derive(Clone, Serialize)]
struct Row {
    id: String,
}

fn only_sink(mut config: JobConfig, sink: &str) -> JobConfig {
    config.sink.retain(|name, _| name == sink);
    config
}

/// I8: a view that was empty at the commit is compared too, although the commit says nothing of it.
#[test]
fn a_view_that_was_empty_at_the_commit_is_checked_too() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    for n in 0..20 {
        shop.put(&order(&format!("o{n}"), "r1", 5));
    }
    let run = |least: i64| {
        Job::new(
            "shop",
            only_sink(config(1), "totals"),
            shop.clone(),
            move |flow: &mut Flow<'_>| {
                let orders = flow.change_feed::<Order>("orders")?;
                let rows = orders
                    .filter(move |o| o.cents >= least)
                    .map(|o| Row { id: o.id });
                flow.upsert("totals", rows)
            },
        )
        .checkpoint_store(store.clone())
        .start()
    };
    let job = run(100).expect("starts");
    job.finish_when_caught_up();
    job.join().expect("ends well");
    // The code has changed: now every order is a row.
    let job = run(0).expect("starts");
    job.finish_when_caught_up();
    let error = job.join().expect_err("the changed code must be noticed");
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(
        error
            .report()
            .starts_with("view totals (20 rows now, 0 then) as rebuilt"),
        "{}",
        error.report()
    );
    assert_eq!(shop.views["totals"].writes(), 0, "nothing was written");
}

/// Two rows under one id are an error also when they come in different epochs: deleting one would delete the document.
#[test]
fn a_second_row_under_an_id_ends_the_run() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let job = Job::new(
        "shop",
        only_sink(config(1), "totals"),
        shop.clone(),
        |flow: &mut Flow<'_>| {
            let orders = flow.change_feed::<Order>("orders")?;
            // The forgotten `distinct`: one row for each order.
            let row = |o: Order| BTreeMap::from([("id", o.region), ("order", o.id)]);
            flow.upsert("totals", orders.map(row))
        },
    )
    .checkpoint_store(store.clone())
    .start()
    .expect("starts");
    let view = shop.views["totals"].clone();
    shop.put(&order("o1", "r1", 1));
    until("first row", || view.contents().len() == 1);
    shop.put(&order("o2", "r1", 1));
    until("end", || job.ended());
    let error = job.join().expect_err("two rows under one id");
    assert_eq!(error.kind(), ErrorKind::Data);
    let both = r#"share partition key ["r1"] and id "r1", such as {"id":"r1","order":"o2"} and {"id":"r1","order":"o1"}:"#;
    assert!(error.report().contains(both), "{}", error.report());
    assert_eq!(view.writes(), 1, "the second row was not written");
}

/// A bounded run from "now" seals where it stood although nothing came, so the next run misses nothing. Whether the tokens
/// were sealed by an ordinary tick is a race, hence the rounds.
#[test]
fn changes_between_two_bounded_runs_from_now_are_not_lost() {
    for round in 0..30 {
        let shop = Shop::new(round);
        let store = CheckpointStore::in_memory("shop");
        let mut config = config(1);
        config.epoch.max_ms = 1000; // the default
        for source in config.source.values_mut() {
            source.start = tidefeed::config::StartAt::Now;
        }
        let run = || {
            let job = Job::new("shop", config.clone(), shop.clone(), views)
                .checkpoint_store(store.clone())
                .start()
                .expect("starts");
            job.finish_when_caught_up();
            job.join().expect("ends well");
        };
        run();
        shop.put(&order("o1", "r1", 1));
        run();
        assert_eq!(shop.found(), shop.expected(), "round {round}");
    }
}

#[test]
fn starts_with_nothing_new_do_not_fill_the_store() {
    let shop = Shop::new(1);
    let directory = tempfile::tempdir().expect("a directory");
    let store = CheckpointStore::local(directory.path(), "shop").expect("a store");
    let job = start(&shop, &store, 1).expect("starts");
    for n in 0..60 {
        let read = job.status().changes_read;
        shop.put(&order(&format!("o{n}"), "r1", 5));
        until("change", || job.status().changes_read > read);
    }
    job.finish_when_caught_up();
    job.join().expect("ends well");
    let base = directory.path().join("shop").join("base");
    let bases = || std::fs::read_dir(&base).map_or(0, |entries| entries.count());
    for _ in 0..6 {
        let job = start(&shop, &store, 1).expect("starts");
        job.finish_when_caught_up();
        job.join().expect("ends well");
    }
    assert!(bases() <= 2, "{} whole copies of the collection", bases());
}

#[test]
fn a_stop_does_not_wait_out_the_commit_interval() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let mut config = config(1);
    config.checkpoint.interval_ms = Some(4000);
    let job = Job::new("shop", config, shop.clone(), views)
        .checkpoint_store(store)
        .start()
        .expect("starts");
    shop.put(&order("o1", "r1", 1));
    until("commit", || job.status().epochs.committed > 0);
    let asked = Instant::now();
    job.stop();
    job.join().expect("ends well");
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}
