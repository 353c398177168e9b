//! Writing in batches as fast as the server takes them: bodies are made beforehand, and each range has a connection.

use std::sync::Barrier;
use std::time::Instant;

use serde_json::json;

use crate::Outcome;
use crate::documents::{DATABASE, id, text};
use crate::raw_feed::range_ids;
use crate::raw_http::RawClient;
use crate::server::ServerProcess;

/// Documents of a batch: the service takes no more.
pub const BATCH_SIZE: usize = 100;
/// Logical partitions in each range that documents go to in turns.
const KEYS_PER_RANGE: usize = 16;
/// Keys that are tried at most before a range counts as unreachable.
const KEYS_TRIED_MAX: usize = 10_000;

/// Which kind of batch is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// All or nothing, of one logical partition.
    Transactional,
    /// Each document for itself, of any logical partitions of one range.
    Bulk,
}

/// Fills a container.
pub struct BatchWriter {
    path: String,
    lanes: Vec<Lane>,
    /// Number of the next document.
    next: usize,
}

/// One range's connection.
struct Lane {
    client: RawClient,
    range: String,
    /// Logical partitions that lie in the range.
    keys: Vec<String>,
}

/// One request.
struct Batch {
    /// The partition key header of a transactional batch.
    key: Option<String>,
    body: String,
}

impl BatchWriter {
    /// For an empty container of this server. Which keys lie in which range is learned from the server, with one document
    /// a key that is deleted again.
    ///
    /// # Errors
    /// When the server does not answer, or refuses.
    pub fn connect(server: &ServerProcess, container: &str) -> Outcome<Self> {
        let path = format!("/dbs/{DATABASE}/colls/{container}/docs");
        let mut client = RawClient::connect(server)?;
        let mut lanes = Vec::new();
        for range in range_ids(&mut client, container)? {
            lanes.push(Lane {
                client: RawClient::connect(server)?,
                range,
                keys: Vec::new(),
            });
        }
        for number in 0.. {
            if lanes.iter().all(|lane| lane.keys.len() == KEYS_PER_RANGE) {
                break;
            }
            if number == KEYS_TRIED_MAX {
                return Err("the keys that were tried do not reach every range".into());
            }
            let key = format!("k{number}");
            let range = range_of(&mut client, &path, &key)?;
            let lane = lanes.iter_mut().find(|lane| lane.range == range);
            let lane = lane.ok_or("a document went to a range that is not on the map")?;
            if lane.keys.len() < KEYS_PER_RANGE {
                lane.keys.push(key);
            }
        }
        let next = 0;
        Ok(BatchWriter { path, lanes, next })
    }

    /// Writes new documents, `batches` of them to each range, and returns documents per second.
    ///
    /// # Errors
    /// When the server does not answer, refuses a batch, or does not create a document.
    pub fn timed_round(&mut self, kind: BatchKind, batches: usize) -> Outcome<f64> {
        let mut first = self.next;
        let mut prepared = Vec::new();
        for lane in &self.lanes {
            let starts = (0..batches).map(|index| first + index * BATCH_SIZE);
            prepared.push(
                starts
                    .map(|start| lane.batch(kind, start))
                    .collect::<Vec<_>>(),
            );
            first += batches * BATCH_SIZE;
        }
        let documents = first - self.next;

        let (path, ready) = (self.path.as_str(), Barrier::new(self.lanes.len() + 1));
        let (seconds, outcomes) = std::thread::scope(|scope| {
            let lanes = self.lanes.iter_mut().zip(&prepared);
            let threads: Vec<_> = lanes
                .map(|(lane, batches)| {
                    let ready = &ready;
                    scope.spawn(move || {
                        ready.wait();
                        lane.send(path, batches)
                    })
                })
                .collect();
            ready.wait();
            let begun = Instant::now();
            let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            (begun.elapsed().as_secs_f64(), outcomes)
        });
        for outcome in outcomes {
            outcome.map_err(|_| "a connection's thread panicked")??;
        }
        self.next = first;
        Ok(documents as f64 / seconds)
    }

    /// How many documents were written.
    pub fn written(&self) -> usize {
        self.next
    }
}

impl Lane {
    fn batch(&self, kind: BatchKind, first: usize) -> Batch {
        let key_of = |number: usize| match kind {
            BatchKind::Transactional => &self.keys[first / BATCH_SIZE % self.keys.len()],
            BatchKind::Bulk => &self.keys[number % self.keys.len()],
        };
        let mut body = String::with_capacity(BATCH_SIZE * 320);
        for number in first..first + BATCH_SIZE {
            body.push(if body.is_empty() { '[' } else { ',' });
            body.push_str(&operation(kind, key_of(number), number));
        }
        body.push(']');
        Batch {
            key: (kind == BatchKind::Transactional).then(|| json!([key_of(first)]).to_string()),
            body,
        }
    }

    fn send(&mut self, path: &str, batches: &[Batch]) -> Outcome {
        for batch in batches {
            let mut headers = vec![
                ("content-type", "application/json"),
                ("prefer", "return=minimal"),
                ("x-ms-cosmos-is-batch-request", "True"),
            ];
            match &batch.key {
                Some(key) => headers.extend([
                    ("x-ms-cosmos-batch-atomic", "True"),
                    ("x-ms-documentdb-partitionkey", key.as_str()),
                ]),
                None => headers.extend([
                    ("x-ms-cosmos-batch-atomic", "False"),
                    ("x-ms-cosmos-batch-continue-on-error", "True"),
                    ("x-ms-documentdb-partitionkeyrangeid", self.range.as_str()),
                ]),
            }
            let reply = self
                .client
                .send("POST", path, &headers, batch.body.as_bytes())?;
            reply.expect(&[200])?;
            let results = std::str::from_utf8(&reply.body)?;
            if results.matches("\"statusCode\":201").count() != BATCH_SIZE {
                return Err(format!("not every document of a batch was created: {results}").into());
            }
        }
        Ok(())
    }
}

/// An upsert in a batch.
fn operation(kind: BatchKind, key: &str, number: usize) -> String {
    let (id, document) = (id(number), text(key, number));
    match kind {
        BatchKind::Transactional => {
            format!(r#"{{"operationType":"Upsert","id":"{id}","resourceBody":{document}}}"#)
        }
        // The key is an array as JSON text, within JSON text.
        BatchKind::Bulk => format!(
            r#"{{"operationType":"Upsert","partitionKey":"[\"{key}\"]","id":"{id}","resourceBody":{document}}}"#
        ),
    }
}

/// The range that a logical partition lies in.
fn range_of(client: &mut RawClient, path: &str, key: &str) -> Outcome<String> {
    let header = json!([key]).to_string();
    let header = ("x-ms-documentdb-partitionkey", header.as_str());
    let document = json!({"id": key, "pk": key}).to_string();
    let reply = client.send("POST", path, &[header], document.as_bytes())?;
    reply.expect(&[201])?;
    let range = reply.header("x-ms-documentdb-partitionkeyrangeid").into();
    let reply = client.send("DELETE", &format!("{path}/{key}"), &[header], &[])?;
    reply.expect(&[204])?;
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_json_and_name_their_key() {
        for kind in [BatchKind::Transactional, BatchKind::Bulk] {
            let operation: serde_json::Value =
                serde_json::from_str(&operation(kind, "k1", 7)).expect("json");
            assert_eq!(operation["id"], operation["resourceBody"]["id"]);
            let key = operation["partitionKey"].as_str();
            match kind {
                BatchKind::Transactional => assert_eq!(key, None),
                BatchKind::Bulk => assert_eq!(key, Some(r#"["k1"]"#)),
            }
        }
    }
}
