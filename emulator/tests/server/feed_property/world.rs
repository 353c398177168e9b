//! A container to which random things happen, and the true list of what happened.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use tidefeed_emulator::Emulator;

use super::reader::{Change, Mode, Reader, ranges};
use crate::common::Random;
use crate::common::raw::Raw;

const DOCS: &str = "/dbs/db/colls/items/docs";

/// Seconds that a document with the id `mayfly` lives.
const TTL: u64 = 1_000;

pub struct World<'a> {
    emulator: &'a Emulator,
    raw: Raw,
    random: Random,
    writes: u64,
    /// What is there: by logical partition and id, the number written last.
    live: BTreeMap<(String, String), u64>,
    /// What happened, by logical partition.
    truth: HashMap<String, Vec<Change>>,
    /// Each reader, and how much had happened in each logical partition when it began.
    readers: Vec<(Reader, HashMap<String, usize>)>,
}

impl<'a> World<'a> {
    pub fn new(emulator: &'a Emulator, seed: u64) -> std::io::Result<Self> {
        let mut raw = Raw::connect(emulator)?;
        raw.call("POST", "/dbs", &[], br#"{"id":"db"}"#)?;
        let container = json!({"id": "items", "defaultTtl": -1, "partitionKey": {"paths": ["/pk"], "kind": "Hash"}});
        let made = raw.call(
            "POST",
            "/dbs/db/colls",
            &[],
            container.to_string().as_bytes(),
        )?;
        assert_eq!(made.status, 201, "{}", made.text());
        let mut world = Self {
            emulator,
            raw,
            random: Random::new(seed),
            writes: 0,
            live: BTreeMap::new(),
            truth: HashMap::new(),
            readers: Vec::new(),
        };
        world.begin_reader(Mode::AllVersionsAndDeletes)?;
        world.begin_reader(Mode::LatestVersion)?;
        Ok(world)
    }

    fn begin_reader(&mut self, mode: Mode) -> std::io::Result<()> {
        let reader = Reader::new(&mut self.raw, mode)?;
        let begun = self
            .truth
            .iter()
            .map(|(key, changes)| (key.clone(), changes.len()))
            .collect();
        self.readers.push((reader, begun));
        Ok(())
    }

    /// Lets something happen.
    pub fn step(&mut self) -> std::io::Result<()> {
        match self.random.below(20) {
            0..=5 => self.point_write(),
            6..=7 => self.delete(),
            8..=9 => self.batch(),
            10..=11 => self.bulk(),
            12 => self.split(),
            13 => self.merge(),
            14 => self.age(),
            15 if self.readers.len() < 5 => {
                let mode = [Mode::LatestVersion, Mode::AllVersionsAndDeletes][self.random.below(2)];
                self.begin_reader(mode)
            }
            _ => {
                let index = self.random.below(self.readers.len());
                let most = 1 + self.random.below(6);
                self.readers[index]
                    .0
                    .read_page(&mut self.raw, most)
                    .map(drop)
            }
        }
    }

    fn key(&mut self) -> String {
        format!("k{}", self.random.below(12))
    }

    fn document(&mut self, key: &str) -> (String, Value) {
        self.writes += 1;
        let mayfly = self.random.below(6) == 0;
        let id = if mayfly {
            "mayfly".to_owned()
        } else {
            format!("d{}", self.random.below(5))
        };
        let mut document = json!({"id": id, "pk": key, "n": self.writes});
        if mayfly {
            document["ttl"] = json!(TTL);
        }
        (id, document)
    }

    fn note_write(&mut self, key: &str, id: &str, number: u64) {
        let place = (key.to_owned(), id.to_owned());
        let kind = match self.live.insert(place, number) {
            Some(_) => "replace",
            None => "create",
        };
        let change = (kind, id.to_owned(), number);
        self.truth.entry(key.to_owned()).or_default().push(change);
    }

    fn note_end(&mut self, kind: &'static str, key: &str, id: &str) {
        let place = (key.to_owned(), id.to_owned());
        if let Some(number) = self.live.remove(&place) {
            let change = (kind, id.to_owned(), number);
            self.truth.entry(key.to_owned()).or_default().push(change);
        }
    }

    fn point_write(&mut self) -> std::io::Result<()> {
        let key = self.key();
        let (id, document) = self.document(&key);
        let header = json!([key]).to_string();
        let headers = [
            ("x-ms-documentdb-partitionkey", header.as_str()),
            ("x-ms-documentdb-is-upsert", "True"),
        ];
        let reply = self
            .raw
            .call("POST", DOCS, &headers, document.to_string().as_bytes())?;
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
        self.note_write(&key, &id, self.writes);
        Ok(())
    }

    fn delete(&mut self) -> std::io::Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        let index = self.random.below(self.live.len());
        let Some((key, id)) = self.live.keys().nth(index).cloned() else {
            return Ok(());
        };
        let header = json!([key]).to_string();
        let headers = [("x-ms-documentdb-partitionkey", header.as_str())];
        let reply = self
            .raw
            .call("DELETE", &format!("{DOCS}/{id}"), &headers, b"")?;
        assert_eq!(reply.status, 204, "{}", reply.text());
        self.note_end("delete", &key, &id);
        Ok(())
    }

    /// A transactional batch; now and then one that fails and must leave nothing.
    fn batch(&mut self) -> std::io::Result<()> {
        let key = self.key();
        let fails = self.random.below(4) == 0;
        let mut operations = Vec::new();
        let mut written = Vec::new();
        for _ in 0..=self.random.below(4) {
            let (id, document) = self.document(&key);
            operations.push(json!({"operationType": "Upsert", "resourceBody": document}));
            written.push((id, self.writes));
        }
        if fails {
            operations.push(json!({"operationType": "Delete", "id": "nobody"}));
        }
        let header = json!([key]).to_string();
        let headers = [
            ("x-ms-documentdb-partitionkey", header.as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "True"),
        ];
        let body = json!(operations).to_string();
        let reply = self.raw.call("POST", DOCS, &headers, body.as_bytes())?;
        assert_eq!(
            reply.status,
            if fails { 207 } else { 200 },
            "{}",
            reply.text()
        );
        if !fails {
            for (id, number) in written {
                self.note_write(&key, &id, number);
            }
        }
        Ok(())
    }

    /// A bulk batch to one partition, with keys of other partitions among its operations.
    fn bulk(&mut self) -> std::io::Result<()> {
        let ranges = ranges(&mut self.raw)?;
        let range = ranges[self.random.below(ranges.len())].0.clone();
        let mut operations = Vec::new();
        let mut written = Vec::new();
        for _ in 0..=self.random.below(8) {
            let key = self.key();
            let (id, document) = self.document(&key);
            operations.push(json!({
                "operationType": "Upsert",
                "partitionKey": json!([key]).to_string(),
                "resourceBody": document,
            }));
            written.push((key, id, self.writes));
        }
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "False"),
            ("x-ms-cosmos-batch-continue-on-error", "True"),
        ];
        let body = json!(operations).to_string();
        let reply = self.raw.call("POST", DOCS, &headers, body.as_bytes())?;
        assert!([200, 207].contains(&reply.status), "{}", reply.text());
        let results = reply.json();
        for ((key, id, number), result) in written
            .into_iter()
            .zip(results.as_array().expect("results"))
        {
            match result["statusCode"].as_u64() {
                Some(200 | 201) => self.note_write(&key, &id, number),
                Some(410) => {}
                _ => panic!("{result}"),
            }
        }
        Ok(())
    }

    fn split(&mut self) -> std::io::Result<()> {
        let ranges = ranges(&mut self.raw)?;
        if ranges.len() < 9 {
            let range = ranges[self.random.below(ranges.len())]
                .0
                .parse()
                .expect("an id");
            self.emulator
                .split("db", "items", range)
                .expect("a range can be split");
        }
        Ok(())
    }

    fn merge(&mut self) -> std::io::Result<()> {
        let ranges = ranges(&mut self.raw)?;
        if ranges.len() > 1 {
            let index = self.random.below(ranges.len() - 1);
            let pair =
                [&ranges[index].0, &ranges[index + 1].0].map(|id| id.parse().expect("an id"));
            self.emulator
                .merge("db", "items", pair)
                .expect("neighbours can be merged");
        }
        Ok(())
    }

    /// Everything that was to expire has expired.
    fn age(&mut self) -> std::io::Result<()> {
        self.emulator
            .advance_clock(std::time::Duration::from_secs(TTL + 1));
        let mayflies: Vec<String> = self
            .live
            .keys()
            .filter(|(_, id)| id == "mayfly")
            .map(|(key, _)| key.clone())
            .collect();
        for key in mayflies {
            self.note_end("expire", &key, "mayfly");
        }
        Ok(())
    }

    /// Reads everything to the end and compares.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.begin_reader(Mode::LatestVersion)?;
        for (mut reader, begun) in std::mem::take(&mut self.readers) {
            reader.drain(&mut self.raw)?;
            match reader.mode {
                Mode::AllVersionsAndDeletes => self.check_all_versions(&reader, &begun),
                Mode::LatestVersion => self.check_latest(&reader),
            }
        }
        Ok(())
    }

    fn check_all_versions(&self, reader: &Reader, begun: &HashMap<String, usize>) {
        for (key, changes) in &self.truth {
            let expected = &changes[begun.get(key).copied().unwrap_or(0)..];
            let seen = reader.seen.get(key).map_or(&[][..], Vec::as_slice);
            assert_eq!(seen, expected, "all versions of {key}");
        }
    }

    fn check_latest(&self, reader: &Reader) {
        for (key, changes) in &self.truth {
            let seen = reader.seen.get(key).map_or(&[][..], Vec::as_slice);
            let numbers: Vec<u64> = seen.iter().map(|change| change.2).collect();
            let mut truth = changes
                .iter()
                .filter(|change| matches!(change.0, "create" | "replace"))
                .map(|change| change.2);
            let in_order = numbers
                .iter()
                .all(|number| truth.any(|true_number| true_number == *number));
            assert!(
                in_order,
                "{key}: {numbers:?} is no subsequence of what was written"
            );
            for ((_, id), number) in self
                .live
                .iter()
                .filter(|((live_key, _), _)| live_key == key)
            {
                let last = seen.iter().rev().find(|change| change.1 == *id);
                assert_eq!(last.map(|change| change.2), Some(*number), "{key} {id}");
            }
        }
    }
}
