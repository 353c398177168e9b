//! A container as a [`Target`]: bulk upserts and deletes, at most one write in flight per document.
//!
//! Every write is idempotent (an upsert of a whole document, or a delete that may find nothing), so a write whose outcome is
//! unknown is simply sent again. One rule keeps that safe: a document is in one request only, and that request is repeated
//! only after the attempt before has ended.
//!
//! A request that is given up on after a timeout may still be carried out a moment later. [`WRITE_TIMEOUT`] bounds how long
//! a request lives, and nothing is ever dropped while it is under way: an error that no retry mends and the end of the run
//! only keep further requests from starting, and `apply` returns when those under way have come to their end.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use azure_data_cosmos::models::TransactionalBatchResponse;
use azure_data_cosmos::options::{
    BatchOptions, EndToEndOperationLatencyPolicy, ItemWriteOptions, OperationOptions,
    OperationOptionsBuilder,
};
use azure_data_cosmos::{CosmosError, PartitionKey, TransactionalBatch};
use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidefeed_runtime::{Error, ErrorKind, FeedRangeId, Fence, Result};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::backoff::BackoffConfig;
use super::batching::{BatchLimits, Unit, plan};
use super::container::Container;
use super::failure::Failure;
use super::feed::{CosmosFeed, FeedConfig};
use super::retry::Retry;
use super::status::{Disposition, classify};
use crate::feed::{ChangeFeed, Start};
use crate::reconcile::StoredDocument;
use crate::target::{Applied, DocumentWrite, Target};

/// The most time for one request with the retries that the SDK makes by itself. 8 s: one attempt may take the SDK's 6 s, and
/// a run that ends waits 10 s ([`REQUEST_DEADLINE`](crate::target::REQUEST_DEADLINE)). Our own retries come on top.
const WRITE_TIMEOUT: Duration = Duration::from_secs(8);

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
    /// True once no request may start any more.
    closed: watch::Sender<bool>,
    /// The fence of the run that writes, once it is known.
    fence: OnceLock<Fence>,
}

impl CosmosTarget {
    /// Writes to `container`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a limit is out of range.
    pub fn new(container: Container, config: TargetConfig) -> Result<Self> {
        config.batch.validate()?;
        Ok(CosmosTarget {
            writer: Arc::new(Writer {
                container,
                config,
                closed: watch::Sender::new(false),
                fence: OnceLock::new(),
            }),
        })
    }
}

#[async_trait]
impl Target for CosmosTarget {
    async fn apply(&self, batch: Vec<DocumentWrite>) -> Result<Applied> {
        let mut closed = self.writer.closed.subscribe();
        let mut requests = Requests::of(batch, &self.writer);
        loop {
            if *closed.borrow() {
                requests.halt();
            }
            requests.launch(&self.writer);
            tokio::select! {
                ended = requests.in_flight.join_next() => match ended {
                    Some(ended) => requests.ended(ended),
                    None => return requests.result(&self.writer),
                },
                // The sender is in the writer, so it cannot be gone.
                _ = closed.changed(), if !requests.halted() => {}
            }
        }
    }

    async fn is_empty(&self) -> Result<bool> {
        let one = FeedConfig {
            page_size: NonZeroU32::MIN,
            ..FeedConfig::default()
        };
        let feed = CosmosFeed::new(self.writer.container.clone(), one)?;
        for range in feed.ranges().await? {
            let page = feed
                .open(&range, Start::Beginning)
                .await?
                .next_page()
                .await?;
            if !page.records.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All ranges at once, each from the beginning of its feed, which in LatestVersion mode holds every document there is.
    async fn contents(&self) -> Result<Vec<StoredDocument>> {
        let container = self.writer.container.clone();
        let feed = CosmosFeed::new(container, FeedConfig::default())?;
        let ranges = feed.ranges().await?;
        let of_ranges = try_join_all(ranges.iter().map(|range| stored(&feed, range))).await?;
        Ok(of_ranges.into_iter().flatten().collect())
    }

    fn guard(&self, fence: &Fence) {
        // A target belongs to one run, so there is nothing to replace.
        let _ = self.writer.fence.set(fence.clone());
    }

    fn close(&self) {
        self.writer.closed.send_replace(true);
    }
}

/// What a range holds, up to where its feed says for the first time that there is nothing more.
async fn stored(feed: &CosmosFeed, range: &FeedRangeId) -> Result<Vec<StoredDocument>> {
    let mut pages = feed.open(range, Start::Beginning).await?;
    let mut documents = Vec::new();
    loop {
        let page = pages.next_page().await?;
        for record in &page.records {
            let body = record.body.as_deref().unwrap_or_default();
            documents.push(StoredDocument::of_record(&record.key, body)?);
        }
        if page.caught_up {
            return Ok(documents);
        }
    }
}

/// The requests of one batch.
struct Requests {
    waiting: VecDeque<Job>,
    in_flight: JoinSet<Result<Outcome>>,
    /// True when no request may start any more; it ends the waits of those that have not.
    halt: watch::Sender<bool>,
    fatal: Option<Error>,
    applied: Applied,
}

impl Requests {
    fn of(batch: Vec<DocumentWrite>, writer: &Writer) -> Self {
        Requests {
            waiting: plan(batch, &writer.config.batch)
                .into_iter()
                .map(|unit| writer.job(unit))
                .collect(),
            in_flight: JoinSet::new(),
            halt: watch::Sender::new(false),
            fatal: None,
            applied: Applied::default(),
        }
    }

    fn halt(&mut self) {
        self.halt.send_replace(true);
    }

    fn halted(&self) -> bool {
        *self.halt.borrow()
    }

    fn launch(&mut self, writer: &Arc<Writer>) {
        while !self.halted()
            && self.in_flight.len() < writer.config.max_in_flight.get()
            && let Some(job) = self.waiting.pop_front()
        {
            let attempt = Arc::clone(writer).attempt(job, self.halt.subscribe());
            let fence = writer.fence.get().cloned().unwrap_or_default();
            // The SDK sends again what failed: no longer, once the run is fenced.
            self.in_flight
                .spawn(async move { fence.guard(attempt).await? });
        }
    }

    fn ended(&mut self, ended: Result<Result<Outcome>, JoinError>) {
        let ended = ended
            .unwrap_or_else(|error| Err(Error::internal("a write task died").with_source(error)));
        match ended {
            Ok(outcome) => {
                self.applied.requests += u64::from(outcome.sent);
                self.applied.throttled += u64::from(outcome.throttled);
                self.applied.charge_ru += outcome.charge_ru;
                // In front: what has failed once is not overtaken by the rest of the batch.
                for job in outcome.again.into_iter().rev() {
                    self.waiting.push_front(job);
                }
            }
            Err(error) => {
                self.fatal.get_or_insert(error);
                self.halt();
            }
        }
    }

    /// Once nothing is in flight, and nothing starts any more.
    fn result(self, writer: &Writer) -> Result<Applied> {
        match self.fatal {
            Some(error) => Err(error),
            None if self.waiting.is_empty() => Ok(self.applied),
            None => Err(Error::internal(format!(
                "container {} was closed before the batch was written",
                writer.container
            ))),
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
    /// False when the request was called off before it was sent.
    sent: bool,
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
    /// when the service asks for it. A halt ends the wait, and the request is not sent.
    async fn attempt(
        self: Arc<Self>,
        job: Job,
        mut halt: watch::Receiver<bool>,
    ) -> Result<Outcome> {
        if !job.wait.is_zero() {
            // The timeout is the end of the wait, anything else is the halt.
            let _ = timeout(job.wait, halt.wait_for(|halt| *halt)).await;
        }
        if *halt.borrow() {
            return Ok(Outcome {
                again: vec![job],
                ..Outcome::default()
            });
        }
        let key = self.container.keys().parse(&job.unit.partition_key)?;
        let sent = match job.unit.writes.as_slice() {
            [write] => self.send_one(key, write).await,
            writes => self.send_batch(key, writes).await,
        };
        match sent {
            Ok(charge_ru) => Ok(Outcome {
                sent: true,
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
            sent: true,
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
                let options = ItemWriteOptions::default().with_operation_options(within_limit());
                client
                    .upsert_item(key, &write.id, body, Some(options))
                    .await
            }
            None => {
                let options = ItemWriteOptions::default().with_operation_options(within_limit());
                client.delete_item(key, &write.id, Some(options)).await
            }
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
        let options = BatchOptions::default().with_operation_options(within_limit());
        let response = self
            .container
            .client()
            .execute_transactional_batch(batch, Some(options))
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
        let (failure, operation) = cause(&results, writes.len(), charge_ru);
        Err(Refusal::Failed { failure, operation })
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

/// Bounds every retry that the SDK makes by itself.
fn within_limit() -> OperationOptions {
    OperationOptionsBuilder::new()
        .with_end_to_end_latency_policy(EndToEndOperationLatencyPolicy::new(WRITE_TIMEOUT))
        .build()
}

/// Why a batch of `operations` operations was not carried out, and the operation that is to blame; the others carry 424,
/// "failed dependency". An answer that blames none of them acknowledges nothing: the batch is sent again, after the waits of
/// any passing fault and with the same reports when it lasts.
fn cause(
    response: &TransactionalBatchResponse,
    operations: usize,
    charge_ru: f64,
) -> (Failure, usize) {
    let failed = |status: u16| !(200..300).contains(&status) && status != 424;
    let results = response.results();
    let blamed = results
        .iter()
        .take(operations)
        .position(|result| failed(result.status_code()));
    let Some(operation) = blamed else {
        let message = format!(
            "a transactional batch of {operations} operations was not carried out, and none of its {} results says why",
            results.len()
        );
        let failure = Failure {
            charge_ru,
            ..Failure::transient(&message)
        };
        return (failure, 0);
    };
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
    (failure, operation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::REQUEST_DEADLINE;

    fn cause_of(results: &str, operations: usize) -> (Disposition, usize) {
        let response = serde_json::from_str(results).unwrap();
        let (failure, operation) = cause(&response, operations, 1.5);
        assert_eq!(failure.charge_ru, 1.5);
        (failure.disposition, operation)
    }

    #[test]
    fn the_operation_that_failed_by_itself_is_the_cause() {
        let results = r#"[{"statusCode":424},{"statusCode":404},{"statusCode":424}]"#;
        assert_eq!(cause_of(results, 3), (Disposition::NoDocument, 1));
        let results = r#"[{"statusCode":429,"retryAfterMilliseconds":5},{"statusCode":424}]"#;
        assert_eq!(cause_of(results, 2), (Disposition::Throttled, 0));
    }

    /// Such answers counted as acknowledged.
    #[test]
    fn an_answer_that_blames_no_operation_is_no_success() {
        for results in [
            "[]",
            r#"[{"statusCode":424},{"statusCode":424}]"#,
            r#"[{"statusCode":200},{"statusCode":201}]"#,
            r#"[{"statusCode":424},{"statusCode":424},{"statusCode":400}]"#,
        ] {
            assert_eq!(
                cause_of(results, 2),
                (Disposition::Transient, 0),
                "{results}"
            );
        }
    }

    #[test]
    fn a_request_has_ended_before_a_run_stops_waiting_for_it() {
        assert!(WRITE_TIMEOUT < REQUEST_DEADLINE);
    }
}
