//! The SDK's own encoder is the oracle of the binary JSON decoder: what it encodes must arrive as it was.
//!
//! The decoder is private, so documents go through a server; the driver's encoder makes the request bodies that the
//! raw client sends.

use crate::common::raw::Raw;
use crate::common::{Outcome, server};
use azure_data_cosmos_driver::binary_json::encode;
use serde_json::{Map, Value, json};

/// A small deterministic generator; the same seed replays a failure.
struct Random(fastrand::Rng);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0.u64(..limit)
    }

    fn text(&mut self) -> String {
        const ALPHABET: [char; 12] = [
            'a',
            'Z',
            '0',
            ' ',
            '"',
            '\\',
            '\n',
            '\u{1}',
            '\u{e6}',
            '\u{20ac}',
            '\u{1F600}',
            '/',
        ];
        let length = match self.below(10) {
            0 => 70 + self.below(300),
            1 => 0,
            _ => self.below(20),
        };
        match self.below(6) {
            0 => "0123456789abcdef"
                .chars()
                .cycle()
                .take(length as usize)
                .collect(),
            1 => "8e6b1f3a-0c2d-4e5f-9a8b-7c6d5e4f3a2b".to_owned(),
            2 => "2024-05-06T07:08:09.123Z".to_owned(),
            _ => (0..length)
                .map(|_| ALPHABET[self.below(12) as usize])
                .collect(),
        }
    }

    fn value(&mut self, depth: u64) -> Value {
        match self.below(if depth > 4 { 8 } else { 10 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(40)),
            3 => json!(self.next() as i64 >> self.below(64)),
            4 => json!(self.next()),
            5 => json!((self.next() as i32) as f64 / 64.0),
            6 | 7 => Value::String(self.text()),
            8 => {
                let longest = if self.below(8) == 0 { 300 } else { 6 };
                let length = self.below(longest);
                Value::Array((0..length).map(|_| self.value(depth + 2)).collect())
            }
            _ => Value::Object(self.members(depth)),
        }
    }

    fn members(&mut self, depth: u64) -> Map<String, Value> {
        const NAMES: [&str; 6] = ["name", "type", "value", "Feature", "ordinary", "label"];
        (0..self.below(8))
            .map(|index| {
                let name = match self.below(3) {
                    0 => NAMES[self.below(6) as usize].to_owned(),
                    _ => format!("{}{index}", self.text()),
                };
                (name, self.value(depth + 1))
            })
            .collect()
    }
}

/// Numbers by value: text has no difference between `3` and `3.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

#[test]
fn whatever_the_driver_encodes_arrives() -> Outcome {
    let emulator = server(1);
    let mut raw = Raw::connect(&emulator)?;
    raw.prepare("/pk")?;
    let mut random = Random(fastrand::Rng::with_seed(0x5EED_0001));
    for round in 0..400 {
        let mut members = random.members(0);
        members.insert("id".to_owned(), json!("d"));
        members.insert("pk".to_owned(), json!("x"));
        let document = Value::Object(members);
        let headers = [
            ("x-ms-documentdb-is-upsert", "true"),
            ("x-ms-documentdb-partitionkey", "[\"x\"]"),
        ];
        let reply = raw.call(
            "POST",
            "/dbs/db/colls/items/docs",
            &headers,
            &encode(&document),
        )?;
        assert!(
            matches!(reply.status, 200 | 201),
            "round {round}: {} {document}",
            reply.text()
        );
        let mut arrived: Value = serde_json::from_slice(&reply.body)?;
        for name in ["_rid", "_self", "_etag", "_ts", "_attachments"] {
            arrived.as_object_mut().unwrap().remove(name);
        }
        assert!(
            same(&arrived, &document),
            "round {round}:\n{document}\n{arrived}"
        );
    }
    let broken = raw.call(
        "POST",
        "/dbs/db/colls/items/docs",
        &[],
        &[0x80, 0xEA, 200, 1],
    )?;
    assert_eq!(broken.status, 400);
    Ok(())
}
