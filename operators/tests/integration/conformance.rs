//! What every adapter behind the ports must do, as checks that run over any of them.
//!
//! A check gets a fresh, empty [`Subject`]: a feed and a target of one container that is partitioned by `/pk`, with pages of
//! at most [`PAGE_SIZE`] records. The oracle is a plain map of what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tidefeed_operators::feed::{ChangeFeed, PageStream, Start};
use tidefeed_operators::reconcile::StoredDocument;
use tidefeed_operators::target::{DocumentWrite, Target};
use tidefeed_runtime::{ContinuationToken, ErrorKind, FeedRangeId, Record};

/// Small, so that a test reads many pages.
pub const PAGE_SIZE: u32 = 7;

/// One container behind the ports.
pub struct Subject {
    pub feed: Arc<dyn ChangeFeed>,
    pub target: Arc<dyn Target>,
    /// What the container holds, read without the feed under test where there is another way.
    pub contents: Box<dyn Fn() -> BoxFuture<'static, BTreeMap<String, Value>> + Send + Sync>,
}

/// What should be there: documents by key.
pub type Model = BTreeMap<String, Value>;

/// Runs each check on a container of its own.
pub async fn run_all<F: Future<Output = Subject>>(fresh: impl Fn(&'static str) -> F) {
    ranges_tile_the_key_space(fresh("tiling").await).await;
    a_token_resumes_exactly_after_its_page(fresh("resume").await).await;
    an_update_comes_once_and_last(fresh("updates").await).await;
    now_starts_after_what_exists(fresh("now").await).await;
    tokens_and_ranges_of_others_are_refused(fresh("refusals").await).await;
    records_have_keys_and_exact_bodies(fresh("records").await).await;
    random_batches_leave_what_the_model_says(fresh("random").await).await;
    deleting_what_is_not_there_succeeds(fresh("deletes").await).await;
    large_batches_arrive_whole(fresh("large").await).await;
    feed_and_target_meet(fresh("meet").await).await;
    contents_are_all_that_is_there(fresh("contents").await).await;
}

pub fn upsert(pk: &str, id: &str, document: Value) -> DocumentWrite {
    let mut document = document;
    document["pk"] = json!(pk);
    document["id"] = json!(id);
    DocumentWrite::upsert(json!([pk]).to_string(), id, document.to_string())
}

pub fn delete(pk: &str, id: &str) -> DocumentWrite {
    DocumentWrite::delete(json!([pk]).to_string(), id)
}

/// Applies the batch to the model as well.
pub async fn apply(subject: &Subject, model: &mut Model, batch: Vec<DocumentWrite>) {
    for write in &batch {
        let values = write.partition_key.trim_end_matches(']');
        let key = format!("{values},{}]", json!(write.id));
        match write.action.document() {
            Some(body) => model.insert(key, serde_json::from_slice(body).unwrap()),
            None => model.remove(&key),
        };
    }
    subject.target.apply(batch).await.unwrap();
}

/// Numbered documents over `partitions` partition keys.
pub fn numbered(
    range: std::ops::Range<usize>,
    partitions: usize,
    version: u32,
) -> Vec<DocumentWrite> {
    range
        .map(|n| {
            let pk = format!("p{}", n % partitions);
            upsert(&pk, &format!("d{n}"), json!({"n": n, "version": version}))
        })
        .collect()
}

/// One page as read, with the token after it.
pub struct ReadPage {
    pub records: Vec<Record>,
    pub token: ContinuationToken,
}

/// Pages until the feed says that there is nothing more. The last one is empty.
pub async fn drain(pages: &mut dyn PageStream) -> Vec<ReadPage> {
    let mut read = Vec::new();
    for _ in 0..100_000 {
        let page = pages.next_page().await.unwrap();
        read.push(ReadPage {
            records: page.records.into(),
            token: page.token,
        });
        if page.caught_up {
            return read;
        }
    }
    panic!("the feed never catches up");
}

fn records(pages: &[ReadPage]) -> Vec<Record> {
    pages.iter().flat_map(|page| page.records.clone()).collect()
}

fn key(record: &Record) -> String {
    String::from_utf8(record.key.to_vec()).unwrap()
}

fn body(record: &Record) -> Value {
    serde_json::from_slice(record.body.as_ref().unwrap()).unwrap()
}

/// The whole feed from the beginning: the newest body of each key.
pub async fn read_feed(feed: &dyn ChangeFeed) -> Model {
    let mut found = Model::new();
    for range in feed.ranges().await.unwrap() {
        let mut pages = feed.open(&range, Start::Beginning).await.unwrap();
        for record in records(&drain(pages.as_mut()).await) {
            found.insert(key(&record), body(&record));
        }
    }
    found
}

/// Every document once, its newest version, found equal to what was written however the container keeps it.
async fn contents_are_all_that_is_there(subject: Subject) {
    let stored = |write: &DocumentWrite| {
        let mut key: Vec<Value> = serde_json::from_str(&write.partition_key).unwrap();
        key.push(json!(write.id));
        let body = write.action.document().unwrap();
        StoredDocument::of_record(json!(key).to_string().as_bytes(), body).unwrap()
    };
    let contents = async || {
        let mut contents = subject.target.contents().await.unwrap();
        contents.sort();
        contents
    };
    assert_eq!(contents().await, []);
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..100, 30, 0)).await;
    let newer = numbered(0..60, 30, 1);
    apply(&subject, &mut model, newer.clone()).await;
    let gone = (60..70).map(|n| delete(&format!("p{}", n % 30), &format!("d{n}")));
    apply(&subject, &mut model, gone.collect()).await;
    // A number that is whole, and fields in no order.
    let odd = DocumentWrite::upsert(
        json!(["p1"]).to_string(),
        "odd",
        r#"{"z":2.0,"pk":"p1","id":"odd","a":[1e2,0.1,-0.0]}"#,
    );
    apply(&subject, &mut model, vec![odd.clone()]).await;
    let kept = numbered(70..100, 30, 0);
    let mut expected: Vec<_> = newer
        .iter()
        .chain(&kept)
        .chain([&odd])
        .map(stored)
        .collect();
    expected.sort();
    assert_eq!(contents().await, expected);
}

async fn ranges_tile_the_key_space(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..120, 40, 0)).await;
    let ranges = subject.feed.ranges().await.unwrap();
    let bounds: Vec<_> = ranges
        .iter()
        .map(|id| id.0.split_once('-').unwrap())
        .collect();
    assert_eq!(bounds.first().unwrap().0, "", "{ranges:?}");
    assert_eq!(bounds.last().unwrap().1, "FF", "{ranges:?}");
    for pair in bounds.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "gap or overlap in {ranges:?}");
        assert!(pair[0].0 < pair[0].1);
    }
    let mut seen = BTreeSet::new();
    for range in &ranges {
        let mut pages = subject.feed.open(range, Start::Beginning).await.unwrap();
        for record in records(&drain(pages.as_mut()).await) {
            assert!(
                seen.insert(key(&record)),
                "{} is in two ranges",
                key(&record)
            );
        }
    }
    assert!(seen.iter().eq(model.keys()), "every document is in a range");
    assert_eq!(
        subject.feed.ranges().await.unwrap(),
        ranges,
        "names are stable"
    );
}

async fn a_token_resumes_exactly_after_its_page(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..200, 50, 0)).await;
    let mut boundaries = 0;
    for range in subject.feed.ranges().await.unwrap() {
        let mut pages = subject.feed.open(&range, Start::Beginning).await.unwrap();
        let read = drain(pages.as_mut()).await;
        for (index, page) in read.iter().enumerate() {
            boundaries += 1;
            let rest = records(&read[index + 1..]);
            let start = Start::Token(page.token.clone());
            let mut resumed = subject.feed.open(&range, start).await.unwrap();
            assert_eq!(
                records(&drain(resumed.as_mut()).await),
                rest,
                "page {index} of {range}"
            );
        }
    }
    assert!(
        boundaries > 20,
        "only {boundaries} pages: the check checks little"
    );
}

async fn an_update_comes_once_and_last(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..60, 20, 0)).await;
    let mut streams = Vec::new();
    for range in subject.feed.ranges().await.unwrap() {
        let mut pages = subject.feed.open(&range, Start::Beginning).await.unwrap();
        let first = records(&drain(pages.as_mut()).await);
        let keys: BTreeSet<_> = first.iter().map(key).collect();
        assert_eq!(
            keys.len(),
            first.len(),
            "a record came twice without a write"
        );
        let idle = drain(pages.as_mut()).await;
        assert!(records(&idle).is_empty(), "nothing was written");
        streams.push(pages);
    }
    // Two versions before anybody reads: at least the newer one comes, and it comes last.
    apply(&subject, &mut model, numbered(10..30, 20, 1)).await;
    apply(&subject, &mut model, numbered(20..30, 20, 2)).await;
    let mut found = Model::new();
    for pages in &mut streams {
        for record in records(&drain(pages.as_mut()).await) {
            found.insert(key(&record), body(&record));
        }
    }
    let expected: Model = model
        .into_iter()
        .filter(|(_, document)| document["version"] != 0)
        .collect();
    assert_eq!(found, expected);
}

async fn now_starts_after_what_exists(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..40, 20, 0)).await;
    let mut streams = Vec::new();
    for range in subject.feed.ranges().await.unwrap() {
        let mut pages = subject.feed.open(&range, Start::Now).await.unwrap();
        assert!(records(&drain(pages.as_mut()).await).is_empty());
        streams.push(pages);
    }
    apply(&subject, &mut model, numbered(30..50, 20, 1)).await;
    let mut found = BTreeSet::new();
    for pages in &mut streams {
        found.extend(records(&drain(pages.as_mut()).await).iter().map(key));
    }
    assert_eq!(found.len(), 20);
}

async fn tokens_and_ranges_of_others_are_refused(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..20, 20, 0)).await;
    let ranges = subject.feed.ranges().await.unwrap();
    assert!(ranges.len() > 1, "needs a container with several ranges");
    let mut pages = subject
        .feed
        .open(&ranges[0], Start::Beginning)
        .await
        .unwrap();
    let token = drain(pages.as_mut()).await.remove(0).token;
    let refused = async |range: &FeedRangeId, token: &str| {
        let start = Start::Token(ContinuationToken(token.to_owned()));
        match subject.feed.open(range, start).await {
            Ok(_) => panic!("{range} was opened with {token}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Checkpoint, "{error:?}"),
        }
    };
    refused(&ranges[1], &token.0).await;
    refused(&ranges[0], "nonsense").await;
    refused(&ranges[0], "").await;
    refused(&FeedRangeId("nonsense".to_owned()), &token.0).await;
}

async fn records_have_keys_and_exact_bodies(subject: Subject) {
    let documents = [
        json!({"float": 0.1, "small": 5e-324, "long": 123456789.12345679, "third": 0.3333333333333333}),
        json!({"max": 9007199254740991u64, "negative": -42, "text": "ä\n\"\\\u{1F30A}", "null": null}),
        json!({"deep": {"list": [1, [2, {"three": 3}]]}, "empty": {}, "none": [], "yes": true}),
    ];
    let mut model = Model::new();
    let mut batch = Vec::new();
    for (n, document) in documents.iter().enumerate() {
        // Once alone in its partition, and once among others.
        batch.push(upsert(&format!("alone{n}"), "x/y", document.clone()).without_slash());
        batch.push(upsert("together \"ü\"", &format!("d{n}"), document.clone()));
    }
    apply(&subject, &mut model, batch).await;
    assert_eq!(read_feed(subject.feed.as_ref()).await, model);
    assert!(model.contains_key(r#"["alone0","x-y"]"#));
}

trait WithoutSlash {
    fn without_slash(self) -> Self;
}

impl WithoutSlash for DocumentWrite {
    /// Ids must not have slashes in the service.
    fn without_slash(mut self) -> Self {
        self.id = self.id.replace('/', "-");
        let body = self.action.document().unwrap();
        let mut document: Value = serde_json::from_slice(body).unwrap();
        document["id"] = json!(self.id);
        DocumentWrite::upsert(self.partition_key, self.id, document.to_string())
    }
}

async fn random_batches_leave_what_the_model_says(subject: Subject) {
    let mut random = fastrand::Rng::with_seed(20130101);
    let mut model = Model::new();
    for round in 0..30 {
        let mut keys = BTreeSet::new();
        let batch: Vec<_> = (0..random.usize(1..150))
            .filter_map(|_| {
                // Some partitions are crowded, others nearly empty.
                let pk = format!("p{}", random.usize(0..8) * random.usize(0..8));
                let id = format!("d{}", random.usize(0..60));
                keys.insert((pk.clone(), id.clone()))
                    .then(|| match random.u8(0..10) {
                        0..7 => upsert(&pk, &id, json!({"round": round, "n": random.i32(..)})),
                        _ => delete(&pk, &id),
                    })
            })
            .collect();
        apply(&subject, &mut model, batch).await;
        if round % 10 == 9 {
            assert_eq!((subject.contents)().await, model, "round {round}");
        }
    }
    assert!(model.len() > 100);
}

async fn deleting_what_is_not_there_succeeds(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..30, 3, 0)).await;
    let mixed = |version| {
        let mut batch = numbered(0..10, 3, version);
        batch.extend((10..20).map(|n| delete(&format!("p{}", n % 3), &format!("d{n}"))));
        batch.push(delete("p0", "never"));
        batch.push(delete("alone", "never"));
        batch
    };
    // The second time nothing of what it deletes is there, as when an epoch is replayed after a crash.
    apply(&subject, &mut model, mixed(1)).await;
    assert_eq!((subject.contents)().await, model);
    apply(&subject, &mut model, mixed(1)).await;
    assert_eq!((subject.contents)().await, model);
    assert_eq!(model.len(), 20);
}

async fn large_batches_arrive_whole(subject: Subject) {
    let mut model = Model::new();
    apply(&subject, &mut model, numbered(0..3000, 7, 0)).await;
    assert_eq!((subject.contents)().await, model);
    // Documents of 300 kB, so that bytes and not their number limit a request.
    let filler = "x".repeat(300_000);
    let big = (0..12)
        .map(|n| upsert("big", &format!("d{n}"), json!({ "filler": filler })))
        .collect();
    apply(&subject, &mut model, big).await;
    assert_eq!((subject.contents)().await, model);
    apply(&subject, &mut model, Vec::new()).await;
}

async fn feed_and_target_meet(subject: Subject) {
    let mut model = Model::new();
    for version in 0..5 {
        apply(&subject, &mut model, numbered(0..150, 12, version)).await;
        apply(
            &subject,
            &mut model,
            vec![delete("p1", &format!("d{}", 1 + 12 * version))],
        )
        .await;
    }
    assert_eq!(read_feed(subject.feed.as_ref()).await, model);
}
