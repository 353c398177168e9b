//! The port through which view documents go out.
//!
//! Each worker of a sink hands a [`Target`] one batch at a time, with at most one write per document, and waits for the whole
//! batch; a document belongs to one worker. So a target is free to order, group and retry the writes of a batch as it likes:
//! per document there is never more than one write in flight (invariant I5).
//!
//! That holds across runs as well: at its end a run closes its targets and waits until every `apply` has returned, and only
//! then may the next run write. So an `apply` that has returned, or was closed and has run out of [`REQUEST_DEADLINE`],
//! must leave nothing behind that still writes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidefeed_runtime::stall::TargetWait;
use tidefeed_runtime::{Error, ErrorKind, Fence, Result};

use crate::dead_letter::DeadLetters;
use crate::reconcile::StoredDocument;
use crate::strategy::PatchWrite;
use crate::traffic::TrafficCounters;

/// Properties that a service adds to the documents it keeps. They are no part of what a job wrote.
pub const SERVICE_PROPERTIES: [&str; 6] = ["_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"];

/// The property that says of which epoch a document is. Rows do not have it: a sink takes it off them, and writes its own
/// where it is asked to.
pub const EPOCH_PROPERTY: &str = "_epoch";

/// One document's net change.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentWrite {
    /// The partition key as a JSON array with one element for each path of the key, for example `["EWR"]`.
    pub partition_key: String,
    /// The document's id.
    pub id: String,
    /// What to do with it.
    pub action: DocumentAction,
}

impl DocumentWrite {
    /// Writes the document, whether it is there or not. `partition_key` is a JSON array.
    pub fn upsert(
        partition_key: impl Into<String>,
        id: impl Into<String>,
        body: impl Into<Bytes>,
    ) -> Self {
        Self::new(partition_key, id, DocumentAction::Upsert(body.into()))
    }

    /// Removes the document, if it is there.
    pub fn delete(partition_key: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(partition_key, id, DocumentAction::Delete { if_match: None })
    }

    /// Any write. `partition_key` is a JSON array.
    pub fn new(
        partition_key: impl Into<String>,
        id: impl Into<String>,
        action: DocumentAction,
    ) -> Self {
        DocumentWrite {
            partition_key: partition_key.into(),
            id: id.into(),
            action,
        }
    }
}

/// What to do with a document. A write that its own condition turns away is acknowledged like any other, and counts as
/// ignored ([`Applied::ignored`]). Bodies are whole documents as JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum DocumentAction {
    /// Write it, whether it is there or not.
    Upsert(Bytes),
    /// Write it if it is not there; else ignored.
    Create(Bytes),
    /// Write it if it is there, and has this etag if one is given; else ignored.
    Replace {
        /// The document.
        body: Bytes,
        /// The etag that it must have.
        if_match: Option<Box<str>>,
    },
    /// Remove it if it has this etag, else ignored. Without an etag removing what is not there is a success.
    Delete {
        /// The etag that it must have.
        if_match: Option<Box<str>>,
    },
    /// Change some of its properties if it is there and the conditions of the patch hold; else ignored.
    Patch(Box<PatchWrite>),
}

impl DocumentAction {
    /// The whole document, if it is written whole.
    pub fn document(&self) -> Option<&Bytes> {
        match self {
            DocumentAction::Upsert(body)
            | DocumentAction::Create(body)
            | DocumentAction::Replace { body, .. } => Some(body),
            DocumentAction::Delete { .. } | DocumentAction::Patch(_) => None,
        }
    }

    /// Whether it removes the document.
    pub fn is_delete(&self) -> bool {
        matches!(self, DocumentAction::Delete { .. })
    }
}

/// What a batch cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Applied {
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests that were answered with throttling and sent again.
    pub throttled: u64,
    /// Request units charged.
    pub charge_ru: f64,
    /// Documents of the batch that the condition of their write left as they were. After answers that were lost it may be a
    /// few less: a write that an earlier attempt has carried out is not told from one that was turned away.
    pub ignored: u64,
}

impl std::ops::AddAssign for Applied {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.throttled += other.throttled;
        self.charge_ru += other.charge_ru;
        self.ignored += other.ignored;
    }
}

/// How long the requests of a closed target may take to be answered or to time out. A run that ends waits at most this long
/// for them. 10 s: Cosmos DB's SDK gives an attempt up to 6 s, and requests have an end-to-end limit of 8 s. Larger makes
/// the end of a run wait longer for a service that does not answer; smaller than the time that a request can live would let
/// it land on the writes of the next run.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A container that takes a view's documents, for one run.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// Writes every document of the batch. When it returns `Ok`, all of them are acknowledged and durable.
    ///
    /// Throttling, timeouts and other passing faults are retried without limit, document by document.
    ///
    /// # Errors
    /// What no retry can mend, and that the target was closed before everything was written. Some writes of the batch may
    /// then have happened and others not; none happens after the return.
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied>;

    /// Whether the container holds no document at all. A run that starts from nothing asks: documents that its view does not
    /// hold would stay there for ever.
    ///
    /// The default says yes, for targets that cannot tell.
    ///
    /// # Errors
    /// When the container cannot be read.
    async fn is_empty(&self) -> Result<bool> {
        Ok(true)
    }

    /// A document that the container holds, as it was written; for errors that say what is in the way.
    ///
    /// The default says that there is none, for targets that cannot tell.
    ///
    /// # Errors
    /// When the container cannot be read.
    async fn find(&self, _partition_key: &str, _id: &str) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// Every document that the container held when this was called. Asked only while nobody writes to the container: by a
    /// sink that is to be rebuilt, before its first write. Which documents come is not to depend on how the container is
    /// split into partitions.
    ///
    /// The default says that the target cannot tell, so that a sink over it cannot be rebuilt.
    ///
    /// # Errors
    /// When the container cannot be read, now or ever.
    async fn contents(&self) -> Result<Vec<StoredDocument>> {
        Err(Error::new(
            ErrorKind::Config,
            "the target cannot be read, so it cannot be brought in line with a view: empty it, and start over with --fresh",
        ))
    }

    /// What keeps writes from being acknowledged; `None` when none are under way. For whoever asks why a job stands still, at any
    /// time and from any thread.
    ///
    /// The default says nothing, for targets that cannot tell.
    fn waits(&self) -> Option<TargetWait> {
        None
    }

    /// Where it counts its requests, for whoever watches the job; asked when a run begins.
    ///
    /// The default says nothing, for targets that do not count them.
    fn traffic(&self) -> Option<Arc<dyn TrafficCounters>> {
        None
    }

    /// Asked once, before anything is written: from now on no request may start, and none that is under way may be repeated,
    /// once `fence` has closed (I7). The call of [`apply`](Target::apply) itself is guarded by whoever makes it.
    ///
    /// The default does nothing, which is right for a target whose `apply` starts no tasks of its own.
    fn guard(&self, _fence: &Fence) {}

    /// Asked once at most, before anything is written: a write that the service refuses for good is kept in `letters`, as one of
    /// `sink`, and counts as written once it is durable there. Not asked, or by default, such a write is an error of `apply`.
    fn keep_dead_letters(&self, _sink: &str, _letters: Arc<dyn DeadLetters>) {}

    /// From now on no request is started. An `apply` under way returns once its requests have been answered or have timed
    /// out, at most [`REQUEST_DEADLINE`] from now, with an error if anything is left to write; waits between attempts are
    /// cut short. A later `apply` returns an error at once.
    ///
    /// The default does nothing, which is right for a target whose `apply` always returns in that time.
    fn close(&self) {}
}
