//! What a bulk writer puts on the wire, beside what a client puts there that nobody here wrote: `@azure/cosmos` for Node.
//!
//! Both carry out the same operations against an embedded server of four partitions, through a proxy that records batches.
//! Then every operation must have gone to the same partition key range, in the same form, and the requests must have the same
//! method, path and headers, except for what [`DIFFERENCES`] names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, Action, BulkConfig, BulkWriter, Container, ContainerSpec, Write,
};

use super::faults::{Batch, FaultyServer};
use super::install;

/// Longest the script may take: for each container and phase it waits a second for more operations.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(60);

/// Headers that may differ, or that one of the two does not send, and why.
const DIFFERENCES: [(&str, &str); 10] = [
    ("connection", "said or not, both keep connections"),
    (
        "content-length",
        "how many operations are in a batch is each writer's own",
    ),
    ("host", "each has a proxy of its own"),
    ("user-agent", "each has its own name"),
    ("x-ms-useragent", "the other client's name once more"),
    (
        "x-ms-activity-id",
        "ours names each attempt, for support; the service makes a name up for the other",
    ),
    (
        "x-ms-cosmos-intended-collection-rid",
        "ours says which container it means, so that nothing goes to one that was created anew under the same name; \
         the official SDK for Rust does the same",
    ),
    (
        "x-ms-cosmos-allow-tentative-writes",
        "ours, like the official SDK for Rust, says so to accounts with several write regions only",
    ),
    (
        "x-ms-documentdb-query-enablecrosspartition",
        "about queries; the other client sends it with every request",
    ),
    (
        "x-ms-documentdb-responsecontinuationtokenlimitinkb",
        "about queries; the other client sends it with every request",
    ),
];

/// The containers, each with its partition key paths.
const CONTAINERS: [(&str, &[&str]); 2] = [
    ("single", &["/pk"]),
    ("hierarchical", &["/tenant", "/user"]),
];

/// Values of every kind that a partition key may have. `{}` is undefined.
fn values() -> Vec<Value> {
    let long = "x".repeat(300);
    vec![
        json!("EWR"),
        json!(""),
        json!("Zürich \u{2028} \"quoted\" \\ 機場 🛫"),
        json!(long),
        json!("1"),
        json!(0),
        json!(1),
        json!(-1),
        json!(2.5),
        json!(-1e300),
        json!(9_007_199_254_740_991_u64),
        json!(true),
        json!(false),
        Value::Null,
        json!({}),
    ]
}

/// The partition keys for a container with so many paths.
fn keys(levels: usize) -> Vec<Vec<Value>> {
    let values = values();
    if levels == 1 {
        return values.into_iter().map(|value| vec![value]).collect();
    }
    let pairs = values.iter().flat_map(|first| {
        let second = values.iter().step_by(3);
        second.map(|second| vec![first.clone(), second.clone()])
    });
    // A key that is undefined from some level on is another way to say a prefix, and no document has one.
    pairs
        .filter(|key| key[0] != json!({}) || key[1] == json!({}))
        .collect()
}

fn document(paths: &[&str], key: &[Value], id: &str, more: Value) -> Value {
    let mut document = json!({"id": id, "more": more});
    for (path, value) in paths.iter().zip(key) {
        if !value.is_object() {
            document[&path[1..]] = value.clone();
        }
    }
    document
}

/// What both clients do in a container, in phases that do not overlap, in the form of the script.
fn phases(paths: &[&str]) -> [Vec<Value>; 2] {
    let mut phases = [Vec::new(), Vec::new()];
    let more = json!({"text": "ü \u{2028}\n\"\\/", "numbers": [0.1, 1e21, -7, 9_007_199_254_740_993_u64], "none": null,
        "nested": {"b": [true, {}], "a": []}});
    for key in keys(paths.len()) {
        let of = |id| document(paths, &key, id, more.clone());
        let write = |operation, id| json!({"operationType": operation, "partitionKey": key, "resourceBody": of(id)});
        let on = |operation, id| json!({"operationType": operation, "partitionKey": key, "id": id});
        for id in ["upserted", "replaced", "patched", "deleted"] {
            phases[0].push(write("Upsert", id));
        }
        phases[0].push(write("Create", "created"));
        let mut replace = on("Replace", "replaced");
        replace["resourceBody"] = document(paths, &key, "replaced", json!("again"));
        let mut patch = on("Patch", "patched");
        patch["resourceBody"] = json!({
            "operations": [{"op": "set", "path": "/more", "value": {"a": 1}}, {"op": "incr", "path": "/count", "value": 2}],
            "condition": "from c where c.more.none = null",
        });
        phases[1].extend([
            write("Upsert", "upserted"),
            replace,
            patch,
            on("Delete", "deleted"),
        ]);
    }
    phases
}

/// A proxy before a server with the containers.
async fn prepared() -> FaultyServer {
    let server = Emulator::start(EmulatorConfig::default()).unwrap();
    let proxy = FaultyServer::start(server).await;
    let account = Account::connect(&proxy.account()).await.unwrap();
    for (name, paths) in CONTAINERS {
        let mut spec = ContainerSpec::new("wire", name, "/pk");
        spec.partition_key = paths.iter().map(|path| (*path).to_owned()).collect();
        Container::create_if_absent(&account, &spec).await.unwrap();
    }
    proxy
}

/// What the other client sends.
async fn theirs() -> Vec<Batch> {
    let proxy = prepared().await;
    let plan: Vec<Value> = CONTAINERS
        .iter()
        .map(|(name, paths)| json!({"container": name, "phases": phases(paths)}))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, &plan).unwrap();
    let (endpoint, key) = (proxy.endpoint().to_owned(), proxy.key().to_owned());
    let ran = tokio::task::spawn_blocking(move || run_script(&endpoint, &key, file.path()));
    let (status, output) = ran.await.unwrap().unwrap();
    assert!(status.success(), "the script ended with {status}\n{output}");
    proxy.batches()
}

/// Runs the script where the pinned packages of the server's own tests are installed.
fn run_script(
    endpoint: &str,
    key: &str,
    operations: &Path,
) -> Result<(std::process::ExitStatus, String), String> {
    const SCRIPT: &str = "bulk_wire.mjs";
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pins = here.join("../emulator/tests/clients/js");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients/js");
    install::NODE.make(&pins, &home, |_| false)?;
    let script = here.join("tests/clients").join(SCRIPT);
    std::fs::copy(script, home.join(SCRIPT)).map_err(|error| error.to_string())?;
    let mut command = install::command(&["node", SCRIPT], &home);
    command
        .env("COSMOS_ENDPOINT", endpoint)
        .env("COSMOS_KEY", key)
        .env("COSMOS_OPERATIONS", operations);
    install::execute(&mut command, SCRIPT_DEADLINE)
}

/// What a bulk writer sends.
async fn ours() -> Vec<Batch> {
    let proxy = prepared().await;
    let account = Account::connect(&proxy.account()).await.unwrap();
    for (name, paths) in CONTAINERS {
        let container = Container::open(&account, "wire", name).await.unwrap();
        let writer = BulkWriter::open(&container, BulkConfig::default())
            .await
            .unwrap();
        for phase in phases(paths) {
            let count = phase.len() as u64;
            let writes = phase.iter().map(write).collect();
            let summary = writer.submit(writes).await.unwrap().await.unwrap();
            assert_eq!(summary.written, count, "{summary:?}");
        }
        writer.close().await.unwrap();
    }
    proxy.batches()
}

fn write(operation: &Value) -> Write {
    let key = operation["partitionKey"].to_string();
    let body = &operation["resourceBody"];
    let id = operation["id"].as_str().or(body["id"].as_str()).unwrap();
    let bytes = || Bytes::from(body.to_string());
    let action = match operation["operationType"].as_str().unwrap() {
        "Upsert" => Action::Upsert(bytes()),
        "Create" => Action::Create(bytes()),
        "Replace" => Action::Replace(bytes()),
        "Patch" => Action::Patch {
            body: bytes(),
            guarded: false,
        },
        "Delete" => Action::Delete,
        other => panic!("{other}"),
    };
    Write::new(key, id, action)
}

/// One operation as it went out: container's path, kind, partition key and id.
type Name = (String, String, String, String);

/// Every operation with its range and its form, and the key's text as the value that it stands for. How often something
/// happens within the phases does not matter, but each time it must look the same.
fn operations(batches: &[Batch]) -> BTreeMap<Name, BTreeSet<(String, String)>> {
    let mut found: BTreeMap<Name, BTreeSet<_>> = BTreeMap::new();
    for batch in batches {
        let range = &batch.headers["x-ms-documentdb-partitionkeyrangeid"];
        for operation in &batch.operations {
            let mut form = operation.clone();
            let text = operation["partitionKey"]
                .as_str()
                .expect("text in a string");
            let key: Value = serde_json::from_str(text).unwrap();
            form["partitionKey"] = key.clone();
            let id = [&form["id"], &form["resourceBody"]["id"]];
            let id = id.iter().find_map(|id| id.as_str()).expect("an id");
            let kind = form["operationType"].as_str().expect("a kind");
            let key = as_numbers(key).to_string();
            let name = (path(batch), kind.to_owned(), key, id.to_owned());
            found
                .entry(name)
                .or_default()
                .insert((range.clone(), as_numbers(form).to_string()));
        }
    }
    found
}

/// With every number as the double that a JavaScript client makes of it.
fn as_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.into_iter().map(as_numbers).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, as_numbers(value)))
            .collect(),
        other => other,
    }
}

/// Paths without a slash at the end, which means nothing.
fn path(batch: &Batch) -> String {
    batch.path.trim_end_matches('/').to_owned()
}

/// The values of every header, without what changes from request to request.
fn headers(batches: &[Batch]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in batches.iter().flat_map(|batch| &batch.headers) {
        let value = value.to_ascii_lowercase();
        let constant = match name.as_str() {
            // What is signed has the same form; whether it is right is for the server to say.
            "authorization" => value.split("sig").next().unwrap_or_default().to_owned(),
            "x-ms-date" => value
                .chars()
                .map(|c| match c {
                    '0'..='9' => '0',
                    'a'..='z' => 'a',
                    other => other,
                })
                .collect(),
            _ => value,
        };
        found.entry(name.clone()).or_default().insert(constant);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_is_what_the_javascript_client_speaks() {
    if install::skipped("bulk_wire.mjs") {
        return;
    }
    let (theirs, ours) = (theirs().await, ours().await);

    let (expected, found) = (operations(&theirs), operations(&ours));
    // Nine operations with each key; two of them are upserts of one document and have one name here.
    let count: usize = CONTAINERS
        .iter()
        .map(|(_, paths)| 8 * keys(paths.len()).len())
        .sum();
    assert_eq!(expected.len(), count, "not all was recorded");
    for (name, form) in &expected {
        assert_eq!(found.get(name), Some(form), "{name:?}");
    }
    assert_eq!(found.len(), expected.len());
    let ranges = |batches: &[Batch]| -> BTreeSet<String> {
        let range = |batch: &Batch| batch.headers["x-ms-documentdb-partitionkeyrangeid"].clone();
        batches.iter().map(range).collect()
    };
    assert_eq!(ranges(&theirs).len(), 4);

    let methods = |batches: &[Batch]| -> BTreeSet<(String, String)> {
        let line = |batch: &Batch| (batch.method.clone(), path(batch));
        batches.iter().map(line).collect()
    };
    assert_eq!(methods(&ours), methods(&theirs));

    let (expected, found) = (headers(&theirs), headers(&ours));
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differ: BTreeSet<&str> = names
        .into_iter()
        .filter(|name| expected.get(*name) != found.get(*name))
        .map(String::as_str)
        .collect();
    let allowed: BTreeSet<&str> = DIFFERENCES.iter().map(|(name, _)| *name).collect();
    // Both ways: what is allowed and does not differ any more has to go from the list.
    assert_eq!(differ, allowed, "theirs {expected:#?}\nours {found:#?}");
}
