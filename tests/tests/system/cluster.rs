//! A job as a cluster of processes, each in threads of the test's own: views against a recomputation, through failures and
//! restarts with other shapes.

use std::net::TcpListener;
use std::time::Duration;

use serde::Serialize;
use tidefeed::prelude::*;
use tidefeed::{
    CheckpointStore, Error, ErrorKind, Hosts, Job, JobStatus, Member, RunningJob, Secret,
};
use tidefeed_tests::{Order, Shop, config, until, views};

/// How many processes, of how many workers.
pub(super) type Shape = (usize, usize);

/// The job's code.
pub(super) type Code = fn(&mut Flow<'_>) -> Result<()>;

/// All processes of a run.
fn start(shop: &Shop, store: &CheckpointStore, shape: Shape, code: Code) -> Vec<RunningJob> {
    try_start(shop, store, shape, code)
        .into_iter()
        .map(|started| started.expect("starts"))
        .collect()
}

pub(super) fn try_start(
    shop: &Shop,
    store: &CheckpointStore,
    (processes, workers): Shape,
    code: Code,
) -> Vec<Result<RunningJob>> {
    let listeners: Vec<_> = (0..processes)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let addresses = listeners.iter().map(|l| l.local_addr().expect("bound"));
    let hosts = Hosts::new(addresses.map(|a| a.to_string())).expect("addresses");
    let secret = Secret::new("the secret of this test").expect("long enough");
    let start = |(process, listener)| {
        let member = Member::new(process as u32, hosts.clone(), secret.clone());
        let member = member.expect("a process").listener(listener);
        // The machine may be busy with other tests.
        let member = member.peer_timeout(Duration::from_secs(60));
        let mut config = config(workers);
        config.checkpoint.lease_ms = Some(60_000);
        let job = Job::new("shop", config, shop.clone(), code)
            .checkpoint_store(store.clone())
            .member(member);
        std::thread::spawn(move || job.start())
    };
    let starting: Vec<_> = listeners.into_iter().enumerate().map(start).collect();
    let started = starting.into_iter().map(|start| start.join());
    started.map(|started| started.expect("no panic")).collect()
}

/// Lets a run catch up and end.
fn finish(run: Vec<RunningJob>) -> Result<Vec<JobStatus>> {
    run[0].finish_when_caught_up();
    join(run).into_iter().collect()
}

/// How each process has ended; all at once, because each waits for the others.
fn join(run: Vec<RunningJob>) -> Vec<Result<JobStatus>> {
    let joining = run.into_iter().map(|job| std::thread::spawn(|| job.join()));
    let joining: Vec<_> = joining.collect();
    let joined = joining.into_iter().map(|join| join.join());
    joined.map(|ended| ended.expect("no panic")).collect()
}

#[test]
fn views_equal_a_recomputation_in_any_shape() {
    for shape in [(2, 1), (2, 2), (3, 1)] {
        let shop = Shop::new(1);
        let mut random = fastrand::Rng::with_seed(shape.0 as u64);
        shop.change(&mut random, 2_000);
        let run = start(&shop, &CheckpointStore::in_memory("shop"), shape, views);
        shop.change(&mut random, 2_000);
        let ended = finish(run).expect("ends well");
        assert_eq!(shop.found(), shop.expected(), "{shape:?}");
        assert_eq!(shop.violations(), Vec::<String>::new());
        let writes = |status: &JobStatus| -> u64 {
            let sinks = status.sinks.values();
            sinks.map(|sink| sink.upserts + sink.deletes).sum()
        };
        // Which process has which regions is a matter of hashes.
        let read = ended.iter().filter(|status| status.changes_read > 0);
        assert!(read.count() > 1, "one process read everything");
        let wrote = ended.iter().filter(|status| writes(status) > 0);
        assert!(wrote.count() > 1, "one process wrote everything");
    }
}

/// A view of how many orders a region has ever had, by keyed state.
fn ever(flow: &mut Flow<'_>) -> Result<()> {
    #[derive(Clone, Serialize)]
    struct Ever {
        id: String,
        orders: usize,
    }
    let orders = flow.change_feed::<Order>("orders")?;
    let by_region = orders.map(|order| (order.region, order.id));
    let counts = flow.stateful("ever", by_region, |_region, seen, changes| {
        let came = changes.into_iter().filter(|(_order, diff)| *diff > 0);
        *seen = Some(seen.unwrap_or(0) + came.count());
        *seen
    })?;
    flow.upsert("totals", counts.map(|(id, orders)| Ever { id, orders }))
}

/// Tokens, bases, seals and keyed state follow from shape to shape. What was there is not read again, and not written again.
#[test]
fn a_job_goes_on_in_another_shape() {
    let shop = Shop::new(3);
    let store = CheckpointStore::in_memory("shop");
    let mut random = fastrand::Rng::with_seed(7);
    for (round, shape) in [(3, 2), (1, 1), (2, 3), (3, 2)].into_iter().enumerate() {
        shop.change(&mut random, 700);
        let run = start(&shop, &store, shape, views);
        shop.change(&mut random, 700);
        finish(run).expect("ends well");
        assert_eq!(shop.found(), shop.expected(), "{shape:?}");
        let before: u64 = shop.views.values().map(|view| view.writes()).sum();
        // With nothing new to do, in the shape of the next round.
        let next = [(1, 2), (2, 2), (3, 1), (1, 1)][round];
        let ended = finish(start(&shop, &store, next, views)).expect("ends well");
        let read: u64 = ended.iter().map(|status| status.changes_read).sum();
        let after: u64 = shop.views.values().map(|view| view.writes()).sum();
        assert_eq!((read, after), (0, before), "{next:?}");
    }
    assert_eq!(shop.violations(), Vec::<String>::new());
}

#[test]
fn keyed_state_follows_its_keys_to_other_processes() {
    let shop = Shop::new(4);
    let store = CheckpointStore::in_memory("shop");
    let regions = 20;
    for (round, shape) in [(3, 2), (1, 1), (2, 3), (3, 2)].into_iter().enumerate() {
        for region in 0..regions {
            let region = format!("r{region}");
            // The one before is no longer there, and counts.
            shop.delete(&region, "o");
            if round > 0 {
                shop.delete(&region, &format!("{}", round - 1));
            }
            shop.put(&Order {
                id: round.to_string(),
                region: region.clone(),
                customer: "c".to_owned(),
                cents: 1,
            });
        }
        let run = start(&shop, &store, shape, ever);
        finish(run).expect("ends well");
        let found = shop.views["totals"].contents();
        assert_eq!(found.len(), regions, "{shape:?}");
        for (key, body) in found {
            let row: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(row["orders"], round + 1, "{shape:?}: {key}");
        }
    }
}

/// A write fails in one process, whichever has the row: that one says so, the others that they have lost it, and the next run
/// makes up for it.
#[test]
fn a_failure_of_one_process_ends_all_and_the_next_run_is_right() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let shop = Shop::new(seed);
        let store = CheckpointStore::in_memory("shop");
        for _ in 0..3 {
            shop.change(&mut random, 300);
            let run = start(&shop, &store, (random.usize(2..4), 1), views);
            let view = random.choice(shop.views.values()).expect("there are views");
            view.fail_next_batch(ErrorKind::Rejected);
            shop.change(&mut random, 300);
            run[0].finish_when_caught_up();
            let ended = join(run);
            let failures: Vec<Error> = ended.into_iter().filter_map(Result::err).collect();
            // Whether the failure came in time is a race, and either is fine.
            for failure in &failures {
                let kind = failure.kind();
                let fine = [ErrorKind::Rejected, ErrorKind::PeerLost].contains(&kind);
                assert!(fine, "{failure:?}");
            }
            let own = failures.iter().filter(|f| f.kind() == ErrorKind::Rejected);
            assert!(failures.is_empty() || own.count() == 1, "{failures:?}");
        }
        // A failure that was injected and not met before may come now.
        let mut tries = 0;
        while finish(start(&shop, &store, (2, 1), views)).is_err() {
            tries += 1;
            assert!(tries < 20, "seed {seed}");
        }
        assert_eq!(shop.found(), shop.expected(), "seed {seed}");
        assert_eq!(shop.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

/// Any process may be asked to end; all do, and nothing is lost.
#[test]
fn a_stop_of_one_process_is_a_stop_of_all() {
    let shop = Shop::new(5);
    let store = CheckpointStore::in_memory("shop");
    let mut random = fastrand::Rng::with_seed(5);
    for process in 0..3 {
        shop.change(&mut random, 500);
        let run = start(&shop, &store, (3, 1), views);
        until("a commit", || run[0].status().epochs.committed > 0);
        run[process].stop();
        for ended in join(run) {
            ended.expect("ends well");
        }
    }
    finish(start(&shop, &store, (1, 2), views)).expect("ends well");
    assert_eq!(shop.found(), shop.expected());
}

/// Splits of partitions hand ranges over to workers of other processes while they are read.
#[test]
fn ranges_move_between_processes_when_partitions_split() {
    let shop = Shop::new(6);
    let store = CheckpointStore::in_memory("shop");
    let mut random = fastrand::Rng::with_seed(6);
    shop.change(&mut random, 3_000);
    let run = start(&shop, &store, (3, 1), views);
    for _ in 0..6 {
        shop.orders.split(random.usize(0..4));
        shop.change(&mut random, 500);
    }
    finish(run).expect("ends well");
    assert_eq!(shop.found(), shop.expected());
    assert_eq!(shop.violations(), Vec::<String>::new());
}
