//! Brings a container in line with a view, whatever the container holds.
//!
//! A sink that is *rebuilt* cannot trust its container: another version of the job wrote it, or a run that ended midway. So it
//! holds its whole view, reads the whole container once, and writes the difference: what is missing or differs is upserted,
//! what should not be there is deleted, and what is right already is left alone.
//!
//! ```text
//! worker 0, 1, …     HeldView: updates of complete epochs ---+
//!                                                            +--> reconcile --> DocumentWrites, like any batch
//! first that asks    ContainerScan: Target::contents, shared-+
//!                    out by key hash, as the view is
//! ```
//!
//! 1. A document belongs to the worker whose share of the view its key hash falls into, and only that worker writes it. So
//!    one scan serves all workers: nobody changes a document before its worker has seen it.
//! 2. Documents are compared by [`document_hash`]: a service writes numbers and the order of fields in its own way.
//!    The epoch that a sink may write into its documents is not part of that.
//! 3. Keys are compared in the one form of [`partition_key_json`](crate::document::partition_key_json).
//!
//! Limits: each worker holds its share of the view in memory until it is reconciled, and the scan a key and 16 bytes for
//! each document. A container that somebody else keeps writing to is not supported: a view's container has one writer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::Xxh3Default;

use crate::document::partition_key_json;
use crate::fold::{ViewUpdate, for_each_document};
use crate::moves::Moves;
use crate::strategy::{RowKind, stamped};
use crate::target::{DocumentWrite, EPOCH_PROPERTY, SERVICE_PROPERTIES, Target};

/// Partition key and id.
type Key = (String, String);

/// A document that a container holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredDocument {
    /// The partition key as a JSON array.
    pub partition_key: String,
    /// The document's id.
    pub id: String,
    /// What [`document_hash`] makes of its body.
    pub hash: u128,
}

impl StoredDocument {
    /// A document as a change feed has it: its key is the JSON array of its partition key values and, last, its id.
    ///
    /// # Errors
    /// `Data` when the key is no such array or the body is no JSON.
    pub fn of_record(key: &[u8], body: &[u8]) -> Result<Self> {
        let (partition_key, id) = split_key(key)?;
        Ok(StoredDocument {
            partition_key,
            hash: document_hash(body)
                .map_err(|error| error.wrap(format!("cannot compare document {id}")))?,
            id,
        })
    }
}

/// The partition key, as a JSON array, and the id of a record's key.
///
/// # Errors
/// `Data` when it is no such key.
pub(crate) fn split_key(key: &[u8]) -> Result<(String, String)> {
    let malformed = || {
        let key = String::from_utf8_lossy(key);
        Error::new(ErrorKind::Data, format!("{key} is no key of a document"))
    };
    let mut values: Vec<Value> = serde_json::from_slice(key).map_err(|_| malformed())?;
    match values.pop() {
        Some(Value::String(id)) => Ok((partition_key_json(values), id)),
        _ => Err(malformed()),
    }
}

/// One worker's share of a view, whole: the newest body of every document, and the epoch in which it came. Rows of the
/// checkpoint came in the epoch of their commit.
#[derive(Debug, Default)]
pub struct HeldView {
    documents: HashMap<Key, (u64, Bytes)>,
}

impl HeldView {
    /// Takes in updates of epochs that are complete and follow those before.
    pub fn absorb(&mut self, updates: Vec<ViewUpdate>) {
        for_each_document(updates, RowKind::Collection, |document, steps| {
            let key = (document.partition_key.to_string(), document.id.to_string());
            let last = steps.last();
            match last.and_then(|step| Some((step.epoch, step.come?))) {
                Some((epoch, body)) => {
                    let body = Bytes::copy_from_slice(body);
                    self.documents.insert(key, (epoch, body))
                }
                None => self.documents.remove(&key),
            };
        });
    }
}

/// The writes that make a container that holds `existing` hold `desired`, at most one for each document.
///
/// With `stamp_epoch` each document that is written says of which epoch it is.
///
/// # Errors
/// `Data` when a body is no JSON.
pub fn reconcile(
    desired: HeldView,
    existing: Vec<StoredDocument>,
    stamp_epoch: bool,
) -> Result<Vec<DocumentWrite>> {
    // A document that a scan met twice was newer the second time.
    let mut existing: HashMap<Key, u128> = existing
        .into_iter()
        .map(|stored| ((stored.partition_key, stored.id), stored.hash))
        .collect();
    let mut writes = Vec::new();
    for (key, (epoch, body)) in desired.documents {
        if existing.remove(&key) != Some(document_hash(&body)?) {
            let body = match stamp_epoch {
                true => stamped(&body, epoch),
                false => body,
            };
            writes.push(DocumentWrite::upsert(key.0, key.1, body));
        }
    }
    writes.extend(
        existing
            .into_keys()
            .map(|(partition_key, id)| DocumentWrite::delete(partition_key, id)),
    );
    Ok(writes)
}

/// A hash of what a JSON document says: the same for any order of fields and any way to write a number, and without the
/// properties that a service adds ([`SERVICE_PROPERTIES`]) or a sink ([`EPOCH_PROPERTY`]). Numbers count as 64-bit floats, as services keep them.
///
/// # Errors
/// `Data` when the body is no JSON.
pub fn document_hash(body: &[u8]) -> Result<u128> {
    let mut document: Value =
        serde_json::from_slice(body).context(ErrorKind::Data, || "a document is no JSON")?;
    if let Value::Object(fields) = &mut document {
        let added = |name: &str| name == EPOCH_PROPERTY || SERVICE_PROPERTIES.contains(&name);
        fields.retain(|name, _| !added(name));
    }
    let mut hasher = Xxh3Default::new();
    hash_value(&document, &mut hasher);
    Ok(hasher.digest128())
}

/// Each value begins with its kind, and what has no fixed length with its length, so no two values look alike.
fn hash_value(value: &Value, hasher: &mut Xxh3Default) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(value) => hasher.update(if *value { b"t" } else { b"f" }),
        Value::Number(number) => {
            // Adding zero makes one zero of the two that floats have.
            let number = number.as_f64().unwrap_or(f64::NAN) + 0.0;
            hasher.update(b"d");
            hasher.update(&number.to_le_bytes());
        }
        Value::String(text) => hash_text(text, hasher),
        Value::Array(values) => {
            hasher.update(b"a");
            hasher.update(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| hash_value(value, hasher));
        }
        Value::Object(fields) => {
            hasher.update(b"o");
            hasher.update(&(fields.len() as u64).to_le_bytes());
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                hash_text(name, hasher);
                hash_value(value, hasher);
            }
        }
    }
}

fn hash_text(text: &str, hasher: &mut Xxh3Default) {
    hasher.update(b"s");
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// What a container held before this run wrote to it, read once for all workers of a process.
pub struct ContainerScan {
    target: Arc<dyn Target>,
    moves: Moves,
    shares: OnceCell<Mutex<Vec<Vec<StoredDocument>>>>,
}

impl ContainerScan {
    /// A scan of `target`, which begins when the first worker asks for its share.
    pub fn new(target: Arc<dyn Target>, moves: Moves) -> Self {
        ContainerScan {
            target,
            moves,
            shares: OnceCell::new(),
        }
    }

    /// Takes the documents that worker `worker` of `peers` writes.
    ///
    /// # Errors
    /// When the container cannot be read.
    pub async fn take_share(&self, worker: usize, peers: usize) -> Result<Vec<StoredDocument>> {
        let scan = async || {
            let contents = self.target.contents().await?;
            Ok::<_, Error>(Mutex::new(shares(contents, self.moves, peers)))
        };
        let shares = self.shares.get_or_try_init(scan).await?;
        Ok(shares
            .lock()
            .get_mut(worker)
            .map(std::mem::take)
            .unwrap_or_default())
    }
}

/// Documents by worker, as timely's exchange deals out the rows of a view.
fn shares(contents: Vec<StoredDocument>, moves: Moves, peers: usize) -> Vec<Vec<StoredDocument>> {
    let mut shares = vec![Vec::new(); peers];
    for document in contents {
        let hash = moves.hash(&document.partition_key, &document.id);
        shares[(hash % peers as u64) as usize].push(document);
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::document::ViewDocument;
    use crate::target::DocumentAction;

    fn stored(key: &Value, body: &Value) -> StoredDocument {
        StoredDocument::of_record(key.to_string().as_bytes(), body.to_string().as_bytes())
            .expect("a document")
    }

    fn view(rows: &BTreeMap<String, Value>) -> HeldView {
        let row = |(id, body): (&String, &Value)| {
            let document = ViewDocument {
                partition_key: json!([id]).to_string().into(),
                id: id.as_str().into(),
                body: body.to_string().into_bytes().into(),
                position: 0,
            };
            (document, 1, 1)
        };
        let mut view = HeldView::default();
        view.absorb(rows.iter().map(row).collect());
        view
    }

    #[test]
    fn a_document_is_the_same_in_any_spelling() {
        let hash = |body: &str| document_hash(body.as_bytes()).expect("JSON");
        let plain = hash(r#"{"id":"a","n":2,"o":{"x":1,"y":[0,null]}}"#);
        for same in [
            r#"{ "o": {"y":[-0.0,null], "x":1e0}, "n": 2.0, "id":"a" }"#,
            r#"{"id":"a","n":2,"o":{"x":1,"y":[0,null]},"_rid":"r","_self":"s","_etag":"e","_ts":7,"_attachments":"","_lsn":3}"#,
            r#"{"id":"a","n":2,"o":{"x":1,"y":[0,null]},"_epoch":7}"#,
        ] {
            assert_eq!(hash(same), plain, "{same}");
        }
        for other in [
            r#"{"id":"a","n":2,"o":{"x":1,"y":[null,0]}}"#,
            r#"{"id":"a","n":"2","o":{"x":1,"y":[0,null]}}"#,
            r#"{"id":"a","n":2,"o":{"x":1,"y":[0,null],"_ts":7}}"#,
            r#"{"id":"a","n":2,"o":{"x":1,"y":[0]}}"#,
            r#"{"id":"a","n":2.5,"o":{"x":1,"y":[0,null]}}"#,
        ] {
            assert_ne!(hash(other), plain, "{other}");
        }
        assert_eq!(hash("9007199254740993"), hash("9007199254740992.0"));
        assert!(document_hash(b"{").is_err());
    }

    #[test]
    fn a_key_has_one_form_however_its_numbers_are_written() {
        let document = |key: &str| StoredDocument::of_record(key.as_bytes(), b"{}");
        let plain = document(r#"[2,{},"x","id"]"#).expect("a key");
        assert_eq!(
            (plain.partition_key.as_str(), plain.id.as_str()),
            (r#"[2,{},"x"]"#, "id")
        );
        assert_eq!(document(r#"[ 2.0, {}, "x", "id" ]"#).expect("a key"), plain);
        for malformed in ["[]", "[1]", "id", "{}"] {
            assert!(document(malformed).is_err(), "{malformed}");
        }
    }

    /// Random containers and views: the writes make one of the other, and none of them is for nothing.
    #[test]
    fn the_writes_make_a_container_equal_to_the_view() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let documents = |random: &mut fastrand::Rng| -> BTreeMap<String, Value> {
                let count = random.usize(0..8);
                (0..count)
                    .map(|_| {
                        let id = random.u8(0..10).to_string();
                        let body = json!({"id": id, "n": random.u8(0..3)});
                        (id, body)
                    })
                    .collect()
            };
            let (before, after) = (documents(&mut random), documents(&mut random));
            let existing = before
                .iter()
                .map(|(id, body)| stored(&json!([id, id]), body))
                .collect();
            let writes = reconcile(view(&after), existing, seed % 2 == 0).expect("JSON");
            let mut container = before.clone();
            for write in writes {
                let was = container.remove(&write.id);
                if let DocumentAction::Upsert(body) = write.action {
                    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
                    if seed % 2 == 0 {
                        let fields = body.as_object_mut().expect("an object");
                        assert_eq!(fields.remove(EPOCH_PROPERTY), Some(json!(1)));
                    }
                    assert_ne!(
                        was.as_ref(),
                        Some(&body),
                        "seed {seed}: written for nothing"
                    );
                    container.insert(write.id, body);
                } else {
                    assert!(was.is_some(), "seed {seed}: deleted for nothing");
                }
            }
            assert_eq!(container, after, "seed {seed}");
        }
    }

    #[test]
    fn shares_are_disjoint_and_whole_and_by_the_hash_of_the_view() {
        let contents: Vec<_> = (0..100)
            .map(|n| stored(&json!([n, n.to_string()]), &json!({})))
            .collect();
        for (peers, moves) in (1..=3).zip([Moves::InOrder, Moves::Unordered].into_iter().cycle()) {
            let shares = shares(contents.clone(), moves, peers);
            let mut all: Vec<_> = shares.concat();
            all.sort();
            let mut expected = contents.clone();
            expected.sort();
            assert_eq!(all, expected);
            for (worker, share) in shares.iter().enumerate() {
                let mine = |d: &StoredDocument| moves.hash(&d.partition_key, &d.id) % peers as u64;
                assert!(share.iter().all(|d| mine(d) == worker as u64));
            }
        }
    }
}
