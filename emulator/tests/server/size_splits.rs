//! Partitions that split because they have grown: `split_at_bytes`.

use std::time::{Duration, Instant};

use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};

use crate::common::Random;
use crate::common::raw::Raw;
use crate::feed_property::reader::{Mode, Reader, ranges};

const DOCS: &str = "/dbs/db/colls/items/docs";

/// What a container holds takes more than its documents' text, so that a partition of this size has less than ten.
const SPLIT_AT_BYTES: u64 = 4_096;

fn server(split_at_bytes: u64) -> (Emulator, Raw) {
    let emulator = Emulator::start(EmulatorConfig {
        partitions: 1,
        split_at_bytes: Some(split_at_bytes),
        ..EmulatorConfig::default()
    })
    .unwrap();
    let mut raw = Raw::connect(&emulator).unwrap();
    raw.prepare("/pk").unwrap();
    (emulator, raw)
}

fn write(raw: &mut Raw, key: &str, id: &str, number: u64) {
    let header = json!([key]).to_string();
    let headers = [
        ("x-ms-documentdb-partitionkey", header.as_str()),
        ("x-ms-documentdb-is-upsert", "True"),
    ];
    let body = json!({"id": id, "pk": key, "n": number}).to_string();
    let reply = raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap();
    assert!([200, 201].contains(&reply.status), "{}", reply.text());
}

#[test]
fn partitions_that_grow_split_and_nothing_is_lost() {
    let (emulator, mut raw) = server(SPLIT_AT_BYTES * 8);
    let mut readers = [Mode::LatestVersion, Mode::AllVersionsAndDeletes]
        .map(|mode| Reader::new(&mut raw, mode).unwrap());
    let mut random = Random::new(1);
    let mut truth = std::collections::HashMap::new();
    for number in 0..1_500 {
        let (key, id) = (format!("k{}", random.below(300)), number.to_string());
        write(&mut raw, &key, &id, number);
        let changes: &mut Vec<_> = truth.entry(key).or_default();
        changes.push(("create", id, number));
        for reader in &mut readers {
            if random.below(4) == 0 {
                reader.read_page(&mut raw, 20).unwrap();
            }
        }
    }
    let live = ranges(&mut raw).unwrap().len();
    assert!(live > 8, "{live}");
    assert_eq!(emulator.stats().documents, 1_500);
    let [latest, all] = &mut readers;
    latest.drain(&mut raw).unwrap();
    all.drain(&mut raw).unwrap();
    assert_eq!(all.seen, truth);
    for (key, changes) in &truth {
        let numbers = |changes: &[(&str, String, u64)]| -> Vec<u64> {
            changes.iter().map(|change| change.2).collect()
        };
        assert_eq!(numbers(&latest.seen[key]), numbers(changes), "{key}");
    }
}

/// One logical partition cannot be divided, however large: it stays, and writing to it stays as quick as it was.
#[test]
fn a_single_logical_partition_stays_whole_and_quick() {
    let (_emulator, mut raw) = server(SPLIT_AT_BYTES);
    let bulk = |raw: &mut Raw, from: u64| {
        let operation = |id: u64| {
            json!({
                "operationType": "Upsert",
                "partitionKey": "[\"k\"]",
                "resourceBody": {"id": id.to_string(), "pk": "k", "n": id},
            })
        };
        let body = json!((from..from + 100).map(operation).collect::<Vec<_>>()).to_string();
        let range = ranges(raw).unwrap()[0].0.clone();
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "False"),
        ];
        let reply = raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let hundred_writes = |raw: &mut Raw, id: &str| {
        let begun = Instant::now();
        for number in 0..100 {
            write(raw, "k", id, number);
        }
        begun.elapsed()
    };
    bulk(&mut raw, 0);
    let small = (0..5).map(|_| hundred_writes(&mut raw, "a")).min().unwrap();
    for from in 1..400 {
        bulk(&mut raw, from * 100);
    }
    let large = (0..5).map(|_| hundred_writes(&mut raw, "a")).min().unwrap();
    eprintln!("100 writes: {small:?} with 100 documents, {large:?} with 40,000");
    // A look at every document for each write would be a hundred times as slow.
    assert!(large < small * 10 + Duration::from_millis(20), "{large:?}");
    assert_eq!(ranges(&mut raw).unwrap().len(), 1);
    // Another key: now there is something to divide.
    write(&mut raw, "other", "a", 0);
    assert_eq!(ranges(&mut raw).unwrap().len(), 2);
    write(&mut raw, "k", "a", 0);
    write(&mut raw, "other", "a", 0);
    assert_eq!(ranges(&mut raw).unwrap().len(), 2);
}
