//! A container as a [`Target`]: a batch goes through a [`BulkWriter`], which keeps order, pace and retries.
//!
//! A write that its own condition turns away is acknowledged and counts as ignored: a create where a document is (409), a replace
//! or a patch where none is (404), and whatever finds another etag or a condition that does not hold (412). A patch that creates
//! a missing document is two writes of one document, a create and the patch; both carry the same epoch, so at most one of them acts.
//!
//! Repeating a write is safe: patches that it would do harm to are guarded by their epoch ([`crate::strategy::patch`]). When it may be
//! followed by other content is the writer's rule 4. A call that is dropped withdraws what has not been sent.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tidefeed_runtime::stall::TargetWait;
use tidefeed_runtime::{FeedRangeId, Fence, Result};

use super::bulk::classify::Classifier;
use super::bulk::config::{BulkConfig, Poison};
use super::bulk::operation::{Action, Summary, Write};
use super::bulk::writer::BulkWriter;
use super::container::Container;
use super::feed::{CosmosFeed, FeedConfig};
use super::point::read;
use super::reader::{for_each_stored, sample};
use crate::dead_letter::DeadLetters;
use crate::feed::ChangeFeed;
use crate::reconcile::StoredDocument;
use crate::strategy::{PatchOperation, PatchWrite};
use crate::target::{Applied, DocumentAction, DocumentWrite, EPOCH_PROPERTY, Target};
use crate::traffic::TrafficCounters;

/// Writes of a batch that are handed over at once: enough that requests are full whatever the number of partitions, and
/// little beside what the writer may hold.
const HAND_OVER: usize = 4096;

/// Writes documents to one container.
#[derive(Clone)]
pub struct CosmosTarget {
    container: Container,
    writer: BulkWriter,
}

impl CosmosTarget {
    /// Writes to `container`. A view must not lack documents that nobody was told of, so [`Poison::Report`] is
    /// [`Poison::Fail`] here.
    ///
    /// # Errors
    /// As [`BulkWriter::open`].
    pub async fn open(container: Container, config: BulkConfig) -> Result<Self> {
        Self::open_with(container, config, Classifier::default()).await
    }

    /// As [`open`](Self::open), with another table of what a status means. Replaces and patches of documents that are not there
    /// are ignored, unless the table says otherwise.
    ///
    /// # Errors
    /// As [`BulkWriter::open`].
    pub async fn open_with(
        container: Container,
        mut config: BulkConfig,
        table: Classifier,
    ) -> Result<Self> {
        if config.on_poison == Poison::Report {
            config.on_poison = Poison::Fail;
        }
        let table = table.ignore_missing();
        let writer = BulkWriter::open_with(&container, config, table).await?;
        Ok(CosmosTarget { container, writer })
    }

    /// The writer, for its figures.
    pub fn writer(&self) -> &BulkWriter {
        &self.writer
    }
}

/// What is sent for one document, one write or two.
fn writes(write: DocumentWrite) -> impl Iterator<Item = Write> {
    let DocumentWrite {
        partition_key,
        id,
        action,
    } = write;
    let (first, if_match, second) = match action {
        DocumentAction::Upsert(body) => (Action::Upsert(body), None, None),
        DocumentAction::Create(body) => (Action::Create(body), None, None),
        DocumentAction::Replace { body, if_match } => (Action::Replace(body), if_match, None),
        DocumentAction::Delete { if_match } => (Action::Delete, if_match, None),
        DocumentAction::Patch(mut patch) => {
            let create = patch.create.take().map(Action::Create);
            let action = Action::Patch {
                body: patch_body(&patch),
                guarded: patch.epoch.is_some(),
            };
            match create {
                Some(create) => (create, None, Some(action)),
                None => (action, None, None),
            }
        }
    };
    let second = second.map(|action| Write::new(partition_key.clone(), id.clone(), action));
    let first = Write::new(partition_key, id, first);
    let first = match if_match {
        Some(etag) => first.if_match(etag),
        None => first,
    };
    std::iter::once(first).chain(second)
}

/// Writes that are sent beyond one for each document. One of each such pair is ignored, whatever becomes of the document.
fn pairs(batch: &[DocumentWrite]) -> u64 {
    let is_pair = |write: &&DocumentWrite| match &write.action {
        DocumentAction::Patch(patch) => patch.create.is_some(),
        _ => false,
    };
    batch.iter().filter(is_pair).count() as u64
}

/// The service's patch document.
fn patch_body(patch: &PatchWrite) -> Bytes {
    let mut operations: Vec<Value> = Vec::new();
    for operation in &patch.operations {
        match operation {
            PatchOperation::Set { path, value } => {
                operations.push(json!({"op": "set", "path": path, "value": value}));
            }
            PatchOperation::Add { path, value } => {
                operations.push(json!({"op": "add", "path": path, "value": value}));
            }
            PatchOperation::Increment { path, by } => {
                operations.push(json!({"op": "incr", "path": path, "value": by}));
            }
            // The service refuses to remove what is not there.
            PatchOperation::Remove { path } => {
                operations.push(json!({"op": "set", "path": path, "value": null}));
                operations.push(json!({"op": "remove", "path": path}));
            }
        }
    }
    if let Some(epoch) = patch.epoch {
        let path = format!("/{EPOCH_PROPERTY}");
        operations.push(json!({"op": "set", "path": path, "value": epoch}));
    }
    let mut body = json!({"operations": operations});
    if let Some(condition) = condition(patch) {
        body["condition"] = Value::from(condition);
    }
    body.to_string().into()
}

fn condition(patch: &PatchWrite) -> Option<String> {
    let own = patch.condition.as_ref();
    let alias = own.map_or("c", |own| own.alias.as_str());
    let earlier = patch.epoch.map(|epoch| {
        let stamp = format!("{alias}.{EPOCH_PROPERTY}");
        format!("(NOT IS_DEFINED({stamp}) OR {stamp} < {epoch})")
    });
    let own = own.map(|own| format!("({})", own.expression));
    let all: Vec<_> = earlier.into_iter().chain(own).collect();
    (!all.is_empty()).then(|| format!("from {alias} where {}", all.join(" AND ")))
}

impl From<Summary> for Applied {
    fn from(summary: Summary) -> Self {
        Applied {
            requests: summary.requests,
            throttled: summary.throttled,
            charge_ru: summary.charge_ru,
            ignored: summary.ignored,
        }
    }
}

#[async_trait]
impl Target for CosmosTarget {
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied> {
        let mut result = Ok(Applied::default());
        let pairs = pairs(&batch);
        let mut receipts = Vec::with_capacity(batch.len().div_ceil(HAND_OVER));
        let mut batch = batch.into_iter().flat_map(writes).peekable();
        while batch.peek().is_some() && result.is_ok() {
            let writes = batch.by_ref().take(HAND_OVER).collect();
            let submitted = match batch.peek().is_some() {
                true => self.writer.submit(writes).await,
                false => self.writer.submit_last(writes).await,
            };
            match submitted {
                Ok(receipt) => receipts.push(receipt.withdraw_on_drop()),
                Err(error) => result = Err(error),
            }
        }
        // All of them, also after an error: nothing may be under way after the return.
        for receipt in receipts {
            match (receipt.await, &mut result) {
                (Ok(summary), Ok(applied)) => *applied += summary.into(),
                (Err(error), Ok(_)) => result = Err(error),
                (_, Err(_)) => {}
            }
        }
        if let Ok(applied) = &mut result {
            applied.ignored = applied.ignored.saturating_sub(pairs);
        }
        result
    }

    async fn is_empty(&self) -> Result<bool> {
        Ok(sample(&self.container).await?.is_none())
    }

    async fn find(&self, partition_key: &str, id: &str) -> Result<Option<Bytes>> {
        let key = self.container.keys().parse(partition_key)?;
        let found = read(&self.container, &Fence::unlimited(), &key, id).await?;
        Ok(found.map(|document| document.to_string().into()))
    }

    /// All ranges at once, each from the beginning of its feed, which in LatestVersion mode holds every document there is.
    async fn contents(&self) -> Result<Vec<StoredDocument>> {
        let feed = CosmosFeed::new(self.container.clone(), FeedConfig::default())?;
        let ranges = feed.ranges().await?;
        let of_ranges = try_join_all(ranges.iter().map(|range| stored(&feed, range))).await?;
        Ok(of_ranges.into_iter().flatten().collect())
    }

    fn waits(&self) -> Option<TargetWait> {
        self.writer.waits()
    }

    fn traffic(&self) -> Option<Arc<dyn TrafficCounters>> {
        Some(self.writer.traffic())
    }

    fn guard(&self, fence: &Fence) {
        self.writer.guard(fence);
    }

    fn keep_dead_letters(&self, sink: &str, letters: Arc<dyn DeadLetters>) {
        self.writer.keep_dead_letters(sink, letters);
    }

    fn close(&self) {
        self.writer.halt();
    }
}

/// What a range holds.
async fn stored(feed: &CosmosFeed, range: &FeedRangeId) -> Result<Vec<StoredDocument>> {
    let mut documents = Vec::new();
    for_each_stored(feed, range, |record| {
        let body = record.body.as_deref().unwrap_or_default();
        documents.push(StoredDocument::of_record(&record.key, body)?);
        Ok(())
    })
    .await?;
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Condition;

    #[test]
    fn a_patch_in_the_words_of_the_service() {
        let patch = PatchWrite {
            operations: vec![
                PatchOperation::Set {
                    path: "/a".into(),
                    value: json!({"x": 1}),
                },
                PatchOperation::Increment {
                    path: "/n".into(),
                    by: json!(9_007_199_254_740_993_i64),
                },
                PatchOperation::Remove {
                    path: "/gone".into(),
                },
            ],
            condition: Some(Condition {
                alias: "r".into(),
                expression: "r.open OR r.late".into(),
            }),
            epoch: Some(7),
            create: None,
        };
        let body: Value = serde_json::from_slice(&patch_body(&patch)).expect("JSON");
        let expected = json!({
            "operations": [
                {"op": "set", "path": "/a", "value": {"x": 1}},
                {"op": "incr", "path": "/n", "value": 9_007_199_254_740_993_i64},
                {"op": "set", "path": "/gone", "value": null},
                {"op": "remove", "path": "/gone"},
                {"op": "set", "path": "/_epoch", "value": 7},
            ],
            "condition": "from r where (NOT IS_DEFINED(r._epoch) OR r._epoch < 7) AND (r.open OR r.late)",
        });
        assert_eq!(body, expected);
    }
}
