//! A job that adds up by patches, and dies: every sum must be exact, whatever was carried out before it died.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use serde_json::Value;
use tidefeed::failpoint::{Failpoint, Side, Step};
use tidefeed::{CheckpointStore, ErrorKind, Job, RunningJob, SinkFate};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::ledger::{LEDGER_SINKS, ledger, sums};
use tidefeed_tests::place::{LOCAL, Place};
use tidefeed_tests::process::{Run, SIGABRT, from_environment};
use tidefeed_tests::views::OrderDocument;
use tidefeed_tests::{Order, Shop, config};

/// Orders that only come, each of its own.
struct Orders {
    all: Vec<Order>,
    random: fastrand::Rng,
}

impl Orders {
    fn new(seed: u64) -> Self {
        Orders {
            all: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    fn more(&mut self, count: usize) -> Vec<Order> {
        let begin = self.all.len();
        for number in begin..begin + count {
            self.all.push(Order {
                id: format!("o{number}"),
                region: format!("r{}", self.random.u8(0..5)),
                customer: format!("c{}", self.random.u8(0..8)),
                cents: self.random.i64(1..1_000_000_000_000),
            });
        }
        self.all[begin..].to_vec()
    }

    /// Compares the sums with what a sink's container holds.
    fn check(&self, sink: &str, found: impl IntoIterator<Item = Value>, what: &str) {
        let sum = |row: Value| {
            let id = row["id"].as_str().expect("an id").to_owned();
            let orders = row.get("orders").and_then(Value::as_i64);
            (id, (row["cents"].as_i64().expect("cents"), orders))
        };
        let found: BTreeMap<_, _> = found.into_iter().map(sum).collect();
        let expected: BTreeMap<_, _> = sums(&self.all)
            .into_iter()
            .map(|(id, (cents, orders))| (id, (cents, (sink == "paid").then_some(orders))))
            .collect();
        assert_eq!(found, expected, "{what}: {sink}");
    }
}

/// Aborts at one point, then at another, then ends well.
#[test]
fn sums_are_exact_after_a_job_has_died_at_its_writes() {
    let _alone = super::alone();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEFEED_SEED={seed}");
    let server = Emulator::start(EmulatorConfig::default()).expect("a free port");
    let server = Arc::new(server);
    for step in [Step::SinkWrite, Step::Acknowledge, Step::CommitPut] {
        for side in Side::BOTH {
            let what = format!("{step:?} {side:?}");
            let database = what.replace(' ', "-").to_lowercase();
            let place = Place::within(&server, &database, LOCAL);
            let mut orders = Orders::new(seed);
            let write = |orders: Vec<Order>| {
                let document = |order| OrderDocument {
                    order,
                    deleted: false,
                };
                place.write(orders.into_iter().map(document).collect());
            };
            let start = |point: Option<Failpoint>, workers, arguments: &[&str]| {
                let mut program = place.program(env!("CARGO_BIN_EXE_shop"), workers);
                program.args(arguments).env("SHOP_CODE", "ledger");
                if let Some(point) = point {
                    program.env("SHOP_FAILPOINT", point.to_string());
                }
                Run::start(program)
            };
            for (time, workers) in [(2, 2), (1, 1)] {
                write(orders.more(30));
                let point = Failpoint { step, side, time };
                let mut run = start(Some(point), workers, &[]);
                let folder = place.checkpoint();
                for _ in 0..100 {
                    let before = CheckpointFiles::of(&folder).commit;
                    write(orders.more(10));
                    if !run.wait_until(|| CheckpointFiles::of(&folder).commit != before) {
                        break;
                    }
                }
                let (status, lines) = run.end();
                assert_eq!(status.signal(), Some(SIGABRT), "{point}: {lines:#?}");
            }
            write(orders.more(10));
            let (status, lines) = start(None, 3, &["--until-caught-up"]).end();
            assert_eq!(status.code(), Some(0), "{what}: {lines:#?}");
            for (sink, _) in LEDGER_SINKS {
                orders.check(sink, place.contents(sink).into_values(), &what);
            }
        }
    }
}

fn in_memory(shop: &Shop, sink: &str) -> Vec<Value> {
    let contents = shop.views[sink].contents();
    let document = |body: &_| serde_json::from_slice(body).expect("JSON");
    contents.values().map(|body| document(&body[..])).collect()
}

fn put(shop: &Shop, orders: Vec<Order>) {
    for order in orders {
        let key = serde_json::json!([order.region]).to_string();
        let id = order.id.clone();
        let document = OrderDocument {
            order,
            deleted: false,
        };
        let body = serde_json::to_vec(&document).expect("JSON");
        shop.orders.upsert(&key, &id, body);
    }
}

fn start(shop: &Shop, store: &CheckpointStore, workers: usize) -> tidefeed::Result<RunningJob> {
    Job::new("shop", config(workers), shop.clone(), ledger)
        .checkpoint_store(store.clone())
        .start()
}

/// Batches are written in part and fail, with any number of workers.
#[test]
fn sums_are_exact_after_any_number_of_failed_runs() {
    for seed in 0..8 {
        let mut orders = Orders::new(seed);
        let shop = Shop::new(seed);
        let store = CheckpointStore::in_memory("shop");
        for round in 0..6 {
            put(&shop, orders.more(50));
            let (sink, _) = LEDGER_SINKS[orders.random.usize(..2)];
            shop.views[sink].fail_next_batch(ErrorKind::Rejected);
            let job = start(&shop, &store, orders.random.usize(1..4)).expect("starts");
            put(&shop, orders.more(20));
            job.finish_when_caught_up();
            let error = job.join().expect_err("the batch fails");
            assert_eq!(
                error.kind(),
                ErrorKind::Rejected,
                "seed {seed}, round {round}"
            );
        }
        let job = start(&shop, &store, 2).expect("starts");
        job.finish_when_caught_up();
        job.join().expect("ends well");
        for (sink, _) in LEDGER_SINKS {
            orders.check(sink, in_memory(&shop, sink), &format!("seed {seed}"));
            assert_eq!(shop.views[sink].violations(), Vec::<String>::new());
        }
    }
}

/// What becomes of a sink that has documents of its own, when it is new to a job, and when it changes.
#[test]
fn a_sink_without_a_view_begins_at_the_commit_and_cannot_be_rebuilt() {
    use tidefeed::prelude::*;
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let with = |strategy: Option<Strategy>| {
        let build = move |flow: &mut Flow<'_>| {
            let orders = flow.change_feed::<OrderDocument>("orders")?;
            let orders = orders.map(|document| document.order);
            if let Some(strategy) = &strategy {
                flow.write("large", strategy.clone(), orders.clone())?;
            }
            flow.upsert("by_customer", orders)
        };
        Job::new("shop", config(1), shop.clone(), build).checkpoint_store(store.clone())
    };
    let run = |job: Job| {
        let job = job.start().expect("starts");
        job.finish_when_caught_up();
        job.join().expect("ends well")
    };
    let mut orders = Orders::new(1);
    let ids = || {
        shop.views["large"]
            .contents()
            .into_keys()
            .collect::<Vec<_>>()
    };
    put(&shop, orders.more(5));
    run(with(None));
    shop.views["large"].upsert(r#"["r0"]"#, "own", r#"{"id":"own"}"#);

    let check = with(Some(Strategy::Insert)).check().expect("looks");
    assert_eq!(check.sinks["large"].becomes, SinkFate::Begin, "{check}");
    run(with(Some(Strategy::Insert)));
    assert_eq!(
        ids(),
        [r#"["r0","own"]"#],
        "what came before is not written"
    );
    put(&shop, orders.more(1));
    let status = run(with(Some(Strategy::Insert)));
    assert_eq!(status.sinks["large"].upserts, 1, "{status:?}");
    let region = &orders.all[5].region;
    assert!(
        ids().contains(&format!("[\"{region}\",\"o5\"]")),
        "{:?}",
        ids()
    );

    let check = with(Some(Strategy::Insert)).check().expect("looks");
    assert_eq!(check.sinks["large"].becomes, SinkFate::Continue, "{check}");
    let check = with(Some(Strategy::Replace)).check().expect("looks");
    assert_eq!(check.sinks["large"].becomes, SinkFate::Begin, "{check}");
    let check = with(Some(Strategy::Upsert)).check().expect("looks");
    assert_eq!(check.sinks["large"].becomes, SinkFate::Refused, "{check}");

    let rebuild = with(Some(Strategy::Insert)).rebuild(["large"]).check();
    let error = rebuild.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.report().contains("does not keep its container equal"),
        "{}",
        error.report()
    );
    let all = with(Some(Strategy::Insert))
        .rebuild(["all"])
        .check()
        .expect("looks");
    assert_eq!(all.sinks["large"].becomes, SinkFate::Continue, "{all}");
    assert_eq!(all.sinks["by_customer"].becomes, SinkFate::Rebuild, "{all}");

    let sum = |paths: i32| (0..paths).fold(PatchSpec::new(), |p, n| p.increment(&format!("/p{n}")));
    let refusal = |change: fn(&mut tidefeed::JobConfig), paths| {
        let mut config = config(1);
        change(&mut config);
        let build = move |flow: &mut Flow<'_>| {
            let orders = flow.change_feed::<OrderDocument>("orders")?;
            let orders = orders.map(|document| document.order);
            flow.write("large", Strategy::Patch(sum(paths)), orders.clone())?;
            flow.upsert("by_customer", orders)
        };
        let job = Job::new("shop", config, shop.clone(), build);
        let job = job.checkpoint_store(CheckpointStore::in_memory("shop"));
        job.check().err().map(|error| error.report())
    };
    let stamp_both = |config: &mut tidefeed::JobConfig| {
        let view = config.sink.get_mut("by_customer").expect("a sink");
        (view.container, view.stamp_epoch) = ("large".to_owned(), true);
    };
    let report = refusal(stamp_both, 1).expect("refused");
    assert!(report.contains("both write _epoch"), "{report}");
    assert_eq!(refusal(|_| {}, 9), None);
    let too_large = (0..11).fold(PatchSpec::new(), |patch, n| patch.set(&format!("/p{n}")));
    let refused = with(Some(Strategy::Patch(too_large))).check();
    let report = refused.expect_err("refused").report();
    assert!(report.starts_with("sink large"), "{report}");
    assert!(report.contains("10 operations"), "{report}");
}
