//! The change feed over HTTP, where it differs from what an SDK shows: retention, whole containers, moving partitions.

use serde_json::{Value, json};
use tidefeed_emulator::Emulator;

use crate::common::raw::{Raw, Reply};
use crate::common::{Outcome, server};

const DOCS: &str = "/dbs/db/colls/items/docs";
const LATEST: (&str, &str) = ("a-im", "Incremental Feed");
const ALL: (&str, &str) = ("a-im", "Full-Fidelity Feed");
const RANGE_0: (&str, &str) = ("x-ms-documentdb-partitionkeyrangeid", "0");

fn prepared(emulator: &Emulator, properties: Value) -> std::io::Result<Raw> {
    let mut raw = Raw::connect(emulator)?;
    raw.call("POST", "/dbs", &[], br#"{"id":"db"}"#)?;
    let mut container = json!({"id": "items", "partitionKey": {"paths": ["/pk"], "kind": "Hash"}});
    for (name, value) in properties.as_object().into_iter().flatten() {
        container[name] = value.clone();
    }
    let body = container.to_string();
    let made = raw.call("POST", "/dbs/db/colls", &[], body.as_bytes())?;
    assert_eq!(made.status, 201, "{}", made.text());
    Ok(raw)
}

fn write(raw: &mut Raw, document: &Value) -> std::io::Result<u16> {
    let key = json!([document["pk"]]).to_string();
    let headers = [
        ("x-ms-documentdb-partitionkey", key.as_str()),
        ("x-ms-documentdb-is-upsert", "True"),
    ];
    let body = document.to_string();
    Ok(raw.call("POST", DOCS, &headers, body.as_bytes())?.status)
}

fn feed(raw: &mut Raw, headers: &[(&str, &str)], token: Option<&str>) -> std::io::Result<Reply> {
    let mut headers = headers.to_vec();
    headers.extend(token.map(|token| ("if-none-match", token)));
    raw.call("GET", DOCS, &headers, b"")
}

fn token(reply: &Reply) -> String {
    reply.header("etag").unwrap_or_default().to_owned()
}

fn ids(reply: &Reply) -> Vec<String> {
    let page = reply.json();
    let documents = page["Documents"].as_array().cloned().unwrap_or_default();
    documents
        .iter()
        .map(|document| document["id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn past_the_retention_the_feed_of_all_versions_is_400_and_can_be_started_anew() -> Outcome {
    let emulator = server(1);
    let minute = json!({"changeFeedPolicy": {"retentionDuration": 1}});
    let mut raw = prepared(&emulator, minute)?;
    let start = token(&feed(&mut raw, &[ALL, RANGE_0], Some("*"))?);
    assert_eq!(write(&mut raw, &json!({"id": "a", "pk": "x"}))?, 201);
    emulator.advance_clock(std::time::Duration::from_secs(30));
    assert_eq!(write(&mut raw, &json!({"id": "b", "pk": "x"}))?, 201);
    let middle = feed(&mut raw, &[ALL, RANGE_0], Some(&start))?;
    assert_eq!(middle.json()["_count"], 2);
    // The first change is older than a minute now, the second is not.
    emulator.advance_clock(std::time::Duration::from_secs(40));
    let late = feed(&mut raw, &[ALL, RANGE_0], Some(&start))?;
    assert_eq!(late.status, 400);
    assert!(late.text().contains("retention"), "{}", late.text());
    assert_eq!(
        feed(&mut raw, &[ALL, RANGE_0], Some("\"1\""))?.json()["_count"],
        1
    );
    assert_eq!(
        feed(&mut raw, &[ALL, RANGE_0], Some(&token(&middle)))?.status,
        304
    );
    assert_eq!(feed(&mut raw, &[ALL, RANGE_0], Some("*"))?.status, 304);
    // The mode with the latest versions knows no retention.
    assert_eq!(ids(&feed(&mut raw, &[LATEST, RANGE_0], None)?), ["a", "b"]);
    Ok(())
}

#[test]
fn a_whole_container_is_read_with_one_continuation_across_a_split_and_a_merge() -> Outcome {
    let emulator = server(3);
    let mut raw = prepared(&emulator, json!({}))?;
    for index in 0..60 {
        write(
            &mut raw,
            &json!({"id": format!("d{index}"), "pk": format!("k{}", index % 20)}),
        )?;
    }
    let most = ("x-ms-max-item-count", "7");
    let (mut seen, mut resume, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = feed(&mut raw, &[LATEST, most], resume.as_deref())?;
        assert!([200, 304].contains(&page.status), "{}", page.text());
        seen.extend(ids(&page));
        resume = Some(token(&page));
        pages += 1;
        match pages {
            3 => drop(emulator.split("db", "items", 1)?),
            5 => drop(emulator.merge("db", "items", [4, 2])?),
            _ if page.status == 304 => break,
            _ => {}
        }
    }
    assert_eq!(seen.len(), 60, "every item once");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 60, "no item twice");
    Ok(())
}

#[test]
fn clients_of_a_moving_partition_are_sent_to_look_for_others() -> Outcome {
    let emulator = server(1);
    let mut raw = prepared(&emulator, json!({}))?;
    let path = "/_emulator/dbs/db/colls/items/ranges/0/split";
    let accepted = raw.send("POST", path, &[], br#"{"moving_ms": 300}"#)?;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let gone = feed(&mut raw, &[LATEST, RANGE_0], None)?;
    assert_eq!(
        (gone.status, gone.header("x-ms-substatus")),
        (410, Some("1002"))
    );
    assert_eq!(
        write(&mut raw, &json!({"id": "a", "pk": "x"}))?,
        201,
        "a call that names no partition is served"
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let ranges = loop {
        let map = raw
            .call("GET", "/dbs/db/colls/items/pkranges", &[], b"")?
            .json();
        if map["_count"] == 2 {
            break map;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the split has not happened"
        );
    };
    assert_eq!(ranges["PartitionKeyRanges"][0]["parents"], json!(["0"]));
    assert_eq!(feed(&mut raw, &[LATEST, RANGE_0], None)?.status, 410);
    Ok(())
}

#[test]
fn a_unique_value_is_free_again_when_its_item_has_expired() -> Outcome {
    let emulator = server(1);
    let properties =
        json!({"defaultTtl": 100, "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/mail"]}]}});
    let mut raw = prepared(&emulator, properties)?;
    let item = |id: &str, pk: &str| json!({"id": id, "pk": pk, "mail": "m"});
    assert_eq!(write(&mut raw, &item("a", "x"))?, 201);
    assert_eq!(write(&mut raw, &item("b", "x"))?, 409);
    assert_eq!(
        write(&mut raw, &item("b", "y"))?,
        201,
        "another logical partition"
    );
    assert_eq!(write(&mut raw, &item("a", "x"))?, 200, "its own value");
    emulator.split("db", "items", 0)?;
    assert_eq!(write(&mut raw, &item("b", "x"))?, 409, "after a split too");
    emulator.advance_clock(std::time::Duration::from_secs(101));
    assert_eq!(write(&mut raw, &item("b", "x"))?, 201);
    Ok(())
}
