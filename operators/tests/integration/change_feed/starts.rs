//! Where a feed starts.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tidefeed_operators::cosmos::{FeedConfig, SoftDelete};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_runtime::{ErrorKind, Record};

use super::super::conformance::{numbered, upsert};
use super::*;

fn keys(records: &[Record]) -> BTreeSet<String> {
    records.iter().map(key).collect()
}

#[tokio::test]
async fn a_point_in_time_leaves_out_what_was_written_before() {
    let place = Place::with(2).await;
    let hour = Duration::from_secs(3600);
    place.write(numbered(0..20, 10, 0)).await;
    place.server.advance_clock(2 * hour);
    place.write(numbered(15..40, 10, 1)).await;
    let feed = place.feed(page_size(7));
    for (after, expected) in [(0, 40), (1, 25), (3, 0)] {
        let start = Start::Time(SystemTime::now() + after * hour - hour / 2);
        let mut found = BTreeSet::new();
        for (range, mut stream) in open_all(&feed, start).await {
            let first = next(&mut stream).await;
            found.extend(keys(&Vec::from(first.records.clone())));
            // The start must hold for what resumes as well.
            let mut resumed = feed.open(&range, Start::Token(first.token)).await.unwrap();
            found.extend(keys(&records(&mut resumed).await));
        }
        assert_eq!(found.len(), expected, "{after} hours later");
    }
}

/// Between the start and the first page, and before the position is kept anywhere: nothing that is written then may be missed,
/// whoever goes on from the first page.
#[tokio::test]
async fn now_is_fixed_when_the_feed_is_opened() {
    for (mode, name) in [(page_size(5), "latest"), (all_versions(), "all")] {
        let place = Place::with(3).await;
        let feed = place.feed(mode);
        place.write(numbered(0..30, 15, 0)).await;
        let streams = open_all(&feed, Start::Now).await;
        place.write(numbered(20..50, 15, 1)).await;
        let mut found = BTreeSet::new();
        for (range, mut stream) in streams {
            let first = next(&mut stream).await;
            found.extend(keys(&Vec::from(first.records.clone())));
            drop(stream);
            let start = Start::Token(first.token);
            let mut resumed = feed.open(&range, start).await.unwrap();
            found.extend(keys(&records(&mut resumed).await));
        }
        assert_eq!(found.len(), 30, "{name}");
    }
}

/// The SDK asks one part of a split range after the other. A position that has the answer of one only would say "now" again for
/// the other when it is resumed.
#[tokio::test]
async fn now_is_fixed_in_every_part_of_a_range_that_was_split() {
    for (mode, name) in [(page_size(5), "latest"), (all_versions(), "all")] {
        let place = Place::with(1).await;
        let feed = place.feed(mode);
        let range = feed.ranges().await.unwrap().remove(0);
        place.write(numbered(0..30, 15, 0)).await;
        for _ in 0..3 {
            place.split();
        }
        let mut stream = feed.open(&range, Start::Now).await.unwrap();
        let first = next(&mut stream).await;
        assert!(first.records.is_empty(), "{name}");
        drop(stream);
        place.write(numbered(20..60, 30, 1)).await;
        let start = Start::Token(first.token);
        let mut resumed = feed.open(&range, start).await.unwrap();
        assert_eq!(keys(&records(&mut resumed).await).len(), 40, "{name}");
    }
}

#[tokio::test]
async fn documents_that_say_that_they_are_deleted_are_removals() {
    let place = Place::with(1).await;
    let deleted = SoftDelete {
        path: "/isDeleted".to_owned(),
        value: None,
    };
    let feed = place.feed(FeedConfig {
        deleted: Some(deleted),
        ..FeedConfig::default()
    });
    place.write(numbered(0..3, 1, 0)).await;
    let gone = upsert("p0", "d1", json!({"isDeleted": true, "ttl": 3600}));
    place.write(vec![gone]).await;
    let (_, mut stream) = open_all(&feed, Start::Beginning).await.remove(0);
    let mut view = BTreeMap::from([(r#"["p0","d1"]"#.to_owned(), json!({}))]);
    apply(&mut view, &records(&mut stream).await);
    assert_eq!(
        view.keys().collect::<Vec<_>>(),
        [r#"["p0","d0"]"#, r#"["p0","d2"]"#]
    );
    // It comes back without the mark.
    place.write(numbered(1..2, 1, 1)).await;
    apply(&mut view, &records(&mut stream).await);
    assert_eq!(view.len(), 3);
}

#[tokio::test]
async fn all_versions_cannot_be_read_from_a_point_in_time() {
    let place = Place::with(1).await;
    let feed = place.feed(all_versions());
    let range = feed.ranges().await.unwrap().remove(0);
    let start = Start::Time(SystemTime::now());
    let error = feed.open(&range, start).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}
