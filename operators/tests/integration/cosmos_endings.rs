//! What a target leaves behind when it ends early, and where a feed goes on after a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, BackoffConfig, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosReader,
    CosmosTarget, FeedConfig,
};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::target::{DocumentWrite, Target};
use tidefeed_runtime::{ErrorKind, FeedRangeId};
use tokio::time::timeout;

use super::conformance::{numbered, upsert};
use super::faults::{FaultyServer, Kind, Verdict};

async fn faulty() -> (FaultyServer, Container) {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let server = FaultyServer::start(emulator).await;
    let account = Account::connect(&server.account()).await.unwrap();
    let spec = ContainerSpec::new("flights", "live", "/pk");
    let container = Container::create_if_absent(&account, &spec).await.unwrap();
    (server, container)
}

async fn target(container: &Container) -> Arc<CosmosTarget> {
    let target = CosmosTarget::open(container.clone(), BulkConfig::default()).await;
    Arc::new(target.unwrap())
}

/// A batch of two requests, as their keys are in two physical partitions: one of a large document, one of two small ones.
fn two_requests() -> Vec<DocumentWrite> {
    vec![
        upsert("a", "alone", json!({"filler": "x".repeat(LARGE)})),
        upsert("b", "first", json!({})),
        upsert("b", "second", json!({})),
    ]
}

const LARGE: usize = 10_000;

async fn documents(container: &Container) -> usize {
    let reader = CosmosReader::new(container.clone());
    reader.documents().await.unwrap().len()
}

/// The error came at once, the request under way was dropped, and the service wrote the document later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_error_nothing_is_written_any_more() {
    let (server, container) = faulty().await;
    server.script(|kind| match kind {
        Kind::Batch { bytes, .. } if bytes > LARGE => Verdict::Hold,
        Kind::Batch { .. } => Verdict::Refuse {
            status: 400,
            sub_status: 0,
            retry_after_ms: None,
        },
        _ => Verdict::Pass,
    });
    let target = target(&container).await;
    let mut applying = tokio::spawn(async move { target.apply(two_requests()).await });
    server.holds_one().await;
    let early = timeout(Duration::from_millis(300), &mut applying).await;
    assert!(early.is_err(), "a request is still under way");
    server.let_go();
    let error = applying.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error:?}");
    assert_eq!(documents(&container).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_target_ends_what_it_has_sent_and_sends_nothing_more() {
    let (server, container) = faulty().await;
    server.script(|kind| match kind {
        Kind::Batch { .. } => Verdict::Hold,
        _ => Verdict::Pass,
    });
    let config = BulkConfig {
        max_connections: std::num::NonZeroUsize::MIN,
        ..BulkConfig::default()
    };
    let target = CosmosTarget::open(container.clone(), config).await;
    let target = Arc::new(target.unwrap());
    let writer = Arc::clone(&target);
    let mut applying = tokio::spawn(async move { writer.apply(two_requests()).await });
    server.holds_one().await;
    target.close();
    let early = timeout(Duration::from_millis(300), &mut applying).await;
    assert!(early.is_err(), "a request is still under way");
    server.let_go();
    applying.await.unwrap().unwrap_err();
    assert_eq!(documents(&container).await, 1, "the second was never sent");
    target.apply(two_requests()).await.unwrap_err();
    assert_eq!(documents(&container).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_target_does_not_wait_out_its_backoff() {
    let (server, container) = faulty().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    server.script(move |kind| match kind {
        Kind::Batch { .. } => {
            count.fetch_add(1, Ordering::Relaxed);
            Verdict::Refuse {
                status: 429,
                sub_status: 3200,
                retry_after_ms: Some(60_000),
            }
        }
        _ => Verdict::Pass,
    });
    let target = target(&container).await;
    let writer = Arc::clone(&target);
    let applying = tokio::spawn(async move { writer.apply(two_requests()).await });
    while refused.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let asked = Instant::now();
    target.close();
    applying.await.unwrap().unwrap_err();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(refused.load(Ordering::Relaxed), 2, "nothing was sent again");
}

/// The range has several parts, so the first "nothing new" says nothing of the others. A failure after it made the stream start
/// at "now" once more, and what was written in between was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_before_the_first_page_does_not_move_now_forward() {
    let (server, container) = faulty().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    server.script(move |kind| match kind {
        Kind::ChangeFeed if count.fetch_add(1, Ordering::Relaxed) == 1 => Verdict::Refuse {
            status: 429,
            sub_status: 3200,
            retry_after_ms: Some(1500),
        },
        _ => Verdict::Pass,
    });
    let config = FeedConfig {
        backoff: BackoffConfig {
            jitter: 0.0,
            ..BackoffConfig::default()
        },
        ..FeedConfig::default()
    };
    let feed = CosmosFeed::new(container.clone(), config).unwrap();
    let parts = feed.ranges().await.unwrap();
    assert!(parts.len() > 1, "needs a container with several parts");
    let whole = FeedRangeId("-FF".to_owned());
    let reading = tokio::spawn(async move {
        let mut pages = feed.open(&whole, Start::Now).await.unwrap();
        let mut keys = Vec::new();
        loop {
            let page = pages.next_page().await.unwrap();
            keys.extend(page.records.into_iter().map(|record| record.key));
            if page.caught_up {
                return keys;
            }
        }
    });
    while polls.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // One part has answered, and the failure is being waited out.
    let writes = numbered(0..200, 100, 0);
    target(&container).await.apply(writes).await.unwrap();
    let keys = reading.await.unwrap();
    assert!(
        !keys.is_empty(),
        "of the part that had answered, everything must come"
    );
}
