//! Bulk writers that have more to write than the container takes.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::models::{EffectivePartitionKey, PartitionKeyDefinition};
use bytes::Bytes;
use tidefeed_operators::cosmos::{Action, BulkWriter, Write};
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::control::Partition;
use crate::documents::id;

/// Length of a document as JSON, in bytes, before the server adds its system properties.
pub const BYTES: usize = 250;
/// Documents that are handed over together.
pub const PER_CALL: usize = 100;

/// An upsert of the document of this number, which has its partition key for itself.
pub fn upsert(number: usize) -> Write {
    let id = id(number);
    // As large as it is to be, as a serializer that knows its documents makes it: a body is held with all that it has reserved.
    let mut text = String::with_capacity(BYTES);
    let _ = write!(text, r#"{{"id":"{id}","n":{number},"pk":"{id}","text":""#);
    let padding = BYTES.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', padding));
    text.push_str("\"}");
    let action = Action::Upsert(Bytes::from(text));
    Write::new(format!("[\"{id}\"]"), id, action)
}

/// Numbers of new documents. Clones never give the same one.
#[derive(Clone, Debug, Default)]
pub struct Numbers(Arc<AtomicUsize>);

impl Numbers {
    /// So many that nobody has.
    pub fn take(&self, count: usize) -> std::ops::Range<usize> {
        let first = self.0.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }
}

/// Says in which physical partition the document of a number is.
#[derive(Clone, Debug)]
pub struct Places {
    definition: PartitionKeyDefinition,
    /// First hash of each, in order.
    starts: Vec<EffectivePartitionKey>,
}

impl Places {
    /// For a container with these partitions, in order, and the partition key `/pk`.
    ///
    /// # Errors
    /// When a hash makes no sense.
    pub fn new(partitions: &[Partition]) -> Outcome<Self> {
        let starts = partitions
            .iter()
            .map(|one| EffectivePartitionKey::try_from(one.min.as_str()));
        Ok(Places {
            definition: PartitionKeyDefinition::from("/pk"),
            starts: starts.collect::<Result<_, _>>()?,
        })
    }

    /// The partition's place in the order.
    pub fn of(&self, number: usize) -> usize {
        let range = FeedRange::for_partition(id(number).into(), &self.definition);
        let hash = range.min_inclusive();
        // The first start is before every hash.
        self.starts.partition_point(|start| start <= hash) - 1
    }
}

/// A task that hands writes to a writer as fast as that takes them.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Outcome>,
}

impl Load {
    /// With writes of these numbers.
    pub fn start(
        writer: &BulkWriter,
        mut next: impl FnMut() -> Vec<usize> + Send + 'static,
    ) -> Self {
        let (writer, stop) = (writer.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let writes = next().into_iter().map(upsert).collect();
                // What becomes of them is in the writer's metrics.
                drop(writer.submit(writes).await?);
            }
            Ok(())
        });
        Load { stop, task }
    }

    /// With new documents in all partitions.
    pub fn everywhere(writer: &BulkWriter, numbers: &Numbers) -> Self {
        let numbers = numbers.clone();
        Self::start(writer, move || numbers.take(PER_CALL).collect())
    }

    /// With new documents in one partition. The numbers are only for this one.
    pub fn in_partition(writer: &BulkWriter, places: &Places, place: usize, of: usize) -> Self {
        let (places, mut number) = (places.clone(), place);
        Self::start(writer, move || {
            let mut numbers = Vec::with_capacity(PER_CALL);
            while numbers.len() < PER_CALL {
                if places.of(number) == place {
                    numbers.push(number);
                }
                number += of;
            }
            numbers
        })
    }

    /// Hands over nothing more. A call that waits for room ends when the writer is halted.
    pub fn stop(self) -> impl Future<Output = Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        async move { self.task.await? }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_size() {
        for number in [0, 9_999, 9_999_999] {
            let body = upsert(number).action.body().expect("a document").clone();
            assert_eq!(body.len(), BYTES);
            let document: serde_json::Value = serde_json::from_slice(&body).expect("json");
            assert_eq!(document["n"], number);
        }
    }

    #[test]
    fn numbers_are_given_once() {
        let numbers = Numbers::default();
        assert_eq!(numbers.take(3), 0..3);
        assert_eq!(numbers.clone().take(2), 3..5);
        assert_eq!(numbers.take(1), 5..6);
    }
}
