//! The port through which view documents go out.
//!
//! A sink hands a [`Target`] one batch at a time, with at most one write per document, and waits for the whole batch. So
//! a target is free to order, group and retry the writes of a batch as it likes: per document there is never more than
//! one write in flight (invariant I5).

use async_trait::async_trait;
use bytes::Bytes;
use tidefeed_runtime::Result;

/// One document's net change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentWrite {
    /// The partition key as a JSON array with one element for each path of the key, for example `["EWR"]`.
    pub partition_key: String,
    /// The document's id.
    pub id: String,
    /// The whole document as JSON to upsert, or `None` to delete it. Deleting what is not there is a success.
    pub body: Option<Bytes>,
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
}

/// A container that takes a view's documents.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// Writes every document of the batch. When it returns `Ok`, all of them are acknowledged and durable.
    ///
    /// Throttling, timeouts and other passing faults are retried without limit, document by document.
    ///
    /// # Errors
    /// Only what no retry can mend. Some writes of the batch may then have happened and others not.
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied>;
}
