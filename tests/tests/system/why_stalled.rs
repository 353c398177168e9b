//! What holds a job is named, and in time, and no longer when it has gone.
//!
//! Each test holds back one thing, waits until the job says so, and lets it go. What is younger than [`NOTICE`] is not named, so a culprit
//! is named within that and [`ALLOWED`], which is for a machine that does other things as well.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use serde_json::Value;
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::{ChangeFeed, Page, PageStream, Start};
use tidefeed::prelude::*;
use tidefeed::stall::{Explanation, Kind, RunState};
use tidefeed::target::Target;
use tidefeed::{
    CheckpointStore, Connect, Cosmos, FeedRangeId, Health, Hosts, Job, Member, RunningJob, Secret,
};
use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::process::Run;
use tidefeed_tests::producer::free_address;
use tidefeed_tests::{Order, Shop, config, config_text, until, views};
use tokio::sync::watch;

use super::alone;

const NOTICE: Duration = Duration::from_millis(400);
/// Beyond the notice, until the culprit is named.
const ALLOWED: Duration = Duration::from_secs(4);
/// Until it is named no more.
const CLEARED: Duration = Duration::from_secs(10);

fn settings(workers: usize) -> JobConfig {
    let mut config = config(workers);
    config.http.stalled_after_ms = NOTICE.as_millis() as u64;
    config
}

/// Waits until the job is stalled, by what `is` knows, and returns how it says so.
fn stalled(health: &Health, is: impl Fn(&Explanation) -> bool) -> Explanation {
    look_until(health, NOTICE + ALLOWED, |found| found.stalled && is(found))
}

/// Waits until nothing holds it.
fn clears(health: &Health) {
    look_until(health, CLEARED, |found| !found.stalled);
}

#[expect(clippy::disallowed_methods, reason = "a poll with a deadline")]
fn look_until(health: &Health, within: Duration, is: impl Fn(&Explanation) -> bool) -> Explanation {
    let began = Instant::now();
    loop {
        let found = health.explain();
        if is(&found) {
            return found;
        }
        assert!(began.elapsed() < within, "after {within:?}: {found}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kind(found: &Explanation) -> Option<Kind> {
    found.culprit.as_ref().map(|culprit| culprit.kind)
}

fn order(number: usize) -> Order {
    Order {
        id: format!("o{number}"),
        region: format!("r{}", number % 40),
        customer: "c".to_owned(),
        cents: 1,
    }
}

fn finish(job: RunningJob, shop: &Shop) {
    job.finish_when_caught_up();
    job.join().expect("ends well");
    assert_eq!(shop.found(), shop.expected());
}

/// A shop whose source has one range that does not answer while it is frozen.
#[derive(Clone)]
struct Frosty {
    shop: Shop,
    frozen: Arc<watch::Sender<bool>>,
}

#[async_trait]
impl Connect for Frosty {
    async fn source(&self, _name: &str, _config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        Ok(Arc::new(self.clone()))
    }

    async fn sink(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn Target>> {
        self.shop.sink(name, config).await
    }
}

#[async_trait]
impl ChangeFeed for Frosty {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        self.shop.orders.ranges().await
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let pages = self.shop.orders.open(range, start).await?;
        let freezes = self.ranges().await?.first() == Some(range);
        let frozen = self.frozen.subscribe();
        Ok(match freezes {
            true => Box::new(FrostyPages { pages, frozen }),
            false => pages,
        })
    }
}

struct FrostyPages {
    pages: Box<dyn PageStream>,
    frozen: watch::Receiver<bool>,
}

#[async_trait]
impl PageStream for FrostyPages {
    async fn next_page(&mut self) -> Result<Page> {
        // The sender is the test's.
        let _ = self.frozen.wait_for(|frozen| !frozen).await;
        self.pages.next_page().await
    }
}

#[test]
fn a_feed_range_that_does_not_answer() {
    let shop = Shop::new(1);
    let frozen = Arc::new(watch::Sender::new(false));
    let frosty = Frosty {
        shop: shop.clone(),
        frozen: Arc::clone(&frozen),
    };
    let job = Job::new("shop", settings(2), frosty.clone(), views)
        .checkpoint_store(CheckpointStore::in_memory("shop"));
    let health = job.health();
    let job = job.start().expect("starts");
    shop.put(&order(0));
    until("a commit", || job.status().epochs.committed > 0);
    frozen.send_replace(true);
    let found = stalled(&health, |found| kind(found) == Some(Kind::Reader));
    let culprit = found.culprit.expect("the range");
    assert_eq!(culprit.name.as_deref(), Some("orders"));
    let ranges = futures_now(frosty.ranges());
    assert_eq!(culprit.range, ranges.first().map(ToString::to_string));
    assert!(
        culprit
            .detail
            .contains("does not answer; its last answer came")
    );
    // The others go on, and hold nobody.
    let before = job.status().epochs.committed;
    (1..100).for_each(|number| shop.put(&order(number)));
    until("commits of other ranges", || {
        job.status().epochs.committed > before
    });
    assert_eq!(kind(&health.explain()), Some(Kind::Reader));
    frozen.send_replace(false);
    clears(&health);
    finish(job, &shop);
}

fn futures_now<T>(future: impl Future<Output = Result<T>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let found = runtime.expect("a runtime").block_on(future);
    found.expect("is there")
}

#[test]
fn a_storm_of_429_at_a_sink() {
    let place = Place::new();
    let mut orders = Orders::new(2);
    let text = config_text(place.database(), LOCAL);
    let text = text + &format!("[http]\nstalled_after_ms = {}\n", NOTICE.as_millis());
    let config = JobConfig::parse(&text).expect("parses");
    let server = Arc::clone(place.server());
    let cosmos = Cosmos::new(server.endpoint(), server.key()).expect("an account");
    let job = Job::new("shop", config, cosmos, views)
        .checkpoint_store(CheckpointStore::in_memory("shop"));
    let health = job.health();
    let job = job.start().expect("starts");
    place.write(orders.change(30));
    until("a commit", || job.status().epochs.committed > 0);
    clears(&health);
    let storm = FaultRule::new(FaultAction::status(429))
        .on(&[FaultOperation::Writes, FaultOperation::BulkItem])
        .in_container(place.database(), "totals");
    server.set_faults(1, vec![storm]).expect("sound");
    place.write(orders.change(30));
    let throttled = |found: &Explanation| {
        kind(found) == Some(Kind::Sink) && found.sentence.contains("last answered 429")
    };
    let found = stalled(&health, throttled);
    let culprit = found.culprit.as_ref().expect("the sink");
    assert_eq!(culprit.name.as_deref(), Some("totals"), "{found}");
    assert!(
        culprit.epoch.is_some() && found.sentence.contains("repeated"),
        "{found}"
    );
    let after = NOTICE.as_millis() as u64;
    let stuck = look_until(&health, ALLOWED, |found| found.stuck(after).is_some());
    assert_eq!(kind(&stuck), Some(Kind::Sink));
    server.set_faults(1, Vec::new()).expect("sound");
    clears(&health);
    job.finish_when_caught_up();
    job.join().expect("ends well");
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}

/// A store whose creates can be made to take long, over the objects of others.
#[derive(Clone)]
struct Slow(Arc<ThrottledStore<Arc<InMemory>>>);

impl Slow {
    fn over(objects: &Arc<InMemory>) -> Self {
        let fast = ThrottleConfig::default();
        Slow(Arc::new(ThrottledStore::new(Arc::clone(objects), fast)))
    }

    fn slow(&self, by: Duration) {
        self.0.config_mut(|config| config.wait_put_per_call = by);
    }

    fn store(&self) -> CheckpointStore {
        CheckpointStore::over_objects(self.0.clone(), "shop").expect("a name")
    }
}

#[test]
fn a_slow_checkpoint_store() {
    let shop = Shop::new(3);
    let slow = Slow::over(&Arc::default());
    let job = Job::new("shop", settings(2), shop.clone(), views).checkpoint_store(slow.store());
    let health = job.health();
    let job = job.start().expect("starts");
    shop.put(&order(0));
    until("a commit", || job.status().epochs.committed > 0);
    clears(&health);
    slow.slow(Duration::from_millis(1500));
    shop.put(&order(1));
    let found = stalled(&health, |found| kind(found) == Some(Kind::Seal));
    assert!(found.sentence.contains("has not taken the seal"), "{found}");
    assert!(found.culprit.is_some_and(|culprit| culprit.epoch.is_some()));
    // Once it is sealed and written, it is the commit that waits.
    let within = Duration::from_secs(10);
    look_until(&health, within, |found| kind(found) == Some(Kind::Commit));
    slow.slow(Duration::ZERO);
    clears(&health);
    finish(job, &shop);
}

/// Holds whoever comes by while it is closed.
#[derive(Default)]
struct Latch {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            self.opened.wait(&mut closed);
        }
    }

    fn close(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.opened.notify_all();
    }
}

#[derive(Clone, Serialize)]
struct Seen {
    id: String,
    cents: i64,
}

/// Sums by region, in keyed state that waits at a latch.
fn counts(flow: &mut Flow<'_>, latch: &Arc<Latch>) -> Result<()> {
    let orders = flow.change_feed::<Order>("orders")?;
    let latch = Arc::clone(latch);
    let by_region = orders.map(|order| (order.region, order.cents));
    let sums = flow.stateful("sums", by_region, move |_region, sum, changes| {
        latch.pass();
        let came = changes.into_iter().map(|(cents, diff)| cents * diff as i64);
        *sum = Some(sum.unwrap_or(0) + came.sum::<i64>());
        *sum
    })?;
    flow.upsert("totals", sums.map(|(id, cents)| Seen { id, cents }))
}

#[test]
fn an_operator_that_does_not_come_back() {
    for in_state in [false, true] {
        let shop = Shop::new(4);
        let latches = [Arc::new(Latch::default()), Arc::new(Latch::default())];
        let [code, state] = latches.clone();
        let build = move |flow: &mut Flow<'_>| {
            let mapped = Arc::clone(&code);
            if in_state {
                return counts(flow, &state);
            }
            let orders = flow.change_feed::<Order>("orders")?;
            let rows = orders.filter(|order| order.cents > 0).map(move |order| {
                mapped.pass();
                Seen {
                    id: order.region + &order.id,
                    cents: order.cents,
                }
            });
            flow.upsert("totals", rows)
        };
        let job = Job::new("shop", settings(1), shop.clone(), build)
            .checkpoint_store(CheckpointStore::in_memory("shop"));
        let health = job.health();
        let job = job.start().expect("starts");
        shop.put(&order(0));
        until("a commit", || job.status().epochs.committed > 0);
        clears(&health);
        let latch = &latches[usize::from(in_state)];
        latch.close(true);
        shop.put(&order(1));
        let found = stalled(&health, |found| kind(found) == Some(Kind::Operator));
        let culprit = found.culprit.as_ref().expect("the operator");
        assert_eq!(culprit.worker, Some(0));
        let name = culprit.name.as_deref().expect("a name");
        match in_state {
            true => assert_eq!(name, "Stateful: sums"),
            false => assert!(name.contains("Map"), "{name}"),
        }
        let after = NOTICE.as_millis() as u64;
        assert!(
            found.stuck(after).is_some(),
            "a new start would help: {found}"
        );
        latch.close(false);
        clears(&health);
        job.finish_when_caught_up();
        job.join().expect("ends well");
        assert_eq!(shop.views["totals"].contents().len(), 2);
    }
}

/// The jobs of a cluster, not started.
fn cluster(shop: &Shop, stores: &[CheckpointStore]) -> Vec<Job> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<_> = stores.iter().map(bind).collect();
    let addresses = listeners.iter().map(|l| l.local_addr().expect("bound"));
    let hosts = Hosts::new(addresses.map(|a| a.to_string())).expect("addresses");
    let secret = Secret::new("the secret of this test").expect("long enough");
    let job = |((process, listener), store): ((usize, TcpListener), &CheckpointStore)| {
        let member = Member::new(process as u32, hosts.clone(), secret.clone());
        let member = member.expect("a process").listener(listener);
        let member = member.peer_timeout(Duration::from_secs(60));
        let mut config = settings(1);
        config.checkpoint.lease_ms = Some(10_000);
        Job::new("shop", config, shop.clone(), views)
            .checkpoint_store(store.clone())
            .member(member)
    };
    listeners
        .into_iter()
        .enumerate()
        .zip(stores)
        .map(job)
        .collect()
}

fn started(jobs: Vec<Job>) -> Vec<std::thread::JoinHandle<Result<RunningJob>>> {
    let start = |job: Job| std::thread::spawn(move || job.start());
    jobs.into_iter().map(start).collect()
}

#[test]
fn a_process_that_has_not_come_and_one_whose_store_is_slow() {
    let shop = Shop::new(5);
    let objects = Arc::<InMemory>::default();
    let slow = [Slow::over(&objects), Slow::over(&objects)];
    let mut jobs = cluster(&shop, &slow.clone().map(|slow| slow.store()));
    let health: Vec<_> = jobs.iter().map(Job::health).collect();
    let second = jobs.pop().expect("two");
    let mut starting = started(jobs);
    let found = stalled(&health[0], |found| kind(found) == Some(Kind::Assembling));
    assert_eq!(found.state, RunState::Assembling);
    assert!(
        found.sentence.contains("waits for process 1 at 127.0.0.1:"),
        "{found}"
    );
    assert_eq!(found.stuck(0), None, "it is right to wait");
    starting.extend(started(vec![second]));
    let run: Vec<_> = starting
        .into_iter()
        .map(|start| start.join().expect("no panic").expect("starts"))
        .collect();
    (0..50).for_each(|number| shop.put(&order(number)));
    until("a commit", || run[0].status().epochs.committed > 0);
    clears(&health[0]);

    slow[1].slow(Duration::from_millis(1500));
    // Whichever process has which regions, some of these are the second's.
    let number = Cell::new(50);
    let of_second = |found: &Explanation| {
        shop.put(&order(number.replace(number.get() + 1)));
        let culprit = found.culprit.as_ref();
        culprit.is_some_and(|one| one.process == 1 && one.kind == Kind::Seal)
    };
    let found = look_until(&health[0], NOTICE + ALLOWED, of_second);
    assert!(
        found
            .sentence
            .starts_with("process 1: the checkpoint store"),
        "{found}"
    );
    assert_eq!(
        found.stuck(0),
        None,
        "a new start of process 0 mends nothing"
    );
    let own = look_until(&health[1], ALLOWED, of_second);
    assert!(own.ask.is_some_and(|ask| ask.starts_with("process 0")));
    slow[1].slow(Duration::ZERO);
    clears(&health[0]);
    clears(&health[1]);
    run[0].finish_when_caught_up();
    let joining = run.into_iter().map(|job| std::thread::spawn(|| job.join()));
    for joined in joining.collect::<Vec<_>>() {
        joined.join().expect("no panic").expect("ends well");
    }
    assert_eq!(shop.found(), shop.expected());
}

/// Asks over HTTP: the status and the JSON.
fn ask(at: SocketAddr, path: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

fn status(at: SocketAddr, path: &str) -> Option<u16> {
    ask(at, path).map(|(status, _)| status)
}

/// What `why-stalled` exits with, and what it prints.
fn why(place: &Place, at: SocketAddr) -> (Option<i32>, String) {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_shop"));
    let asked = program.args(["why-stalled", "--http", &at.to_string()]);
    let output = asked.current_dir(place.checkpoint().parent().expect("a folder"));
    let output = output.output().expect("it runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn a_process_answers_while_it_waits_for_another() {
    let _alone = alone();
    let place = Place::new();
    std::fs::create_dir_all(place.checkpoint()).expect("a folder");
    let hosts = format!("{},{}", free_address(), free_address());
    let asked = [free_address(), free_address()];
    let start = |process: usize| {
        let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
        program
            .args(["--process", &process.to_string(), "--hosts", &hosts])
            .args(["--http", &asked[process].to_string()])
            .env("TIDEFEED_CLUSTER_SECRET", "the secret of this test");
        Run::start(program)
    };
    let (code, _) = why(&place, asked[0]);
    assert_eq!(code, Some(4), "nobody is there");
    let mut first = start(0);
    first.wait_until(|| status(asked[0], "/healthz") == Some(200));
    first.wait_until(|| {
        let ready = ask(asked[0], "/readyz").map(|(_, ready)| ready);
        ready.is_some_and(|ready| !ready["waiting_for"].is_null())
    });
    let (code, ready) = ask(asked[0], "/readyz").expect("it answers");
    assert_eq!((code, &ready["state"]), (503, &Value::from("assembling")));
    assert_eq!(ready["waiting_for"][0]["process"], 1);
    let (code, said) = why(&place, asked[0]);
    assert_eq!(code, Some(20), "{said}");
    assert!(
        said.starts_with("process 0: waits for process 1 at"),
        "{said}"
    );
    let mut second = start(1);
    for at in asked {
        second.wait_until(|| status(at, "/readyz") == Some(200));
        assert_eq!(status(at, "/healthz"), Some(200));
    }
    let (code, said) = why(&place, asked[0]);
    assert_eq!(code, Some(0), "{said}");
    for run in [first, second] {
        run.kill();
    }
}

#[test]
fn each_process_of_a_supervisor_answers_at_a_port_of_its_own() {
    let _alone = alone();
    let place = Place::new();
    let free_pair = std::iter::repeat_with(free_address).find(|at| {
        let next = (at.ip(), at.port() + 1);
        TcpListener::bind(next).is_ok()
    });
    let first = free_pair.expect("two free ports");
    let second = SocketAddr::new(first.ip(), first.port() + 1);
    let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
    program.args(["--processes", "2", "--http", &first.to_string()]);
    let mut supervisor = Run::start(program);
    for (process, at) in [first, second].into_iter().enumerate() {
        assert!(supervisor.wait_until(|| status(at, "/readyz") == Some(200)));
        let (_, found) = ask(at, "/stalled").expect("it answers");
        assert_eq!(found["process"], process);
    }
    supervisor.signal(rustix::process::Signal::TERM);
    let (status, lines) = supervisor.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
}
