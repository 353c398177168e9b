//! Throughput: who is refused, when, and how much gets through.
//!
//! Time is advanced by what a refusal says to wait, so rates are exact and nobody sleeps.

use std::time::Duration;

use azure_data_cosmos::models::PartitionKeyDefinition;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, EmulatorConfig};

use crate::common::raw::{Raw, Reply};
use crate::common::{Outcome, client, container};

const CONTAINER: &str = "/dbs/db/colls/items";
const DOCS: &str = "/dbs/db/colls/items/docs";
const KEY: &str = "x-ms-documentdb-partitionkey";

/// A server that enforces throughput, with container `items` of `request_units_per_second`.
fn limited(partitions: usize, request_units_per_second: u32) -> (Emulator, Raw) {
    let emulator = Emulator::start(EmulatorConfig {
        partitions,
        throughput: Some(request_units_per_second),
        ..EmulatorConfig::default()
    })
    .unwrap();
    let mut raw = Raw::connect(&emulator).unwrap();
    raw.prepare("/pk").unwrap();
    (emulator, raw)
}

fn charge(reply: &Reply) -> f64 {
    let text = reply.header("x-ms-request-charge").expect("a charge");
    text.parse().expect("a number")
}

/// The time of a refusal; it is checked.
fn retry_after(reply: &Reply) -> Duration {
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert_eq!(reply.header("x-ms-substatus"), Some("3200"));
    assert_eq!(charge(reply), 0.0, "nothing was done");
    let wait = reply.header("x-ms-retry-after-ms").expect("a time");
    let wait = wait.parse().expect("milliseconds");
    assert!((1..=60_000).contains(&wait), "{wait}");
    Duration::from_millis(wait)
}

fn now_ms(raw: &mut Raw) -> u64 {
    let clock = raw.call("GET", "/_emulator/clock", &[], b"").unwrap();
    clock.json()["now_ms"].as_u64().unwrap()
}

fn write(raw: &mut Raw, key: &str, id: &str) -> Reply {
    let header = json!([key]).to_string();
    let headers = [
        (KEY, header.as_str()),
        ("x-ms-documentdb-is-upsert", "True"),
    ];
    let body = json!({"id": id, "pk": key}).to_string();
    raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap()
}

/// Calls until it is refused; what that cost and the refusal.
fn drain(raw: &mut Raw, mut call: impl FnMut(&mut Raw) -> Reply) -> (f64, Reply) {
    let mut units = 0.0;
    loop {
        let reply = call(raw);
        if reply.status == 429 {
            return (units, reply);
        }
        units += charge(&reply);
        assert!(units < 1e6, "never refused");
    }
}

/// Request units per second that get through over five seconds, from an empty bucket on.
fn sustained(emulator: &Emulator, raw: &mut Raw, mut call: impl FnMut(&mut Raw) -> Reply) -> f64 {
    let (_, refusal) = drain(raw, &mut call);
    let mut wait = retry_after(&refusal);
    let (begin, mut units, mut refusals) = (now_ms(raw), 0.0, 0);
    loop {
        emulator.advance_clock(wait);
        let (more, refusal) = drain(raw, &mut call);
        units += more;
        refusals += 1;
        wait = retry_after(&refusal);
        let elapsed = now_ms(raw) - begin;
        if elapsed > 5_000 {
            assert!(refusals > 5, "{refusals}");
            return units * 1e3 / elapsed as f64;
        }
    }
}

fn assert_near(found: f64, expected: f64) {
    let share = found / expected;
    assert!(
        (0.9..=1.1).contains(&share),
        "{found} instead of {expected}"
    );
}

/// The partition key range of a logical partition.
fn range_of(raw: &mut Raw, key: &str) -> String {
    let reply = write(raw, key, "place");
    let range = reply.header("x-ms-documentdb-partitionkeyrangeid");
    range.expect("a range").to_owned()
}

fn set_offer(raw: &mut Raw, content: Value) {
    let mut offer = raw.call("GET", "/offers", &[], b"").unwrap().json()["Offers"][0].clone();
    offer["content"] = content;
    let path = format!("/offers/{}", offer["id"].as_str().unwrap());
    let body = offer.to_string();
    let reply = raw.call("PUT", &path, &[], body.as_bytes()).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn status(raw: &mut Raw) -> Value {
    let reply = raw.call("GET", "/_emulator/status", &[], b"").unwrap();
    reply.json()["databases"][0]["containers"][0].clone()
}

#[test]
fn every_kind_of_call_gets_its_partitions_share() {
    type Kind = (&'static str, fn(&mut Raw, &str, u64) -> Reply);
    let kinds: [Kind; 10] = [
        ("upsert", |raw, _, n| write(raw, "k", &(n % 10).to_string())),
        ("create", |raw, _, n| write(raw, "k", &format!("new{n}"))),
        ("point read", |raw, _, _| {
            raw.call("GET", &format!("{DOCS}/place"), &[(KEY, "[\"k\"]")], b"")
                .unwrap()
        }),
        ("read of nothing", |raw, _, _| {
            raw.call("GET", &format!("{DOCS}/none"), &[(KEY, "[\"k\"]")], b"")
                .unwrap()
        }),
        ("conflict", |raw, _, _| {
            let body = br#"{"id":"place","pk":"k"}"#;
            raw.call("POST", DOCS, &[(KEY, "[\"k\"]")], body).unwrap()
        }),
        ("query", |raw, _, _| {
            let headers = [(KEY, "[\"k\"]"), ("x-ms-documentdb-isquery", "True")];
            let body = br#"{"query":"SELECT * FROM c WHERE c.id = 'none'"}"#;
            raw.call("POST", DOCS, &headers, body).unwrap()
        }),
        ("feed", |raw, _, _| {
            raw.call("GET", DOCS, &[(KEY, "[\"k\"]")], b"").unwrap()
        }),
        ("change feed", |raw, range, _| {
            let headers = [
                ("x-ms-documentdb-partitionkeyrangeid", range),
                ("a-im", "Incremental Feed"),
            ];
            raw.call("GET", DOCS, &headers, b"").unwrap()
        }),
        ("idle change feed", |raw, range, _| {
            let headers = [
                ("x-ms-documentdb-partitionkeyrangeid", range),
                ("a-im", "Incremental Feed"),
                ("if-none-match", "*"),
            ];
            raw.call("GET", DOCS, &headers, b"").unwrap()
        }),
        ("transactional batch", |raw, _, n| {
            let operation = |id: u64| json!({"operationType": "Upsert", "resourceBody": {"id": (n + id).to_string(), "pk": "k"}});
            let body = json!([operation(0), operation(1)]).to_string();
            let headers = [
                (KEY, "[\"k\"]"),
                ("x-ms-cosmos-is-batch-request", "True"),
                ("x-ms-cosmos-batch-atomic", "True"),
            ];
            raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap()
        }),
    ];
    for (name, call) in kinds {
        let (emulator, mut raw) = limited(4, 400);
        let range = range_of(&mut raw, "k");
        write(&mut raw, "k", "other");
        let mut number = 0;
        let rate = sustained(&emulator, &mut raw, |raw| {
            number += 1;
            call(raw, &range, number)
        });
        eprintln!("{name}: {rate:.1} RU/s");
        assert_near(rate, 100.0);
        let found = status(&mut raw);
        assert!(found["throttled"].as_u64() > Some(5), "{found}");
    }
}

#[test]
fn bulk_is_refused_operation_by_operation_and_then_at_once() {
    let (emulator, mut raw) = limited(4, 400);
    let range = range_of(&mut raw, "k");
    let operation = |id: u64| {
        json!({
            "operationType": "Upsert",
            "partitionKey": "[\"k\"]",
            "resourceBody": {"id": id.to_string(), "pk": "k"},
        })
    };
    let body = json!((0..30).map(operation).collect::<Vec<_>>()).to_string();
    let send = |raw: &mut Raw| {
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "False"),
            ("x-ms-cosmos-batch-continue-on-error", "True"),
        ];
        raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap()
    };
    let (mut partly, mut units, mut begin) = (0, 0.0, None);
    let elapsed = loop {
        let reply = send(&mut raw);
        if reply.status == 429 {
            let now = now_ms(&mut raw);
            let begin = *begin.get_or_insert(now);
            if now - begin > 5_000 {
                break now - begin;
            }
            if begin == now {
                units = 0.0;
            }
            emulator.advance_clock(retry_after(&reply) + Duration::from_millis(200));
            continue;
        }
        let results = reply.json();
        let results = results.as_array().expect("results");
        assert_eq!(results.len(), 30);
        let charges: f64 = results
            .iter()
            .map(|result| result["requestCharge"].as_f64().expect("a charge"))
            .sum();
        assert!((charges - charge(&reply)).abs() < 0.005, "{}", reply.text());
        units += charges;
        let refused: Vec<&Value> = results
            .iter()
            .filter(|result| result["statusCode"] == 429)
            .collect();
        assert_eq!(reply.status, if refused.is_empty() { 200 } else { 207 });
        for result in &refused {
            assert_eq!(result["subStatusCode"], 3200);
            assert_eq!(result["requestCharge"], 0.0);
            assert!(
                result["retryAfterMilliseconds"].as_u64() > Some(0),
                "{result}"
            );
        }
        partly += usize::from(!refused.is_empty());
    };
    assert!(partly > 5, "{partly}");
    assert_near(units * 1e3 / elapsed as f64, 100.0);
}

#[test]
fn a_hot_partition_leaves_the_cold_ones_alone() {
    let (_emulator, mut raw) = limited(4, 400);
    let hot = range_of(&mut raw, "hot");
    let cold: Vec<String> = (0..40)
        .map(|n| format!("cold{n}"))
        .filter(|key| range_of(&mut raw, key) != hot)
        .collect();
    assert!(cold.len() > 10);
    let (units, _) = drain(&mut raw, |raw| write(raw, "hot", "a"));
    assert!(units > 0.0, "{units}");
    for key in cold.iter().take(8) {
        assert_eq!(write(&mut raw, key, "a").status, 201, "{key}");
    }
    // A feed of everything meets the hot one, and says so unless it has something already.
    let headers = [
        ("a-im", "Incremental Feed"),
        ("x-ms-max-item-count", "1000"),
    ];
    drain(&mut raw, |raw| write(raw, "hot", "a"));
    let feed = raw.call("GET", DOCS, &headers, b"").unwrap();
    let first = hot == "0";
    assert_eq!(
        feed.status,
        if first { 429 } else { 200 },
        "{}",
        feed.text()
    );
}

#[test]
fn one_partition_is_limited_and_the_others_keep_their_share() {
    let (emulator, mut raw) = limited(4, 4_000);
    let hot = range_of(&mut raw, "hot");
    let cold = (0..40)
        .map(|n| format!("cold{n}"))
        .find(|key| range_of(&mut raw, key) != hot)
        .expect("another partition");
    let mut rate = |key: &str| sustained(&emulator, &mut raw, |raw| write(raw, key, "a"));
    assert_near(rate("hot"), 1_000.0);
    let id = hot.parse().unwrap();
    let limit = |rate| emulator.limit_partition("db", "items", id, rate);
    limit(Some(100.0)).unwrap();
    assert_near(rate("hot"), 100.0);
    assert_near(rate(&cold), 1_000.0);
    limit(None).unwrap();
    assert_near(rate("hot"), 1_000.0);

    let path = format!("/_emulator{CONTAINER}/ranges/{hot}/throughput");
    let mut put = |path: &str, body: &str| {
        let reply = raw.send("PUT", path, &[], body.as_bytes()).unwrap();
        (reply.status, reply.text())
    };
    assert_eq!(put(&path, r#"{"ru_per_s":200}"#).0, 204);
    for (path, body, expected) in [
        (path.as_str(), "{}", "missing field `ru_per_s`"),
        (&path, r#"{"ru_per_s":0}"#, "ru_per_s is 0, but must be"),
        (&path, r#"{"ru_per_s":1e7}"#, "at most 1000000"),
        (
            &format!("/_emulator{CONTAINER}/ranges/9/throughput"),
            r#"{"ru_per_s":1}"#,
            "partition key range 9 does not exist",
        ),
    ] {
        let (status, text) = put(path, body);
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(expected), "{text}");
    }
    // A new offer changes the share, and the limit holds in its place.
    set_offer(&mut raw, json!({"offerThroughput": 8_000}));
    let mut rate = |key: &str| sustained(&emulator, &mut raw, |raw| write(raw, key, "a"));
    assert_near(rate("hot"), 200.0);
    assert_near(rate(&cold), 2_000.0);
}

#[test]
fn a_limit_holds_where_throughput_is_not_enforced() {
    let emulator = crate::common::server(1);
    let mut raw = Raw::connect(&emulator).unwrap();
    raw.prepare("/pk").unwrap();
    emulator
        .limit_partition("db", "items", 0, Some(150.0))
        .unwrap();
    let rate = sustained(&emulator, &mut raw, |raw| write(raw, "k", "a"));
    assert_near(rate, 150.0);
    // It ends with its partition.
    emulator.split("db", "items", 0).unwrap();
    for number in 0..1_000 {
        assert_eq!(write(&mut raw, "k", &number.to_string()).status, 201);
    }
}

#[test]
fn a_new_offer_takes_effect_at_once() {
    let (emulator, mut raw) = limited(1, 400);
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        400.0,
    );
    set_offer(&mut raw, json!({"offerThroughput": 4_000}));
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        4_000.0,
    );
    set_offer(&mut raw, json!({"offerThroughput": 1_000}));
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        1_000.0,
    );
    // Autoscale is a ceiling, ten times what is reserved.
    set_offer(
        &mut raw,
        json!({"offerThroughput": 200, "offerAutopilotSettings": {"maxThroughput": 2_000}}),
    );
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        2_000.0,
    );
}

#[test]
fn containers_are_limited_to_what_they_were_created_with() {
    let (emulator, mut raw) = limited(1, 400);
    for (name, value, expected) in [
        ("x-ms-offer-throughput", "900", 900.0),
        (
            "x-ms-cosmos-offer-autopilot-settings",
            r#"{"maxThroughput":3000}"#,
            3_000.0,
        ),
    ] {
        let deleted = raw.call("DELETE", CONTAINER, &[], b"").unwrap();
        assert_eq!(deleted.status, 204);
        let body = br#"{"id":"items","partitionKey":{"paths":["/pk"],"kind":"Hash"}}"#;
        let made = raw
            .call("POST", "/dbs/db/colls", &[(name, value)], body)
            .unwrap();
        assert_eq!(made.status, 201, "{}", made.text());
        assert_near(
            sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
            expected,
        );
    }
}

#[test]
fn more_than_a_partition_may_have_splits_it() {
    let (emulator, mut raw) = limited(1, 10_000);
    let ranges = |raw: &mut Raw| {
        let reply = raw
            .call("GET", &format!("{CONTAINER}/pkranges"), &[], b"")
            .unwrap();
        reply.json()["PartitionKeyRanges"].as_array().unwrap().len()
    };
    assert_eq!(ranges(&mut raw), 1);
    set_offer(&mut raw, json!({"offerThroughput": 10_100}));
    assert_eq!(ranges(&mut raw), 2);
    set_offer(&mut raw, json!({"offerThroughput": 45_000}));
    assert_eq!(ranges(&mut raw), 5);
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        9_000.0,
    );
    // Less throughput merges nothing, as in the service.
    set_offer(&mut raw, json!({"offerThroughput": 1_000}));
    assert_eq!(ranges(&mut raw), 5);
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        200.0,
    );
}

#[test]
fn splits_and_merges_share_the_throughput_anew() {
    let (emulator, mut raw) = limited(1, 1_000);
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        1_000.0,
    );
    let [a, b] = emulator.split("db", "items", 0).unwrap();
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        500.0,
    );
    let [c, d] = emulator.split("db", "items", a).unwrap();
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        333.3,
    );
    let a = emulator.merge("db", "items", [c, d]).unwrap();
    emulator.merge("db", "items", [a, b]).unwrap();
    assert_near(
        sustained(&emulator, &mut raw, |raw| write(raw, "k", "a")),
        1_000.0,
    );
}

#[test]
fn without_throughput_nothing_is_refused_and_everything_is_counted() {
    let emulator = crate::common::server(2);
    let mut raw = Raw::connect(&emulator).unwrap();
    raw.prepare("/pk").unwrap();
    set_offer(&mut raw, json!({"offerThroughput": 400}));
    let mut units = 0.0;
    for number in 0..2_000 {
        let reply = write(&mut raw, "k", &(number % 100).to_string());
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
        units += charge(&reply);
    }
    let found = status(&mut raw);
    let counted: f64 = found["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| partition["request_units"].as_f64().unwrap())
        .sum();
    assert!(
        (counted - units).abs() < 0.01,
        "{counted} instead of {units}"
    );
    assert_eq!(found["throttled"], 0);
}

#[test]
fn status_counts_request_units_and_refusals() {
    let (emulator, mut raw) = limited(1, 400);
    let (mut units, mut refusals) = (0.0, 0);
    for _ in 0..20 {
        let (more, refusal) = drain(&mut raw, |raw| write(raw, "k", "a"));
        units += more;
        refusals += 1;
        emulator.advance_clock(retry_after(&refusal));
    }
    let found = status(&mut raw);
    assert_eq!(found["throttled"], refusals);
    let counted = found["partitions"][0]["request_units"].as_f64().unwrap();
    assert!(
        (counted - units).abs() < 0.01,
        "{counted} instead of {units}"
    );
}

#[test]
fn every_reply_says_what_it_cost() {
    let emulator = crate::common::server(1);
    let mut raw = Raw::connect(&emulator).unwrap();
    raw.prepare("/pk").unwrap();
    write(&mut raw, "k", "a");
    let key = (KEY, "[\"k\"]");
    let stale = ("if-match", "\"stale\"");
    let document = br#"{"id":"a","pk":"k"}"#.as_slice();
    let path = format!("{DOCS}/a");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let calls: [(&str, &str, Headers<'_>, &[u8], u16); 12] = [
        ("GET", "/", &[], b"", 200),
        ("GET", "/dbs", &[], b"", 200),
        ("GET", CONTAINER, &[], b"", 200),
        ("GET", "/offers", &[], b"", 200),
        ("GET", &path, &[key], b"", 200),
        ("GET", &path, &[key, ("if-none-match", "*")], b"", 304),
        ("POST", DOCS, &[key], b"{", 400),
        ("GET", &format!("{DOCS}/b"), &[key], b"", 404),
        ("GET", "/dbs/none/colls/none/docs/x", &[key], b"", 404),
        ("PUT", CONTAINER, &[], b"x", 400),
        ("POST", DOCS, &[key], document, 409),
        ("PUT", &path, &[key, stale], document, 412),
    ];
    for (method, path, headers, body, expected) in calls {
        let reply = raw.call(method, path, headers, body).unwrap();
        assert_eq!(reply.status, expected, "{method} {path}: {}", reply.text());
        assert!(charge(&reply) > 0.0, "{method} {path}");
    }
    let unsigned = raw.send("GET", "/dbs", &[], b"").unwrap();
    assert_eq!(unsigned.status, 401);
    charge(&unsigned);
}

#[tokio::test]
async fn the_sdk_waits_and_gets_everything_through() -> Outcome {
    let emulator = Emulator::start(EmulatorConfig {
        partitions: 4,
        throughput: Some(2_000),
        ..EmulatorConfig::default()
    })?;
    let client = client(&emulator).await?;
    let items = container(&client, "items", PartitionKeyDefinition::from("/pk")).await?;
    let write = |number: u32| {
        let items = &items;
        async move {
            let (key, id) = (format!("k{}", number % 50), number.to_string());
            let document = json!({"id": id, "pk": key});
            let written = items.upsert_item(key, &id, &document, None).await;
            let charge = written.map(|reply| reply.headers().request_charge().is_some());
            charge.map_err(|error| error.to_string())
        }
    };
    let written: Vec<_> = stream::iter((0..600).map(write))
        .buffer_unordered(2)
        .collect()
        .await;
    let failed = written.iter().find(|outcome| **outcome != Ok(true));
    assert_eq!(failed, None);
    let mut raw = Raw::connect(&emulator)?;
    let found = status(&mut raw);
    assert_eq!(found["documents"], 600);
    assert!(found["throttled"].as_u64() > Some(0), "{found}");
    Ok(())
}
