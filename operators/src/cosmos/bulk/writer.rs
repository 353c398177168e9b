//! The writer that callers hold.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::Serialize;
use tidefeed_runtime::stall::TargetWait;
use tidefeed_runtime::{Error, ErrorKind, Fence, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::calls::{Call, Shared, Submission};
use super::check::check;
use super::classify::Classifier;
use super::config::{BulkConfig, Policy, WriteOrder};
use super::driver::{Driver, Parts};
use super::epk::Hasher;
use super::flow::{Flow, FlowConfig};
use super::gate::gate;
use super::letters::Letters;
use super::machine::Machine;
use super::metrics::BulkMetrics;
use super::operation::{Action, GroupId, Operation, OrderKey, Summary, Write};
use super::routes::Routes;
use super::routing::RoutingMap;
use crate::cosmos::container::Container;
use crate::dead_letter::DeadLetters;
use crate::document::DocumentEncoder;
use crate::traffic::TrafficCounters;

/// Writes many documents to one container: in batches by physical partition, each document in its order, as fast as the
/// container takes them. Clones are the same writer.
///
/// - **Order.** Writes of one document take effect in the order in which their calls of `submit` returned, whatever is
///   throttled, lost or split in between; there is at most one of them in flight.
/// - **Room.** `submit` waits while [`max_buffered_bytes`](BulkConfig::max_buffered_bytes) are under way. A physical partition
///   gets half of that, so that writes to the others go on when one is slow.
/// - **Acknowledgement.** A [`Receipt`] resolves when the service has acknowledged every write of its call. Passing faults are
///   repeated without limit.
/// - **Dropping** every clone lets what was submitted be written; [`close`](Self::close) waits for it. A runtime that shuts down
///   before that loses what was not acknowledged.
///
/// ```no_run
/// use serde::Serialize;
/// use tidefeed_operators::cosmos::{Account, AccountConfig, BulkConfig, BulkWriter, Container};
///
/// #[derive(Serialize)]
/// struct Order {
///     id: String,
///     customer: String,
///     total: f64,
/// }
///
/// # async fn example() -> tidefeed_runtime::Result<()> {
/// let config = AccountConfig::with_key("https://shop.documents.azure.com/", "c2VjcmV0");
/// let account = Account::connect(&config).await?;
/// let orders = Container::open(&account, "shop", "orders").await?;
/// let writer = BulkWriter::open(&orders, BulkConfig::default()).await?;
/// for number in 0..1_000_000 {
///     let order = Order {
///         id: format!("order-{number}"),
///         customer: format!("customer-{}", number % 1000),
///         total: 9.5,
///     };
///     writer.upsert(&order).await?;
/// }
/// let summary = writer.close().await?;
/// println!("{} written for {:.0} RU", summary.written, summary.charge_ru);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BulkWriter {
    inner: Arc<Inner>,
}

struct Inner {
    container: Container,
    calls: mpsc::UnboundedSender<Call>,
    shared: Arc<Shared>,
    hasher: Hasher,
    encoder: DocumentEncoder,
    order: WriteOrder,
    takes_patches: bool,
    fence: Arc<OnceLock<Fence>>,
    is_halted: Arc<AtomicBool>,
}

impl BulkWriter {
    /// Opens a writer. Must be called inside a tokio runtime, where its task stays.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting out of range; [`ErrorKind::Unreachable`], [`ErrorKind::Denied`] or
    /// [`ErrorKind::NotFound`] when the container's ranges cannot be read.
    pub async fn open(container: &Container, config: BulkConfig) -> Result<BulkWriter> {
        Self::open_with(container, config, Classifier::default()).await
    }

    /// [`open`](Self::open) with another table of what the service's answers mean.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        container: &Container,
        config: BulkConfig,
        classifier: Classifier,
    ) -> Result<BulkWriter> {
        config.validate()?;
        let is_direct = container.account().is_direct();
        let mut config = config;
        if !is_direct && config.policy == Policy::Bulk {
            tracing::info!(event = "bulk_off", %container, "bulk requests cannot go through a proxy or to a self-signed server: writing in transactional batches");
            config.policy = Policy::Transactional;
        }
        let fence = Arc::new(OnceLock::new());
        let is_halted = Arc::new(AtomicBool::new(false));
        let gate = gate(fence.clone(), is_halted.clone());
        let routes = Routes::new(container.clone(), &config, gate, fence.clone())?;
        let limit = container.account().connect_timeout();
        let map = routes.first_map(limit).await?;
        let throughput = routes.throughput().await;
        let shared = Arc::new(Shared::default());
        let (calls, inbox) = mpsc::unbounded_channel();
        let paths = container.partition_key_paths();
        let what = format!("a document for container {container}");
        let inner = Inner {
            container: container.clone(),
            calls,
            shared: shared.clone(),
            hasher: Hasher::new(container.partition_key_definition().clone())?,
            encoder: DocumentEncoder::of(what, "the partition key of the container", paths)?,
            order: config.order,
            takes_patches: is_direct,
            fence,
            is_halted,
        };
        let start = Instant::now();
        let driver = Driver::new(Parts {
            max_buffered_bytes: config.max_buffered_bytes,
            stalled_after: config.stalled_after,
            machine: machine(config, classifier, map, throughput),
            routes: Arc::new(routes),
            shared,
            start,
        });
        tokio::spawn(driver.run(inbox));
        Ok(BulkWriter {
            inner: Arc::new(inner),
        })
    }

    /// Writes a document, whether it is there or not. Id and partition key are read out of it.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it is no JSON object with a string `id`; otherwise as [`submit`](Self::submit).
    pub async fn upsert<T: Serialize>(&self, document: &T) -> Result<Receipt> {
        let encoded = self.inner.encoder.encode(document)?;
        let body = encoded.body.into_vec().into();
        let write = Write::new(encoded.partition_key, encoded.id, Action::Upsert(body));
        self.submit(vec![write]).await
    }

    /// Removes a document. Removing what is not there is a success. `partition_key` is a JSON array such as `["EWR"]`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn delete(&self, partition_key: &str, id: &str) -> Result<Receipt> {
        self.submit(vec![Write::new(partition_key, id, Action::Delete)])
            .await
    }

    /// Hands over writes that are acknowledged together. Returns once there is room for them. When it is dropped before that,
    /// none of them is written.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] when a partition key or a body does not fit the container, and none of the writes is taken;
    /// whatever has stopped the writer.
    pub async fn submit(&self, writes: Vec<Write>) -> Result<Receipt> {
        self.hand_over(writes, true).await
    }

    /// [`submit`](Self::submit) of the last writes for now: requests that are not full do not [wait](BulkConfig::linger) for more.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_last(&self, writes: Vec<Write>) -> Result<Receipt> {
        self.hand_over(writes, false).await
    }

    async fn hand_over(&self, writes: Vec<Write>, more_follows: bool) -> Result<Receipt> {
        let operations = writes.into_iter().map(|write| self.operation(write));
        let operations = operations.collect::<Result<Vec<_>>>()?;
        let (admitted, admission) = oneshot::channel();
        let (done, result) = oneshot::channel();
        let submission = Submission {
            bytes: operations.iter().map(Operation::memory_bytes).sum(),
            operations,
            is_ordered_across_partitions: self.inner.order == WriteOrder::Id,
            more_follows,
            admitted,
            done,
        };
        // When the task is gone, so is the other end of the channels.
        let _ = self.inner.calls.send(Call::Submit(submission));
        let group = admission.await.map_err(|_| self.inner.shared.gone())?;
        Ok(Receipt {
            group,
            result,
            writer: self.inner.clone(),
            withdraws: false,
        })
    }

    /// Waits until everything that has come in so far is done, and tells what became of all that has come in since the last
    /// flush. Look at [`dead`](Summary::dead): refused writes are no error of this call.
    ///
    /// # Errors
    /// Whatever has stopped the writer.
    pub async fn flush(&self) -> Result<Summary> {
        let (done, result) = oneshot::channel();
        let _ = self.inner.calls.send(Call::Flush(done));
        result.await.map_err(|_| self.inner.shared.gone())?
    }

    /// [`flush`](Self::flush), after which nothing more is written, by no clone.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn close(self) -> Result<Summary> {
        let flushed = self.flush().await;
        let _ = self.inner.calls.send(Call::Close);
        flushed
    }

    /// From now on no request starts, and none that is on its way out is completed. Whoever waits is answered when the requests
    /// in flight have come to their end: at most [`REQUEST_DEADLINE`](crate::target::REQUEST_DEADLINE).
    pub fn halt(&self) {
        self.inner.is_halted.store(true, Ordering::SeqCst);
        let _ = self.inner.calls.send(Call::Close);
    }

    /// From now on no byte leaves once `fence` has closed. Only the first fence counts.
    pub fn guard(&self, fence: &Fence) {
        let _ = self.inner.fence.set(fence.clone());
    }

    /// Writes that are refused for good are kept in `place` as those of `sink`, if [`on_poison`](BulkConfig::on_poison) says so.
    /// Only the first place counts.
    pub fn keep_dead_letters(&self, sink: &str, place: Arc<dyn DeadLetters>) {
        let _ = self.inner.shared.letters.set(Letters {
            sink: sink.to_owned(),
            place,
        });
    }

    /// What has been done so far.
    pub fn metrics(&self) -> BulkMetrics {
        let shared = &self.inner.shared;
        let since = *shared.waiting_since.lock();
        BulkMetrics {
            stalled_s: since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            ..shared.metrics.lock().clone()
        }
    }

    /// What has been sent so far, for whoever looks at it now and then; it outlives the writer.
    pub fn traffic(&self) -> Arc<dyn TrafficCounters> {
        self.inner.shared.metrics.clone()
    }

    /// What keeps operations from being acknowledged; `None` when none are under way.
    pub fn waits(&self) -> Option<TargetWait> {
        let shared = &self.inner.shared;
        let since = (*shared.waiting_since.lock())?;
        Some(TargetWait {
            quiet: since.elapsed(),
            ..shared.metrics.lock().last_failure()
        })
    }

    fn operation(&self, write: Write) -> Result<Operation> {
        let Inner {
            hasher, container, ..
        } = &*self.inner;
        check(&write).map_err(|why| {
            let id = &write.key.id;
            let what = format!("document {id} cannot be written to container {container}: {why}");
            Error::new(ErrorKind::Rejected, what)
        })?;
        if matches!(write.action, Action::Patch { .. }) && !self.inner.takes_patches {
            let what =
                format!("container {container} is reached through the SDK, which has no patches");
            return Err(Error::new(ErrorKind::Config, what));
        }
        let routing = hasher.routing_key(&write.key.partition_key)?;
        let mut operation = Operation::new(write, routing);
        if self.inner.order == WriteOrder::Id {
            operation.order = OrderKey::of_id(&operation.key.id);
        }
        Ok(operation)
    }
}

/// What a call has submitted, until it is acknowledged: a future of what became of it. Dropping it changes nothing about the
/// writes, and `flush` waits for all of them.
pub struct Receipt {
    group: GroupId,
    result: oneshot::Receiver<Result<Summary>>,
    writer: Arc<Inner>,
    withdraws: bool,
}

impl Receipt {
    /// Dropping it before it has resolved withdraws its writes from now on: what has not been sent is not sent any more.
    pub fn withdraw_on_drop(mut self) -> Self {
        self.withdraws = true;
        self
    }
}

impl Future for Receipt {
    type Output = Result<Summary>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.result).poll(context));
        self.withdraws = false;
        Poll::Ready(result.unwrap_or_else(|_| Err(self.writer.shared.gone())))
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.withdraws {
            let _ = self.writer.calls.send(Call::Withdraw(self.group));
        }
    }
}

impl Shared {
    /// Why the writer's task is not there any more.
    fn gone(&self) -> Error {
        match self.reason.lock().as_ref() {
            Some(reason) => reason.to_error(),
            None => Error::internal("the writer's runtime has shut down"),
        }
    }
}

fn machine(
    config: BulkConfig,
    classifier: Classifier,
    map: RoutingMap,
    throughput: Option<f64>,
) -> Machine<Flow> {
    let flow = FlowConfig {
        throttled_share: config.throttled_share,
        budget: config.budget,
        max_in_flight: config.max_in_flight.get(),
        max_operations: config.max_operations,
        max_bytes: config.max_batch_bytes,
    };
    // The driver's clock starts with it.
    Machine::new(config, classifier, flow, map, throughput, Duration::ZERO)
}
