//! The bulk writer against the embedded server: what callers are told, order under faults and splits, and room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, Action, BackoffConfig, BulkConfig, BulkWriter, Classifier, Container,
    ContainerSpec, CosmosFeed, CosmosReader, FeedConfig, Poison, Verdict, Write,
};
use tidefeed_operators::dead_letter::{DeadLetter, DeadLetters, MemoryDeadLetters};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::traffic::PartitionTraffic;
use tidefeed_runtime::{Error, ErrorKind, Result};
use tokio::time::timeout;

const DATABASE: &str = "shop";
const CONTAINER: &str = "orders";

async fn container_with(keys: &[&str]) -> (Emulator, Container) {
    container_on(EmulatorConfig::default(), keys).await
}

async fn container_on(config: EmulatorConfig, keys: &[&str]) -> (Emulator, Container) {
    let emulator = Emulator::start(config).unwrap();
    let config = AccountConfig::with_key(emulator.endpoint(), emulator.key());
    let account = Account::connect(&config).await.unwrap();
    let mut spec = ContainerSpec::new(DATABASE, CONTAINER, "/pk");
    spec.partition_key = keys.iter().map(|key| (*key).to_owned()).collect();
    let container = Container::create_if_absent(&account, &spec).await.unwrap();
    (emulator, container)
}

async fn container() -> (Emulator, Container) {
    container_with(&["/pk"]).await
}

/// The server in this machine carries out a request at once or never, and its faults do not depend on the pace.
fn quick() -> BulkConfig {
    BulkConfig {
        ambiguous_settle: Duration::from_millis(5),
        fault_settle: Duration::from_millis(5),
        throttled_share: 0.3,
        backoff: BackoffConfig {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(20),
            jitter: 0.5,
        },
        ..BulkConfig::default()
    }
}

async fn open(container: &Container, change: impl FnOnce(&mut BulkConfig)) -> BulkWriter {
    let mut config = quick();
    change(&mut config);
    BulkWriter::open(container, config).await.unwrap()
}

fn body(pk: &str, id: &str, n: u64) -> Bytes {
    json!({"id": id, "pk": pk, "n": n}).to_string().into()
}

fn upsert(pk: &str, id: &str, n: u64) -> Write {
    Write::new(json!([pk]).to_string(), id, Action::Upsert(body(pk, id, n)))
}

async fn contents(container: &Container) -> BTreeMap<String, Value> {
    let reader = CosmosReader::new(container.clone());
    reader.documents().await.unwrap()
}

async fn values(container: &Container) -> BTreeMap<String, u64> {
    let n = |(key, document): (String, Value)| (key, document["n"].as_u64().unwrap());
    contents(container).await.into_iter().map(n).collect()
}

fn bulk_fault(action: FaultAction) -> FaultRule {
    FaultRule::new(action).on(&[FaultOperation::Bulk])
}

#[tokio::test]
async fn every_kind_of_write_is_counted_as_what_became_of_it() {
    let (_emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    let first = writer.submit(vec![upsert("a", "1", 1)]).await.unwrap();
    let etag = first.await.unwrap().etag.expect("one write has an etag");
    let write = |id: &str, action| Write::new(r#"["a"]"#, id, action);
    let patch = Action::Patch {
        body: json!({"operations": [{"op": "increment", "path": "/n", "value": 5}]})
            .to_string()
            .into(),
        guarded: false,
    };
    let mixed = vec![
        write("1", Action::Create(body("a", "1", 9))),
        write("2", Action::Create(body("a", "2", 2))),
        write("none", Action::Delete),
        write("1", patch),
        upsert("a", "1", 9).if_match(etag),
        write("2", Action::Replace(body("a", "2", 3))),
        write("gone", Action::Replace(body("a", "gone", 3))),
    ];
    let summary = writer.submit(mixed).await.unwrap().await.unwrap();
    // Ignored: the create of what is there, and the one whose etag was changed by the patch.
    assert_eq!(
        (summary.written, summary.ignored, summary.dead),
        (4, 2, 1),
        "{summary:?}"
    );
    let refusal = summary.refusal.unwrap();
    assert_eq!(refusal.status, 404, "{refusal:?}");
    assert!(summary.charge_ru > 5.0);
    let expected = [(r#"["a","1"]"#, 6), (r#"["a","2"]"#, 3)];
    assert_eq!(
        values(&container).await,
        BTreeMap::from(expected.map(|(key, n)| (key.to_owned(), n)))
    );
    let flushed = writer.flush().await.unwrap();
    assert_eq!((flushed.written, flushed.dead), (5, 1));
    assert_eq!(writer.flush().await.unwrap().written, 0);
    let metrics = writer.metrics();
    assert_eq!((metrics.done.written, metrics.held_bytes), (5, 0));
    let total = metrics.total();
    assert_eq!((total.operations, total.in_flight, total.lost), (8, 0, 0));
    assert_eq!(total.failures[&(404, 0)], 2, "{:?}", total.failures);
    writer.close().await.unwrap();
}

#[tokio::test]
async fn documents_name_themselves() {
    #[derive(Serialize)]
    struct Order {
        id: &'static str,
        pk: Option<f64>,
        n: u64,
    }
    let (_emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    for (id, pk) in [("a", Some(1.0)), ("b", Some(-0.0)), ("c", None)] {
        writer.upsert(&Order { id, pk, n: 1 }).await.unwrap();
    }
    // Another way to write the same key: the order of the two is kept.
    writer.delete("[1.0]", "a").await.unwrap();
    writer.delete("[1]", "nothing").await.unwrap();
    let summary = writer.close().await.unwrap();
    assert_eq!((summary.written, summary.dead), (5, 0), "{summary:?}");
    let keys: Vec<_> = contents(&container).await.into_keys().collect();
    // As the document has it.
    assert_eq!(keys, [r#"[-0.0,"b"]"#, r#"[null,"c"]"#]);
}

#[tokio::test]
async fn keys_of_every_kind_go_to_their_partitions() {
    let keys = [
        "\"x\"", "\"\"", "7", "-0.5", "1e300", "true", "false", "null", "{}",
    ];
    for paths in [&["/pk"][..], &["/pk", "/b"], &["/pk", "/b", "/c"]] {
        let (emulator, container) = container_with(paths).await;
        let writer = open(&container, |_| {}).await;
        let mut writes = Vec::new();
        for (at, first) in keys.iter().enumerate() {
            for last in &keys {
                let values = [*first, "\"m\"", *last];
                let values = &values[..paths.len()];
                let fields = ["pk", "b", "c"].iter().zip(values);
                let fields: Vec<_> = fields
                    .filter(|(_, value)| **value != "{}")
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                let id = format!("{at}-{}", writes.len());
                let body = format!(
                    "{{\"id\":\"{id}\",{}\"n\":1}}",
                    fields.iter().map(|f| format!("{f},")).collect::<String>()
                );
                let key = format!("[{}]", values.join(","));
                writes.push(Write::new(key, id, Action::Upsert(body.into())));
            }
        }
        let count = writes.len();
        let summary = writer.submit(writes).await.unwrap().await.unwrap();
        assert_eq!(
            (summary.written, summary.dead),
            (count as u64, 0),
            "{summary:?}"
        );
        assert_eq!(contents(&container).await.len(), count);
        assert!(writer.metrics().partitions.len() > 1 || paths.len() > 1);
        // A wrong guess would have cost a second attempt.
        assert_eq!(writer.metrics().total().operations, count as u64);
        drop(emulator);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_sent() {
    let (_emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    let write = |key: &str, id: &str, body: &str| {
        Write::new(
            key,
            id,
            Action::Upsert(Bytes::copy_from_slice(body.as_bytes())),
        )
    };
    let cases = [
        (write("[1]", "a", "{\"id\":\"b\"}"), "has the id \"b\""),
        (write("[1]", "a", "{}"), "has no id"),
        (
            write("[1]", "a", "{\"id\":\"a\"},{\"id\":\"b\"}"),
            "no JSON object",
        ),
        (write("[1]", "a", "[]"), "no JSON object"),
        (write("[1]", "", "{\"id\":\"\"}"), "is empty or has"),
        (write("[1]", "a/b", "{\"id\":\"a/b\"}"), "is empty or has"),
        (write("[1,2]", "a", "{\"id\":\"a\"}"), "needs 1 values"),
        (write("[[1]]", "a", "{\"id\":\"a\"}"), "no scalar"),
    ];
    for (wrong, why) in cases {
        let writes = vec![upsert("fine", "fine", 1), wrong];
        let error = writer.submit(writes).await.err().expect(why);
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.report().contains(why), "{}", error.report());
    }
    assert_eq!(writer.close().await.unwrap().requests, 0);
}

#[tokio::test]
async fn a_document_that_is_refused_stops_a_writer_that_is_to_fail() {
    let (_emulator, container) = container().await;
    let writer = open(&container, |config| config.on_poison = Poison::Fail).await;
    let stray = Write::new(
        r#"["there"]"#,
        "stray",
        Action::Upsert(body("here", "stray", 1)),
    );
    let error = writer.submit(vec![stray]).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(
        error.report().contains("document stray"),
        "{}",
        error.report()
    );
    let later = writer.submit(vec![upsert("a", "1", 1)]).await.unwrap();
    assert_eq!(later.await.unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(
        writer.flush().await.unwrap_err().kind(),
        ErrorKind::Rejected
    );
    assert!(contents(&container).await.is_empty());
}

/// Letters that cannot be kept.
struct NoRoom;

#[async_trait]
impl DeadLetters for NoRoom {
    async fn put(&self, _: &[DeadLetter]) -> Result<()> {
        Err(Error::new(ErrorKind::Unreachable, "no room for letters"))
    }
}

/// Refused for good: its key is not what its body says.
fn stray(id: &str) -> Write {
    Write::new(r#"["there"]"#, id, Action::Upsert(body("here", id, 1)))
}

#[tokio::test]
async fn a_refused_write_goes_to_the_dead_letters_and_the_others_go_on() {
    let (_emulator, container) = container().await;
    let to_letters = |config: &mut BulkConfig| {
        config.on_poison = Poison::DeadLetter { per_minute: 2 };
    };
    let writer = open(&container, to_letters).await;
    let letters = Arc::new(MemoryDeadLetters::default());
    writer.keep_dead_letters("orders", letters.clone());
    let writes = vec![stray("1"), upsert("a", "fine", 1), stray("2")];
    let summary = writer.submit(writes).await.unwrap().await.unwrap();
    assert_eq!((summary.written, summary.dead), (1, 2), "{summary:?}");
    let mut kept = letters.letters();
    kept.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<_> = kept
        .iter()
        .map(|letter| (&*letter.sink, &*letter.id))
        .collect();
    assert_eq!(ids, [("orders", "1"), ("orders", "2")]);
    assert_eq!(
        (kept[0].status, kept[0].body.as_ref().unwrap()),
        (400, &body("here", "1", 1))
    );
    // A third in the same minute is too much.
    let error = writer
        .submit(vec![stray("3")])
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert!(
        error.report().contains("too many writes"),
        "{}",
        error.report()
    );
    assert_eq!(letters.letters().len(), 2);
    for place in [None, Some(Arc::new(NoRoom))] {
        let writer = open(&container, to_letters).await;
        let expected = match place {
            Some(place) => {
                writer.keep_dead_letters("orders", place);
                "no room for letters"
            }
            None => "no place for dead letters",
        };
        let error = writer
            .submit(vec![stray("1")])
            .await
            .unwrap()
            .await
            .unwrap_err();
        assert!(error.report().contains(expected), "{}", error.report());
    }
}

#[tokio::test]
async fn another_table_says_what_an_answer_means() {
    let (_emulator, container) = container().await;
    let table = Classifier::default().with(400, None, Verdict::Ignored);
    let writer = BulkWriter::open_with(&container, quick(), table).await;
    let receipt = writer.unwrap().submit(vec![stray("1")]).await.unwrap();
    let summary = receipt.await.unwrap();
    assert_eq!((summary.ignored, summary.dead), (1, 0), "{summary:?}");
}

#[tokio::test]
async fn a_closed_writer_takes_nothing_more() {
    let (_emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    let clone = writer.clone();
    for n in 0..1000 {
        writer
            .submit(vec![upsert("a", &n.to_string(), n)])
            .await
            .unwrap();
    }
    assert_eq!(writer.close().await.unwrap().written, 1000);
    assert_eq!(contents(&container).await.len(), 1000);
    let late = clone.submit(vec![upsert("a", "late", 1)]).await.unwrap();
    let error = late.await.unwrap_err();
    assert!(error.report().contains("closed"), "{}", error.report());
    assert_eq!(contents(&container).await.len(), 1000);
}

/// Resolves when the server has a bulk request in its hands.
async fn frozen(emulator: &Emulator) {
    while emulator.fault_hits() == [0] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_full_writer_makes_callers_wait() {
    let (emulator, container) = container().await;
    let writer = open(&container, |config| {
        config.max_batch_bytes = 10_000;
        config.max_buffered_bytes = 20_000;
    })
    .await;
    emulator
        .set_faults(1, vec![bulk_fault(FaultAction::Freeze)])
        .unwrap();
    // One document, and so one partition: half of all room is its.
    let mut receipts = Vec::new();
    let blocked = loop {
        let n = receipts.len() as u64;
        let submitting = writer.submit(vec![upsert("a", "1", n)]);
        match timeout(Duration::from_millis(200), submitting).await {
            Ok(receipt) => receipts.push(receipt.unwrap()),
            Err(_) => break n,
        }
    };
    assert!(
        (15..25).contains(&blocked),
        "{blocked} writes that take about 550 bytes each in 10,000"
    );
    assert!(writer.metrics().held_bytes <= 20_000);
    emulator.clear_faults();
    for receipt in receipts {
        assert_eq!(receipt.await.unwrap().written, 1);
    }
    // The call that was given up on left nothing behind.
    let flushed = writer.close().await.unwrap();
    assert_eq!(flushed.written, blocked);
    let last = BTreeMap::from([(r#"["a","1"]"#.to_owned(), blocked - 1)]);
    assert_eq!(values(&container).await, last);
}

#[tokio::test]
async fn a_withdrawn_write_is_not_sent_any_more() {
    let (emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    emulator
        .set_faults(1, vec![bulk_fault(FaultAction::Freeze)])
        .unwrap();
    let sent = writer.submit(vec![upsert("a", "1", 1)]).await.unwrap();
    frozen(&emulator).await;
    let waiting = writer.submit(vec![upsert("a", "1", 2)]).await.unwrap();
    drop(waiting.withdraw_on_drop());
    emulator.clear_faults();
    assert_eq!(sent.await.unwrap().written, 1);
    assert_eq!(writer.close().await.unwrap().written, 1);
    assert_eq!(values(&container).await[r#"["a","1"]"#], 1);
}

/// Nothing is dropped, and somebody can see it.
#[tokio::test]
async fn a_writer_that_stands_still_says_for_how_long_and_goes_on() {
    let (emulator, container) = container().await;
    let writer = open(&container, |config| {
        config.stalled_after = Duration::from_millis(10);
    })
    .await;
    assert_eq!(writer.metrics().stalled_s, 0.0);
    emulator
        .set_faults(1, vec![bulk_fault(FaultAction::status(503))])
        .unwrap();
    let receipt = writer.submit(vec![upsert("a", "1", 1)]).await.unwrap();
    let stalled = async {
        while writer.metrics().stalled_s < 0.05 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), stalled)
        .await
        .expect("it shows");
    let total = writer.metrics().partitions.into_values();
    let failures: Vec<_> = total.filter_map(|one| one.last_failure).collect();
    assert_eq!(failures, [(503, 0)]);
    emulator.clear_faults();
    assert_eq!(receipt.await.unwrap().written, 1);
    writer.flush().await.unwrap();
    assert_eq!(writer.metrics().stalled_s, 0.0);
}

#[tokio::test]
async fn a_partition_that_stands_still_holds_up_no_other() {
    let (emulator, container) = container().await;
    let writer = open(&container, |config| {
        config.max_batch_bytes = 50_000;
        config.max_buffered_bytes = 100_000;
    })
    .await;
    // One write says where its key is; every partition gets some keys.
    let mut of_partition: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for n in 0..40 {
        let pk = format!("pk{n}");
        let before = writer.metrics();
        let receipt = writer.submit(vec![upsert(&pk, "where", 0)]).await.unwrap();
        receipt.await.unwrap();
        let requests = |metrics: &BTreeMap<String, _>, name: &str| {
            metrics
                .get(name)
                .map_or(0, |one: &tidefeed_operators::cosmos::PartitionMetrics| {
                    one.requests
                })
        };
        let after = writer.metrics().partitions;
        let grown = |name: &&String| requests(&after, name) > requests(&before.partitions, name);
        let name = after.keys().find(grown).unwrap();
        of_partition.entry(name.clone()).or_default().push(pk);
    }
    assert_eq!(of_partition.len(), 4);
    let (hot, hot_keys) = of_partition.pop_first().unwrap();
    let freeze = bulk_fault(FaultAction::Freeze).in_partition(hot.parse().unwrap());
    emulator.set_faults(1, vec![freeze]).unwrap();
    let flood = {
        let (writer, pk) = (writer.clone(), hot_keys[0].clone());
        tokio::spawn(async move {
            for n in 0..1000 {
                writer
                    .submit(vec![upsert(&pk, &n.to_string(), n)])
                    .await
                    .unwrap();
            }
        })
    };
    frozen(&emulator).await;
    // Far more than fits beside what stands still, if that had all the room.
    for n in 0..2000 {
        for keys in of_partition.values() {
            let write = upsert(&keys[n as usize % keys.len()], "cold", n);
            timeout(Duration::from_secs(20), writer.submit(vec![write]))
                .await
                .unwrap()
                .unwrap();
        }
    }
    assert!(!flood.is_finished());
    emulator.clear_faults();
    flood.await.unwrap();
    let closed = writer.close().await.unwrap();
    assert_eq!((closed.written, closed.dead), (40 + 1000 + 6000, 0));
}

/// How much is written, and by how many callers.
#[derive(Clone, Copy)]
struct Load {
    documents: u64,
    updates: u64,
    callers: u64,
    /// Of the container, in RU/s.
    throughput: u32,
}

/// Many updates of few documents, while the server throttles, fails, loses answers and splits partitions. Whoever reads the
/// feed meanwhile sees every document only grow, and in the end the last update.
async fn ordered(seed: u64, load: Load) {
    // It throttles for real: at this limit.
    let config = EmulatorConfig {
        throughput: Some(load.throughput),
        ..EmulatorConfig::default()
    };
    let (emulator, container) = container_on(config, &["/pk"]).await;
    let writer = open(&container, |_| {}).await;
    let item = |status| FaultRule::new(FaultAction::status(status)).on(&[FaultOperation::BulkItem]);
    let rules = vec![
        bulk_fault(FaultAction::status(503)).probability(0.005),
        bulk_fault(FaultAction::status(408)).probability(0.005),
        bulk_fault(FaultAction::DropBefore).probability(0.005),
        bulk_fault(FaultAction::DropAfter).probability(0.01),
        item(449).probability(0.002),
    ];
    emulator.set_faults(seed, rules).unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(container.clone(), is_done.clone(), seed));
    let callers = (0..load.callers).map(|caller| {
        let writer = writer.clone();
        tokio::spawn(async move { update(&writer, seed, caller, load).await })
    });
    let callers = join_all(callers);
    let splitting = async {
        let mut ranges = 0..;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // A container of so much throughput does not begin with its first ranges.
            ranges.find(|range| emulator.split(DATABASE, CONTAINER, *range).is_ok());
        }
    };
    let (last, ()) = tokio::join!(callers, splitting);
    let closed = writer.close().await.unwrap();
    assert_eq!(
        (closed.written, closed.dead),
        (load.updates, 0),
        "seed {seed}"
    );
    emulator.clear_faults();
    is_done.store(true, Ordering::Release);
    let reads = watching.await.unwrap();
    let last: BTreeMap<String, u64> = last.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(values(&container).await, last, "seed {seed}");
    assert!(reads > 0, "seed {seed}");
}

/// Updates this caller's share of the documents in random order. Returns the last value of each.
async fn update(writer: &BulkWriter, seed: u64, caller: u64, load: Load) -> BTreeMap<String, u64> {
    let mut random = fastrand::Rng::with_seed(seed ^ (caller << 32));
    let mut last = BTreeMap::new();
    let mut receipts = Vec::new();
    let own = load.documents / load.callers;
    let mut left = load.updates / load.callers;
    let mut n = 0;
    while left > 0 {
        let count = random.u64(1..=300).min(left);
        left -= count;
        let writes = (0..count).map(|_| {
            n += 1;
            let document = caller * own + random.u64(0..own);
            let (pk, id) = (format!("p{}", document % 50), document.to_string());
            last.insert(json!([pk, id]).to_string(), n);
            upsert(&pk, &id, n)
        });
        receipts.push(writer.submit(writes.collect()).await.unwrap());
    }
    let summaries = join_all(receipts).await;
    let written: u64 = summaries.into_iter().map(|one| one.unwrap().written).sum();
    assert_eq!(written, load.updates / load.callers, "seed {seed}");
    last
}

/// Reads the feed again and again. Returns how many changes it saw.
async fn watch(container: Container, is_done: Arc<AtomicBool>, seed: u64) -> u64 {
    let feed = CosmosFeed::new(container, FeedConfig::default()).unwrap();
    let ranges = feed.ranges().await.unwrap();
    let pages = ranges
        .iter()
        .map(|range| feed.open(range, Start::Beginning));
    let mut pages: Vec<_> = join_all(pages)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let (mut seen, mut reads) = (BTreeMap::new(), 0);
    loop {
        let was_done = is_done.load(Ordering::Acquire);
        let mut is_quiet = true;
        for pages in &mut pages {
            let page = pages.next_page().await.unwrap();
            is_quiet &= page.caught_up;
            for record in page.records {
                let document: Value = serde_json::from_slice(&record.body.unwrap()).unwrap();
                let n = document["n"].as_u64().unwrap();
                let before = seen.insert(record.key, n).unwrap_or(0);
                assert!(n >= before, "seed {seed}: {document} after {before}");
                reads += 1;
            }
        }
        if was_done && is_quiet {
            return reads;
        }
        if is_quiet {
            // Else it would take the processor from those that it watches.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap())
}

/// `TIDEFEED_ORDER_SEEDS` says how many seeds, `TIDEFEED_SEED` repeats one, `TIDEFEED_ORDER_UPDATES` how many updates each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_take_effect_in_their_order_whatever_happens_on_the_way() {
    let updates = number_from("TIDEFEED_ORDER_UPDATES").unwrap_or(4_000);
    let is_large = updates > 100_000;
    let load = Load {
        documents: if is_large { 1000 } else { 100 },
        updates,
        callers: 4,
        throughput: if is_large { 400_000 } else { 60_000 },
    };
    let seeds = match number_from("TIDEFEED_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("TIDEFEED_ORDER_SEEDS").unwrap_or(20),
    };
    for seed in seeds {
        ordered(seed, load).await;
    }
}

#[tokio::test]
async fn a_halted_writer_answers_everybody() {
    let (emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    emulator
        .set_faults(1, vec![bulk_fault(FaultAction::Freeze)])
        .unwrap();
    let sent = writer.submit(vec![upsert("a", "1", 1)]).await.unwrap();
    frozen(&emulator).await;
    let mut waiting = writer.submit(vec![upsert("a", "1", 2)]).await.unwrap();
    assert!((&mut waiting).now_or_never().is_none());
    writer.halt();
    waiting.await.unwrap_err();
    emulator.clear_faults();
    // It was on its way, and has come to its end.
    assert_eq!(sent.await.unwrap().written, 1);
    assert_eq!(values(&container).await[r#"["a","1"]"#], 1);
}

/// What is told to be in flight is what the server holds, by partition; and when all is answered, nothing is.
#[tokio::test]
async fn traffic_is_what_the_server_holds_and_has_answered() {
    let (emulator, container) = container().await;
    let writer = open(&container, |_| {}).await;
    let traffic = writer.traffic();
    assert!(traffic.traffic().is_empty());
    emulator
        .set_faults(1, vec![bulk_fault(FaultAction::Freeze)])
        .unwrap();
    let writes = (0..40).map(|n| upsert(&format!("pk{n}"), "1", n)).collect();
    let receipt = writer.submit_last(writes).await.unwrap();
    let in_flight = || -> u64 { traffic.traffic().values().map(|one| one.in_flight).sum() };
    let held = async {
        // Four partitions get a request each at least. What is sent is with the server a little later.
        while emulator.fault_hits()[0] < 4 || emulator.fault_hits() != [in_flight()] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), held)
        .await
        .unwrap_or_else(|_| panic!("{:?}, and {:?}", emulator.fault_hits(), traffic.traffic()));
    let held = traffic.traffic();
    assert_eq!(held.len(), 4, "{held:?}");
    for one in held.values() {
        let nothing_yet = (one.documents, one.requests, one.charge_ru);
        assert!(one.in_flight >= 1 && nothing_yet == (0, 0, 0.0), "{held:?}");
    }
    emulator.clear_faults();
    let summary = receipt.await.unwrap();
    assert_eq!(in_flight(), 0);
    let told = traffic.traffic();
    let all = |of: fn(&PartitionTraffic) -> f64| -> f64 { told.values().map(of).sum() };
    assert_eq!(all(|one| one.documents as f64), 40.0);
    assert_eq!(all(|one| one.requests as f64), summary.requests as f64);
    assert!((all(|one| one.charge_ru) - summary.charge_ru).abs() < 1e-6);
    writer.close().await.unwrap();
    assert_eq!(traffic.traffic(), told, "it outlives the writer");
}
