//! Every version and delete: from now on, after a snapshot, and beyond the retention.

use std::time::Duration;

use serde_json::json;
use tidefeed_emulator::EmulatorConfig;
use tidefeed_operators::cosmos::{FeedConfig, OnExpired};
use tidefeed_operators::feed::{ChangeFeed, ExpiredPosition, Start};
use tidefeed_runtime::{ContinuationToken, ErrorKind, FeedRangeId};

use super::super::conformance::{delete, numbered, upsert};
use super::*;

#[tokio::test]
async fn every_version_comes_in_order_and_so_does_every_end() {
    let place = Place::with(1).await;
    let feed = place.feed(all_versions());
    let (range, mut stream) = open_all(&feed, Start::Now).await.remove(0);
    for version in 0..7 {
        place
            .write(vec![upsert("p", "a", json!({ "n": version }))])
            .await;
    }
    place.write(vec![delete("p", "a")]).await;
    place
        .write(vec![upsert("p", "b", json!({"n": 10, "ttl": 5}))])
        .await;
    // A document without the partition key: its removal must have the same key.
    let document = json!({"id": "c", "n": 20, "ttl": 5});
    place
        .container
        .upsert("[{}]", "c", &document)
        .await
        .unwrap();
    place.server.advance_clock(Duration::from_secs(60));
    let read = records(&mut stream).await;
    let of = |wanted: &str| -> Vec<Option<i64>> {
        let matching = read.iter().filter(|record| key(record) == wanted);
        let number = |record| body(record).map(|body| body["n"].as_i64().unwrap());
        matching.map(number).collect()
    };
    let a: Vec<_> = (0..7).map(Some).chain([None]).collect();
    assert_eq!(of(r#"["p","a"]"#), a);
    assert_eq!(of(r#"["p","b"]"#), [Some(10), None]);
    assert_eq!(of(r#"[{},"c"]"#), [Some(20), None]);
    // And nothing twice.
    let token = read_up(&mut stream).await.unwrap().pop().unwrap().token;
    place.write(numbered(0..3, 1, 0)).await;
    let mut resumed = feed.open(&range, Start::Token(token)).await.unwrap();
    assert_eq!(records(&mut resumed).await.len(), 3);
}

/// A container that is written, deleted from and split while it is loaded, by a reader that goes on from its last page each time:
/// the view ends equal to the container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_what_changed_during_it_are_the_container() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    for round in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed ^ round);
        let place = Place::with(random.usize(1..3)).await;
        let feed = place.feed(all_versions());
        place.write_each(numbered(0..150, 20, 0)).await;
        let mut starts: BTreeMap<FeedRangeId, Start> = BTreeMap::new();
        for range in feed.ranges().await.unwrap() {
            starts.insert(range, Start::Beginning);
        }
        let mut view = BTreeMap::new();
        for version in 1..25 {
            for (range, start) in &mut starts {
                let mut stream = feed.open(range, start.clone()).await.unwrap();
                for _ in 0..random.usize(1..5) {
                    let page = next(&mut stream).await;
                    apply(&mut view, &Vec::from(page.records.clone()));
                    *start = Start::Token(page.token);
                }
            }
            let some = random.usize(0..150);
            let mut changes = numbered(some..some + random.usize(0..12), 20, version);
            let gone = random.usize(0..20);
            changes.retain(|write| write.id != format!("d{gone}"));
            changes.push(delete(&format!("p{}", gone % 20), &format!("d{gone}")));
            place.write(changes).await;
            if random.u8(0..8) == 0 {
                place.split();
            }
        }
        for (range, start) in starts {
            let mut stream = feed.open(&range, start).await.unwrap();
            apply(&mut view, &records(&mut stream).await);
        }
        assert_eq!(view, place.documents().await, "round {round}");
        assert!(view.len() < 155, "something was deleted");
    }
}

/// What was loaded is complete only with what changed meanwhile, deletes included.
#[tokio::test]
async fn a_load_has_not_caught_up_before_its_changes_are_there() {
    let place = Place::with(1).await;
    let feed = place.feed(all_versions());
    place.write_each(numbered(0..30, 3, 0)).await;
    let (_, mut stream) = open_all(&feed, Start::Beginning).await.remove(0);
    let mut view = BTreeMap::new();
    for _ in 0..3 {
        let page = next(&mut stream).await;
        assert!(!page.caught_up);
        apply(&mut view, &Vec::from(page.records.clone()));
    }
    let gone = view.keys().next().unwrap().clone();
    let fields: Vec<String> = serde_json::from_str(&gone).unwrap();
    place.write(vec![delete(&fields[0], &fields[1])]).await;
    apply(&mut view, &records(&mut stream).await);
    assert_eq!(view, place.documents().await);
    assert!(!view.contains_key(&gone));
}

fn short() -> EmulatorConfig {
    EmulatorConfig {
        partitions: 1,
        retention: Duration::from_secs(3600),
        ..EmulatorConfig::default()
    }
}

#[tokio::test]
async fn a_position_that_is_too_old_says_what_is_lost_and_what_to_do() {
    let place = Place::new(short()).await;
    for on_expired in [OnExpired::Fail, OnExpired::Reload] {
        let feed = place.feed(FeedConfig {
            on_expired,
            ..all_versions()
        });
        let (range, mut stream) = open_all(&feed, Start::Now).await.remove(0);
        let token = next(&mut stream).await.token;
        place.write(numbered(0..5, 1, 0)).await;
        place.server.advance_clock(Duration::from_secs(7200));
        let mut resumed = feed.open(&range, Start::Token(token)).await.unwrap();
        let error = read_up(&mut resumed)
            .await
            .expect_err("the changes are gone");
        let line = error.report();
        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{line}");
        for part in [
            range.0.as_str(),
            "shop/orders",
            "s old",
            "lost for good",
            "--fresh",
            "on_expired",
        ] {
            assert!(line.contains(part), "{part} is not in: {line}");
        }
        let expired = ExpiredPosition::of(&error).expect("marked");
        assert_eq!(expired.reload(), on_expired == OnExpired::Reload);
        // A run that starts over has the container as it is.
        let mut fresh = feed.open(&range, Start::Beginning).await.unwrap();
        let mut view = BTreeMap::new();
        apply(&mut view, &records(&mut fresh).await);
        assert_eq!(view, place.documents().await);
    }
}

/// A range without changes beside one with many: its position must move with the feed, and be delivered, or it would be too old
/// one day.
#[tokio::test]
async fn the_position_of_an_idle_range_stays_young() {
    let place = Place::new(short()).await;
    let feed = place.feed(all_versions());
    place.write(numbered(0..40, 40, 0)).await;
    // Two halves of one partition, so that the feed of both moves with the changes of one.
    let halves = [
        "-20000000000000000000000000000000",
        "20000000000000000000000000000000-FF",
    ];
    let [idle, busy] = halves.map(|id| FeedRangeId(id.to_owned()));
    let mut tokens: Vec<ContinuationToken> = Vec::new();
    let mut stream = feed.open(&busy, Start::Beginning).await.unwrap();
    let there = records(&mut stream).await;
    let busy_document = there.first().expect("a document in the busy half").clone();
    let mut stream = feed.open(&idle, Start::Now).await.unwrap();
    tokens.push(next(&mut stream).await.token);
    let fields: Vec<String> = serde_json::from_slice(&busy_document.key).unwrap();
    for version in 0..5 {
        place
            .write(vec![upsert(
                &fields[0],
                &fields[1],
                json!({ "n": version }),
            )])
            .await;
        let page = next(&mut stream).await;
        assert!(page.records.is_empty() && page.caught_up);
        assert_ne!(Some(&page.token), tokens.last(), "it moved");
        tokens.push(page.token);
        place.server.advance_clock(Duration::from_secs(1800));
    }
    let mut resumed = feed
        .open(&idle, Start::Token(tokens.remove(0)))
        .await
        .unwrap();
    assert!(read_up(&mut resumed).await.is_err(), "the first is too old");
    let newest = Start::Token(tokens.pop().unwrap());
    let mut resumed = feed.open(&idle, newest).await.unwrap();
    assert!(records(&mut resumed).await.is_empty());
}

#[tokio::test]
async fn a_position_of_the_other_mode_is_refused() {
    let place = Place::with(1).await;
    for (of, with) in [
        (page_size(5), all_versions()),
        (all_versions(), page_size(5)),
    ] {
        let (range, mut stream) = open_all(&place.feed(of), Start::Beginning).await.remove(0);
        let token = next(&mut stream).await.token;
        let opened = place.feed(with).open(&range, Start::Token(token)).await;
        let error = opened.err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(error.report().contains("other mode"), "{}", error.report());
    }
}
