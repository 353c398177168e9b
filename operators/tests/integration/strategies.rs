//! Every strategy and every conditional write on the embedded server, with the container in memory as the oracle.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosTarget,
    FeedConfig, Policy,
};
use tidefeed_operators::document::{DocumentEncoder, ViewDocument};
use tidefeed_operators::fold::{ViewUpdate, fold};
use tidefeed_operators::memory::MemoryContainer;
use tidefeed_operators::strategy::{
    PatchOperation, PatchSpec, PatchWrite, RowKind, Strategy, WriteRule,
};
use tidefeed_operators::target::{Applied, DocumentAction, DocumentWrite, Target};
use tidefeed_runtime::Epoch;

use super::conformance::read_feed;

type Documents = BTreeMap<String, Value>;

/// A container on a server of its own.
struct Server {
    emulator: Emulator,
    target: CosmosTarget,
    feed: CosmosFeed,
}

impl Server {
    async fn start(policy: Policy) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        let config = AccountConfig::with_key(emulator.endpoint(), emulator.key());
        let account = Account::connect(&config).await.unwrap();
        let spec = ContainerSpec::new("strategies", "documents", "/pk");
        let container = Container::create_if_absent(&account, &spec).await.unwrap();
        let feed = FeedConfig {
            keep_system_properties: vec!["_etag".to_owned()],
            ..FeedConfig::default()
        };
        let bulk = BulkConfig {
            policy,
            ambiguous_settle: Duration::from_millis(5),
            fault_settle: Duration::from_millis(5),
            throttled_share: 0.3,
            ..BulkConfig::default()
        };
        Server {
            target: CosmosTarget::open(container.clone(), bulk).await.unwrap(),
            feed: CosmosFeed::new(container, feed).unwrap(),
            emulator,
        }
    }

    /// The documents, and their etags.
    async fn contents(&self) -> (Documents, BTreeMap<String, String>) {
        let mut documents = read_feed(&self.feed).await;
        let etag = |(key, document): (&String, &mut Value)| {
            let etag = document.as_object_mut().unwrap().remove("_etag").unwrap();
            (key.clone(), etag.as_str().unwrap().to_owned())
        };
        let etags = documents.iter_mut().map(etag).collect();
        (documents, etags)
    }

    async fn apply(&self, writes: Vec<DocumentWrite>) -> Applied {
        self.target.apply(writes).await.unwrap()
    }
}

fn in_memory(container: &MemoryContainer) -> Documents {
    let document = |(key, body): (&String, &bytes::Bytes)| {
        (key.clone(), serde_json::from_slice(body).unwrap())
    };
    container.contents().iter().map(document).collect()
}

fn pk_of(id: usize) -> String {
    format!("p{}", id % 3)
}

fn document(id: usize, random: &mut fastrand::Rng) -> Value {
    json!({"id": id.to_string(), "pk": pk_of(id), "n": random.i64(0..9_000_000_000_000_000), "list": [random.u8(..)]})
}

fn patch(id: usize, random: &mut fastrand::Rng) -> PatchWrite {
    let mut operations = vec![
        PatchOperation::Increment {
            path: "/n".into(),
            by: json!(random.i64(-1000..1000)),
        },
        PatchOperation::Set {
            path: "/s".into(),
            value: json!({"x": random.u8(..)}),
        },
        PatchOperation::Add {
            path: "/list/-".into(),
            value: json!(random.u8(..)),
        },
        PatchOperation::Add {
            path: "/list/0".into(),
            value: json!(random.u8(..)),
        },
        PatchOperation::Remove { path: "/s".into() },
    ];
    random.shuffle(&mut operations);
    operations.truncate(random.usize(1..=5));
    let epoch = random.u64(1..30);
    let mut created = document(id, random);
    created["_epoch"] = json!(epoch);
    let stamped = random.u8(0..4) > 0;
    PatchWrite {
        operations,
        condition: None,
        epoch: stamped.then_some(epoch),
        create: (stamped && random.bool()).then(|| created.to_string().into()),
    }
}

/// The same write for both containers, but that each has etags of its own.
fn write(id: usize, etags: [Option<String>; 2], random: &mut fastrand::Rng) -> [DocumentWrite; 2] {
    let body: bytes::Bytes = document(id, random).to_string().into();
    let if_match = match random.u8(0..3) {
        0 => [None, None],
        1 => [(); 2].map(|()| Some("\"another\"".into())),
        _ => etags.map(|etag| Some(etag.unwrap_or_else(|| "\"none\"".into()).into())),
    };
    let kind = random.u8(0..6);
    let patch = Box::new(patch(id, random));
    if_match.map(|if_match| {
        let body = body.clone();
        let action = match kind {
            0 => DocumentAction::Upsert(body),
            1 => DocumentAction::Create(body),
            2 => DocumentAction::Replace { body, if_match },
            3 => DocumentAction::Delete { if_match },
            _ => DocumentAction::Patch(patch.clone()),
        };
        DocumentWrite::new(json!([pk_of(id)]).to_string(), id.to_string(), action)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_writes_do_the_same_on_the_server_and_in_memory() {
    for (policy, seed) in [
        (Policy::Bulk, 1),
        (Policy::Transactional, 2),
        (Policy::Point, 3),
    ] {
        let server = Server::start(policy).await;
        let memory = MemoryContainer::new(Default::default());
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ignored = 0;
        for round in 0..60 {
            let (_, etags) = server.contents().await;
            let mut batches = [Vec::new(), Vec::new()];
            for id in 0..20 {
                let key = json!([pk_of(id), id.to_string()]).to_string();
                let etags = [etags.get(&key).cloned(), memory.etag_of(&key)];
                let [on_server, in_memory] = write(id, etags, &mut random);
                batches[0].push(on_server);
                batches[1].push(in_memory);
            }
            let [on_server, of_memory] = batches;
            let applied = server.apply(on_server).await;
            let expected = memory.apply(of_memory).await.unwrap();
            assert_eq!(
                applied.ignored, expected.ignored,
                "seed {seed}, round {round}"
            );
            let (found, _) = server.contents().await;
            assert_eq!(found, in_memory(&memory), "seed {seed}, round {round}");
            ignored += applied.ignored;
        }
        assert!(ignored > 100, "{ignored}");
    }
}

fn update(encoder: &DocumentEncoder, row: &Value, epoch: u64, diff: isize) -> ViewUpdate {
    (encoder.encode(row).unwrap(), epoch, diff)
}

/// A row of document `id`.
fn row(id: &str, n: i64) -> Value {
    json!({"id": id, "pk": "p", "n": n, "_ts": 1})
}

/// Two documents are there, `old` and `kept`. Rows come for `old` and `new`, with `with` added; the one of `old` changes, and
/// then that of `new` goes. Returns what is there afterwards, without the partition key, and the counts of ignored writes.
async fn after(server: &Server, strategy: Strategy, with: Value) -> (Documents, u64) {
    let own = |id: &str| {
        let document = json!({"id": id, "pk": "p", "n": 100, "own": true});
        DocumentWrite::upsert(r#"["p"]"#, id, document.to_string())
    };
    let new = DocumentWrite::delete(r#"["p"]"#, "new");
    server.apply(vec![own("old"), own("kept"), new]).await;
    let encoder = DocumentEncoder::new("view", &["/pk".to_owned()]).unwrap();
    let (encoder, rule) = match strategy.reads_etag() {
        true => (encoder.keep_etag(), strategy),
        false => (encoder, strategy),
    };
    let rule = WriteRule {
        strategy: rule,
        ..WriteRule::default()
    };
    rule.validate().unwrap();
    let row = |id: &str, n: i64| {
        let mut row = row(id, n);
        let fields = with.as_object().unwrap().clone();
        row.as_object_mut().unwrap().extend(fields);
        row
    };
    let epochs = [
        vec![(row("old", 1), 1), (row("new", 2), 1)],
        vec![(row("old", 1), -1), (row("old", 4), 1)],
        vec![(row("new", 2), -1)],
    ];
    let mut ignored = 0;
    for (rows, epoch) in epochs.into_iter().zip(5..) {
        let rows = rows
            .iter()
            .map(|(row, diff)| update(&encoder, row, epoch, *diff));
        let writes = fold(rows.collect(), &rule, Epoch(0)).unwrap();
        ignored += server.apply(writes).await.ignored;
    }
    let mut documents = Documents::new();
    for (key, mut document) in server.contents().await.0 {
        document.as_object_mut().unwrap().remove("pk");
        let id: Vec<String> = serde_json::from_str(&key).unwrap();
        documents.insert(id[1].clone(), document);
    }
    assert_eq!(
        documents.remove("kept"),
        Some(json!({"id": "kept", "n": 100, "own": true})),
        "nobody named it"
    );
    (documents, ignored)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_strategy_leaves_what_it_says() {
    let server = Server::start(Policy::Bulk).await;
    let none = || json!({});
    let of = async |strategy| after(&server, strategy, none()).await;
    let documents = |documents: Vec<Value>| -> Documents {
        let by_id = |document: Value| (document["id"].as_str().unwrap().to_owned(), document);
        documents.into_iter().map(by_id).collect()
    };
    let old = json!({"id": "old", "n": 100, "own": true});
    let new = json!({"id": "new", "n": 2});
    let written = json!({"id": "old", "n": 4});

    assert_eq!(
        of(Strategy::Upsert).await,
        (documents(vec![written.clone()]), 0)
    );
    // The second row of `old` is not new; the first finds a document.
    let inserted = (documents(vec![old.clone(), new.clone()]), 1);
    assert_eq!(of(Strategy::Insert).await, inserted);
    assert_eq!(of(Strategy::Replace).await, (documents(vec![written]), 1));
    assert_eq!(of(Strategy::Delete).await, (documents(vec![]), 0));

    let sum = || PatchSpec::new().increment("/n");
    let summed = json!({"id": "old", "n": 104, "own": true, "_epoch": 6});
    // Patches of `new`, when it comes and goes, find no document.
    let expected = (documents(vec![summed.clone()]), 2);
    assert_eq!(of(Strategy::Patch(sum())).await, expected);
    let gone = json!({"id": "new", "n": 0, "_epoch": 7});
    let expected = (documents(vec![summed, gone]), 0);
    assert_eq!(of(Strategy::Patch(sum().create_missing())).await, expected);
    let once = json!({"id": "old", "n": 101, "own": true, "_epoch": 5});
    let conditional = sum().condition("FROM d WHERE d.n < 101");
    let expected = (documents(vec![once]), 3);
    assert_eq!(of(Strategy::Patch(conditional)).await, expected);
    let set = PatchSpec::new().set("/n").remove_absent("/own");
    let expected = (documents(vec![json!({"id": "old", "n": 4})]), 1);
    assert_eq!(of(Strategy::Patch(set)).await, expected);

    // Another etag, and none.
    let other = || json!({"_etag": "\"other\""});
    let overwrite = Strategy::OverwriteIfNotModified;
    let untouched = (documents(vec![old.clone()]), 3);
    assert_eq!(after(&server, overwrite.clone(), other()).await, untouched);
    let created = (documents(vec![old.clone(), new.clone()]), 2);
    assert_eq!(of(overwrite).await, created);
    let delete = Strategy::DeleteIfNotModified;
    assert_eq!(after(&server, delete.clone(), other()).await, untouched);
    assert_eq!(of(delete).await, (documents(vec![]), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_etag_of_a_row_decides() {
    let server = Server::start(Policy::Bulk).await;
    let own = |id: &str| DocumentWrite::upsert(r#"["p"]"#, id, row(id, 100).to_string());
    let encoder = DocumentEncoder::new("view", &["/pk".to_owned()]).unwrap();
    let encoder = encoder.keep_etag();
    for strategy in [
        Strategy::OverwriteIfNotModified,
        Strategy::DeleteIfNotModified,
    ] {
        server.apply(vec![own("same"), own("modified")]).await;
        let (_, etags) = server.contents().await;
        server.apply(vec![own("modified")]).await;
        let rule = WriteRule {
            strategy: strategy.clone(),
            ..WriteRule::default()
        };
        let rows = ["same", "modified"].map(|id| {
            let mut row = row(id, 7);
            row["_etag"] = json!(etags[&json!(["p", id]).to_string()]);
            update(&encoder, &row, 5, 1)
        });
        let writes = fold(rows.into(), &rule, Epoch(0)).unwrap();
        assert_eq!(server.apply(writes.clone()).await.ignored, 1);
        // A replay: what was written is another version now, or gone.
        assert_eq!(server.apply(writes).await.ignored, 2);
        let (found, _) = server.contents().await;
        let n = |id: &str| {
            found
                .get(&json!(["p", id]).to_string())
                .map(|row| row["n"].clone())
        };
        let same = match strategy {
            Strategy::OverwriteIfNotModified => Some(json!(7)),
            _ => None,
        };
        assert_eq!((n("same"), n("modified")), (same, Some(json!(100))));
    }
}

/// Answers are lost after the server has acted, requests before; and every epoch is replayed now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_have_their_effect_once_whatever_gets_lost() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start(Policy::Bulk).await;
    let rule = WriteRule {
        strategy: Strategy::Patch(PatchSpec::new().increment("/n").create_missing()),
        rows: RowKind::Stream,
        stamp_epoch: false,
    };
    let fault = |action| FaultRule::new(action).on(&[FaultOperation::Bulk]);
    let faults = vec![
        fault(FaultAction::status(503)).probability(0.05),
        fault(FaultAction::DropBefore).probability(0.05),
        fault(FaultAction::DropAfter).probability(0.1),
    ];
    server.emulator.set_faults(seed, faults).unwrap();
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..=40 {
        let mut records: Vec<ViewUpdate> = Vec::new();
        for position in 0..30 {
            let (id, n) = (random.usize(0..12), random.i64(-50..100));
            *expected.entry(id.to_string()).or_default() += n;
            let record = json!({"id": id.to_string(), "pk": pk_of(id), "n": n});
            records.push((
                ViewDocument {
                    partition_key: json!([pk_of(id)]).to_string().into(),
                    id: id.to_string().into(),
                    body: record.to_string().into_bytes().into(),
                    position,
                },
                epoch,
                1,
            ));
        }
        let writes = fold(records, &rule, Epoch(0)).unwrap();
        server.apply(writes.clone()).await;
        if random.bool() {
            server.apply(writes).await;
        }
    }
    server.emulator.clear_faults();
    let (found, _) = server.contents().await;
    let found: BTreeMap<String, i64> = found
        .values()
        .map(|row| {
            (
                row["id"].as_str().unwrap().to_owned(),
                row["n"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, expected, "seed {seed}");
}
