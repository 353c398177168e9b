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
use tidefeed_tests::checkpoint_files::objects;
use tidefeed_tests::{Order, Shop, config};

/// Sinks of a version.
const TOTALS: &[&str] = &["totals"];
const BOTH: &[&str] = &["totals", "large"];

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    id: String,
    cents: i64,
}

fn order(n: i64, cents: i64) -> Order {
    Order {
        id: format!("o{n}"),
        region: format!("r{}", n % 7),
        customer: "c".to_owned(),
        cents,
    }
}

/// A version of the job.
type Version = fn(&mut Flow<'_>) -> Result<()>;

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

/// The containers and the checkpoint of the job. Each test says which sinks a version has.
struct Place {
    shop: Shop,
    store: CheckpointStore,
    workers: usize,
}

impl Place {
    fn new(workers: usize, store: CheckpointStore) -> Self {
        let shop = Shop::new(3);
        for n in 0..60 {
            shop.put(&order(n, 20 * n));
        }
        Place {
            shop,
            store,
            workers,
        }
    }

    /// A place at which a version has run.
    fn after(workers: usize, version: Version, sinks: &[&str]) -> Self {
        let place = Place::new(workers, CheckpointStore::in_memory("shop"));
        let ran = place.run(version, sinks, &[]);
        ran.expect("the first version");
        place
    }

    /// The view that most tests are about.
    fn totals(&self) -> &MemoryContainer {
        &self.shop.views["totals"]
    }

    /// The test job's configuration with these sinks, all by id.
    fn config(&self, sinks: &[&str]) -> JobConfig {
        let mut config = config(self.workers);
        config.sink.retain(|name, _| sinks.contains(&name.as_str()));
        for sink in config.sink.values_mut() {
            sink.partition_key = vec!["/id".to_owned()];
        }
        config
    }

    fn job(&self, version: Version, config: JobConfig) -> Job {
        Job::new("shop", config, self.shop.clone(), version).checkpoint_store(self.store.clone())
    }

    fn run(&self, version: Version, sinks: &[&str], rebuild: &[&str]) -> Result<()> {
        let job = self.job(version, self.config(sinks));
        to_the_end(job.rebuild(rebuild.iter().copied()))
    }

    fn check(&self, version: Version, sinks: &[&str]) -> CheckReport {
        let job = self.job(version, self.config(sinks));
        job.check().expect("checks")
    }
}

/// Runs a job until it has caught up.
fn to_the_end(job: Job) -> Result<()> {
    let job = job.start()?;
    job.finish_when_caught_up();
    job.join().map(drop)
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
        let place = Place::after(workers, plain, TOTALS);
        let view = place.totals();
        assert_eq!(found(view), expected_plain(&place.shop));
        // What no version of the job would write, and a document that is right in another spelling.
        view.upsert(r#"["stray"]"#, "stray", r#"{"id":"stray"}"#);
        view.upsert(
            r#"["o30"]"#,
            "o30",
            r#"{ "_ts": 7, "cents": 600.0, "id": "o30" }"#,
        );
        let before = view.writes();

        let error = place.run(changed, TOTALS, &[]).expect_err("refused");
        let parts = ["sink totals", "--rebuild totals"];
        assert_says(&error, ErrorKind::Checkpoint, &parts);
        assert_eq!(
            view.writes(),
            before,
            "nothing is written by a refused start"
        );

        let expected = expected_changed(&place.shop);
        let old = expected_plain(&place.shop);
        let counts: BTreeMap<_, _> = view
            .contents()
            .into_keys()
            .map(|key| (key.clone(), view.writes_of(&key)))
            .collect();
        let rebuilt = place.run(changed, TOTALS, &["totals"]);
        rebuilt.expect("is rebuilt");
        let mut contents = found(view);
        let respelled = r#"["o30","o30"]"#;
        assert_eq!(contents[respelled]["cents"], 600.0);
        contents.insert(respelled.to_owned(), expected[respelled].clone());
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
        let report = place.check(changed, TOTALS);
        let totals = &report.sinks["totals"];
        assert_eq!(totals.becomes, SinkFate::Continue, "{report}");
        assert_eq!(totals.rows, Some(expected.len() as u64));
        let before = view.writes();
        place.shop.put(&order(1, 800));
        place.run(changed, TOTALS, &[]).expect("goes on");
        assert_eq!(view.writes(), before + 1);
    }
}

/// A run dies in the middle of bringing a container in line, again and again; none of the later starts needs the flag.
#[test]
fn a_rebuild_that_fails_midway_is_taken_up_again() {
    for workers in 1..=3 {
        let place = Place::after(workers, plain, TOTALS);
        let view = place.totals();
        let fate = || place.check(changed, TOTALS).sinks["totals"].becomes;
        for attempt in 0..3 {
            view.fail_next_batch(ErrorKind::Rejected);
            let rebuild: &[&str] = if attempt == 0 { &["totals"] } else { &[] };
            let error = place.run(changed, TOTALS, rebuild);
            let error = error.expect_err("the batch fails");
            assert_says(&error, ErrorKind::Rejected, &["sink totals stopped"]);
            assert_eq!(fate(), SinkFate::Rebuild);
            place.shop.put(&order(50 + attempt, 440));
            let gone = format!("o{}", 2 + 7 * (attempt + 2));
            place.shop.delete("r2", &gone);
        }
        place.run(changed, TOTALS, &[]).expect("is rebuilt");
        let expected = expected_changed(&place.shop);
        assert_eq!(found(view), expected, "{workers} workers");
        assert_eq!(view.violations(), Vec::<String>::new());
        assert_eq!(fate(), SinkFate::Continue);
    }
}

#[test]
fn starting_over_brings_what_is_there_in_line() {
    for workers in 1..=3 {
        let mut place = Place::after(workers, plain, TOTALS);
        let view = place.totals().clone();
        // The checkpoint is lost: what the documents are worth is not known.
        let other = CheckpointStore::in_memory("shop");
        let first = std::mem::replace(&mut place.store, other.clone());
        let error = place.run(changed, TOTALS, &[]).expect_err("refused");
        let parts = ["starts from nothing", "--rebuild totals"];
        assert_says(&error, ErrorKind::Config, &parts);
        let kept = view.writes_of(r#"["o20","o20"]"#);
        for store in [first, other] {
            place.store = store;
            let job = place.job(changed, place.config(TOTALS));
            to_the_end(job.fresh(true)).expect("starts over");
            assert_eq!(found(&view), expected_changed(&place.shop));
        }
        assert_eq!(
            view.writes_of(r#"["o20","o20"]"#),
            kept,
            "it was right all along"
        );
        // What was rebuilt is carried on.
        place.run(changed, TOTALS, &[]).expect("goes on");
        assert_eq!(view.violations(), Vec::<String>::new());
    }
}

/// The graph is the same, so only the rebuilt view shows that a closure has changed.
#[test]
fn a_changed_closure_stops_the_run_until_it_is_asked_for() {
    fn above<const LEAST: i64>(flow: &mut Flow<'_>) -> Result<()> {
        let orders = flow.change_feed::<Order>("orders")?;
        let rows = orders
            .filter(|order| order.cents >= LEAST)
            .map(|Order { id, cents, .. }| Row { id, cents });
        flow.upsert("large", rows.clone())?;
        flow.upsert("totals", rows)
    }
    let place = Place::after(2, above::<400>, BOTH);
    let error = place.run(above::<600>, BOTH, &[]);
    let parts = [
        "view large (30 rows now, 40 then)",
        "view totals (",
        "--rebuild large --rebuild totals",
    ];
    assert_says(
        &error.expect_err("another view"),
        ErrorKind::Checkpoint,
        &parts,
    );
    let error = place.run(above::<600>, BOTH, &["large"]);
    assert_says(
        &error.expect_err("one is left"),
        ErrorKind::Checkpoint,
        &["--rebuild totals"],
    );
    let mut views = place.shop.views.values();
    assert!(views.all(|view| view.writes() == 0 || view.contents().len() == 40));
    let rebuilt = place.run(above::<600>, BOTH, &["all"]);
    rebuilt.expect("is rebuilt");
    let expected = expected(&place.shop, |Order { id, cents, .. }| {
        (cents >= 600).then_some(Row { id, cents })
    });
    for view in BOTH {
        assert_eq!(found(&place.shop.views[*view]), expected);
    }
    place.run(above::<600>, BOTH, &[]).expect("goes on");
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
    fn newer(flow: &mut Flow<'_>) -> Result<()> {
        let orders = flow.change_feed::<NewOrder>("orders")?;
        flow.upsert("large", orders.clone())?;
        let channels = orders.map(|order| order.channel).count_total();
        let rows = channels.map(|(id, cents)| Row {
            id,
            cents: cents as i64,
        });
        flow.upsert("totals", rows)
    }
    for workers in 1..=3 {
        let place = Place::after(workers, plain, TOTALS);
        let shop = &place.shop;
        shop.delete("r1", "o1");
        shop.orders.upsert(
            r#"["r2"]"#,
            "o2",
            r#"{"id":"o2","region":"r2","cents":9,"channel":"web"}"#,
        );
        let report = place.check(newer, BOTH);
        let fate = |sink: &str| report.sinks[sink].becomes;
        assert_eq!(fate("large"), SinkFate::Rebuild, "new, and empty");
        assert_eq!(fate("totals"), SinkFate::Refused);
        assert_eq!(report.exit_code(), ErrorKind::Checkpoint.exit_code());
        place.run(newer, BOTH, &["totals"]).expect("is rebuilt");
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
        let count = |channel: &str, count: i64| {
            (
                json!([channel, channel]).to_string(),
                json!({"id": channel, "cents": count}),
            )
        };
        let expected = [count("unknown", 58), count("web", 1)].into();
        assert_eq!(found(place.totals()), expected);
        // The older version again: both views are as unknown to it as they were to the newer one.
        let error = place.run(plain, TOTALS, &[]).expect_err("refused");
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
    let mut place = Place::after(2, both, BOTH);
    let large = found(&place.shop.views["large"]);
    let report = place.check(plain, TOTALS);
    assert_eq!(report.sinks["large"].becomes, SinkFate::Gone);
    assert_eq!(
        (report.sinks["totals"].becomes, report.exit_code()),
        (SinkFate::Continue, 0)
    );
    place.shop.put(&order(3, 950));
    place.workers = 1;
    let without = place.run(plain, TOTALS, &[]);
    without.expect("goes on without it");
    assert_eq!(found(&place.shop.views["large"]), large);
    assert_eq!(found(place.totals()), expected_plain(&place.shop));
    // Back again: its container has missed something, so it is as good as new.
    place.workers = 2;
    let error = place.run(both, BOTH, &[]).expect_err("refused");
    let parts = [
        "sink large (the checkpoint does not have it)",
        "--rebuild large,",
    ];
    assert_says(&error, ErrorKind::Checkpoint, &parts);
    place.run(both, BOTH, &["large"]).expect("is rebuilt");
    assert_eq!(found(&place.shop.views["large"]).len(), large.len() + 1);
}

#[test]
fn a_moved_source_and_an_unknown_sink_are_refused() {
    let place = Place::after(1, plain, TOTALS);
    let error = place.run(plain, TOTALS, &["total"]).expect_err("a slip");
    assert_says(&error, ErrorKind::Config, &["--rebuild total:", "totals"]);
    let mut config = place.config(TOTALS);
    for source in config.source.values_mut() {
        source.container = "orders2".to_owned();
    }
    let error = to_the_end(place.job(plain, config).rebuild(["all"]));
    let error = error.expect_err("another container");
    assert_says(&error, ErrorKind::Checkpoint, &["source orders", "--fresh"]);
}

#[test]
fn a_check_writes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = CheckpointStore::local(directory.path(), "shop").expect("a store");
    let place = Place::new(1, store);
    let objects = || objects(directory.path());
    let before = objects();
    let report = place.check(plain, TOTALS);
    assert_eq!((report.exit_code(), report.generation), (0, 1));
    assert!(report.commit.is_none() && report.sinks["totals"].becomes == SinkFate::New);
    assert_eq!(objects(), before);
    place.run(plain, TOTALS, &[]).expect("runs");
    let before = objects();
    let text = place.check(changed, TOTALS).to_string();
    assert_eq!(objects(), before);
    for part in [
        "generation 2",
        "sink totals: is refused",
        "exit code 7",
        "--rebuild totals",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(place.totals().writes() == 60);
}
