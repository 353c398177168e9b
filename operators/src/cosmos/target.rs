//! A container as a [`Target`]: a batch goes through a [`BulkWriter`], which keeps order, pace and retries.
//!
//! Every write is a whole document to upsert, or a delete that may find nothing, so repeating one is safe; when it may be
//! followed by other content is the writer's rule 4. A call that is dropped withdraws what has not been sent.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use tidefeed_runtime::{FeedRangeId, Fence, Result};

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
use crate::target::{Applied, DocumentWrite, Target};

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
    pub async fn open(container: Container, mut config: BulkConfig) -> Result<Self> {
        if config.on_poison == Poison::Report {
            config.on_poison = Poison::Fail;
        }
        let writer = BulkWriter::open(&container, config).await?;
        Ok(CosmosTarget { container, writer })
    }

    /// The writer, for its figures.
    pub fn writer(&self) -> &BulkWriter {
        &self.writer
    }
}

impl From<DocumentWrite> for Write {
    fn from(write: DocumentWrite) -> Self {
        let action = write.body.map_or(Action::Delete, Action::Upsert);
        Write::new(write.partition_key, write.id, action)
    }
}

impl From<Summary> for Applied {
    fn from(summary: Summary) -> Self {
        Applied {
            requests: summary.requests,
            throttled: summary.throttled,
            charge_ru: summary.charge_ru,
        }
    }
}

#[async_trait]
impl Target for CosmosTarget {
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied> {
        let mut result = Ok(Applied::default());
        let mut receipts = Vec::with_capacity(batch.len().div_ceil(HAND_OVER));
        let mut batch = batch.into_iter().map(Write::from).peekable();
        while batch.peek().is_some() && result.is_ok() {
            let writes = batch.by_ref().take(HAND_OVER).collect();
            match self.writer.submit(writes).await {
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
