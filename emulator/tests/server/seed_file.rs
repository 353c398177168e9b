//! What a server starts with.

use std::path::PathBuf;

use crate::common::Outcome;
use crate::common::raw::{Raw, Reply};
use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};

/// A file with `text`, of its own for each test.
fn file(name: &str, text: &str) -> std::io::Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

fn start(file: PathBuf) -> Result<Emulator, String> {
    let config = EmulatorConfig {
        seed_file: Some(file),
        ..EmulatorConfig::default()
    };
    Emulator::start(config).map_err(|error| error.to_string())
}

#[test]
fn a_server_starts_with_what_the_file_names() -> Outcome {
    let text = json!({"databases": [
        {"id": "my shop", "throughput": 500, "containers": [
            {
                "id": "orders", "partitionKey": "/customer", "throughput": 1000,
                "indexingPolicy": {"indexingMode": "none"},
                "documents": [{"id": "1", "customer": "a", "n": 1.5}, {"id": "2", "customer": "b"}],
            },
            {"id": "hpk", "partitionKey": {"paths": ["/t", "/u"], "kind": "MultiHash", "version": 2}},
        ]},
        {"id": "empty"},
    ]});
    let emulator = start(file("good.json", &text.to_string())?)?;
    let mut raw = Raw::connect(&emulator)?;
    let mut get = |path: &str, headers: &[(&str, &str)]| raw.call("GET", path, headers, b"");
    let key = [("x-ms-documentdb-partitionkey", "[\"a\"]")];
    let document = get("/dbs/my%20shop/colls/orders/docs/1", &key)?;
    assert_eq!((document.status, &document.json()["n"]), (200, &json!(1.5)));
    let orders = get("/dbs/my%20shop/colls/orders", &[])?.json();
    assert_eq!(orders["indexingPolicy"]["indexingMode"], "none");
    assert_eq!(orders["partitionKey"]["paths"], json!(["/customer"]));
    assert_eq!(
        orders["documents"],
        json!(null),
        "no property of a container"
    );
    let hpk = get("/dbs/my%20shop/colls/hpk", &[])?.json();
    assert_eq!(hpk["partitionKey"]["kind"], "MultiHash");
    assert_eq!(get("/dbs/empty", &[])?.status, 200);
    let offers = get("/offers", &[])?.json();
    let throughput = |reply: &Reply| -> Vec<u64> {
        let offers = reply.json()["Offers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let throughput = |offer: &serde_json::Value| offer["content"]["offerThroughput"].as_u64();
        let mut all: Vec<u64> = offers.iter().filter_map(throughput).collect();
        all.sort_unstable();
        all
    };
    // The second container shares the throughput of the database.
    assert_eq!(offers["_count"], 2);
    assert_eq!(throughput(&get("/offers", &[])?), [500, 1000]);
    assert_eq!(emulator.stats().documents, 2);
    Ok(())
}

#[test]
fn what_exists_already_stays() -> Outcome {
    // The second database is the first again: what a server with durable data meets when it starts again.
    let container = |documents| json!({"id": "c", "partitionKey": "/pk", "documents": documents});
    let database = |documents| json!({"id": "d", "containers": [container(documents)]});
    let text = json!({"databases": [
        database(json!([{"id": "1", "pk": "a", "v": 1}])),
        database(json!([{"id": "1", "pk": "a", "v": 2}, {"id": "2", "pk": "a"}])),
    ]});
    let emulator = start(file("again.json", &text.to_string())?)?;
    let key = [("x-ms-documentdb-partitionkey", "[\"a\"]")];
    let first = Raw::connect(&emulator)?.call("GET", "/dbs/d/colls/c/docs/1", &key, b"")?;
    assert_eq!(first.json()["v"], 1);
    assert_eq!(emulator.stats().documents, 2);
    Ok(())
}

#[test]
fn limits_on_throughput_begin_after_the_seed() -> Outcome {
    let documents: Vec<_> = (0..1_000)
        .map(|id| json!({"id": id.to_string(), "pk": "a"}))
        .collect();
    let text = json!({"databases": [{"id": "d", "containers": [
        {"id": "c", "partitionKey": "/pk", "documents": documents},
    ]}]});
    let config = EmulatorConfig {
        seed_file: Some(file("large.json", &text.to_string())?),
        throughput: Some(400),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config)?;
    assert_eq!(emulator.stats().documents, 1_000);
    let mut raw = Raw::connect(&emulator)?;
    let mut create = |id: usize| {
        let body = json!({"id": format!("more{id}"), "pk": "a"}).to_string();
        raw.call("POST", "/dbs/d/colls/c/docs", &[], body.as_bytes())
    };
    assert_eq!(create(0)?.status, 201, "the seed has used nothing up");
    // A partition has 100 RU/s: many more writes than that in a burst are throttled.
    let burst: Vec<u16> = (1..2_000)
        .map(|id| create(id).map(|reply| reply.status))
        .collect::<Result<_, _>>()?;
    assert!(burst.contains(&429));
    Ok(())
}

#[test]
fn a_bad_file_stops_the_start_and_names_the_place() -> Outcome {
    let with = |container: serde_json::Value| {
        json!({"databases": [{"id": "d", "containers": [container]}]}).to_string()
    };
    let documents = |documents: serde_json::Value| {
        with(json!({"id": "c", "partitionKey": "/pk", "documents": documents}))
    };
    for (name, text, expected) in [
        ("syntax", "{\"databases\": [\n{]".to_owned(), "line 2"),
        (
            "member",
            json!({"database": []}).to_string(),
            "unknown field `database`",
        ),
        (
            "database-member",
            json!({"databases": [{"id": "d", "container": []}]}).to_string(),
            "unknown field `container`",
        ),
        (
            "database",
            json!({"databases": [{"id": "a/b"}]}).to_string(),
            "database a/b: 400 BadRequest: the id of a database",
        ),
        (
            "no-key",
            with(json!({"id": "c"})),
            "database d, container c: 400 BadRequest: partitionKey.paths",
        ),
        (
            "unsupported",
            with(
                json!({"id": "c", "partitionKey": "/pk", "partitionKeyless": 1, "vectorEmbeddingPolicy": {"x": 1}}),
            ),
            "database d, container c: 400 BadRequest: the container property vectorEmbeddingPolicy",
        ),
        (
            "no-name",
            with(json!({"partitionKey": "/pk"})),
            "database d, container 0 of the list: 400",
        ),
        (
            "throughput",
            with(json!({"id": "c", "partitionKey": "/pk", "throughput": "lots"})),
            "database d, container c: throughput is wrong: invalid type: string \"lots\"",
        ),
        (
            "documents",
            documents(json!({"id": "1"})),
            "database d, container c: documents is wrong: invalid type: map, expected a sequence",
        ),
        (
            "document",
            documents(json!([{"id": "1", "pk": 1}, {"pk": 1}])),
            "database d, container c, documents[1]: 400 BadRequest: an item needs an id",
        ),
        (
            "twice",
            documents(json!([{"id": "1", "pk": 1}, {"id": "1", "pk": 2}, {"id": "1", "pk": 1}])),
            "database d, container c, documents[2]: conflicts with a document before it",
        ),
        (
            "other-key",
            json!({"databases": [{"id": "d", "containers": [
                {"id": "c", "partitionKey": "/pk"}, {"id": "c", "partitionKey": "/other"},
            ]}]})
            .to_string(),
            "database d, container c: exists already, but with the partition key [\"/pk\"] instead of [\"/other\"]",
        ),
    ] {
        let path = file(&format!("bad-{name}.json"), &text)?;
        let error = start(path.clone()).expect_err(name);
        let head = format!("seed file {}: ", path.display());
        assert!(error.starts_with(&head), "{name}: {error}");
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
    }
    let missing = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("none.json");
    let error = start(missing).expect_err("no file");
    assert!(error.contains("none.json: cannot be read: "), "{error}");
    Ok(())
}
