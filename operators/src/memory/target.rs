//! The container as a target, which watches its writers.

use async_trait::async_trait;
use bytes::Bytes;
use tidefeed_runtime::{Error, Result};

use super::{FailurePoint, MemoryContainer, key_of};
use crate::reconcile::StoredDocument;
use crate::target::{Applied, DocumentWrite, Target};

impl MemoryContainer {
    /// Waits until writes are not held back; an error when this clone is closed, now or meanwhile.
    async fn let_go(&self) -> Result<()> {
        let (mut held, mut closed) = (self.shared.held.subscribe(), self.closed.subscribe());
        // Neither can miss its sender: both are in `self`.
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => {
                Err(Error::internal("the container was closed before the batch was written"))
            }
            _ = held.wait_for(|held| !held) => Ok(()),
        }
    }

    /// Ends the marks of a batch when it ends, even when its future is dropped.
    fn begin(&self, batch: &[DocumentWrite]) -> InFlight {
        let mut state = self.shared.state.lock();
        state.batches += 1;
        let mut keys = Vec::with_capacity(batch.len());
        for write in batch {
            let key = key_of(&write.partition_key, &write.id);
            if state.in_flight.insert(key.clone()) {
                keys.push(key);
            } else {
                let what = format!("{key} was written while another write to it had not ended");
                state.violations.push(what);
            }
        }
        InFlight {
            container: self.clone(),
            keys,
        }
    }
}

struct InFlight {
    container: MemoryContainer,
    keys: Vec<String>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.container.shared.state.lock();
        for key in &self.keys {
            state.in_flight.remove(key);
        }
    }
}

#[async_trait]
impl Target for MemoryContainer {
    async fn is_empty(&self) -> Result<bool> {
        Ok(self.contents().is_empty())
    }

    async fn find(&self, partition_key: &str, id: &str) -> Result<Option<Bytes>> {
        Ok(self.contents().remove(&key_of(partition_key, id)))
    }

    async fn contents(&self) -> Result<Vec<StoredDocument>> {
        let contents = MemoryContainer::contents(self);
        let stored =
            |(key, body): (&String, &Bytes)| StoredDocument::of_record(key.as_bytes(), body);
        contents.iter().map(stored).collect()
    }

    async fn apply(&self, mut batch: Vec<DocumentWrite>) -> Result<Applied> {
        let _in_flight = self.begin(&batch);
        // A real write takes time; others get a turn here.
        tokio::task::yield_now().await;
        self.let_go().await?;
        // From here on nothing waits, so a close comes before all of the writes or after them.
        let failure = {
            let mut state = self.shared.state.lock();
            state.random.shuffle(&mut batch);
            let failure = state.take_failure(FailurePoint::NextBatch);
            if failure.is_some() {
                let written = state.random.below(batch.len() + 1);
                batch.truncate(written);
            }
            failure
        };
        let requests = batch.len() as u64;
        let applied = Applied {
            requests,
            throttled: 0,
            charge_ru: requests as f64,
            ignored: self.write_all(batch)?,
        };
        match failure {
            None => Ok(applied),
            Some(kind) => Err(Error::new(kind, "the batch failed as asked for")),
        }
    }

    fn close(&self) {
        self.closed.send_replace(true);
    }
}
