//! How a run ends, for whatever reason: it neither hangs nor leaves a write behind that lands on the next run's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidefeed::config::{SinkConfig, SourceConfig};
use tidefeed::feed::{ChangeFeed, Page, PageStream, Start};
use tidefeed::memory::MemoryContainer;
use tidefeed::target::{Applied, DocumentWrite, Target};
use tidefeed::{CheckpointStore, Connect, Error, ErrorKind, FeedRangeId, Job, Result, RunningJob};
use tidefeed_tests::{Order, Shop, config, until, views};
use tokio::sync::oneshot;

/// An order whose region is its customer too.
fn order(region: &str, cents: i64) -> Order {
    Order {
        id: "o1".to_owned(),
        region: region.to_owned(),
        customer: region.to_owned(),
        cents,
    }
}

/// The error that the job ends with by itself.
fn failure_of(job: RunningJob) -> Error {
    until("end of the job", || job.ended());
    job.join().expect_err("the job must fail")
}

/// The shop's containers, with some replaced by a test's own.
#[derive(Clone)]
struct Custom {
    shop: Shop,
    feed: Option<Arc<dyn ChangeFeed>>,
    targets: BTreeMap<&'static str, Arc<dyn Target>>,
}

impl Custom {
    fn of(shop: &Shop) -> Self {
        Custom {
            shop: shop.clone(),
            feed: None,
            targets: BTreeMap::new(),
        }
    }

    fn target(mut self, sink: &'static str, target: Arc<dyn Target>) -> Self {
        self.targets.insert(sink, target);
        self
    }

    fn start(&self, store: &CheckpointStore) -> RunningJob {
        Job::new("shop", config(1), self.clone(), views)
            .checkpoint_store(store.clone())
            .start()
            .expect("starts")
    }
}

#[async_trait]
impl Connect for Custom {
    async fn source(&self, name: &str, config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        match &self.feed {
            Some(feed) => Ok(Arc::clone(feed)),
            None => self.shop.source(name, config).await,
        }
    }

    async fn sink(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn Target>> {
        match self.targets.get(name) {
            Some(target) => Ok(Arc::clone(target)),
            None => self.shop.sink(name, config).await,
        }
    }
}

/// Panics in every write.
struct PanickingTarget;

#[async_trait]
impl Target for PanickingTarget {
    async fn apply(&self, _: Vec<DocumentWrite>) -> Result<Applied> {
        panic!("injected: a defect in the SDK");
    }
}

/// Panics in the first page of its last range; the others are as in the container.
struct PanickingFeed(MemoryContainer);

#[async_trait]
impl ChangeFeed for PanickingFeed {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        self.0.ranges().await
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        match self.0.ranges().await?.last() == Some(range) {
            true => Ok(Box::new(PanickingPages)),
            false => self.0.open(range, start).await,
        }
    }
}

struct PanickingPages;

#[async_trait]
impl PageStream for PanickingPages {
    async fn next_page(&mut self) -> Result<Page> {
        panic!("injected: a defect in the SDK");
    }
}

/// The acknowledgement never came, and the job waited for it for ever.
#[test]
fn a_panic_in_a_target_ends_the_run() {
    let shop = Shop::new(1);
    shop.put(&order("r1", 1));
    let custom = Custom::of(&shop).target("totals", Arc::new(PanickingTarget));
    let job = custom.start(&CheckpointStore::in_memory("shop"));
    job.finish_when_caught_up();
    let error = failure_of(job);
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(
        error.report(),
        "the write of sink totals panicked: injected: a defect in the SDK"
    );
}

/// The range was not read any more, and its end never came.
#[test]
fn a_panic_in_a_feed_ends_the_run() {
    let shop = Shop::new(1);
    let mut custom = Custom::of(&shop);
    custom.feed = Some(Arc::new(PanickingFeed(shop.orders.clone())));
    let job = custom.start(&CheckpointStore::in_memory("shop"));
    job.finish_when_caught_up();
    let error = failure_of(job);
    assert_eq!(error.kind(), ErrorKind::Internal);
    let report = error.report();
    assert!(
        report.starts_with("the reader of source orders, feed range ")
            && report.ends_with("-FF panicked: injected: a defect in the SDK"),
        "{report}"
    );
}

/// A service that finishes a request that it has received, whether or not the client still waits. Its first request is slow.
struct SlowService {
    view: MemoryContainer,
    slow: AtomicBool,
    received: AtomicBool,
    finished: Arc<AtomicBool>,
}

impl SlowService {
    fn of(view: &MemoryContainer) -> Arc<Self> {
        Arc::new(SlowService {
            view: view.clone(),
            slow: AtomicBool::new(true),
            received: AtomicBool::new(false),
            finished: Arc::default(),
        })
    }
}

#[async_trait]
impl Target for SlowService {
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied> {
        if !self.slow.swap(false, Ordering::SeqCst) {
            return self.view.apply(batch).await;
        }
        let (answer, answered) = oneshot::channel();
        let (view, finished) = (self.view.clone(), Arc::clone(&self.finished));
        std::thread::spawn(move || {
            #[expect(
                clippy::disallowed_methods,
                reason = "long enough for a run to end without it"
            )]
            std::thread::sleep(Duration::from_millis(700));
            view.write_at_once(batch);
            finished.store(true, Ordering::SeqCst);
            // Nobody listens when the client has gone away.
            let _ = answer.send(());
        });
        self.received.store(true, Ordering::SeqCst);
        answered.await.expect("the service answers");
        Ok(Applied::default())
    }
}

/// Runs until a write is under way, ends the run with `end`, and looks whether that write meets those of the next run.
fn the_next_run_finds_no_write_under_way(end: impl FnOnce(&Shop, RunningJob)) {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let service = SlowService::of(&shop.views["totals"]);
    let custom = Custom::of(&shop).target("totals", Arc::clone(&service) as Arc<dyn Target>);
    shop.put(&order("r1", 1));
    let job = custom.start(&store);
    until("request", || service.received.load(Ordering::SeqCst));
    end(&shop, job);
    assert!(
        service.finished.load(Ordering::SeqCst),
        "the run has left a write behind"
    );
    shop.put(&order("r1", 2));
    let job = custom.start(&store);
    job.finish_when_caught_up();
    job.join().expect("ends well");
    assert_eq!(shop.found(), shop.expected());
}

/// I5 and I7 across runs.
#[test]
fn a_write_under_way_at_the_stop_does_not_land_on_the_next_run() {
    the_next_run_finds_no_write_under_way(|_, job| {
        job.stop();
        job.join().expect("a stop is no failure");
    });
}

#[test]
fn a_write_under_way_at_a_failure_does_not_land_on_the_next_run() {
    the_next_run_finds_no_write_under_way(|shop, job| {
        shop.orders.fail_next_page(ErrorKind::Rejected);
        assert_eq!(failure_of(job).kind(), ErrorKind::Rejected);
    });
}

/// A batch that waits in its target, as for a service that throttles, is called off.
#[test]
fn a_stop_does_not_wait_for_what_has_not_been_sent() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let view = &shop.views["totals"];
    view.hold_writes(true);
    shop.put(&order("r1", 1));
    let job = Custom::of(&shop).start(&store);
    until("batch", || view.batches() > 0);
    let asked = Instant::now();
    job.stop();
    job.join().expect("a stop is no failure");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    view.hold_writes(false);
    let job = Custom::of(&shop).start(&store);
    job.finish_when_caught_up();
    job.join().expect("ends well");
    assert_eq!(shop.found(), shop.expected());
    assert_eq!(shop.violations(), Vec::<String>::new());
}

/// A target whose request neither ends nor times out.
struct SilentService(AtomicBool);

#[async_trait]
impl Target for SilentService {
    async fn apply(&self, _: Vec<DocumentWrite>) -> Result<Applied> {
        self.0.store(true, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[test]
fn a_target_that_breaks_its_promise_is_reported() {
    let shop = Shop::new(1);
    let store = CheckpointStore::in_memory("shop");
    let silent = Arc::new(SilentService(AtomicBool::new(false)));
    shop.put(&order("r1", 1));
    let job = Custom::of(&shop)
        .target("totals", Arc::clone(&silent) as Arc<dyn Target>)
        .start(&store);
    until("request", || silent.0.load(Ordering::SeqCst));
    job.stop();
    let error = job.join().expect_err("a write may still land");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
}
