//! The adapter in memory against the checks that every adapter must pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::memory::{MemoryContainer, MemoryOptions};
use tidefeed_operators::target::Target;
use tidefeed_runtime::ErrorKind;

use super::conformance::{self, PAGE_SIZE, Subject, drain};

fn container(options: MemoryOptions) -> MemoryContainer {
    MemoryContainer::new(options)
}

fn subject(container: MemoryContainer) -> Subject {
    let held = container.clone();
    Subject {
        feed: Arc::new(container.clone()),
        target: Arc::new(container),
        contents: Box::new(move || {
            let contents: BTreeMap<_, _> = held
                .contents()
                .into_iter()
                .map(|(key, body)| (key, serde_json::from_slice(&body).unwrap()))
                .collect();
            async move { contents }.boxed()
        }),
    }
}

#[tokio::test]
async fn conforms_with_any_seed_and_number_of_ranges() {
    for (seed, ranges) in [(1, 2), (2, 4), (3, 5)] {
        conformance::run_all(|_| async move {
            subject(container(MemoryOptions {
                ranges,
                seed,
                // Batches are not split over pages, so pages are as small as can be.
                page_size: PAGE_SIZE as usize,
                ..Default::default()
            }))
        })
        .await;
    }
}

#[tokio::test]
async fn a_page_never_splits_what_was_written_at_once() {
    let container = container(MemoryOptions {
        ranges: 1,
        page_size: 3,
        ..Default::default()
    });
    container
        .apply(conformance::numbered(0..10, 1, 0))
        .await
        .unwrap();
    container.upsert(r#"["p0"]"#, "d99", r#"{"id":"d99"}"#);
    let range = container.ranges().await.unwrap().remove(0);
    let mut pages = container.open(&range, Start::Beginning).await.unwrap();
    let sizes: Vec<_> = drain(pages.as_mut())
        .await
        .iter()
        .map(|page| page.records.len())
        .collect();
    assert_eq!(sizes, [10, 1, 0]);
}

#[tokio::test]
async fn a_feed_with_deletes_carries_each_delete_once() {
    let container = container(MemoryOptions {
        ranges: 1,
        deletes_in_feed: true,
        ..Default::default()
    });
    container.upsert("[1]", "a", "{}");
    container.upsert("[1]", "b", "{}");
    container.delete("[1]", "a");
    container.delete("[1]", "a");
    container.delete("[1]", "never");
    let range = container.ranges().await.unwrap().remove(0);
    let mut pages = container.open(&range, Start::Beginning).await.unwrap();
    let read = drain(pages.as_mut()).await;
    let changes: Vec<_> = read
        .iter()
        .flat_map(|page| &page.records)
        .map(|record| (record.key.as_ref(), record.body.is_some()))
        .collect();
    assert_eq!(
        changes,
        [(&br#"[1,"b"]"#[..], true), (&br#"[1,"a"]"#[..], false)]
    );
    assert_eq!(container.contents().len(), 1);
}

#[tokio::test]
async fn a_start_in_time_takes_what_was_written_then_and_later() {
    let seconds = Arc::new(AtomicU64::new(100));
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let clock = Arc::clone(&seconds);
    let options = MemoryOptions {
        ranges: 1,
        ..Default::default()
    };
    let container = MemoryContainer::with_clock(options, move || at(clock.load(Ordering::Relaxed)));
    for (second, id) in [(100, "a"), (200, "b"), (300, "c")] {
        seconds.store(second, Ordering::Relaxed);
        container.upsert("[1]", id, "{}");
    }
    let range = container.ranges().await.unwrap().remove(0);
    for (second, expected) in [(50, 3), (100, 3), (101, 2), (200, 2), (300, 1), (301, 0)] {
        let start = Start::Time(at(second));
        let mut pages = container.open(&range, start).await.unwrap();
        let read: usize = drain(pages.as_mut())
            .await
            .iter()
            .map(|page| page.records.len())
            .sum();
        assert_eq!(read, expected, "from second {second}");
    }
}

#[tokio::test]
async fn a_page_fails_once_when_asked_to() {
    let container = container(MemoryOptions::default());
    container.fail_next_page(ErrorKind::Unreachable);
    let range = container.ranges().await.unwrap().remove(0);
    let mut pages = container.open(&range, Start::Beginning).await.unwrap();
    let error = pages.next_page().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(pages.next_page().await.unwrap().caught_up);
}
