//! Keyed state in whole jobs: history that the containers no longer show must survive failures, restarts with other numbers
//! of workers, and compaction.
//!
//! The oracle is a plain loop over phases. How a job groups changes into epochs is a matter of timing, so within a phase each
//! order is touched once, and a phase ends when the view of large orders shows all of it: what is visible is sealed, and
//! is never grouped with what comes later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::{MemoryContainer, MemoryOptions};
use tidefeed::prelude::*;
use tidefeed::target::Target;
use tidefeed::{CheckpointStore, Connect, ErrorKind, Job, RunningJob};
use tidefeed_tests::{LARGE_CENTS, Order, until};

const SINKS: [&str; 4] = ["large", "alerts", "alerted", "current"];

/// The containers. Clones are the same ones.
#[derive(Clone)]
struct Desk {
    orders: MemoryContainer,
    views: BTreeMap<&'static str, MemoryContainer>,
}

impl Desk {
    fn new(seed: u64) -> Self {
        let container = || {
            MemoryContainer::new(MemoryOptions {
                deletes_in_feed: true,
                seed,
                ..Default::default()
            })
        };
        Desk {
            orders: container(),
            views: SINKS.into_iter().map(|name| (name, container())).collect(),
        }
    }

    fn found(&self, view: &str) -> BTreeSet<String> {
        let text = |body: &[u8]| {
            let row: Value = serde_json::from_slice(body).expect("a view holds JSON");
            row.to_string()
        };
        let contents = self.views[view].contents();
        contents.values().map(|body| text(body)).collect()
    }
}

#[async_trait]
impl Connect for Desk {
    async fn source(&self, _name: &str, _config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        Ok(Arc::new(self.orders.clone()))
    }

    async fn sink(&self, name: &str, _config: &SinkConfig) -> Result<Arc<dyn Target>> {
        Ok(Arc::new(self.views[name].clone()))
    }
}

/// A row of any of the views.
#[derive(Clone, Serialize)]
struct Row {
    id: String,
    a: i64,
    b: i64,
}

fn row(id: &str, a: i64, b: i64) -> Row {
    Row {
        id: id.to_owned(),
        a,
        b,
    }
}

/// How many large orders of a customer ever came and went.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Seen {
    came: i64,
    went: i64,
}

impl Seen {
    fn add(&mut self, diff: i64) {
        match diff > 0 {
            true => self.came += diff,
            false => self.went -= diff,
        }
    }
}

fn large_orders<'scope>(
    flow: &mut Flow<'scope>,
    cents: i64,
) -> Result<View<'scope, (String, String)>> {
    let orders = flow.change_feed::<Order>("orders")?;
    let large = orders.clone().filter(|order| order.cents >= LARGE_CENTS);
    let shown = large.map(|order| row(&format!("{} {}", order.customer, order.id), 0, 0));
    flow.upsert("large", shown)?;
    let large = orders.filter(move |order| order.cents >= cents);
    Ok(large.map(|order| (order.customer, order.id)))
}

/// Large orders only, without state.
fn plain(flow: &mut Flow<'_>) -> Result<()> {
    large_orders(flow, LARGE_CENTS).map(drop)
}

/// Three kinds of state: an alert from the third large order on, which stays; the number of alerts, fed by the one before;
/// and the number of large orders now, whose key is forgotten at zero.
fn alerts_from(flow: &mut Flow<'_>, cents: i64) -> Result<()> {
    let large = large_orders(flow, cents)?;
    let alerts = flow.stateful(
        "alerts",
        large.clone(),
        |_customer, seen: &mut Option<Seen>, changes| {
            let seen = seen.get_or_insert_default();
            changes.iter().for_each(|(_, diff)| seen.add(*diff as i64));
            (seen.came >= 3).then_some((seen.came, seen.went))
        },
    )?;
    let shown = alerts
        .clone()
        .map(|(id, (came, went))| row(&id, came, went));
    flow.upsert("alerts", shown)?;
    let alerted = flow.stateful(
        "alerted",
        alerts.map(|(customer, _)| ((), customer)),
        |(), seen: &mut Option<Seen>, changes| {
            let seen = seen.get_or_insert_default();
            changes.iter().for_each(|(_, diff)| seen.add(*diff as i64));
            Some((seen.came, seen.went))
        },
    )?;
    flow.upsert(
        "alerted",
        alerted.map(|((), (came, went))| row("all", came, went)),
    )?;
    let current = flow.stateful("current", large, |_, count: &mut Option<i64>, changes| {
        let sum: isize = changes.iter().map(|(_, diff)| diff).sum();
        *count = Some(count.unwrap_or(0) + sum as i64).filter(|count| *count != 0);
        *count
    })?;
    flow.upsert("current", current.map(|(id, count)| row(&id, count, 0)))
}

fn alerts(flow: &mut Flow<'_>) -> Result<()> {
    alerts_from(flow, LARGE_CENTS)
}

type Build = fn(&mut Flow<'_>) -> Result<()>;

fn start(desk: &Desk, store: &CheckpointStore, workers: usize, build: Build) -> Result<RunningJob> {
    let mut text = format!(
        "workers = {workers}\n[source.orders]\ndatabase = \"d\"\ncontainer = \"orders\"\npoll_ms = 1\npoll_max_ms = 5\n\
         [epoch]\nmin_ms = 0\nmax_ms = 20\n[checkpoint]\nsettle_ms = 0\n"
    );
    for sink in SINKS {
        text += &format!(
            "[sink.{sink}]\ndatabase = \"d\"\ncontainer = \"{sink}\"\npartition_key = [\"/id\"]\n"
        );
    }
    let config = JobConfig::parse(&text).expect("the test configuration is valid");
    let job = Job::new("desk", config, desk.clone(), build);
    job.checkpoint_store(store.clone()).start()
}

/// What the views should hold, by a loop over the phases.
#[derive(Default)]
struct Oracle {
    orders: BTreeMap<String, Order>,
    seen: BTreeMap<String, Seen>,
    alerted: i64,
}

impl Oracle {
    fn large(&self) -> BTreeSet<(String, String)> {
        let large = self.orders.values().filter(|o| o.cents >= LARGE_CENTS);
        large.map(|o| (o.customer.clone(), o.id.clone())).collect()
    }

    /// What a state sees that begins now: the orders that are there, as if they came.
    fn begin(&mut self) {
        (self.seen, self.alerted) = (BTreeMap::new(), 0);
        self.see(&BTreeSet::new());
    }

    fn see(&mut self, before: &BTreeSet<(String, String)>) {
        let now = self.large();
        let gone = before.difference(&now).map(|(customer, _)| (customer, -1));
        let come = now.difference(before).map(|(customer, _)| (customer, 1));
        for (customer, diff) in gone.chain(come) {
            let seen = self.seen.entry(customer.clone()).or_default();
            let alerted = seen.came >= 3;
            seen.add(diff);
            self.alerted += i64::from(!alerted && seen.came >= 3);
        }
    }

    fn expected(&self, view: &str) -> BTreeSet<String> {
        let large = self.large();
        let count = |customer: &String| large.iter().filter(|(c, _)| c == customer).count() as i64;
        let seen = self.seen.iter();
        let rows: Vec<Row> = match view {
            "large" => large
                .iter()
                .map(|(customer, id)| row(&format!("{customer} {id}"), 0, 0))
                .collect(),
            "alerts" => seen
                .filter(|(_, seen)| seen.came >= 3)
                .map(|(customer, seen)| row(customer, seen.came, seen.went))
                .collect(),
            "alerted" if self.alerted == 0 => Vec::new(),
            "alerted" => vec![row("all", self.alerted, 0)],
            _ => seen
                .map(|(customer, _)| row(customer, count(customer), 0))
                .filter(|row| row.a != 0)
                .collect(),
        };
        rows.iter().map(|row| json!(row).to_string()).collect()
    }
}

/// One phase's changes, each of another order.
fn touches(random: &mut fastrand::Rng) -> Vec<(String, Option<Order>)> {
    let mut numbers: Vec<u32> = (0..60).collect();
    random.shuffle(&mut numbers);
    let count = random.usize(1..40);
    let touch = |number: &u32| {
        let order = Order {
            id: format!("o{number}"),
            region: format!("r{}", number % 5),
            customer: format!("c{}", random.u8(0..12)),
            cents: random.i64(LARGE_CENTS - 300..LARGE_CENTS + 300),
        };
        let order = (random.u8(0..4) > 0).then_some(order);
        (format!("o{number}"), order)
    };
    numbers[..count].iter().map(touch).collect()
}

fn apply(desk: &Desk, oracle: &mut Oracle, touches: &[(String, Option<Order>)]) {
    for (id, order) in touches {
        let number: u32 = id[1..].parse().expect("an order's number");
        let partition = json!([format!("r{}", number % 5)]).to_string();
        match order {
            Some(order) => {
                let body = serde_json::to_vec(order).expect("an order is JSON");
                desk.orders.upsert(&partition, id, body);
                oracle.orders.insert(id.clone(), order.clone());
            }
            None => {
                desk.orders.delete(&partition, id);
                oracle.orders.remove(id);
            }
        }
    }
}

/// The next run, whatever the one before met: an injected failure may have been left over for its start.
fn start_again(desk: &Desk, store: &CheckpointStore, workers: usize) -> RunningJob {
    let first = start(desk, store, workers, alerts);
    first
        .or_else(|_| start(desk, store, workers, alerts))
        .expect("starts")
}

fn expect_injected(ended: Result<tidefeed::JobStatus>) {
    if let Err(error) = ended {
        let injected = [ErrorKind::Unreachable, ErrorKind::Rejected];
        assert!(injected.contains(&error.kind()), "{}", error.report());
    }
}

fn check(desk: &Desk, oracle: &Oracle, what: &str) {
    for (view, container) in &desk.views {
        assert_eq!(desk.found(view), oracle.expected(view), "{what}, {view}");
        assert_eq!(container.violations(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn state_follows_the_plain_loop_at_any_number_of_workers() {
    for workers in 1..=3 {
        let (desk, mut oracle) = (Desk::new(3), Oracle::default());
        let mut random = fastrand::Rng::with_seed(40 + workers as u64);
        let store = CheckpointStore::in_memory("desk");
        let job = start(&desk, &store, workers, alerts).expect("starts");
        for _ in 0..8 {
            let before = oracle.large();
            apply(&desk, &mut oracle, &touches(&mut random));
            oracle.see(&before);
            until("large orders", || {
                desk.found("large") == oracle.expected("large")
            });
        }
        job.finish_when_caught_up();
        job.join().expect("ends well");
        assert!(oracle.alerted >= 3, "too little happened");
        check(&desk, &oracle, &format!("{workers} workers"));
    }
}

/// Runs end at random moments and in every way, and the next one has another number of workers.
#[test]
fn state_survives_any_number_of_failed_runs() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (desk, mut oracle) = (Desk::new(seed), Oracle::default());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = match seed % 2 {
            0 => CheckpointStore::in_memory("desk"),
            _ => CheckpointStore::local(directory.path(), "desk").expect("a store"),
        };
        for _ in 0..12 {
            let mut running = Some(start_again(&desk, &store, random.usize(1..4)));
            let touches = touches(&mut random);
            let (first, second) = touches.split_at(random.usize(0..=touches.len()));
            let before = oracle.large();
            apply(&desk, &mut oracle, first);
            match random.u8(0..6) {
                0 => desk.orders.fail_next_page(ErrorKind::Unreachable),
                1 => running.iter().for_each(RunningJob::stop),
                2 | 3 => {
                    let view = random.choice(desk.views.values()).expect("there are views");
                    view.fail_next_batch(ErrorKind::Rejected);
                }
                _ => {}
            }
            apply(&desk, &mut oracle, second);
            oracle.see(&before);
            until("large orders", || {
                if let Some(ended) = running.take_if(|job| job.ended()) {
                    expect_injected(ended.join());
                    running = Some(start_again(&desk, &store, random.usize(1..4)));
                }
                desk.found("large") == oracle.expected("large")
            });
            // An end in order now and then; else the run ends wherever it is, perhaps before its commit.
            let job = running.expect("a run follows every one that ends");
            match random.u8(0..3) {
                0 => job.finish_when_caught_up(),
                _ => job.stop(),
            }
            expect_injected(job.join());
        }
        // A failure that was injected and not met before may end this one.
        let mut last = Err(ErrorKind::Internal);
        for _ in 0..3 {
            let job = start_again(&desk, &store, random.usize(1..4));
            job.finish_when_caught_up();
            last = job.join().map_err(|error| error.kind());
        }
        assert!(last.is_ok(), "seed {seed}: {last:?}");
        assert!(oracle.alerted >= 3, "seed {seed}: too little happened");
        check(&desk, &oracle, &format!("seed {seed}"));
    }
}

/// A state that is new to a job with a checkpoint sees what is there once, as rows that come, and is known from then on.
#[test]
fn a_new_state_sees_the_collection_once() {
    for workers in 1..=3 {
        let (desk, mut oracle) = (Desk::new(7), Oracle::default());
        let mut random = fastrand::Rng::with_seed(70 + workers as u64);
        let store = CheckpointStore::in_memory("desk");
        let mut builds = vec![plain as Build; 2];
        builds.extend([alerts as Build; 5]);
        for (round, build) in builds.into_iter().enumerate() {
            if round == 2 {
                oracle.begin();
            }
            let job = start(&desk, &store, 1 + (round + workers) % 3, build).expect("starts");
            // The new state sees what is there before anything changes.
            for _ in 0..if round == 2 { 0 } else { 2 } {
                let before = oracle.large();
                apply(&desk, &mut oracle, &touches(&mut random));
                if round > 2 {
                    oracle.see(&before);
                }
                until("large orders", || {
                    desk.found("large") == oracle.expected("large")
                });
            }
            job.finish_when_caught_up();
            job.join().expect("ends well");
            if round >= 2 {
                check(&desk, &oracle, &format!("{workers} workers, round {round}"));
            }
        }
        assert!(oracle.alerted >= 3, "too little happened");
    }
}

#[test]
fn a_changed_input_of_a_state_does_not_start() {
    let (desk, mut oracle) = (Desk::new(7), Oracle::default());
    let store = CheckpointStore::in_memory("desk");
    let mut random = fastrand::Rng::with_seed(5);
    let run = |build: Build| {
        let job = start(&desk, &store, 2, build).expect("starts");
        job.finish_when_caught_up();
        job.join()
    };
    for _ in 0..3 {
        apply(&desk, &mut oracle, &touches(&mut random));
        run(alerts).expect("ends well");
    }
    let writes = || desk.views.values().map(|view| view.writes()).sum::<u64>();
    let before = writes();
    let error = run(|flow| alerts_from(flow, LARGE_CENTS + 100)).expect_err("it is another input");
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(
        error.report().contains("the input of state:"),
        "{}",
        error.report()
    );
    assert_eq!(writes(), before);
    run(alerts).expect("the code that the state belongs to still runs");
}

#[test]
fn a_name_is_used_once() {
    let twice: Build = |flow| {
        let large = large_orders(flow, 0)?;
        for _ in 0..2 {
            flow.stateful("s", large.clone(), |_, state: &mut Option<i64>, _| *state)?;
        }
        Ok(())
    };
    let store = CheckpointStore::in_memory("desk");
    let error = start(&Desk::new(1), &store, 1, twice).err().expect("twice");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.report().contains("uses state s twice"),
        "{}",
        error.report()
    );
}
