//! What must hold whatever was sent before: the server works, and all ways of reading a container agree.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::requests::{CONTAINERS, Request};
use super::wire::{DEADLINE, Outcome, Reply, send};

/// Sends a request that nobody has broken, until it is not throttled.
pub fn call(port: u16, request: &Request) -> Reply {
    loop {
        match send(port, request, DEADLINE) {
            Outcome::Reply(reply) if reply.status == 429 => {}
            Outcome::Reply(reply) => return reply,
            other => panic!("{request:?}: {other:?}"),
        }
    }
}

fn expect(port: u16, status: u16, request: &Request) -> Reply {
    let reply = call(port, request);
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(2_000)]);
    assert_eq!(reply.status, status, "{request:?}: {text}");
    reply
}

/// Makes what the fuzzer works on, as far as it is missing.
pub fn prepare(port: u16) {
    for db in ["fuzz", "health"] {
        call(
            port,
            &Request::new("POST", "/dbs", &[], &json!({"id": db}).to_string()),
        );
    }
    let key = json!({"paths": ["/pk"], "kind": "Hash"});
    let unique = json!({"uniqueKeys": [{"paths": ["/n", "/v"]}]});
    for (db, definition) in [
        ("fuzz", json!({"id": "one", "partitionKey": key})),
        (
            "fuzz",
            json!({"id": "two", "partitionKey": key, "defaultTtl": -1, "uniqueKeyPolicy": unique}),
        ),
        (
            "fuzz",
            json!({"id": "three", "partitionKey": {"paths": ["/pk", "/q"], "kind": "MultiHash"}}),
        ),
        ("health", json!({"id": "items", "partitionKey": key})),
    ] {
        let path = format!("/dbs/{db}/colls");
        call(
            port,
            &Request::new("POST", &path, &[], &definition.to_string()),
        );
    }
}

/// Creates, reads, queries and follows an item of a container that the fuzzer does not touch.
pub fn check_service(port: u16, round: u64) {
    const DOCS: &str = "/dbs/health/colls/items/docs";
    let key = ("x-ms-documentdb-partitionkey", "[\"h\"]");
    let feed = ("a-im", "Incremental Feed");
    let now = expect(
        port,
        304,
        &Request::new("GET", DOCS, &[key, feed, ("if-none-match", "*")], ""),
    );
    let token = now.header("etag").expect("a continuation").to_owned();
    let item = json!({"id": format!("h{round}"), "pk": "h", "n": round}).to_string();
    expect(port, 201, &Request::new("POST", DOCS, &[key], &item));
    let read = expect(
        port,
        200,
        &Request::new("GET", &format!("{DOCS}/h{round}"), &[key], ""),
    );
    assert_eq!(read.json()["n"], round);
    let query =
        json!({"query": format!("SELECT VALUE c.n FROM c WHERE c.n = {round}")}).to_string();
    let flag = ("x-ms-documentdb-isquery", "true");
    let rows = expect(port, 200, &Request::new("POST", DOCS, &[key, flag], &query));
    assert_eq!(rows.json()["Documents"], json!([round]));
    let page = expect(
        port,
        200,
        &Request::new("GET", DOCS, &[key, feed, ("if-none-match", &token)], ""),
    );
    assert_eq!(page.json()["_count"], 1);
}

/// Compares what feed, change feed, query and status say of the containers of the fuzzer.
pub fn check_containers(port: u16) {
    for coll in CONTAINERS {
        let docs = format!("/dbs/fuzz/colls/{coll}/docs");
        let one = [("x-ms-max-item-count", "1")];
        if call(port, &Request::new("GET", &docs, &one, "")).status == 404 {
            continue;
        }
        // An item may expire between two looks, but not for ever.
        let mut looks = Vec::new();
        while let Err(problem) = look(port, coll, &docs) {
            looks.push(problem);
            assert!(looks.len() < 4, "{coll}: {looks:?}");
        }
    }
}

/// Ids of a container's partition key ranges.
fn ranges(port: u16, docs: &str) -> Vec<String> {
    let path = docs.replace("/docs", "/pkranges");
    let map = expect(port, 200, &Request::new("GET", &path, &[], "")).json();
    let ranges = map["PartitionKeyRanges"].as_array().cloned();
    let id = |range: &serde_json::Value| range["id"].as_str().map(str::to_owned);
    ranges.iter().flatten().filter_map(id).collect()
}

fn look(port: u16, coll: &str, docs: &str) -> Result<(), String> {
    let fed = drain(port, docs, &[], "x-ms-continuation");
    let changed = drain(port, docs, &[("a-im", "Incremental Feed")], "if-none-match");
    let query = json!({"query": "SELECT VALUE COUNT(1) FROM c"}).to_string();
    let flag = ("x-ms-documentdb-isquery", "true");
    let mut counted = 0;
    for id in ranges(port, docs) {
        // A partition may be split meanwhile; then this look is worth nothing.
        let range = ("x-ms-documentdb-partitionkeyrangeid", id.as_str());
        let reply = call(port, &Request::new("POST", docs, &[flag, range], &query));
        counted += reply.json()["Documents"][0].as_u64().unwrap_or(0);
    }
    let admin = format!("/_emulator/dbs/fuzz/colls/{coll}");
    let status = expect(port, 200, &Request::new("GET", &admin, &[], ""));
    let (rows, held) = (counted, status.json()["documents"].clone());
    if fed == changed && rows == fed.len() as u64 && held == json!(fed.len()) {
        return Ok(());
    }
    let lost: Vec<_> = fed.symmetric_difference(&changed).collect();
    Err(format!(
        "feed {}, change feed {}, query {rows}, status {held}, not in both: {lost:?}",
        fed.len(),
        changed.len()
    ))
}

/// Items may be nested deeper than a value tree is read, so only what is needed is taken out.
#[derive(Deserialize)]
struct Page {
    #[serde(rename = "Documents")]
    documents: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "_rid")]
    rid: String,
}

/// All documents of a feed by resource id; each may come once.
fn drain(port: u16, docs: &str, headers: &[(&str, &str)], position: &str) -> BTreeSet<String> {
    let (mut rids, mut token) = (BTreeSet::new(), None::<String>);
    loop {
        let mut headers = headers.to_vec();
        headers.push(("x-ms-max-item-count", "7"));
        if let Some(token) = &token {
            headers.push((position, token));
        }
        let reply = call(port, &Request::new("GET", docs, &headers, ""));
        if reply.status == 304 {
            return rids;
        }
        assert_eq!(
            reply.status,
            200,
            "{docs} {headers:?}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        let page: Page = serde_json::from_slice(&reply.body).expect("a page");
        for Item { rid } in page.documents {
            assert!(rids.insert(rid), "{docs}: a document came twice");
        }
        let next = if position == "if-none-match" {
            "etag"
        } else {
            position
        };
        match reply.header(next) {
            Some(next) => token = Some(next.to_owned()),
            None => return rids,
        }
    }
}
