//! The whole job over containers in memory: views against a recomputation, through failures and restarts.

use tidefeed::{CheckpointStore, ErrorKind};
use tidefeed_tests::{Order, Shop, start};

/// Some random changes: new orders, updates, key moves and deletes.
fn change(shop: &Shop, random: &mut fastrand::Rng, changes: usize) {
    for _ in 0..changes {
        let number = random.u32(0..200);
        let (id, region) = (format!("o{number}"), format!("r{}", number % 7));
        if random.u8(0..5) == 0 {
            shop.delete(&region, &id);
        } else {
            let customer = format!("c{}", random.u8(0..10));
            shop.put(&Order {
                id,
                region,
                customer,
                cents: random.i64(1..1000),
            });
        }
    }
}

#[test]
fn views_equal_a_recomputation_at_any_number_of_workers() {
    for workers in 1..=3 {
        let shop = Shop::new(1);
        let mut random = fastrand::Rng::with_seed(workers as u64);
        change(&shop, &mut random, 2_000);
        let job = start(&shop, &CheckpointStore::in_memory("shop"), workers).expect("starts");
        change(&shop, &mut random, 2_000);
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
    change(&shop, &mut fastrand::Rng::with_seed(5), 500);
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
            change(&shop, &mut random, 300);
            let job = start(&shop, &store, random.usize(1..4)).expect("starts");
            change(&shop, &mut random, 300);
            match random.u8(0..4) {
                0 => shop.orders.fail_next_page(ErrorKind::Unreachable),
                1 => job.stop(),
                _ => {
                    let view = random.choice(shop.views.values()).expect("there are views");
                    view.fail_next_batch(ErrorKind::Rejected);
                }
            }
            change(&shop, &mut random, 100);
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
