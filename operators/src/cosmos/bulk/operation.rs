//! What is to be written, and what came back for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::routing::{RangeId, RoutingKey};

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// The partition key as a JSON array, for example `["EWR"]`.
    pub partition_key: Box<str>,
    /// The document's id.
    pub id: Box<str>,
}

/// What to do with a document. Bodies are JSON as the service is to get it: they are spliced into requests as they are, so
/// whoever takes them from outside checks them first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write it, whether it is there or not.
    Upsert(Bytes),
    /// Write it if it is not there.
    Create(Bytes),
    /// Write it if it is there.
    Replace(Bytes),
    /// Remove it. Removing what is not there is a success.
    Delete,
    /// Change some of its properties.
    Patch {
        /// The service's patch document: `{"operations":[..],"condition":".."}`.
        body: Bytes,
        /// True when the condition turns away a patch that has been applied already, so that one can be repeated.
        guarded: bool,
    },
}

impl Action {
    /// The service's name for it.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Upsert(_) => "Upsert",
            Action::Create(_) => "Create",
            Action::Replace(_) => "Replace",
            Action::Delete => "Delete",
            Action::Patch { .. } => "Patch",
        }
    }

    /// The body that goes along.
    pub fn body(&self) -> Option<&Bytes> {
        match self {
            Action::Upsert(body) | Action::Create(body) | Action::Replace(body) => Some(body),
            Action::Patch { body, .. } => Some(body),
            Action::Delete => None,
        }
    }
}

/// Operations with the same order key take effect one after the other, in the order in which they were submitted. It is a
/// hash: two keys that collide only wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(u128);

impl OrderKey {
    /// Order among the operations on one document. The partition key counts as the service reads it: `[1]` is `[1.0]`.
    pub fn of_document(routing: &RoutingKey, id: &str) -> Self {
        let mut hasher = Xxh3Default::new();
        hasher.update(routing.as_bytes());
        // With the length, no other split of the same bytes is the same key.
        hasher.update(&[routing.as_bytes().len() as u8]);
        hasher.update(id.as_bytes());
        OrderKey(hasher.digest128())
    }

    /// Order among the operations on all documents with one id, whatever their partition key: for documents that move from
    /// one partition key to another by an insert and then a delete.
    pub fn of_id(id: &str) -> Self {
        OrderKey(xxh3_128(id.as_bytes()))
    }
}

/// One write, as it is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The document.
    pub key: DocumentKey,
    /// What to do with it.
    pub action: Action,
    /// Only if the document still has this etag.
    pub if_match: Option<Box<str>>,
}

impl Write {
    /// An unconditional write. `partition_key` is a JSON array such as `["EWR"]`.
    pub fn new(
        partition_key: impl Into<Box<str>>,
        id: impl Into<Box<str>>,
        action: Action,
    ) -> Self {
        Write {
            key: DocumentKey {
                partition_key: partition_key.into(),
                id: id.into(),
            },
            action,
            if_match: None,
        }
    }

    /// The same write, only if the document still has this etag. An upsert becomes a replace: an upsert whose document is gone
    /// would write it anew.
    pub fn if_match(mut self, etag: impl Into<Box<str>>) -> Self {
        self.action = match self.action {
            Action::Upsert(body) => Action::Replace(body),
            other => other,
        };
        self.if_match = Some(etag.into());
        self
    }
}

/// A write on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The document.
    pub key: DocumentKey,
    /// What to do with it.
    pub action: Action,
    /// Only if the document still has this etag.
    pub if_match: Option<Box<str>>,
    /// Where the document is among the container's physical partitions.
    pub routing: RoutingKey,
    /// What it is ordered with.
    pub order: OrderKey,
    /// Kept, because it is asked for with every request and reading the keys again costs time.
    pub(super) size_bytes: usize,
}

/// What the request wraps around an operation, at most: names, braces, commas, and the longest action.
const OVERHEAD_BYTES: usize = 96;

/// What an operation takes in memory beside what its size in a request counts: about 400 bytes with 64-bit pointers, by the sizes
/// of the types. Allocations are counted as they are rounded up, and tables as half empty, as they are after they have grown.
const MEMORY_BYTES: usize = {
    /// What the allocator adds to a block, on average: sizes come in steps.
    const BLOCK: usize = 16;
    /// A body's counter, which it shares with its copies.
    const SHARED_BODY: usize = 4 * size_of::<usize>();
    // Behind an `Arc`, which has two counters.
    let operation = 2 * size_of::<usize>() + size_of::<Operation>() + BLOCK;
    // Partition key, id, body.
    let texts = 3 * BLOCK + SHARED_BODY;
    operation + texts + super::order::BYTES_FOR_EACH - OVERHEAD_BYTES
};

impl Operation {
    /// An operation that is ordered with those on the same document.
    pub(crate) fn new(write: Write, routing: RoutingKey) -> Self {
        let size_bytes = OVERHEAD_BYTES
            + escaped_len(&write.key.partition_key)
            + escaped_len(&write.key.id)
            + write.if_match.as_deref().map_or(0, escaped_len)
            + write.action.body().map_or(0, Bytes::len);
        Operation {
            order: OrderKey::of_document(&routing, &write.key.id),
            key: write.key,
            action: write.action,
            if_match: write.if_match,
            routing,
            size_bytes,
        }
    }

    /// Upper bound of its size in a request, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// About what it takes in memory while it is under way, in bytes: its texts, and what is kept around them.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.size_bytes + MEMORY_BYTES
    }

    /// Whether its effect depends on nothing but itself, so that a newer one can take its place.
    pub(crate) fn is_plain(&self) -> bool {
        self.if_match.is_none() && matches!(self.action, Action::Upsert(_) | Action::Delete)
    }
}

/// The length of `text` within a JSON string, at most.
fn escaped_len(text: &str) -> usize {
    let escape = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(escape).sum::<usize>()
}

/// Operations that are acknowledged together: what one call submitted. Chosen by the caller, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Names one request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// The way that a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A non-atomic batch for one physical partition.
    Bulk,
    /// An atomic batch of operations with one partition key.
    Transactional,
    /// One operation by itself.
    Point,
}

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) range: RangeId,
    pub(crate) route: Route,
    /// At most one for each document.
    pub(crate) operations: Vec<Arc<Operation>>,
}

/// What the service answered to a request.
///
/// `results` counts only with status 200 or 207, and then has one element for each operation, in order; anything else is an
/// answer that cannot be read, which is [`Lost`]. The answer to a point write is a single result with status 207, also when
/// the document was refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) sub_status: u32,
    /// Set when the whole request was throttled.
    pub(crate) retry_after: Option<Duration>,
    /// Request units charged for everything in the request.
    pub(crate) charge_ru: f64,
    /// What the server said about a request that failed as a whole.
    pub(crate) message: Box<str>,
    /// The name of the attempt, for support.
    pub(crate) activity_id: Box<str>,
    pub(crate) results: Vec<OperationResult>,
}

impl Answer {
    /// Whether the service refused all of it or some for want of request units.
    pub(crate) fn throttled(&self) -> bool {
        self.status == 429 || self.results.iter().any(|result| result.status == 429)
    }
}

/// What the service answered to one operation of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OperationResult {
    pub(crate) status: u16,
    pub(crate) sub_status: u32,
    pub(crate) charge_ru: f64,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) etag: Option<Box<str>>,
    pub(crate) message: Option<Box<str>>,
}

/// Why there is no answer to a request, or none that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No complete request left this machine: it did not happen and never will.
    Unsent,
    /// It may have happened, or may still.
    Maybe,
}

/// What the service said about an operation that it will never carry out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The service's sub-status, 0 for none.
    pub sub_status: u32,
    /// What the server said.
    pub message: Box<str>,
    /// The name of the attempt, for support.
    pub activity_id: Box<str>,
}

/// What became of a group's operations. The counts add up to their number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Carried out.
    pub written: u64,
    /// Turned away by their own condition, as the strategy wants it.
    pub ignored: u64,
    /// Never written, because a newer write of the same document took their place and was acknowledged.
    pub superseded: u64,
    /// Refused for good, and put into the dead letters if there are any.
    pub dead: u64,
    /// Not written because the writer was closed or stopped.
    pub unwritten: u64,
    /// Those among `unwritten` that may have happened all the same.
    pub uncertain: u64,
    /// Requests sent, retries included. A request counts for the group of its first operation.
    pub requests: u64,
    /// Requests among them that were throttled, or any of whose operations was.
    pub throttled: u64,
    /// Request units charged.
    pub charge_ru: f64,
    /// The document's new etag, if the group is a single operation.
    pub etag: Option<Box<str>>,
    /// The first refusal.
    pub refusal: Option<Box<Refusal>>,
}

impl Summary {
    /// Adds what became of another group.
    pub(crate) fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.ignored += other.ignored;
        self.superseded += other.superseded;
        self.dead += other.dead;
        self.unwritten += other.unwritten;
        self.uncertain += other.uncertain;
        self.requests += other.requests;
        self.throttled += other.throttled;
        self.charge_ru += other.charge_ru;
        self.etag = None;
        if self.refusal.is_none() {
            self.refusal.clone_from(&other.refusal);
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            status,
            sub_status,
            message,
            activity_id,
        } = self;
        write!(f, "{status}/{sub_status}: {message}")?;
        match &**activity_id {
            "" => Ok(()),
            activity_id => write!(f, " (activity id {activity_id})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_bounds_the_longest_form_of_an_operation() {
        let body = Bytes::from_static(b"{\"id\":\"x\"}");
        let action = Action::Upsert(body.clone());
        let write = Write::new("[\"a\\\"b\",null]", "x\u{1}\"\\", action);
        let operation = Operation::new(write.if_match("\"0000-1\""), RoutingKey::new(vec![1, 2]));
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let encoded = format!(
            "{{\"operationType\":\"Replace\",\"partitionKey\":{},\"id\":{},\"ifMatch\":{},\"resourceBody\":{}}},",
            text(&operation.key.partition_key),
            text(&operation.key.id),
            text(operation.if_match.as_deref().unwrap()),
            std::str::from_utf8(&body).unwrap(),
        );
        assert!(operation.size_bytes() >= encoded.len());
        assert!(operation.size_bytes() < encoded.len() + 32);
    }

    /// What the setting's documentation says of it.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_operation_takes_about_500_bytes_beside_its_texts() {
        let beside = MEMORY_BYTES + OVERHEAD_BYTES;
        assert!((450..550).contains(&beside), "{beside}");
    }

    #[test]
    fn an_order_key_tells_documents_apart() {
        let of = |key: &[u8], id| OrderKey::of_document(&RoutingKey::new(key.to_vec()), id);
        assert_eq!(of(b"x", "a"), of(b"x", "a"));
        assert_ne!(of(b"x", "a"), of(b"x", "b"));
        assert_ne!(of(b"xa", "b"), of(b"x", "ab"));
        assert_eq!(OrderKey::of_id("a"), OrderKey::of_id("a"));
        assert_ne!(OrderKey::of_id("a"), OrderKey::of_id("b"));
    }
}
