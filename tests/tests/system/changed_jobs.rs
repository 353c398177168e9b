//! Jobs that change between runs: what is carried on, what is rebuilt, and what is refused.
//!
//! One source and two sinks: `totals` and `large` take rows by id. A version of the job is a function; the containers and
//! the checkpoint outlive it. The oracle is a plain map computed from the source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidefeed::config::JobConfig;
use tidefeed::memory::MemoryContainer;
use tidefeed::prelude::*;
use tidefeed::{CheckReport, CheckpointStore, Error, ErrorKind, Job, SinkFate};
use tidefeed_tests::{Order, Shop, config};

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    id: String,
    cents: i64,
}

fn shop() -> Shop {
    let shop = Shop::new(3);
    for n in 0..60 {
        shop.put(&order(n, 20 * n));
    }
    shop
}

fn order(n: i64, cents: i64) -> Order {
    Order {
        id: format!("o{n}"),
        region: format!("r{}", n % 7),
        customer: "c".to_owned(),
        cents,
    }
}

/// The test job's configuration with these sinks, all by id.
fn config_with(workers: usize, sinks: &[&str]) -> JobConfig {
    let mut config = config(workers);
    config.sink.retain(|name, _| sinks.contains(&name.as_str()));
    for sink in config.sink.values_mut() {
        sink.partition_key = vec!["/id".to_owned()];
    }
    config
}

/// Every order as it is.
fn plain(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow.change_feed::<Order>("orders")?;
    let rows = orders.map(|Order { id, cents, .. }| Row { id, cents });
    flow.upsert("totals", rows)
}

/// Another graph: small orders are left out, and some of the rest have another value.
fn changed(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow.change_feed::<Order>("orders")?;
    let rows = orders
        .filter(|order| order.cents >= 400)
        .map(|Order { id, cents, .. }| changed_row(id, cents));
    flow.upsert("totals", rows)
}

fn changed_row(id: String, cents: i64) -> Row {
    let cents = if cents % 40 == 0 { cents } else { -cents };
    Row { id, cents }
}

fn orders(shop: &Shop) -> Vec<Order> {
    let order = |body: &[u8]| serde_json::from_slice(body).expect("an order");
    shop.orders.contents().values().map(|b| order(b)).collect()
}

fn expected(shop: &Shop, row: impl Fn(Order) -> Option<Row>) -> BTreeMap<String, Value> {
    let document = |row: Row| (json!([row.id, row.id]).to_string(), json!(row));
    orders(shop)
        .into_iter()
        .filter_map(row)
        .map(document)
        .collect()
}

fn expected_plain(shop: &Shop) -> BTreeMap<String, Value> {
    expected(shop, |Order { id, cents, .. }| Some(Row { id, cents }))
}

fn expected_changed(shop: &Shop) -> BTreeMap<String, Value> {
    expected(shop, |Order { id, cents, .. }| {
        (cents >= 400).then(|| changed_row(id, cents))
    })
}

fn found(view: &MemoryContainer) -> BTreeMap<String, Value> {
    let value = |body: &[u8]| serde_json::from_slice(body).expect("JSON");
    let contents = view.contents();
    contents
        .iter()
        .map(|(key, body)| (key.clone(), value(body)))
        .collect()
}

/// Runs a version of the job until it has caught up.
fn run<F>(
    shop: &Shop,
    store: &CheckpointStore,
    config: JobConfig,
    version: F,
    rebuild: &[&str],
) -> Result<()>
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    let job = Job::new("shop", config, shop.clone(), version)
        .checkpoint_store(store.clone())
        .rebuild(rebuild.iter().copied())
        .start()?;
    job.finish_when_caught_up();
    job.join().map(drop)
}

fn check<F>(shop: &Shop, store: &CheckpointStore, config: JobConfig, version: F) -> CheckReport
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    Job::new("shop", config, shop.clone(), version)
        .checkpoint_store(store.clone())
        .check()
        .expect("checks")
}

fn assert_says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    let report = error.report();
    assert_eq!(error.kind(), kind, "{report}");
    for part in parts {
        assert!(report.contains(part), "{part} is not in: {report}");
    }
}

#[test]
fn a_changed_view_is_refused_and_then_brought_in_line() {
    for workers in 1..=3 {
        let shop = shop();
        let view = shop.views["totals"].clone();
        let store = CheckpointStore::in_memory("shop");
        let config = || config_with(workers, &["totals"]);
        run(&shop, &store, config(), plain, &[]).expect("the first version");
        assert_eq!(found(&view), expected_plain(&shop));
        // What no version of the job would write, and a document that is right in another spelling.
        view.upsert(r#"["stray"]"#, "stray", r#"{"id":"stray"}"#);
        view.upsert(
            r#"["o30"]"#,
            "o30",
            r#"{ "_ts": 7, "cents": 600.0, "id": "o30" }"#,
        );
        let before = view.writes();

        let error = run(&shop, &store, config(), changed, &[]).expect_err("refused");
        assert_says(
            &error,
            ErrorKind::Checkpoint,
            &["sink totals", "--rebuild totals"],
        );
        assert_eq!(
            view.writes(),
            before,
            "nothing is written by a refused start"
        );

        let expected = expected_changed(&shop);
        let old = expected_plain(&shop);
        let counts: BTreeMap<_, _> = view
            .contents()
            .into_keys()
            .map(|key| (key.clone(), view.writes_of(&key)))
            .collect();
        run(&shop, &store, config(), changed, &["totals"]).expect("is rebuilt");
        let mut contents = found(&view);
        assert_eq!(contents[r#"["o30","o30"]"#]["cents"], 600.0);
        contents.insert(
            r#"["o30","o30"]"#.to_owned(),
            expected[r#"["o30","o30"]"#].clone(),
        );
        assert_eq!(contents, expected, "{workers} workers");
        for (key, count) in counts {
            let right = expected.get(&key) == old.get(&key) && expected.contains_key(&key);
            assert_eq!(
                view.writes_of(&key) - count,
                u64::from(!right),
                "writes of {key}"
            );
        }
        assert_eq!(view.violations(), Vec::<String>::new());

        // From now on it is carried on like any other.
        let report = check(&shop, &store, config(), changed);
        assert_eq!(
            report.sinks["totals"].becomes,
            SinkFate::Continue,
            "{report}"
        );
        assert_eq!(report.sinks["totals"].rows, Some(expected.len() as u64));
        let before = view.writes();
        shop.put(&order(1, 800));
        run(&shop, &store, config(), changed, &[]).expect("goes on");
        assert_eq!(view.writes(), before + 1);
    }
}

/// A run dies in the middle of bringing a container in line, again and again; none of the later starts needs the flag.
#[test]
fn a_rebuild_that_fails_midway_is_taken_up_again() {
    for workers in 1..=3 {
        let shop = shop();
        let view = shop.views["totals"].clone();
        let store = CheckpointStore::in_memory("shop");
        let config = || config_with(workers, &["totals"]);
        run(&shop, &store, config(), plain, &[]).expect("the first version");
        for attempt in 0..3 {
            view.fail_next_batch(ErrorKind::Rejected);
            let rebuild: &[&str] = if attempt == 0 { &["totals"] } else { &[] };
            let error =
                run(&shop, &store, config(), changed, rebuild).expect_err("the batch fails");
            assert_says(&error, ErrorKind::Rejected, &["sink totals stopped"]);
            assert_eq!(
                check(&shop, &store, config(), changed).sinks["totals"].becomes,
                SinkFate::Rebuild
            );
            shop.put(&order(50 + attempt, 440));
            shop.delete("r2", &format!("o{}", 2 + 7 * (attempt + 2)));
        }
        run(&shop, &store, config(), changed, &[]).expect("is rebuilt");
        assert_eq!(found(&view), expected_changed(&shop), "{workers} workers");
        assert_eq!(view.violations(), Vec::<String>::new());
        let report = check(&shop, &store, config(), changed);
        assert_eq!(
            report.sinks["totals"].becomes,
            SinkFate::Continue,
            "{report}"
        );
    }
}

#[test]
fn starting_over_brings_what_is_there_in_line() {
    for workers in 1..=3 {
        let shop = shop();
        let view = shop.views["totals"].clone();
        let store = CheckpointStore::in_memory("shop");
        let config = || config_with(workers, &["totals"]);
        run(&shop, &store, config(), plain, &[]).expect("the first version");
        // The checkpoint is lost: what the documents are worth is not known.
        let other = CheckpointStore::in_memory("shop");
        let error = run(&shop, &other, config(), changed, &[]).expect_err("refused");
        assert_says(
            &error,
            ErrorKind::Config,
            &["starts from nothing", "--rebuild totals"],
        );
        let kept = view.writes_of(r#"["o20","o20"]"#);
        for store in [&store, &other] {
            let job = Job::new("shop", config(), shop.clone(), changed)
                .checkpoint_store(store.clone())
                .fresh(true)
                .start()
                .expect("starts over");
            job.finish_when_caught_up();
            job.join().expect("ends well");
            assert_eq!(found(&view), expected_changed(&shop));
        }
        assert_eq!(
            view.writes_of(r#"["o20","o20"]"#),
            kept,
            "it was right all along"
        );
        // What was rebuilt is carried on.
        run(&shop, &other, config(), changed, &[]).expect("goes on");
        assert_eq!(view.violations(), Vec::<String>::new());
    }
}

/// The graph is the same, so only the rebuilt view shows that a closure has changed.
#[test]
fn a_changed_closure_stops_the_run_until_it_is_asked_for() {
    fn above(least: i64) -> impl for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync {
        move |flow: &mut Flow<'_>| {
            let orders = flow.change_feed::<Order>("orders")?;
            let rows = orders
                .filter(move |order| order.cents >= least)
                .map(|Order { id, cents, .. }| Row { id, cents });
            flow.upsert("large", rows.clone())?;
            flow.upsert("totals", rows)
        }
    }
    let shop = shop();
    let store = CheckpointStore::in_memory("shop");
    let config = || config_with(2, &["totals", "large"]);
    run(&shop, &store, config(), above(400), &[]).expect("the first version");
    let error = run(&shop, &store, config(), above(600), &[]).expect_err("another view");
    assert_says(
        &error,
        ErrorKind::Checkpoint,
        &[
            "view large (30 rows now, 40 then)",
            "view totals (",
            "--rebuild large --rebuild totals",
        ],
    );
    let error = run(&shop, &store, config(), above(600), &["large"]).expect_err("one is left");
    assert_says(&error, ErrorKind::Checkpoint, &["--rebuild totals"]);
    assert!(
        shop.views
            .values()
            .all(|view| view.writes() == 0 || view.contents().len() == 40)
    );
    run(&shop, &store, config(), above(600), &["all"]).expect("is rebuilt");
    let expected = expected(&shop, |Order { id, cents, .. }| {
        (cents >= 600).then_some(Row { id, cents })
    });
    for view in ["totals", "large"] {
        assert_eq!(found(&shop.views[view]), expected);
    }
    run(&shop, &store, config(), above(600), &[]).expect("goes on");
}

/// A field comes, with a default, and another goes: what an older version sealed decodes as what the newer one asks for.
#[test]
fn a_new_row_type_and_a_new_view_resume_from_old_seals() {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct NewOrder {
        id: String,
        cents: i64,
        #[serde(default = "unknown")]
        channel: String,
    }
    fn unknown() -> String {
        "unknown".to_owned()
    }
    #[derive(Clone, Serialize)]
    struct NewRow {
        id: String,
        cents: i64,
        channel: String,
    }
    fn newer(flow: &mut Flow<'_>) -> Result<()> {
        let orders = flow.change_feed::<NewOrder>("orders")?;
        let rows = orders.clone().map(|order| NewRow {
            id: order.id,
            cents: order.cents,
            channel: order.channel,
        });
        flow.upsert("large", rows)?;
        let channels = orders.map(|order| order.channel).count_total();
        let rows = channels.map(|(id, cents)| Row {
            id,
            cents: cents as i64,
        });
        flow.upsert("totals", rows)
    }
    for workers in 1..=3 {
        let shop = shop();
        let store = CheckpointStore::in_memory("shop");
        run(&shop, &store, config_with(workers, &["totals"]), plain, &[])
            .expect("the first version");
        shop.delete("r1", "o1");
        shop.orders.upsert(
            r#"["r2"]"#,
            "o2",
            r#"{"id":"o2","region":"r2","cents":9,"channel":"web"}"#,
        );
        let config = || config_with(workers, &["totals", "large"]);
        let report = check(&shop, &store, config(), newer);
        assert_eq!(
            report.sinks["large"].becomes,
            SinkFate::Rebuild,
            "new, and empty"
        );
        assert_eq!(report.sinks["totals"].becomes, SinkFate::Refused);
        assert_eq!(report.exit_code(), ErrorKind::Checkpoint.exit_code());
        run(&shop, &store, config(), newer, &["totals"]).expect("is rebuilt");
        let large = found(&shop.views["large"]);
        assert_eq!(large.len(), 59);
        assert_eq!(
            large[r#"["o2","o2"]"#],
            json!({"id": "o2", "cents": 9, "channel": "web"})
        );
        assert_eq!(
            large[r#"["o3","o3"]"#],
            json!({"id": "o3", "cents": 60, "channel": "unknown"})
        );
        let totals = found(&shop.views["totals"]);
        let count = |channel: &str, count: i64| {
            (
                json!([channel, channel]).to_string(),
                json!({"id": channel, "cents": count}),
            )
        };
        assert_eq!(totals, [count("unknown", 58), count("web", 1)].into());
        // The older version again: both views are as unknown to it as they were to the newer one.
        let error = run(&shop, &store, config(), plain, &[]).expect_err("refused");
        assert_says(&error, ErrorKind::Checkpoint, &["--rebuild totals"]);
    }
}

#[test]
fn sinks_that_are_gone_are_left_alone_and_unrelated_ones_go_on() {
    fn both(flow: &mut Flow<'_>) -> Result<()> {
        let orders = flow.change_feed::<Order>("orders")?;
        let rows = orders.map(|Order { id, cents, .. }| Row { id, cents });
        flow.upsert("large", rows.clone().filter(|row| row.cents > 900))?;
        flow.upsert("totals", rows)
    }
    let shop = shop();
    let store = CheckpointStore::in_memory("shop");
    run(
        &shop,
        &store,
        config_with(2, &["totals", "large"]),
        both,
        &[],
    )
    .expect("the first version");
    let large = found(&shop.views["large"]);
    let report = check(&shop, &store, config_with(2, &["totals"]), plain);
    assert_eq!(report.sinks["large"].becomes, SinkFate::Gone);
    assert_eq!(
        (report.sinks["totals"].becomes, report.exit_code()),
        (SinkFate::Continue, 0)
    );
    shop.put(&order(3, 950));
    run(&shop, &store, config_with(1, &["totals"]), plain, &[]).expect("goes on without it");
    assert_eq!(found(&shop.views["large"]), large);
    assert_eq!(found(&shop.views["totals"]), expected_plain(&shop));
    // Back again: its container has missed something, so it is as good as new.
    let error = run(
        &shop,
        &store,
        config_with(2, &["totals", "large"]),
        both,
        &[],
    )
    .expect_err("refused");
    assert_says(
        &error,
        ErrorKind::Checkpoint,
        &[
            "sink large (the checkpoint does not have it)",
            "--rebuild large,",
        ],
    );
    run(
        &shop,
        &store,
        config_with(2, &["totals", "large"]),
        both,
        &["large"],
    )
    .expect("is rebuilt");
    assert_eq!(found(&shop.views["large"]).len(), large.len() + 1);
}

#[test]
fn a_moved_source_and_an_unknown_sink_are_refused() {
    let shop = shop();
    let store = CheckpointStore::in_memory("shop");
    let mut config = config_with(1, &["totals"]);
    run(&shop, &store, config.clone(), plain, &[]).expect("the first version");
    let error = run(&shop, &store, config.clone(), plain, &["total"]).expect_err("a slip");
    assert_says(&error, ErrorKind::Config, &["--rebuild total:", "totals"]);
    for source in config.source.values_mut() {
        source.container = "orders2".to_owned();
    }
    let error = run(&shop, &store, config, plain, &["all"]).expect_err("another container");
    assert_says(&error, ErrorKind::Checkpoint, &["source orders", "--fresh"]);
}

#[test]
fn a_check_writes_nothing() {
    let shop = shop();
    let directory = tempfile::tempdir().expect("a directory");
    let store = CheckpointStore::local(directory.path(), "shop").expect("a store");
    let objects = || {
        let mut open = vec![directory.path().to_owned()];
        let mut files = Vec::new();
        while let Some(next) = open.pop() {
            for entry in std::fs::read_dir(next).expect("readable") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => open.push(path),
                    false => files.push(path),
                }
            }
        }
        files.sort();
        files
    };
    let config = || config_with(1, &["totals"]);
    let before = objects();
    let report = check(&shop, &store, config(), plain);
    assert_eq!((report.exit_code(), report.generation), (0, 1));
    assert!(report.commit.is_none() && report.sinks["totals"].becomes == SinkFate::New);
    assert_eq!(objects(), before);
    run(&shop, &store, config(), plain, &[]).expect("runs");
    let before = objects();
    let text = check(&shop, &store, config(), changed).to_string();
    assert_eq!(objects(), before);
    for part in [
        "generation 2",
        "sink totals: is refused",
        "exit code 7",
        "--rebuild totals",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(shop.views["totals"].writes() == 60);
}
