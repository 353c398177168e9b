//! Against the embedded server.

use std::collections::BTreeMap;

use azure_data_cosmos::models::PartitionKeyDefinition;
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig, FaultAction, FaultOperation, FaultRule};

use super::*;
use crate::cosmos::bulk::epk::Hasher;
use crate::cosmos::bulk::routing::RoutingMap;

struct Server {
    emulator: Emulator,
    wire: Wire,
    hasher: Hasher,
    paths: &'static [&'static str],
}

impl Server {
    /// With a container that is partitioned by `paths`.
    async fn start(partitions: usize, paths: &'static [&'static str]) -> Self {
        let emulator = Emulator::start(EmulatorConfig {
            partitions,
            ..EmulatorConfig::default()
        })
        .unwrap();
        let wire = wire_to(&emulator, emulator.key());
        let keys = paths.iter().map(|&path| path.into()).collect::<Vec<_>>();
        let server = Server {
            wire,
            hasher: Hasher::new(PartitionKeyDefinition::new(keys)).unwrap(),
            emulator,
            paths,
        };
        let created = server
            .post("dbs", "", "/dbs", &[], json!({"id": DATABASE}))
            .await;
        assert_eq!(created.status, StatusCode::CREATED);
        server.create_container().await;
        server
    }

    async fn create_container(&self) {
        let (link, path) = self.database();
        let kind = if self.paths.len() > 1 {
            "MultiHash"
        } else {
            "Hash"
        };
        let key = json!({"paths": self.paths, "kind": kind, "version": 2});
        let container = json!({"id": CONTAINER, "partitionKey": key});
        let created = self
            .post("colls", &link, &format!("{path}/colls"), &[], container)
            .await;
        assert_eq!(created.status, StatusCode::CREATED);
    }

    fn database(&self) -> (String, String) {
        let database = |text: &str| text.split("/colls/").next().unwrap().to_owned();
        (database(&self.wire.link), database(&self.wire.path))
    }

    async fn post(
        &self,
        kind: &'static str,
        link: &str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Value,
    ) -> Reply {
        let call = Call {
            method: Method::POST,
            resource: Resource { kind, link },
            path: path.to_owned(),
            headers: header_map(headers),
            body: bytes(body),
        };
        let pool = self.wire.account.1.clone();
        self.wire.call(&pool, call).await.unwrap()
    }

    /// Writes a document by itself, and returns the range that the server found for it.
    async fn point_write(&self, partition_key: &str, id: &str) -> String {
        let key = ("x-ms-documentdb-partitionkey", partition_key);
        let upsert = ("x-ms-documentdb-is-upsert", "True");
        let (link, path) = (&self.wire.link, format!("{}/docs", self.wire.path));
        let body = self.document(partition_key, id);
        let reply = self.post("docs", link, &path, &[key, upsert], body).await;
        assert!(
            reply.status.is_success(),
            "{partition_key}: {}",
            reply.message()
        );
        reply.text(RANGE_ID.as_str()).unwrap().to_owned()
    }

    fn document(&self, partition_key: &str, id: &str) -> Value {
        let mut document = json!({"id": id, "text": "x"});
        let values: Vec<Value> = serde_json::from_str(partition_key).unwrap();
        for (path, value) in self.paths.iter().zip(values) {
            if !value.is_object() {
                document[&path[1..]] = value;
            }
        }
        document
    }

    fn upsert(&self, partition_key: &str, id: &str) -> Arc<Operation> {
        let body = bytes(self.document(partition_key, id));
        let to = self.hasher.routing_key(partition_key).unwrap();
        routed(partition_key, id, Action::Upsert(body), to)
    }

    async fn map(&self) -> RoutingMap {
        RoutingMap::of(self.wire.ranges().await.unwrap().records).unwrap()
    }

    fn fault(&self, action: FaultAction) {
        let rule = FaultRule::new(action).on(&[FaultOperation::Bulk]).times(1);
        self.emulator.set_faults(1, vec![rule]).unwrap();
    }
}

fn wire_to(emulator: &Emulator, key: &str) -> Wire {
    let timeouts = WireConfig::default().timeouts;
    wire_with(emulator.endpoint(), key, open_gate(), timeouts)
}

/// The server is the oracle: where it puts a document written by itself, and whether it takes a batch for that range.
async fn keys_are_where_the_server_puts_them(
    partitions: usize,
    paths: &'static [&'static str],
    keys: &[String],
) {
    let server = Server::start(partitions, paths).await;
    let map = server.map().await;
    assert_eq!(map.ranges().len(), partitions);
    let mut batches: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for key in keys {
        let operation = server.upsert(key, "a");
        let at = map.position_of(&operation.routing);
        let range = map.ranges()[at].id.as_str();
        assert_eq!(server.point_write(key, "a").await, range, "{key}");
        batches.entry(at).or_default().push(operation);
    }
    assert!(batches.len() > partitions / 2, "the keys are spread");
    let mut sent = 0;
    for (at, operations) in batches {
        for batch in operations.chunks(100) {
            let answer = server.wire.send(&map.ranges()[at].id, batch).await.unwrap();
            assert_eq!(answer.status, 200);
            // It is there already, so the batch found the same document.
            assert!(answer.results.iter().all(|result| result.status == 200));
            sent += answer.results.len();
        }
    }
    assert_eq!(sent, keys.len());
}

#[tokio::test]
async fn single_keys_are_where_the_server_puts_them() {
    let special = [
        "null",
        "{}",
        "true",
        "false",
        "\"\"",
        "0",
        "-0.0",
        "-0",
        "1e300",
        "-1.5",
        "\"ä\\\"\\u0001\"",
    ];
    let text = |at: u32| format!("[\"key {at}\"]");
    let mut keys: Vec<_> = special.iter().map(|key| format!("[{key}]")).collect();
    keys.extend((0..60).map(text));
    keys.extend((0..60).map(|at| format!("[{}]", f64::from(at) * 1.7 - 3.0)));
    // Longer than the part of a text that is hashed as it is.
    keys.extend((1..5).map(|at| format!("[\"{}\"]", "long ".repeat(at * 50))));
    keys_are_where_the_server_puts_them(32, &["/key"], &keys).await;
}

#[tokio::test]
async fn hierarchical_keys_are_where_the_server_puts_them() {
    let values = ["\"a\"", "\"b\"", "7", "-0.0", "null", "true", "{}"];
    let pairs = values
        .iter()
        .flat_map(|a| values.iter().map(move |b| format!("{a},{b}")));
    let pairs: Vec<_> = pairs.collect();
    let two: Vec<_> = pairs.iter().map(|pair| format!("[{pair}]")).collect();
    keys_are_where_the_server_puts_them(8, &["/a", "/b"], &two).await;
    let three = pairs.iter().map(|pair| format!("[{pair},\"c\"]"));
    let three: Vec<_> = three
        .chain(pairs.iter().map(|pair| format!("[{pair},{{}}]")))
        .collect();
    keys_are_where_the_server_puts_them(8, &["/a", "/b", "/c"], &three).await;
}

#[tokio::test]
async fn results_are_in_the_order_of_the_operations() {
    let server = Server::start(2, &["/key"]).await;
    let map = server.map().await;
    let at = map.position_of(&server.hasher.routing_key("[\"k\"]").unwrap());
    let range = &map.ranges()[at].id;
    server.point_write("[\"k\"]", "there").await;
    let body = |id: &str| bytes(server.document("[\"k\"]", id));
    let of = |id, action| operation("[\"k\"]", id, action);
    let patch = Action::Patch {
        body: bytes(json!({"operations": [{"op": "set", "path": "/text", "value": "y"}]})),
        guarded: false,
    };
    let mut wrong_version = of("there", Action::Delete);
    Arc::make_mut(&mut wrong_version).if_match = Some("\"another\"".into());
    let elsewhere = (0..)
        .map(|n| format!("[{n}]"))
        .find(|key| map.position_of(&server.hasher.routing_key(key).unwrap()) != at)
        .unwrap();
    let operations = [
        of("new", Action::Upsert(body("new"))),
        of("there", Action::Create(body("there"))),
        wrong_version,
        of("missing", Action::Replace(body("missing"))),
        of("there", Action::Replace(body("there"))),
        server.upsert(&elsewhere, "x"),
        of("there", patch),
        of("there", Action::Upsert(body("another"))),
        of("missing", Action::Delete),
        of("there", Action::Delete),
    ];
    let answer = server.wire.send(range, &operations).await.unwrap();
    assert_eq!(answer.status, 207);
    let statuses: Vec<_> = answer.results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [201, 409, 412, 404, 200, 410, 200, 201, 404, 204]);
    assert_eq!(answer.results[5].sub_status, 1002);
    assert!(answer.results[0].etag.is_some() && answer.results[9].etag.is_none());
    assert!(answer.results[1].message.is_some());
    assert!(answer.charge_ru > 0.0 && !answer.activity_id.is_empty());
    let sum: f64 = answer.results.iter().map(|result| result.charge_ru).sum();
    assert!(
        (sum - answer.charge_ru).abs() < 0.01,
        "{sum} {}",
        answer.charge_ru
    );
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_says_why() {
    let server = Server::start(1, &["/key"]).await;
    let range = server.map().await.ranges()[0].id.clone();
    let batch = [server.upsert("[1]", "a")];
    server.fault(FaultAction::Status {
        status: 429,
        substatus: None,
        retry_after_ms: Some(123),
        message: Some("too\r\n many".to_owned()),
    });
    let answer = server.wire.send(&range, &batch).await.unwrap();
    assert_eq!((answer.status, answer.sub_status), (429, 3200));
    assert_eq!(answer.retry_after, Some(Duration::from_millis(123)));
    assert_eq!(&*answer.message, "too many");
    assert!(answer.results.is_empty());
    for status in [400, 403, 408, 410, 413, 449, 500, 503] {
        server.fault(FaultAction::status(status));
        let answer = server.wire.send(&range, &batch).await.unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.results.is_empty() && !answer.message.is_empty());
    }
    let answer = server.wire.send(&"77".into(), &batch).await.unwrap();
    assert_eq!((answer.status, answer.sub_status), (410, 1002));
    let large = bytes(json!({"id": "a", "key": 1, "text": "x".repeat(3 << 20)}));
    let large = [operation("[1]", "a", Action::Upsert(large))];
    let answer = server.wire.send(&range, &large).await.unwrap();
    assert_eq!(answer.status, 413);
    let answer = server.wire.send(&range, &batch).await.unwrap();
    assert_eq!(answer.status, 200, "and none of it was written");
    assert_eq!(answer.results[0].status, 201);
}

#[tokio::test]
async fn a_wrong_key_is_answered_with_a_hint_and_never_shown() {
    let server = Server::start(1, &["/key"]).await;
    let key = "d3Jvbmcga2V5";
    let wire = wire_to(&server.emulator, key);
    let batch = [server.upsert("[1]", "a")];
    let answer = wire.send(&"0".into(), &batch).await.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.message.contains("COSMOS_KEY"), "{}", answer.message);
    let errors = [
        wire.find_writable().await.unwrap_err(),
        wire.ranges().await.unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.report().contains("COSMOS_KEY"), "{}", error.report());
    }
    let shown = format!("{answer:?} {errors:?} {:?}", wire.signer);
    assert!(
        !shown.contains(key) && !shown.contains("sig%3D") && !shown.contains("sig="),
        "{shown}"
    );
}

#[tokio::test]
async fn a_lost_connection_leaves_it_open_whether_the_batch_happened() {
    let server = Server::start(1, &["/key"]).await;
    let range = server.map().await.ranges()[0].id.clone();
    for (id, action, found) in [
        ("a", FaultAction::DropBefore, 201),
        ("b", FaultAction::DropAfter, 200),
    ] {
        let batch = [server.upsert("[1]", id)];
        server.fault(action);
        let none = server.wire.send(&range, &batch).await.unwrap_err();
        assert_eq!(none.lost, Lost::Maybe);
        assert_eq!(none.error.kind(), ErrorKind::Unreachable);
        let answer = server.wire.send(&range, &batch).await.unwrap();
        assert_eq!(answer.results[0].status, found);
    }
}

#[tokio::test]
async fn the_ranges_follow_splits_and_merges() {
    let server = Server::start(2, &["/key"]).await;
    for key in 0..20 {
        server.point_write(&format!("[{key}]"), "a").await;
    }
    let before = server.wire.ranges().await.unwrap();
    assert_eq!(before.records.len(), 2);
    assert_eq!(before.records[0].throughput_fraction, Some(0.5));
    let children = server.emulator.split(DATABASE, CONTAINER, 0).unwrap();
    let after = server.wire.ranges().await.unwrap();
    assert_eq!(after.container_rid, before.container_rid);
    let map = RoutingMap::of(after.records).unwrap();
    for id in children {
        let at = map.position(&id.to_string().as_str().into()).unwrap();
        assert_eq!(map.ranges()[at].parents, ["0".into()]);
    }
    assert_eq!(map.ranges().len(), 3);
    server
        .emulator
        .merge(DATABASE, CONTAINER, children)
        .unwrap();
    assert_eq!(server.map().await.ranges().len(), 2);
}

#[tokio::test]
async fn a_container_that_was_created_anew_is_another_one() {
    let server = Server::start(1, &["/key"]).await;
    let batch = [server.upsert("[1]", "a")];
    let rid = server.wire.ranges().await.unwrap().container_rid;
    assert_eq!(
        server.wire.send(&"0".into(), &batch).await.unwrap().status,
        200
    );
    // What was read before the container was created anew.
    let wire = wire_to(&server.emulator, server.emulator.key());
    let other = rid.replace(|c: char| c.is_ascii_alphanumeric(), "A");
    wire.container_rid.set(header(&other)).unwrap();
    let answer = wire.send(&"0".into(), &batch).await.unwrap();
    assert_eq!((answer.status, answer.sub_status), (400, 1024));
    let error = wire.ranges().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("anew"), "{}", error.report());
}

#[tokio::test]
async fn a_container_that_does_not_exist_is_named() {
    let server = Server::start(1, &["/key"]).await;
    let mut wire = wire_to(&server.emulator, server.emulator.key());
    wire.link = wire.link.replace("orders", "others");
    wire.path = wire.path.replace("orders", "others");
    let error = wire.ranges().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains(&wire.link), "{}", error.report());
    let answer = wire
        .send(&"0".into(), &[server.upsert("[1]", "a")])
        .await
        .unwrap();
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn the_account_says_where_to_write() {
    let server = Server::start(1, &["/key"]).await;
    // The server calls itself 127.0.0.1, so that by this name it is another one.
    let endpoint = server.emulator.endpoint().replace("127.0.0.1", "localhost");
    let timeouts = WireConfig::default().timeouts;
    let wire = wire_with(&endpoint, server.emulator.key(), open_gate(), timeouts);
    let host = |wire: &Wire| wire.writes.lock().0.host_str().unwrap().to_owned();
    assert_eq!(host(&wire), "localhost");
    wire.find_writable().await.unwrap();
    assert_eq!(host(&wire), "127.0.0.1");
    let pool = wire.writes.lock().1.clone();
    wire.find_writable().await.unwrap();
    assert!(
        Arc::ptr_eq(&pool, &wire.writes.lock().1),
        "its connections are kept"
    );
    let answer = wire
        .send(&"0".into(), &[server.upsert("[1]", "a")])
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
}
