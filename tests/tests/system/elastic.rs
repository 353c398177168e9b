//! Feed ranges are divided, handed over and spread over the workers while a job runs, and nothing is lost or out of order.

use std::collections::BTreeMap;

use tidefeed::config::StartAt;
use tidefeed::{CheckpointStore, ErrorKind, Job, RunningJob};
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::{Order, Shop, config, start, until, views};

/// Ranges of the orders by worker.
fn spread(job: &RunningJob) -> BTreeMap<usize, usize> {
    let mut spread = BTreeMap::new();
    for status in job.status().ranges["orders"].values() {
        *spread.entry(status.worker).or_default() += 1;
    }
    spread
}

/// Whether the ranges that are read tile the key space.
fn tile(job: &RunningJob) -> bool {
    let ranges = job.status().ranges;
    let mut bounds: Vec<_> = ranges["orders"]
        .keys()
        .filter_map(|id| id.bounds())
        .collect();
    bounds.sort_unstable();
    let ends = bounds.first().zip(bounds.last());
    ends.is_some_and(|(first, last)| first.0.is_empty() && last.1 == "FF")
        && bounds.windows(2).all(|pair| pair[0].1 == pair[1].0)
}

fn assert_right(shop: &Shop, when: &str) {
    let differences = differences(&shop.found(), &shop.expected());
    assert_eq!(differences, Vec::<String>::new(), "{when}");
}

fn order(number: usize, cents: i64) -> Order {
    Order {
        id: format!("o{}", number % 150),
        region: format!("r{}", number % 60),
        customer: format!("c{}", number % 10),
        cents,
    }
}

#[test]
fn ranges_that_split_are_spread_over_the_workers_of_a_running_job() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let job = start(&shop, &store, 3).expect("starts");
    (0..300).for_each(|number| shop.put(&order(number, 5)));
    until("four ranges", || {
        tile(&job) && job.status().ranges["orders"].len() == 4
    });
    for (number, at) in [3, 3, 0, 0, 1].into_iter().enumerate() {
        shop.orders.split(at);
        shop.put(&order(number, 7));
        until("one range more", || {
            tile(&job) && job.status().ranges["orders"].len() == 5 + number
        });
    }
    let loads = spread(&job);
    assert_eq!(loads.len(), 3, "{loads:?}");
    assert!(loads.values().all(|load| *load == 3), "{loads:?}");
    (0..300).for_each(|number| shop.put(&order(number, 9)));
    job.finish_when_caught_up();
    job.join().expect("ends well");
    assert_right(&shop, "at the end");
    assert_eq!(shop.violations(), Vec::<String>::new());
}

/// More workers than partitions: each has a part of the keys, at the first start and when a run goes on with more workers.
#[test]
fn a_run_with_more_workers_divides_what_it_resumes() {
    let shop = Shop::new(2);
    let store = CheckpointStore::in_memory("shop");
    for (workers, ranges) in [(1, 4), (6, 6), (2, 6), (7, 7)] {
        let job = start(&shop, &store, workers).expect("starts");
        (0..200).for_each(|number| shop.put(&order(number, workers as i64)));
        until("all ranges", || {
            tile(&job) && job.status().ranges["orders"].len() == ranges
        });
        assert_eq!(spread(&job).len(), workers);
        job.finish_when_caught_up();
        job.join().expect("ends well");
        assert_right(&shop, &format!("{workers} workers"));
    }
}

/// What is written after the start is read, also when the run is gone before it has read anything.
#[test]
fn now_is_when_the_start_returns() {
    for seed in 0..10 {
        let shop = Shop::new(seed);
        let store = CheckpointStore::in_memory("shop");
        shop.put(&order(1, 5));
        for stopped in [true, false] {
            let mut config = config(2);
            let source = config.source.get_mut("orders").expect("the source");
            source.start = StartAt::Now;
            let job = Job::new("shop", config, shop.clone(), views);
            let job = job.checkpoint_store(store.clone()).start().expect("starts");
            match stopped {
                true => {
                    (2..60).for_each(|number| shop.put(&order(number, 5)));
                    job.stop();
                }
                false => job.finish_when_caught_up(),
            }
            job.join().expect("ends well");
        }
        shop.delete("r1", "o1");
        assert_right(&shop, &format!("seed {seed}"));
    }
}

/// Random changes, splits, failures and restarts with another number of workers. Orders keep their regions, and each change of
/// one is a larger amount, so a change that is applied late would show.
#[test]
fn views_are_right_whatever_splits_and_fails() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let shop = Shop::new(seed);
        let store = CheckpointStore::in_memory("shop");
        let mut cents = 0;
        let mut change = |random: &mut fastrand::Rng| {
            for _ in 0..40 {
                cents += 1;
                shop.put(&order(random.usize(..600), cents));
            }
            if random.u8(..3) == 0 {
                shop.orders.split(random.usize(..4));
            }
        };
        for _ in 0..5 {
            change(&mut random);
            let job = start(&shop, &store, random.usize(1..5)).expect("starts");
            for _ in 0..random.usize(..20) {
                change(&mut random);
            }
            match random.u8(..4) {
                0 => shop.orders.fail_next_page(ErrorKind::Unreachable),
                1 => job.stop(),
                2 => {
                    let view = random.choice(shop.views.values()).expect("there are views");
                    view.fail_next_batch(ErrorKind::Rejected);
                }
                _ => {}
            }
            change(&mut random);
            job.finish_when_caught_up();
            // Whether a failure came in time is a race, and either is fine.
            if let Err(error) = job.join() {
                let injected = [ErrorKind::Unreachable, ErrorKind::Rejected];
                assert!(injected.contains(&error.kind()), "seed {seed}: {error:?}");
            }
        }
        // Failures that were injected and not met before are met by at most one of each kind.
        let ended = (0..4).any(|_| {
            let job = start(&shop, &store, random.usize(1..4)).expect("starts");
            job.finish_when_caught_up();
            job.join().is_ok()
        });
        assert!(ended, "seed {seed}");
        assert_right(&shop, &format!("seed {seed}"));
        assert_eq!(shop.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

/// The same through the official SDK: partitions of the source split and merge under a job that runs.
#[cfg(unix)]
#[test]
fn partitions_split_and_merge_under_a_running_job() {
    use tidefeed_tests::orders::Orders;
    use tidefeed_tests::process::Run;

    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let mut orders = Orders::new(random.u64(..));
    let executable = env!("CARGO_BIN_EXE_shop");
    let run = Run::start(place.program(executable, 3));
    for _ in 0..60 {
        place.write(orders.change(20));
        place.change_partitions(&mut random);
    }
    let (status, lines) = run.kill();
    assert_eq!(lines, Vec::<String>::new(), "{status}");
    let (status, lines) = {
        let mut program = place.program(executable, 2);
        program.arg("--until-caught-up");
        Run::start(program).end()
    };
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}
