//! Progress documents in a container.
//!
//! ```text
//! {"id": "JOB.SINK", "job": JOB, "sink": SINK, "epoch": 1789430400123, "committed_ms": 1789430400130}
//! ```
//!
//! The partition key is `/id`, so a reader needs one point read. There is no document of a sink of which nothing can be said.
//!
//! Failure: passing faults are retried without limit, like every other write; what is refused for good is an error. After an
//! attempt whose answer was lost no other epoch is written for [`ambiguous_settle`](BulkConfig::ambiguous_settle), so that the
//! old one cannot land on it.
//!
//! Limits: the document of a sink that the job does not have any more stays.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidefeed_runtime::{Fence, Result};

use super::bulk::config::{BulkConfig, Poison};
use super::bulk::operation::{Action, Write};
use super::bulk::writer::BulkWriter;
use super::container::Container;
use super::provision::ContainerSpec;
use crate::progress::{Mark, ProgressMarks};

/// The path of the partition key.
const PARTITION_KEY: &str = "/id";

/// The progress documents of a job.
pub struct ContainerProgress {
    writer: BulkWriter,
    job: String,
}

impl ContainerProgress {
    /// What the container has to be.
    pub fn spec(database: impl Into<String>, container: impl Into<String>) -> ContainerSpec {
        ContainerSpec::new(database, container, PARTITION_KEY)
    }

    /// The documents of `job` in `container`, which is as [`spec`](Self::spec) says. `settle` is how long a request without an
    /// answer may still take effect.
    ///
    /// # Errors
    /// As [`BulkWriter::open`].
    pub async fn open(
        container: &Container,
        job: impl Into<String>,
        settle: Duration,
    ) -> Result<Self> {
        let defaults = BulkConfig::default();
        let config = BulkConfig {
            coalesce: true,
            ambiguous_settle: settle,
            fault_settle: settle.min(defaults.fault_settle),
            on_poison: Poison::Fail,
            ..defaults
        };
        Ok(ContainerProgress {
            writer: BulkWriter::open(container, config).await?,
            job: job.into(),
        })
    }

    fn write(&self, mark: Mark) -> Write {
        let Mark { sink, reached } = mark;
        let id = format!("{}.{sink}", self.job);
        let action = match reached {
            None => Action::Delete,
            Some(reached) => {
                let document = json!({
                    "id": id,
                    "job": self.job,
                    "sink": sink,
                    "epoch": reached.epoch.0,
                    "committed_ms": reached.committed_ms,
                });
                Action::Upsert(document.to_string().into())
            }
        };
        Write::new(json!([id]).to_string(), id, action)
    }
}

#[async_trait]
impl ProgressMarks for ContainerProgress {
    async fn put(&self, marks: Vec<Mark>) -> Result<()> {
        let writes = marks.into_iter().map(|mark| self.write(mark)).collect();
        let written = async {
            self.writer
                .submit_last(writes)
                .await?
                .withdraw_on_drop()
                .await
        };
        let written = written.await.map(drop);
        written.map_err(|error| error.wrap("cannot write progress documents"))
    }

    fn guard(&self, fence: &Fence) {
        self.writer.guard(fence);
    }

    async fn close(&self) {
        self.writer.halt();
        // It says that the writer was closed.
        let _ = self.writer.flush().await;
    }
}
