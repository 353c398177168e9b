//! What durability costs: run with `--ignored --nocapture`, in release, on a machine that does nothing else.

use std::time::Instant;

use serde_json::json;

use super::program::{Directory, Program, prepare};
use crate::common::from_environment;
use crate::common::raw::Raw;

const DOCS: &str = "/dbs/db/colls/items/docs";

/// Documents of about 250 bytes.
const PAD_BYTES: usize = 200;

fn upserts(raw: &mut Raw, count: u64) -> f64 {
    let pad = "x".repeat(PAD_BYTES);
    let begun = Instant::now();
    for number in 0..count {
        let key = (number % 100).to_string();
        let body = json!({"id": number.to_string(), "pk": key, "pad": pad}).to_string();
        let header = json!([key]).to_string();
        let headers = [
            ("x-ms-documentdb-partitionkey", header.as_str()),
            ("x-ms-documentdb-is-upsert", "True"),
        ];
        let reply = raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap();
        assert!([200, 201].contains(&reply.status));
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Bulk batches of 100, whose documents all belong to one partition each.
fn bulk(raw: &mut Raw, batches: u64) -> f64 {
    let pad = "x".repeat(PAD_BYTES);
    let mut ranges = Vec::new();
    for key in 0..100 {
        let header = json!([key.to_string()]).to_string();
        let body = json!({"id": "place", "pk": key.to_string()}).to_string();
        let headers = [
            ("x-ms-documentdb-partitionkey", header.as_str()),
            ("x-ms-documentdb-is-upsert", "True"),
        ];
        let reply = raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap();
        let range = reply.header("x-ms-documentdb-partitionkeyrangeid").unwrap();
        ranges.push(range.to_owned());
    }
    let begun = Instant::now();
    for batch in 0..batches {
        let key = (batch % 100) as usize;
        let operation = |number: u64| {
            let id = (batch * 100 + number).to_string();
            json!({
                "operationType": "Upsert",
                "partitionKey": json!([key.to_string()]).to_string(),
                "resourceBody": {"id": id, "pk": key.to_string(), "pad": pad},
            })
        };
        let body = json!((0..100).map(operation).collect::<Vec<_>>()).to_string();
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", ranges[key].as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "False"),
            ("prefer", "return=minimal"),
        ];
        let reply = raw.call("POST", DOCS, &headers, body.as_bytes()).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    batches as f64 * 100.0 / begun.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn what_a_journal_costs() {
    for turn in 0..4 {
        for (name, flags) in [
            ("memory", None),
            ("interval", Some(["--fsync", "interval"])),
            ("always", Some(["--fsync", "always"])),
        ] {
            let directory = Directory::new("figures").unwrap();
            let program = match flags {
                None => Program::start_in_memory(),
                Some(flags) => Program::start(&directory, &flags),
            };
            let mut raw = program.connect();
            prepare(&mut raw, json!({}));
            let count = if name == "always" { 2_000 } else { 20_000 };
            let single = upserts(&mut raw, count);
            let many = bulk(&mut raw, count / 50);
            eprintln!("turn {turn}, {name}: {single:.0} upserts/s, {many:.0} documents/s in bulk");
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn how_long_a_start_takes() {
    let directory = Directory::new("start").unwrap();
    let documents = from_environment("TIDEFEED_START_DOCUMENTS", 1_000_000);
    let program = Program::start(&directory, &[]);
    let mut raw = program.connect();
    prepare(&mut raw, json!({}));
    let rate = bulk(&mut raw, documents / 100);
    eprintln!("{documents} documents at {rate:.0}/s");
    program.kill();
    for _ in 0..3 {
        let bytes = directory.journal().metadata().unwrap().len();
        let begun = Instant::now();
        let program = Program::start(&directory, &[]);
        let elapsed = begun.elapsed();
        eprintln!(
            "a start over a journal of {} MB: {elapsed:.2?}",
            bytes >> 20
        );
        program.kill();
    }
}
