//! A client that writes to its own keys and knows what is there: what was acknowledged, and the one request that was not.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use crate::common::Random;
use crate::common::raw::{Raw, Reply};
use crate::feed_property::reader::Change;

pub const DOCS: &str = "/dbs/db/colls/items/docs";

/// Seconds that a document with the id `mayfly` lives.
pub const TTL: u64 = 100_000;

/// Logical partition and id.
pub type Place = (String, String);

/// A document as the server returned it, and its LSN.
pub type Stored = (Value, u64);

/// What a request shall do to one document.
#[derive(Clone, Debug)]
struct Intent {
    place: Place,
    /// The number to be written; none for a delete.
    number: Option<u64>,
}

pub struct Writer {
    name: String,
    random: Random,
    numbers: u64,
    /// What is there.
    pub documents: BTreeMap<Place, Stored>,
    /// What happened, by logical partition.
    pub changes: HashMap<String, Vec<Change>>,
    /// Every tag that was handed out, and every `_rid`.
    pub tags: HashSet<String>,
    rids: HashSet<String>,
    /// The newest session token of each logical partition.
    sessions: HashMap<String, String>,
    /// The partition key range in which each logical partition was last.
    ranges: HashMap<String, String>,
    pending: Vec<Intent>,
    pub acknowledged: u64,
}

impl Writer {
    pub fn new(number: usize, seed: u64) -> Self {
        Self {
            name: format!("w{number}"),
            random: Random::new(seed * 1_000 + number as u64),
            numbers: 0,
            documents: BTreeMap::new(),
            changes: HashMap::new(),
            tags: HashSet::new(),
            rids: HashSet::new(),
            sessions: HashMap::new(),
            ranges: HashMap::new(),
            pending: Vec::new(),
            acknowledged: 0,
        }
    }

    /// One request. An error is the end of the server.
    pub fn step(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        match self.random.below(12) {
            0..=4 => self.upsert(raw),
            5..=6 => self.delete(raw),
            7 => self.patch(raw),
            8..=9 => self.batch(raw),
            _ => self.bulk(raw),
        }
    }

    fn key(&mut self) -> String {
        format!("{}-{}", self.name, self.random.below(8))
    }

    fn document(&mut self, place: &Place) -> Value {
        self.numbers += 1;
        let pad = "x".repeat(self.random.below(300));
        let (key, id) = place;
        let mut document =
            json!({"id": id, "pk": key, "n": self.numbers, "u": self.numbers, "pad": pad});
        if id == "mayfly" {
            document["ttl"] = json!(TTL);
        }
        document
    }

    fn place(&mut self, key: String) -> Place {
        let id = match self.random.below(7) {
            0 => "mayfly".to_owned(),
            n => format!("d{n}"),
        };
        (key, id)
    }

    fn existing(&mut self) -> Option<Place> {
        let count = self.documents.len();
        let index = (count > 0).then(|| self.random.below(count))?;
        self.documents.keys().nth(index).cloned()
    }

    fn send(
        &mut self,
        raw: &mut Raw,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: Value,
        intents: Vec<Intent>,
    ) -> std::io::Result<Reply> {
        self.pending = intents;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        raw.call(method, path, headers, body.as_bytes())
    }

    fn upsert(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let key = self.key();
        let place = self.place(key);
        let document = self.document(&place);
        let header = json!([place.0]).to_string();
        let headers = [
            ("x-ms-documentdb-partitionkey", header.as_str()),
            ("x-ms-documentdb-is-upsert", "True"),
        ];
        let intent = Intent {
            place,
            number: Some(self.numbers),
        };
        let reply = self.send(raw, ("POST", DOCS), &headers, document, vec![intent])?;
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
        self.acknowledge(&reply, vec![reply.json()]);
        Ok(())
    }

    fn delete(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let Some(place) = self.existing() else {
            return Ok(());
        };
        let header = json!([place.0]).to_string();
        let path = format!("{DOCS}/{}", place.1);
        let headers = [("x-ms-documentdb-partitionkey", header.as_str())];
        let intent = Intent {
            place,
            number: None,
        };
        let reply = self.send(raw, ("DELETE", &path), &headers, Value::Null, vec![intent])?;
        assert_eq!(reply.status, 204, "{}", reply.text());
        self.acknowledge(&reply, vec![Value::Null]);
        Ok(())
    }

    fn patch(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let Some(place) = self.existing() else {
            return Ok(());
        };
        self.numbers += 1;
        let header = json!([place.0]).to_string();
        let path = format!("{DOCS}/{}", place.1);
        let headers = [("x-ms-documentdb-partitionkey", header.as_str())];
        let body = json!({"operations": [{"op": "replace", "path": "/n", "value": self.numbers}]});
        let intent = Intent {
            place,
            number: Some(self.numbers),
        };
        let reply = self.send(raw, ("PATCH", &path), &headers, body, vec![intent])?;
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.acknowledge(&reply, vec![reply.json()]);
        Ok(())
    }

    /// Operations on different documents of these logical partitions, and what they shall do.
    fn operations(&mut self, keys: &[String], most: usize) -> (Vec<Value>, Vec<Intent>) {
        let (mut operations, mut intents) = (Vec::new(), Vec::new());
        let mut taken = HashSet::new();
        for _ in 0..=self.random.below(most) {
            let key = keys[self.random.below(keys.len())].clone();
            let place = self.place(key);
            if !taken.insert(place.clone()) {
                continue;
            }
            let delete = self.documents.contains_key(&place) && self.random.below(4) == 0;
            let mut operation = json!({"partitionKey": json!([place.0]).to_string()});
            if delete {
                operation["operationType"] = json!("Delete");
                operation["id"] = json!(place.1);
            } else {
                operation["operationType"] = json!("Upsert");
                operation["resourceBody"] = self.document(&place);
            }
            operations.push(operation);
            let number = (!delete).then_some(self.numbers);
            intents.push(Intent { place, number });
        }
        (operations, intents)
    }

    fn batch(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let key = self.key();
        let header = json!([key]).to_string();
        let (operations, intents) = self.operations(&[key], 6);
        let headers = [
            ("x-ms-documentdb-partitionkey", header.as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "True"),
        ];
        let reply = self.send(raw, ("POST", DOCS), &headers, json!(operations), intents)?;
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.acknowledge(&reply, bodies(&reply));
        Ok(())
    }

    /// A bulk batch of keys that were last seen in one range: it applies to all of them, or the range is gone.
    fn bulk(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let key = self.key();
        let Some(range) = self.ranges.get(&key).cloned() else {
            return Ok(());
        };
        let keys: Vec<String> = self
            .ranges
            .iter()
            .filter(|(_, known)| **known == range)
            .map(|(key, _)| key.clone())
            .collect();
        let (operations, intents) = self.operations(&keys, 20);
        let headers = [
            ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", "False"),
            ("x-ms-cosmos-batch-continue-on-error", "True"),
        ];
        let reply = self.send(raw, ("POST", DOCS), &headers, json!(operations), intents)?;
        if reply.status == 410 {
            self.pending.clear();
            self.ranges.retain(|_, known| *known != range);
            return Ok(());
        }
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.acknowledge(&reply, bodies(&reply));
        Ok(())
    }

    fn acknowledge(&mut self, reply: &Reply, bodies: Vec<Value>) {
        let header = |name: &str| reply.header(name).expect(name).to_owned();
        let lsn = header("lsn").parse().expect("an LSN");
        let intents = std::mem::take(&mut self.pending);
        assert_eq!(intents.len(), bodies.len(), "{}", reply.text());
        for (intent, body) in intents.into_iter().zip(bodies) {
            let key = intent.place.0.clone();
            self.sessions
                .insert(key.clone(), header("x-ms-session-token"));
            self.ranges
                .insert(key, header("x-ms-documentdb-partitionkeyrangeid"));
            self.note(intent, (body, lsn));
        }
        self.acknowledged += 1;
    }

    /// Notes that an intent came true.
    fn note(&mut self, intent: Intent, stored: Stored) {
        let (key, id) = intent.place.clone();
        let (kind, number) = match intent.number {
            None => {
                let (body, _) = self.documents.remove(&intent.place).expect("it was there");
                ("delete", body["n"].as_u64().expect("a number"))
            }
            Some(number) => {
                let body = &stored.0;
                assert_eq!(body["n"], number);
                let text = |name: &str| body[name].as_str().expect(name).to_owned();
                assert!(self.tags.insert(text("_etag")), "a tag was given twice");
                let kind = match self.documents.get(&intent.place) {
                    Some((before, _)) => {
                        assert_eq!(before["_rid"], body["_rid"]);
                        "replace"
                    }
                    None => {
                        assert!(self.rids.insert(text("_rid")), "a _rid was given twice");
                        "create"
                    }
                };
                self.documents.insert(intent.place, stored);
                (kind, number)
            }
        };
        self.changes
            .entry(key)
            .or_default()
            .push((kind, id, number));
    }

    /// Compares with what is there after a restart. The request that was under way happened wholly or not at all.
    pub fn check(&mut self, raw: &mut Raw, found: &BTreeMap<Place, Stored>) {
        let happened = |intent: &Intent| match (intent.number, found.get(&intent.place)) {
            (Some(number), Some((body, _))) => body["n"] == number,
            (Some(_), None) => false,
            (None, there) => there.is_none(),
        };
        let pending = std::mem::take(&mut self.pending);
        let count = pending.iter().filter(|intent| happened(intent)).count();
        assert!(
            count == 0 || count == pending.len(),
            "{count} of {pending:?} happened"
        );
        if count > 0 {
            for intent in pending {
                let stored = found.get(&intent.place).cloned().unwrap_or_default();
                self.note(intent, stored);
            }
        }
        let prefix = format!("{}-", self.name);
        let mine: BTreeMap<Place, Stored> = found
            .iter()
            .filter(|((key, _), _)| key.starts_with(&prefix))
            .map(|(place, stored)| (place.clone(), stored.clone()))
            .collect();
        assert_eq!(mine, self.documents);
        self.check_sessions(raw);
        self.check_unique(raw);
    }

    fn check_sessions(&self, raw: &mut Raw) {
        for ((key, id), (body, lsn)) in &self.documents {
            let header = json!([key]).to_string();
            let mut headers = vec![("x-ms-documentdb-partitionkey", header.as_str())];
            if let Some(token) = self.sessions.get(key) {
                headers.push(("x-ms-session-token", token));
            }
            let reply = raw
                .call("GET", &format!("{DOCS}/{id}"), &headers, b"")
                .unwrap();
            assert_eq!(reply.status, 200, "{headers:?}: {}", reply.text());
            assert_eq!(reply.json(), *body);
            assert_eq!(
                reply.header("x-ms-item-lsn"),
                Some(lsn.to_string().as_str())
            );
            assert_eq!(reply.header("etag"), body["_etag"].as_str());
        }
    }

    fn check_unique(&self, raw: &mut Raw) {
        let Some(((key, _), (body, _))) = self.documents.first_key_value() else {
            return;
        };
        let header = json!([key]).to_string();
        let headers = [("x-ms-documentdb-partitionkey", header.as_str())];
        let twin = json!({"id": "twin", "pk": key, "u": body["u"]}).to_string();
        let reply = raw.call("POST", DOCS, &headers, twin.as_bytes()).unwrap();
        assert_eq!(reply.status, 409, "{}", reply.text());
    }

    /// Notes that every mayfly has expired.
    pub fn expire(&mut self) {
        let mayflies: Vec<Place> = self
            .documents
            .keys()
            .filter(|(_, id)| id == "mayfly")
            .cloned()
            .collect();
        for place in mayflies {
            let (body, _) = self.documents.remove(&place).expect("it was there");
            let number = body["n"].as_u64().expect("a number");
            let changes = self.changes.entry(place.0).or_default();
            changes.push(("expire", place.1, number));
        }
    }
}

fn bodies(reply: &Reply) -> Vec<Value> {
    let results = reply.json();
    let results = results.as_array().expect("results");
    let body = |result: &Value| result["resourceBody"].clone();
    results.iter().map(body).collect()
}

/// Everything that is there, by the change feed from its beginning.
pub fn everything(raw: &mut Raw) -> std::io::Result<BTreeMap<Place, Stored>> {
    let mut found = BTreeMap::new();
    for (range, _, _) in crate::feed_property::reader::ranges(raw)? {
        let mut token: Option<String> = None;
        loop {
            let mut headers = vec![
                ("x-ms-documentdb-partitionkeyrangeid", range.as_str()),
                ("a-im", "Incremental Feed"),
            ];
            if let Some(token) = &token {
                headers.push(("if-none-match", token));
            }
            let reply = raw.call("GET", DOCS, &headers, b"")?;
            if reply.status == 304 {
                break;
            }
            assert_eq!(reply.status, 200, "{}", reply.text());
            token = reply.header("etag").map(str::to_owned);
            for document in reply.json()["Documents"].as_array().expect("documents") {
                let mut document = document.clone();
                let lsn = document.as_object_mut().and_then(|all| all.remove("_lsn"));
                let lsn = lsn.and_then(|lsn| lsn.as_u64()).expect("an LSN");
                let text = |name: &str| document[name].as_str().expect(name).to_owned();
                let place = (text("pk"), text("id"));
                let twice = found.insert(place, (document, lsn));
                assert!(twice.is_none(), "{twice:?} is there twice");
            }
        }
    }
    Ok(found)
}
