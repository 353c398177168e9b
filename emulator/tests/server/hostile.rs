//! Requests that are well-formed and mean harm: each is refused, or costs no more than an honest one.

use crate::common::raw::{Raw, Reply};
use crate::common::{Outcome, server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};

const DOCS: &str = "/dbs/db/colls/items/docs";
const QUERY: (&str, &str) = ("x-ms-documentdb-isquery", "true");
const RANGE: (&str, &str) = ("x-ms-documentdb-partitionkeyrangeid", "0");

fn refused(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.text());
    let body = reply.json();
    assert!(body["code"].is_string(), "{body}");
    body["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn items_that_could_not_be_queried_are_refused() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let long = "9".repeat(310);
    for value in [
        "1e999",
        "-1E+309",
        r#""\ud800""#,
        r#"{"\udc00":1}"#,
        &deep,
        &long,
    ] {
        let item = format!(r#"{{"id":"a","pk":"p","x":{value}}}"#);
        refused(&raw.call("POST", DOCS, &[], item.as_bytes())?, 400);
    }
    // What is a value all the same is kept, and does not spoil queries.
    let item = r#"{"id":"a","pk":"p","x":["1e999 \\ud800",1e-999,"\ud83d\ude00"]}"#;
    assert_eq!(raw.call("POST", DOCS, &[], item.as_bytes())?.status, 201);
    let rows = raw.call(
        "POST",
        DOCS,
        &[QUERY, RANGE],
        br#"{"query":"SELECT VALUE c.x[2] FROM c"}"#,
    )?;
    assert_eq!(rows.json()["Documents"], json!(["\u{1F600}"]));
    Ok(())
}

#[test]
fn a_throughput_beyond_the_service_is_refused() -> Outcome {
    // Enforced throughput means a partition for every 10,000 RU/s.
    let emulator = Emulator::start(EmulatorConfig {
        throughput: Some(400),
        ..EmulatorConfig::default()
    })?;
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let offers = raw.call("GET", "/offers", &[], b"")?.json();
    let path = format!("/offers/{}", offers["Offers"][0]["id"].as_str().unwrap());
    for body in [
        r#"{"content":{"offerThroughput":18446744073709551615}}"#,
        r#"{"content":{"offerThroughput":0}}"#,
        r#"{"content":{"offerAutopilotSettings":{"maxThroughput":1e300}}}"#,
        r#"{"content":{"offerThroughput":400,"offerAutopilotSettings":7}}"#,
        r#"{"content":7}"#,
        "[1]",
        "7",
        "\"content\"",
    ] {
        let reply = raw.call("PUT", &path, &[], body.as_bytes())?;
        assert!(refused(&reply, 400).contains("1 to 1000000"), "{body}");
    }
    for (name, value) in [
        ("x-ms-offer-throughput", "1000001"),
        ("x-ms-offer-throughput", "-1"),
        (
            "x-ms-cosmos-offer-autopilot-settings",
            r#"{"maxThroughput":1000001}"#,
        ),
    ] {
        let body = br#"{"id":"other","partitionKey":{"paths":["/pk"]}}"#;
        let reply = raw.call("POST", "/dbs/db/colls", &[(name, value)], body)?;
        assert!(refused(&reply, 400).contains("1 to 1000000"), "{value}");
    }
    let asked = [("x-ms-offer-throughput", "x")];
    refused(&raw.call("POST", "/dbs", &asked, br#"{"id":"db2"}"#)?, 400);
    assert_eq!(
        raw.call("GET", "/dbs/db2", &[], b"")?.status,
        404,
        "refused is not created"
    );
    let raised = r#"{"content":{"offerThroughput":100000}}"#;
    assert_eq!(raw.call("PUT", &path, &[], raised.as_bytes())?.status, 200);
    Ok(())
}

#[test]
fn a_reply_does_not_wait_for_what_follows_its_request() -> Outcome {
    let emulator = server(1);
    for follows in ["\r\n", "GET / HTT"] {
        let mut stream = TcpStream::connect(("127.0.0.1", emulator.port()))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n\r\n{follows}").as_bytes())?;
        let mut reply = [0; 12];
        stream.read_exact(&mut reply)?;
        assert_eq!(&reply, b"HTTP/1.1 401");
    }
    Ok(())
}

#[test]
fn a_body_that_is_framed_wrongly_is_no_large_body() -> Outcome {
    let emulator = server(1);
    let mut stream = TcpStream::connect(("127.0.0.1", emulator.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream
        .write_all(b"POST /dbs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")?;
    let mut reply = [0; 12];
    stream.read_exact(&mut reply)?;
    assert_eq!(&reply, b"HTTP/1.1 400");
    Ok(())
}

#[test]
fn numbers_beyond_exact_doubles_can_be_sorted() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let numbers = [
        "9007199254740993",
        "9007199254740992",
        "9007199254740992.0",
        "18446744073709551615",
    ];
    for index in 0..100 {
        let number = numbers[index * 7 % 11 % 4];
        let item = format!(r#"{{"id":"d{index}","pk":"p","n":{number}}}"#);
        assert_eq!(raw.call("POST", DOCS, &[], item.as_bytes())?.status, 201);
    }
    for order in ["ASC", "DESC"] {
        let body =
            json!({"query": format!("SELECT VALUE c.n FROM c ORDER BY c.n {order}")}).to_string();
        let rows = raw.call("POST", DOCS, &[QUERY, RANGE], body.as_bytes())?;
        assert_eq!(rows.json()["_count"], 100, "{}", rows.text());
    }
    let body = json!({"query": "SELECT VALUE -@p FROM c", "parameters": [{"name": "@p", "value": i64::MIN}]});
    let rows = raw.call("POST", DOCS, &[QUERY, RANGE], body.to_string().as_bytes())?;
    assert_eq!(rows.json()["Documents"][0], 9_223_372_036_854_775_808.0);
    Ok(())
}

#[test]
fn parameters_are_not_multiplied_without_end() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let query = format!("SELECT VALUE [{}1] FROM c", "@p,".repeat(5_000));
    let body =
        json!({"query": query, "parameters": [{"name": "@p", "value": "x".repeat(1_000_000)}]});
    let reply = raw.call("POST", DOCS, &[QUERY, RANGE], body.to_string().as_bytes())?;
    assert!(refused(&reply, 400).contains("parameters"));
    Ok(())
}

#[test]
fn continuations_of_the_change_feed_stay_small_and_ask_for_nothing_twice() -> Outcome {
    const FEED: (&str, &str) = ("a-im", "Incremental Feed");
    let emulator = server(2);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    for index in 0..20 {
        let item = format!(r#"{{"id":"d{index}","pk":"p{index}"}}"#);
        assert_eq!(raw.call("POST", DOCS, &[], item.as_bytes())?.status, 201);
    }
    for token in [
        "\"-FF:0;-FF:0\"",
        "\"1F-FF:0;-1F:0\"",
        "\"-20:0;1F-FF:0\"",
        "\"FF-:0\"",
    ] {
        let reply = raw.call("GET", DOCS, &[FEED, ("if-none-match", token)], b"")?;
        assert!(refused(&reply, 400).contains("no continuation"), "{token}");
    }
    let whole = raw.call("GET", DOCS, &[FEED], b"")?;
    let two_parts = whole.header("etag").expect("a continuation").to_owned();
    assert_eq!(two_parts.matches(';').count(), 1, "{two_parts}");
    // The parts of a merged partition stand at different LSNs until they are read; then they are one.
    let mut token = two_parts;
    let mut range = emulator.merge("db", "items", [0, 1])?;
    for round in 0..5 {
        let reply = raw.call("GET", DOCS, &[FEED, ("if-none-match", &token)], b"")?;
        assert_eq!(reply.status, 304, "{}", reply.text());
        token = reply.header("etag").expect("a continuation").to_owned();
        assert!(!token.contains(';'), "round {round}: {token}");
        let halves = emulator.split("db", "items", range)?;
        let reply = raw.call("GET", DOCS, &[FEED, ("if-none-match", &token)], b"")?;
        assert_eq!(reply.status, 304, "{}", reply.text());
        token = reply.header("etag").expect("a continuation").to_owned();
        range = emulator.merge("db", "items", halves)?;
    }
    Ok(())
}

#[test]
fn a_start_in_the_future_is_in_the_continuation() -> Outcome {
    const FEED: (&str, &str) = ("a-im", "Incremental Feed");
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let far = ("if-modified-since", "Sat, 01 Jan 2050 00:00:00 GMT");
    let begun = raw.call("GET", DOCS, &[FEED, far], b"")?;
    assert_eq!(begun.status, 304, "{}", begun.text());
    let token = begun.header("etag").expect("a continuation").to_owned();
    raw.call("POST", DOCS, &[], br#"{"id":"early","pk":"p"}"#)?;
    let next = raw.call("GET", DOCS, &[FEED, ("if-none-match", &token)], b"")?;
    assert_eq!(next.status, 304, "before its start: {}", next.text());
    emulator.advance_clock(Duration::from_secs(40 * 365 * 86_400));
    raw.call("POST", DOCS, &[], br#"{"id":"late","pk":"p"}"#)?;
    let token = next.header("etag").expect("a continuation").to_owned();
    let page = raw.call("GET", DOCS, &[FEED, ("if-none-match", &token)], b"")?;
    assert_eq!(page.json()["Documents"][0]["id"], "late", "{}", page.text());
    Ok(())
}

#[test]
fn a_history_that_nobody_reads_is_bounded_by_its_retention() -> Outcome {
    let emulator = Emulator::start(EmulatorConfig {
        partitions: 1,
        retention: Duration::from_secs(60),
        ..EmulatorConfig::default()
    })?;
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let now = [("a-im", "Full-Fidelity Feed"), ("if-none-match", "*")];
    assert_eq!(raw.call("GET", DOCS, &now, b"")?.status, 304);
    let upsert = [("x-ms-documentdb-is-upsert", "true")];
    let item = json!({"id": "a", "pk": "p", "f": "f".repeat(100_000)}).to_string();
    for _ in 0..50 {
        raw.call("POST", DOCS, &upsert, item.as_bytes())?;
        emulator.advance_clock(Duration::from_secs(30));
    }
    let bytes = emulator.stats().bytes;
    assert!(
        bytes < 1_000_000,
        "{bytes} bytes for one item of 100,000 and its last minute"
    );
    Ok(())
}

#[test]
fn a_retention_without_end_is_one() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.call("POST", "/dbs", &[], br#"{"id":"db"}"#)?;
    let minutes = u64::MAX / 60 + 1;
    let body = json!({"id": "items", "partitionKey": {"paths": ["/pk"]}, "changeFeedPolicy": {"retentionDuration": minutes}});
    let made = raw.call("POST", "/dbs/db/colls", &[], body.to_string().as_bytes())?;
    assert_eq!(made.status, 201, "{}", made.text());
    let feed = ("a-im", "Full-Fidelity Feed");
    let now = raw.call("GET", DOCS, &[feed, ("if-none-match", "*")], b"")?;
    let token = now.header("etag").expect("a continuation").to_owned();
    raw.call("POST", DOCS, &[], br#"{"id":"a","pk":"p"}"#)?;
    emulator.advance_clock(Duration::from_secs(3_600));
    let page = raw.call("GET", DOCS, &[feed, ("if-none-match", &token)], b"")?;
    assert_eq!(page.json()["_count"], 1, "{}", page.text());
    Ok(())
}

#[test]
fn a_split_that_comes_after_the_end_of_its_container_does_not_spoil_the_journal() -> Outcome {
    let directory = std::env::temp_dir().join(format!("tidefeed-hostile-{}", std::process::id()));
    let config = EmulatorConfig {
        data: Some(directory.clone()),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config.clone())?;
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let split = "/_emulator/dbs/db/colls/items/ranges/0/split";
    assert_eq!(
        raw.call("POST", split, &[], br#"{"moving_ms":20}"#)?.status,
        202
    );
    assert_eq!(
        raw.call("DELETE", "/dbs/db/colls/items", &[], b"")?.status,
        204
    );
    // The split is journaled some time after; then nothing more is.
    let journal = directory.join("journal-00000001.log");
    let (begun, before) = (Instant::now(), std::fs::metadata(&journal)?.len());
    while std::fs::metadata(&journal)?.len() == before {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the split is not in the journal"
        );
        std::thread::yield_now();
    }
    drop(emulator);
    let again = Emulator::start(config)?;
    assert_eq!(again.stats().containers, 0);
    drop(again);
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

#[test]
fn an_item_that_does_not_fit_into_the_reply_of_a_batch_is_not_passed_over() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    for id in ["a", "b", "c"] {
        let item = json!({"id": id, "pk": "p", "f": "f".repeat(1_500_000)}).to_string();
        assert_eq!(raw.call("POST", DOCS, &[], item.as_bytes())?.status, 201);
    }
    let reads: Vec<_> = ["a", "b", "c"]
        .map(|id| json!({"operationType": "Read", "id": id, "partitionKey": "[\"p\"]"}))
        .into();
    let batch = ("x-ms-cosmos-is-batch-request", "true");
    for headers in [
        [
            batch,
            ("x-ms-documentdb-partitionkey", "[\"p\"]"),
            ("x-ms-cosmos-batch-atomic", "true"),
        ],
        [
            batch,
            ("x-ms-documentdb-partitionkeyrangeid", "0"),
            ("x-ms-cosmos-batch-atomic", "false"),
        ],
    ] {
        let reply = raw.call("POST", DOCS, &headers, json!(reads).to_string().as_bytes())?;
        let results = reply.json();
        assert_eq!(reply.status, 207);
        assert_eq!(results[1]["resourceBody"]["id"], "b");
        assert_eq!(
            (&results[2]["statusCode"], &results[2]["subStatusCode"]),
            (&json!(413), &json!(3402))
        );
    }
    Ok(())
}
