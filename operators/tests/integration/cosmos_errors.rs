//! What a person reads when something is wrong, and what is retried until it is right.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, BackoffConfig, BulkConfig, Container, ContainerSpec, CosmosFeed,
    CosmosReader, CosmosTarget, FeedConfig, Throughput,
};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::target::Target;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind};

use super::conformance::{self, Model, delete, numbered, upsert};
use super::faults::{FaultyServer, Kind, Verdict};

fn server() -> Emulator {
    Emulator::start(EmulatorConfig::default()).unwrap()
}

async fn connect(server: &Emulator) -> Account {
    let config = AccountConfig::with_key(server.endpoint(), server.key());
    Account::connect(&config).await.unwrap()
}

fn spec() -> ContainerSpec {
    ContainerSpec::new("flights", "live", "/pk")
}

/// The one line that a job prints; it must be one, and hold every given part.
fn assert_line(error: &Error, kind: ErrorKind, parts: &[&str]) {
    let line = error.report();
    assert_eq!(error.kind(), kind, "{line}");
    assert!(!line.contains('\n'), "{line}");
    assert!(line.len() < 400, "{} characters: {line}", line.len());
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    // A port that was just free.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = AccountConfig::with_key(format!("http://127.0.0.1:{port}"), "c2VjcmV0");
    let started = Instant::now();
    let error = Account::connect(&config).await.unwrap_err();
    assert_line(
        &error,
        ErrorKind::Unreachable,
        &["cannot reach http://127.0.0.1:", "refused"],
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn somebody_listens_and_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = AccountConfig {
        connect_timeout: Duration::from_millis(700),
        ..AccountConfig::with_key(
            format!("http://{}", listener.local_addr().unwrap()),
            "c2VjcmV0",
        )
    };
    let started = Instant::now();
    let error = Account::connect(&config).await.unwrap_err();
    assert_line(
        &error,
        ErrorKind::Unreachable,
        &["did not answer within 700ms"],
    );
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_key_is_wrong() {
    let server = server();
    let config = AccountConfig::with_key(server.endpoint(), "d3Jvbmcga2V5");
    let started = Instant::now();
    let error = Account::connect(&config).await.unwrap_err();
    assert_line(
        &error,
        ErrorKind::Denied,
        &["refused the key: check COSMOS_KEY"],
    );
    assert!(!error.report().contains("d3Jvbmcga2V5"));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn database_or_container_is_missing() {
    let server = server();
    let account = connect(&server).await;
    let error = Container::open(&account, "flights", "live")
        .await
        .unwrap_err();
    assert_line(
        &error,
        ErrorKind::NotFound,
        &[
            "database flights does not exist",
            "create it or correct its name",
        ],
    );
    Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    let error = Container::open(&account, "flights", "lvie")
        .await
        .unwrap_err();
    assert_line(
        &error,
        ErrorKind::NotFound,
        &[
            "container flights/lvie does not exist",
            "create it or correct its name",
        ],
    );
    let opened = Container::open(&account, "flights", "live").await.unwrap();
    assert_eq!(opened.partition_key_paths(), ["/pk"]);
}

#[tokio::test]
async fn the_partition_key_is_another() {
    let server = server();
    let account = connect(&server).await;
    Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    let other = ContainerSpec::new("flights", "live", "/origin");
    let error = Container::create_if_absent(&account, &other)
        .await
        .unwrap_err();
    assert_line(
        &error,
        ErrorKind::Config,
        &["container flights/live is partitioned by /pk, not by /origin"],
    );
}

#[tokio::test]
async fn a_hierarchical_partition_key_goes_round() {
    let server = server();
    let account = connect(&server).await;
    let spec = ContainerSpec {
        partition_key: vec!["/tenant".into(), "/user/id".into()],
        throughput_ru: Some(Throughput::Manual(400)),
        ..spec()
    };
    let container = Container::create_if_absent(&account, &spec).await.unwrap();
    assert_eq!(container.partition_key_paths(), ["/tenant", "/user/id"]);
    let document = json!({"id": "a", "tenant": "t", "user": {"id": 7}});
    container
        .upsert(r#"["t",7]"#, "a", &document)
        .await
        .unwrap();
    let lacking = json!({"id": "b", "tenant": "t"});
    container
        .upsert(r#"["t",{}]"#, "b", &lacking)
        .await
        .unwrap();
    let documents = CosmosReader::new(container).documents().await.unwrap();
    let expected = [(r#"["t",7,"a"]"#, document), (r#"["t",{},"b"]"#, lacking)];
    assert_eq!(
        documents,
        BTreeMap::from(expected.map(|(key, value)| (key.to_owned(), value)))
    );
}

#[tokio::test]
async fn a_document_is_in_the_wrong_partition_or_too_large() {
    let server = server();
    let account = connect(&server).await;
    let container = Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    let apply = async |batch| {
        let target = CosmosTarget::open(container.clone(), BulkConfig::default()).await;
        target.unwrap().apply(batch).await
    };
    let mut stray = upsert("here", "a", json!({}));
    stray.partition_key = r#"["there"]"#.to_owned();
    let error = apply(vec![stray]).await.unwrap_err();
    assert_line(
        &error,
        ErrorKind::Rejected,
        &["document a", r#"["there"]"#, "flights/live", "400"],
    );
    let huge = upsert("here", "huge", json!({"filler": "x".repeat(2_200_000)}));
    for batch in [
        vec![huge.clone()],
        vec![upsert("here", "small", json!({})), huge],
    ] {
        let error = apply(batch).await.unwrap_err();
        assert_line(
            &error,
            ErrorKind::Rejected,
            &["document huge", "flights/live", "too large", "2200"],
        );
    }
    let error = container
        .upsert("[1,2]", "a", &json!({"id": "a"}))
        .await
        .unwrap_err();
    assert_line(&error, ErrorKind::Rejected, &["[1,2]", "/pk"]);
}

#[tokio::test]
async fn a_token_of_another_container_is_refused() {
    let server = server();
    let account = connect(&server).await;
    let mut feeds = Vec::new();
    for name in ["one", "two"] {
        let spec = ContainerSpec::new("flights", name, "/pk");
        let container = Container::create_if_absent(&account, &spec).await.unwrap();
        feeds.push(CosmosFeed::new(container, FeedConfig::default()).unwrap());
    }
    let range = feeds[0].ranges().await.unwrap().remove(0);
    let mut pages = feeds[0].open(&range, Start::Beginning).await.unwrap();
    let token = pages.next_page().await.unwrap().token;
    let ContinuationToken(text) = &token;
    let garbled = ContinuationToken(format!("{}@c1.garbled", text.split_once('@').unwrap().0));
    for (feed, token) in [(&feeds[1], token), (&feeds[0], garbled)] {
        let mut pages = feed.open(&range, Start::Token(token)).await.unwrap();
        let error = pages.next_page().await.unwrap_err();
        assert_line(
            &error,
            ErrorKind::Checkpoint,
            &["the token for feed range", "is not usable"],
        );
    }
}

#[tokio::test]
async fn asked_for_system_properties_stay() {
    let server = server();
    let account = connect(&server).await;
    let container = Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    container
        .upsert(r#"["a"]"#, "1", &json!({"id": "1", "pk": "a"}))
        .await
        .unwrap();
    let config = FeedConfig {
        keep_system_properties: vec!["_ts".into()],
        ..FeedConfig::default()
    };
    let feed = CosmosFeed::new(container, config).unwrap();
    let mut bodies = Vec::new();
    for range in feed.ranges().await.unwrap() {
        let mut pages = feed.open(&range, Start::Beginning).await.unwrap();
        bodies.extend(pages.next_page().await.unwrap().records);
    }
    let body: serde_json::Value = serde_json::from_slice(bodies[0].body.as_ref().unwrap()).unwrap();
    let names: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["_ts", "id", "pk"]);
}

// What passes is waited out.

fn quick() -> BackoffConfig {
    BackoffConfig {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(5),
        jitter: 0.5,
    }
}

async fn faulty() -> (FaultyServer, Container) {
    let server = FaultyServer::start(server()).await;
    let account = Account::connect(&server.account()).await.unwrap();
    let container = Container::create_if_absent(&account, &spec())
        .await
        .unwrap();
    (server, container)
}

async fn target(container: &Container) -> CosmosTarget {
    let config = BulkConfig {
        backoff: quick(),
        // The proxy throttles whatever the pace is.
        throttled_share: 0.5,
        // It does nothing after its answer.
        fault_settle: Duration::from_millis(5),
        ..BulkConfig::default()
    };
    CosmosTarget::open(container.clone(), config).await.unwrap()
}

async fn assert_holds(container: &Container, model: &Model) {
    assert_eq!(
        &CosmosReader::new(container.clone())
            .documents()
            .await
            .unwrap(),
        model
    );
}

fn model_of(batch: &[tidefeed_operators::target::DocumentWrite]) -> Model {
    let document = |body: &bytes::Bytes| serde_json::from_slice::<serde_json::Value>(body).unwrap();
    batch
        .iter()
        .filter_map(|write| write.action.document().map(document))
        .map(|document| {
            (
                json!([document["pk"], document["id"]]).to_string(),
                document,
            )
        })
        .collect()
}

const THROTTLE: Verdict = Verdict::Refuse {
    status: 429,
    sub_status: 3200,
    retry_after_ms: Some(3),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttled_writes_are_repeated_until_they_are_through_and_counted() {
    let (server, container) = faulty().await;
    let mut random = fastrand::Rng::with_seed(429);
    // More refusals in a row than the SDK would put up with.
    let mut first = 25u32;
    server.script(move |kind| match kind {
        Kind::Batch { .. } if first > 0 || random.u8(0..10) < 4 => {
            first = first.saturating_sub(1);
            THROTTLE
        }
        _ => Verdict::Pass,
    });
    let batch = numbered(0..600, 250, 0);
    let applied = target(&container).await.apply(batch.clone()).await;
    let applied = applied.unwrap();
    assert!(applied.throttled >= 25, "{applied:?}");
    // 600 documents in 4 partitions.
    assert!(applied.requests >= 6 + applied.throttled, "{applied:?}");
    assert!(applied.charge_ru > 600.0, "{applied:?}");
    server.script(|_| Verdict::Pass);
    assert_holds(&container, &model_of(&batch)).await;
    assert_eq!(server.overlaps(), Vec::<String>::new());
}

#[tokio::test]
async fn the_wait_that_the_service_asks_for_is_kept() {
    let (server, container) = faulty().await;
    let mut refused = 0;
    server.script(move |kind| match kind {
        Kind::Batch { .. } if refused < 2 => {
            refused += 1;
            Verdict::Refuse {
                status: 429,
                sub_status: 3200,
                retry_after_ms: Some(150),
            }
        }
        _ => Verdict::Pass,
    });
    let started = Instant::now();
    let applied = target(&container).await.apply(numbered(0..1, 1, 0)).await;
    let applied = applied.unwrap();
    assert_eq!((applied.requests, applied.throttled), (3, 2));
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_and_passing_faults_leave_every_document_written_once() {
    let (server, container) = faulty().await;
    let mut random = fastrand::Rng::with_seed(503);
    server.script(move |kind| match kind {
        Kind::Batch { .. } => match random.u8(0..10) {
            0 => Verdict::LoseAnswer { status: 408 },
            1 => Verdict::Refuse {
                status: 449,
                sub_status: 0,
                retry_after_ms: None,
            },
            2 => Verdict::Refuse {
                status: 500,
                sub_status: 0,
                retry_after_ms: None,
            },
            _ => Verdict::Pass,
        },
        _ => Verdict::Pass,
    });
    let target = target(&container).await;
    let batch = numbered(0..100, 40, 0);
    target.apply(batch.clone()).await.unwrap();
    // Deletes whose answer is lost find nothing the second time.
    let mut second: Vec<_> = (0..50)
        .map(|n| delete(&format!("p{}", n % 40), &format!("d{n}")))
        .collect();
    second.extend(numbered(50..100, 40, 1));
    target.apply(second.clone()).await.unwrap();
    server.script(|_| Verdict::Pass);
    assert_holds(&container, &model_of(&second)).await;
    assert_eq!(server.overlaps(), Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_that_is_too_large_for_the_service_is_halved() {
    let (server, container) = faulty().await;
    server.script(|kind| match kind {
        Kind::Batch { bytes, .. } if bytes > 10_000 => Verdict::Refuse {
            status: 413,
            sub_status: 0,
            retry_after_ms: None,
        },
        _ => Verdict::Pass,
    });
    let batch: Vec<_> = (0..100)
        .map(|n| upsert("a", &format!("d{n}"), json!({"filler": "x".repeat(400)})))
        .collect();
    let applied = target(&container).await.apply(batch.clone()).await;
    // At least as many as it takes requests of what the server takes.
    assert!(applied.unwrap().requests >= 5);
    assert_holds(&container, &model_of(&batch)).await;
}

#[tokio::test]
async fn requests_respect_the_limits() {
    let (server, container) = faulty().await;
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen_by_script = seen.clone();
    server.script(move |kind| {
        seen_by_script.lock().push(kind);
        Verdict::Pass
    });
    let config = BulkConfig {
        max_operations: 10,
        max_batch_bytes: 20_000,
        ..BulkConfig::default()
    };
    let target = CosmosTarget::open(container.clone(), config).await.unwrap();
    let batch: Vec<_> = (0..40)
        .map(|n| {
            upsert(
                "a",
                &format!("d{n}"),
                json!({"filler": "x".repeat(n * 100)}),
            )
        })
        .collect();
    target.apply(batch.clone()).await.unwrap();
    for kind in seen.lock().iter() {
        if let Kind::Batch { operations, bytes } = kind {
            assert!(*operations <= 10 && *bytes <= 20_000, "{kind:?}");
        }
    }
    assert_holds(&container, &model_of(&batch)).await;
}

#[tokio::test]
async fn a_feed_waits_out_what_passes_and_repeats_nothing() {
    let (server, container) = faulty().await;
    let batch = numbered(0..300, 60, 0);
    target(&container).await.apply(batch).await.unwrap();
    let mut random = fastrand::Rng::with_seed(410);
    server.script(move |kind| match kind {
        Kind::ChangeFeed => match random.u8(0..10) {
            0..3 => THROTTLE,
            3 => Verdict::LoseAnswer { status: 408 },
            4 => Verdict::Refuse {
                status: 500,
                sub_status: 0,
                retry_after_ms: None,
            },
            _ => Verdict::Pass,
        },
        _ => Verdict::Pass,
    });
    let config = FeedConfig {
        page_size: NonZeroU32::new(9).unwrap(),
        backoff: quick(),
        ..FeedConfig::default()
    };
    let feed = CosmosFeed::new(container, config).unwrap();
    let mut keys = Vec::new();
    for range in feed.ranges().await.unwrap() {
        let mut pages = feed.open(&range, Start::Beginning).await.unwrap();
        for page in conformance::drain(pages.as_mut()).await {
            keys.extend(page.records.into_iter().map(|record| record.key));
        }
    }
    assert_eq!(keys.len(), 300);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 300);
}

#[tokio::test]
async fn what_no_retry_mends_comes_out_of_a_feed_and_a_target() {
    let (server, container) = faulty().await;
    let feed = CosmosFeed::new(container.clone(), FeedConfig::default()).unwrap();
    let range = feed.ranges().await.unwrap().remove(0);
    for (status, sub_status, kind, part) in [
        (401, 0, ErrorKind::Denied, "cannot"),
        (403, 0, ErrorKind::Denied, "cannot"),
        (
            404,
            1003,
            ErrorKind::NotFound,
            "container flights/live does not exist any more",
        ),
        (400, 0, ErrorKind::Rejected, "refused by the test"),
    ] {
        server.script(move |_| Verdict::Refuse {
            status,
            sub_status,
            retry_after_ms: None,
        });
        let mut pages = feed.open(&range, Start::Beginning).await.unwrap();
        let error = pages.next_page().await.unwrap_err();
        assert_line(&error, kind, &[part, "flights/live"]);
        for batch in [numbered(0..1, 1, 0), numbered(0..5, 1, 0)] {
            let error = target(&container).await.apply(batch).await.unwrap_err();
            assert_line(&error, kind, &[part, "flights/live"]);
        }
    }
    // The container being gone is no success for a delete. Whether it is is asked again if the answer may be passing.
    for sub_status in [1003, 0] {
        server.script(move |_| Verdict::Refuse {
            status: 404,
            sub_status,
            retry_after_ms: None,
        });
        let deleted = target(&container).await.apply(vec![delete("a", "b")]).await;
        assert_line(
            &deleted.unwrap_err(),
            ErrorKind::NotFound,
            &["flights/live"],
        );
    }
}
