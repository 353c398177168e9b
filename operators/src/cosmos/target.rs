//! A container as a [`Target`]: bulk upserts and deletes, at most one write in flight per document.
//!
//! Every write is idempotent (an upsert of a whole document, or a delete that may find nothing), so a write whose outcome is
//! unknown is simply sent again. One rule keeps that safe: a document is in one request only, and that request is repeated
//! only after the attempt before has ended.
//!
//! A request that is given up on after a timeout may still arrive at the service later. The SDK bounds each attempt (6 s by
//! default), so whoever hands the same document to another process must wait that long first.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_data_cosmos::models::TransactionalBatchResponse;
use azure_data_cosmos::{CosmosError, PartitionKey, TransactionalBatch};
use serde::Deserialize;
use serde_json::value::RawValue;
use tidefeed_runtime::{Error, ErrorKind, Result};
use tokio::task::JoinSet;

use super::backoff::BackoffConfig;
use super::batching::{BatchLimits, Unit, plan};
use super::container::Container;
use super::failure::Failure;
use super::retry::Retry;
use super::status::{Disposition, classify};
use crate::target::{Applied, DocumentWrite, Target};

/// How documents are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetConfig {
    /// The most requests at once, for one call of `apply`. Default 16, a guess. Larger hides latency until the container's
    /// request units are used up, and then only makes throttling worse.
    pub max_in_flight: NonZeroUsize,
    /// How much goes into one request.
    pub batch: BatchLimits,
    /// Waits between attempts.
    pub backoff: BackoffConfig,
}

impl Default for TargetConfig {
    fn default() -> Self {
        TargetConfig {
            max_in_flight: NonZeroUsize::new(16).expect("16 is not zero"),
            batch: BatchLimits::default(),
            backoff: BackoffConfig::default(),
        }
    }
}

/// Writes documents to one container.
#[derive(Clone, Debug)]
pub struct CosmosTarget {
    writer: Arc<Writer>,
}

#[derive(Debug)]
struct Writer {
    container: Container,
    config: TargetConfig,
}

impl CosmosTarget {
    /// Writes to `container`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a limit is out of range.
    pub fn new(container: Container, config: TargetConfig) -> Result<Self> {
        config.batch.validate()?;
        Ok(CosmosTarget {
            writer: Arc::new(Writer { container, config }),
        })
    }
}

#[async_trait]
impl Target for CosmosTarget {
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied> {
        let writer = &self.writer;
        let mut applied = Applied::default();
        let mut waiting: VecDeque<Job> = plan(batch, &writer.config.batch)
            .into_iter()
            .map(|unit| writer.job(unit))
            .collect();
        let mut in_flight = JoinSet::new();
        loop {
            while in_flight.len() < writer.config.max_in_flight.get()
                && let Some(job) = waiting.pop_front()
            {
                in_flight.spawn(Arc::clone(writer).attempt(job));
            }
            let Some(ended) = in_flight.join_next().await else {
                return Ok(applied);
            };
            let outcome = ended
                .map_err(|error| Error::internal("a write task died").with_source(error))??;
            applied.requests += 1;
            applied.throttled += u64::from(outcome.throttled);
            applied.charge_ru += outcome.charge_ru;
            // In front: what has failed once is not overtaken by the rest of the batch.
            for job in outcome.again.into_iter().rev() {
                waiting.push_front(job);
            }
        }
    }
}

/// One request to send, after a wait.
#[derive(Debug)]
struct Job {
    unit: Unit,
    wait: Duration,
    retry: Retry,
}

/// What came of one request.
#[derive(Debug, Default)]
struct Outcome {
    throttled: bool,
    charge_ru: f64,
    /// What is left to do.
    again: Vec<Job>,
}

impl Writer {
    fn job(&self, unit: Unit) -> Job {
        Job {
            unit,
            wait: Duration::ZERO,
            retry: Retry::new(self.config.backoff.clone()),
        }
    }

    /// Sends one request. A job that waits keeps its place among the requests in flight, which slows everything down just
    /// when the service asks for it.
    async fn attempt(self: Arc<Self>, job: Job) -> Result<Outcome> {
        if !job.wait.is_zero() {
            tokio::time::sleep(job.wait).await;
        }
        let key = self.container.keys().parse(&job.unit.partition_key)?;
        let sent = match job.unit.writes.as_slice() {
            [write] => self.send_one(key, write).await,
            writes => self.send_batch(key, writes).await,
        };
        match sent {
            Ok(charge_ru) => Ok(Outcome {
                charge_ru,
                ..Outcome::default()
            }),
            Err(Refusal::Malformed(error)) => Err(error),
            Err(Refusal::Failed { failure, operation }) => self.resolve(job, failure, operation),
        }
    }

    /// Decides what to do about a failed request.
    fn resolve(&self, mut job: Job, failure: Failure, operation: usize) -> Result<Outcome> {
        let mut outcome = Outcome {
            throttled: failure.is_throttled(),
            charge_ru: failure.charge_ru,
            again: Vec::new(),
        };
        let write = &job.unit.writes[operation];
        match failure.disposition {
            Disposition::Throttled | Disposition::Transient => {
                job.wait = job.retry.wait_after(&failure, &self.container);
                outcome.again.push(job);
            }
            Disposition::NoDocument if write.body.is_none() => {
                let rest = job.unit.without_deleted(operation);
                outcome.again = rest.into_iter().map(|unit| self.job(unit)).collect();
            }
            Disposition::TooLarge if job.unit.writes.len() > 1 => {
                outcome.again = job.unit.halves().map(|unit| self.job(unit)).into();
            }
            _ => return Err(self.fatal(write, failure)),
        }
        Ok(outcome)
    }

    fn fatal(&self, write: &DocumentWrite, failure: Failure) -> Error {
        let container = &self.container;
        let DocumentWrite {
            partition_key, id, ..
        } = write;
        let context = match failure.disposition {
            Disposition::NoContainer | Disposition::NoDocument => {
                format!("container {container} does not exist any more")
            }
            Disposition::TooLarge => format!(
                "document {id} of partition {partition_key} is too large for container {container}: it has {} bytes, the limit is 2 MB",
                write.body.as_ref().map_or(0, |body| body.len())
            ),
            _ => format!(
                "cannot write document {id} of partition {partition_key} to container {container}"
            ),
        };
        failure.into_error(context)
    }

    async fn send_one(&self, key: PartitionKey, write: &DocumentWrite) -> Result<f64, Refusal> {
        let client = self.container.client();
        let sent = match &write.body {
            Some(_) => {
                let body = self.raw(write)?;
                client.upsert_item(key, &write.id, body, None).await
            }
            None => client.delete_item(key, &write.id, None).await,
        };
        match sent {
            Ok(response) => Ok(charge(response.headers())),
            Err(error) => Err(Refusal::of(&error, 0)),
        }
    }

    async fn send_batch(
        &self,
        key: PartitionKey,
        writes: &[DocumentWrite],
    ) -> Result<f64, Refusal> {
        let mut batch = TransactionalBatch::new(key);
        for (index, write) in writes.iter().enumerate() {
            batch = match &write.body {
                Some(_) => batch
                    .upsert_item(self.raw(write)?, None)
                    .map_err(|error| Refusal::of(&error, index))?,
                None => batch.delete_item(write.id.clone(), None),
            };
        }
        let response = self
            .container
            .client()
            .execute_transactional_batch(batch, None)
            .await
            .map_err(|error| Refusal::of(&error, 0))?;
        let charge_ru = charge(response.headers());
        // The service answers 200 when all went through and 207 when nothing did.
        if u16::from(response.status().status_code()) == 200 {
            return Ok(charge_ru);
        }
        let results = response
            .into_model()
            .map_err(|error| Refusal::of(&error, 0))?;
        match first_failure(&results, charge_ru) {
            Some((failure, operation)) if operation < writes.len() => {
                Err(Refusal::Failed { failure, operation })
            }
            _ => Ok(charge_ru),
        }
    }

    /// The document as it is, without decoding it. The SDK's binary encoding cannot take that and is off, see
    /// [`Account::connect`](super::Account::connect).
    fn raw<'a>(&self, write: &'a DocumentWrite) -> Result<&'a RawValue, Refusal> {
        let body = write.body.as_deref().unwrap_or_default();
        serde_json::from_slice(body).map_err(|error| {
            let context = format!(
                "the document {} for container {} is no JSON",
                write.id, self.container
            );
            Refusal::Malformed(Error::new(ErrorKind::Internal, context).with_source(error))
        })
    }
}

/// Why a request did not go through.
enum Refusal {
    /// It was never sent.
    Malformed(Error),
    /// The service, or the way to it, refused; `operation` is the write that it is about.
    Failed { failure: Failure, operation: usize },
}

impl Refusal {
    fn of(error: &CosmosError, operation: usize) -> Self {
        Refusal::Failed {
            failure: Failure::of(error),
            operation,
        }
    }
}

fn charge(headers: &azure_data_cosmos::models::ResponseHeaders) -> f64 {
    headers
        .request_charge()
        .map_or(0.0, |charge| charge.value())
}

/// The operation that made a batch fail; the others carry 424, "failed dependency".
fn first_failure(
    response: &TransactionalBatchResponse,
    charge_ru: f64,
) -> Option<(Failure, usize)> {
    let failed = |status: u16| !(200..300).contains(&status) && status != 424;
    let results = response.results();
    let operation = results
        .iter()
        .position(|result| failed(result.status_code()))?;
    let result = &results[operation];
    let sub_status = result
        .substatus_code()
        .and_then(|sub_status| u16::try_from(sub_status).ok());
    let failure = Failure {
        disposition: classify(result.status_code(), sub_status),
        retry_after: result.retry_after(),
        status: result.status_code(),
        from_service: true,
        message: format!(
            "{}/{} from operation {operation} of a transactional batch",
            result.status_code(),
            sub_status.unwrap_or_default()
        ),
        charge_ru,
    };
    Some((failure, operation))
}
