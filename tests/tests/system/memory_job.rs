//! The whole job over containers in memory: views against a recomputation, through failures and restarts.

use std::collections::BTreeSet;

use serde_json::Value;
use tidefeed::{CheckpointStore, ErrorKind, Job};
use tidefeed_tests::{Contents, Shop, config, start, views};

#[test]
fn views_equal_a_recomputation_at_any_number_of_workers() {
    for workers in 1..=3 {
        let shop = Shop::new(1);
        let mut random = fastrand::Rng::with_seed(workers as u64);
        shop.change(&mut random, 2_000);
        let job = start(&shop, &CheckpointStore::in_memory("shop"), workers).expect("starts");
        shop.change(&mut random, 2_000);
        job.finish_when_caught_up();
        let status = job.join().expect("ends well");
        assert_eq!(shop.found(), shop.expected(), "{workers} workers");
        assert_eq!(shop.violations(), Vec::<String>::new());
        assert!(
            status.changes_read >= 200 && status.epochs.committed > 0,
            "{status:?}"
        );
    }
}

#[test]
fn a_run_that_has_nothing_new_writes_nothing() {
    let shop = Shop::new(1);
    shop.change(&mut fastrand::Rng::with_seed(5), 500);
    let store = CheckpointStore::in_memory("shop");
    for round in 0..2 {
        let before: u64 = shop.views.values().map(|view| view.writes()).sum();
        let job = start(&shop, &store, 2).expect("starts");
        job.finish_when_caught_up();
        let status = job.join().expect("ends well");
        let after: u64 = shop.views.values().map(|view| view.writes()).sum();
        assert_eq!(after > before, round == 0, "round {round}: {status:?}");
        assert_eq!(
            status.changes_read > 0,
            round == 0,
            "tokens resume after what was read"
        );
    }
    assert_eq!(shop.found(), shop.expected());
}

/// Batches fail after writing a part of their documents, and pages fail; each ends the run, and the next one resumes with
/// another number of workers.
#[test]
fn views_are_right_after_any_number_of_failed_runs() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let shop = Shop::new(seed);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = match seed % 2 {
            0 => CheckpointStore::in_memory("shop"),
            _ => CheckpointStore::local(directory.path(), "shop").expect("a store"),
        };
        for _ in 0..6 {
            shop.change(&mut random, 300);
            let job = start(&shop, &store, random.usize(1..4)).expect("starts");
            shop.change(&mut random, 300);
            match random.u8(0..4) {
                0 => shop.orders.fail_next_page(ErrorKind::Unreachable),
                1 => job.stop(),
                _ => {
                    let view = random.choice(shop.views.values()).expect("there are views");
                    view.fail_next_batch(ErrorKind::Rejected);
                }
            }
            shop.change(&mut random, 100);
            job.finish_when_caught_up();
            // Whether the failure came in time is a race, and either is fine.
            if let Err(error) = job.join() {
                assert!(
                    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Rejected),
                    "{error:?}"
                );
            }
        }
        let job = start(&shop, &store, random.usize(1..4));
        let job = job.or_else(|_| start(&shop, &store, 2)).expect("starts");
        job.finish_when_caught_up();
        if job.join().is_err() {
            // A failure that was injected and not met before.
            let job = start(&shop, &store, 1).expect("starts");
            job.finish_when_caught_up();
            job.join().expect("ends well");
        }
        assert_eq!(shop.found(), shop.expected(), "seed {seed}");
        assert_eq!(shop.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

/// Takes `_epoch` off every document, and returns what it said.
fn take_epochs(contents: &mut Contents) -> BTreeSet<u64> {
    let documents = contents.values_mut().flat_map(|view| view.values_mut());
    let epoch = |document: &mut Value| document.as_object_mut()?.remove("_epoch")?.as_u64();
    documents
        .map(|document| epoch(document).expect("an epoch"))
        .collect()
}

/// A rebuild finds nothing to write: the epoch is no part of what a document says.
#[test]
fn documents_say_of_which_epoch_they_are() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let mut random = fastrand::Rng::with_seed(3);
    let run = |rebuild: &[&str]| {
        let mut config = config(2);
        for sink in config.sink.values_mut() {
            sink.stamp_epoch = true;
        }
        let job = Job::new("shop", config, shop.clone(), views).checkpoint_store(store.clone());
        let job = job
            .rebuild(rebuild.iter().copied())
            .start()
            .expect("starts");
        job.finish_when_caught_up();
        job.join().expect("ends well");
        let mut found = shop.found();
        let epochs = take_epochs(&mut found);
        assert_eq!(found, shop.expected());
        epochs
    };
    shop.change(&mut random, 500);
    let first = run(&[]);
    let last = first.last().copied().expect("there are documents");
    shop.change(&mut random, 20);
    let second = run(&[]);
    assert!(
        second.iter().any(|epoch| *epoch > last),
        "{second:?}, {last}"
    );
    assert!(
        second.iter().any(|epoch| *epoch <= last),
        "{second:?}, {last}"
    );
    let writes = || shop.views.values().map(|view| view.writes()).sum::<u64>();
    let before = writes();
    run(&["all"]);
    assert_eq!(writes(), before);
}
