//! How a writer writes.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::cosmos::backoff::BackoffConfig;

/// The settings of a bulk writer. Every one has a default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkConfig {
    /// Which requests carry the writes. Default [`Policy::Bulk`].
    pub policy: Policy,
    /// The most requests in flight to one physical partition, 1 or more. Default 4, a guess: enough to hide the round trip
    /// while the pace is set by request units. Larger helps only far from the service.
    pub max_in_flight: NonZeroUsize,
    /// The most requests in flight in total, which is also the most connections, 1 or more. Default 64, a guess. Less than
    /// two for each physical partition makes partitions wait for each other.
    pub max_connections: NonZeroUsize,
    /// The most memory for operations that are held, waiting and in flight, with what is kept around each: about 500 bytes
    /// beside its document and its keys. Requests in flight are copies beside that, each of `max_batch_bytes` at most. Default
    /// 64 MiB, a guess. Larger evens out longer pauses of the service, and folds more.
    pub max_buffered_bytes: usize,
    /// The most operations in a request, 1 to 100. Default 100, the service's limit.
    pub max_operations: usize,
    /// The most bytes in a request. Default 1.8 MB: the service's limit is 2 MB, and it counts what it wraps around the
    /// documents. The writer starts lower and adapts.
    pub max_batch_bytes: usize,
    /// How long a partition that has less than a full request waits for more. Default 2 ms, a guess: about a round trip within
    /// a region. Nothing waits that a caller hands over [as the last](crate::cosmos::BulkWriter::submit_last), as sinks do.
    /// Larger makes fuller requests and adds latency at light load.
    pub linger: Duration,
    /// The share of requests that may be throttled while this writer is alone, above 0 and below 1. Default 0.012: in the
    /// simulation two writers have 0.033 then. Larger follows a rising limit faster, smaller wastes fewer requests.
    pub throttled_share: f64,
    /// What the writer may use of the container's request units. Default none: all that it gets.
    pub budget: Option<Budget>,
    /// How the service ranks the writes among others on the container. Default none: the service's default.
    pub priority: Option<Priority>,
    /// The container's throughput bucket that pays, 1 to 5. Default none.
    pub throughput_bucket: Option<u8>,
    /// How long a request without an answer may still take effect. Until then no other content is written to its documents.
    /// Default 10 s, a guess above the service's own limit of 5 s for an execution. Smaller brings changes out sooner
    /// after a broken connection, and lets an old value overwrite a newer one if the service is slower than that.
    pub ambiguous_settle: Duration,
    /// The same for a request that the service answered with a timeout or a fault. Default 5 s, the service's limit for an
    /// execution.
    pub fault_settle: Duration,
    /// Whether a write that has not been sent gives its place to a newer one of the same document. Default false: every
    /// write is sent. True writes less when the container is slow, and its changes can skip values.
    pub coalesce: bool,
    /// Which writes follow each other. Default [`WriteOrder::Document`].
    pub order: WriteOrder,
    /// What becomes of writes that the service refuses for good. Default [`Poison::Report`].
    pub on_poison: Poison,
    /// The waits between attempts, where the service does not say how long.
    pub backoff: BackoffConfig,
    /// How long operations may be under way without any being acknowledged before a warning says so, above 0; another comes
    /// whenever the time has doubled. Nothing is dropped for it. Default 60 s: longer than what a fault costs by itself, which
    /// is a request (8 s), the wait after it (`ambiguous_settle`) and the longest wait between attempts (10 s). Smaller warns
    /// of what passes; larger says later what somebody may have to mend.
    pub stalled_after: Duration,
}

impl Default for BulkConfig {
    fn default() -> Self {
        BulkConfig {
            policy: Policy::Bulk,
            max_in_flight: NonZeroUsize::new(4).expect("4 is not zero"),
            max_connections: NonZeroUsize::new(64).expect("64 is not zero"),
            max_buffered_bytes: 64 << 20,
            max_operations: 100,
            max_batch_bytes: 1_800_000,
            linger: Duration::from_millis(2),
            throttled_share: 0.012,
            budget: None,
            priority: None,
            throughput_bucket: None,
            ambiguous_settle: Duration::from_secs(10),
            fault_settle: Duration::from_secs(5),
            coalesce: false,
            order: WriteOrder::Document,
            on_poison: Poison::Report,
            backoff: BackoffConfig::default(),
            stalled_after: Duration::from_secs(60),
        }
    }
}

/// Which requests carry the writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    #[default]
    /// Batches by physical partition; a write that is too large for them goes by itself.
    Bulk,
    /// Atomic batches of writes with one partition key, where they come together.
    Transactional,
    /// Every write by itself.
    Point,
}

/// What a writer may use of a container's throughput.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// So many request units a second, above 0.
    #[serde(rename = "ru_per_s")]
    RuPerSecond(f64),
    /// This share of what is provisioned, above 0 and at most 1.
    Fraction(f64),
}

/// How the service ranks requests when a container has less throughput than is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Served first.
    High,
    /// Throttled first.
    Low,
}

/// Which writes follow each other, in the order in which they were submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOrder {
    /// Those of one document.
    Document,
    /// Those of all documents with one id, whatever their partition key: for documents that move from one partition key to
    /// another by an insert and then a delete. Nothing that has to wait for room is passed by anything else then.
    Id,
}

/// What becomes of a write that the service refuses for good: malformed, too large, or in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// The writer stops.
    Fail,
    /// Whoever submitted it is told, and the writer goes on.
    Report,
    /// It goes to the dead letters, and counts as acknowledged once it is durable there. Where they are is told by
    /// [`BulkWriter::keep_dead_letters`](crate::cosmos::BulkWriter::keep_dead_letters); without that the writer stops.
    DeadLetter {
        /// The writer stops when a minute has more: something is wrong with all of them then, and a view must not drain
        /// into the dead letters.
        per_minute: u32,
    },
}

impl BulkConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Config, what));
        if !(1..=100).contains(&self.max_operations) {
            let found = self.max_operations;
            return wrong(format!("max_operations is {found}: it must be 1 to 100"));
        }
        if self.max_batch_bytes == 0 {
            return wrong("max_batch_bytes must not be zero".to_owned());
        }
        if self.max_buffered_bytes < self.max_batch_bytes {
            let (found, least) = (self.max_buffered_bytes, self.max_batch_bytes);
            return wrong(format!(
                "max_buffered_bytes is {found}: it must be at least max_batch_bytes, {least}"
            ));
        }
        if self.stalled_after.is_zero() {
            return wrong("stalled_after must be longer than zero".to_owned());
        }
        let share = self.throttled_share;
        if !(share > 0.0 && share < 1.0) {
            return wrong(format!(
                "throttled_share is {share}: it must be above 0 and below 1"
            ));
        }
        match self.budget {
            Some(Budget::RuPerSecond(ru)) if !(ru > 0.0 && ru.is_finite()) => {
                return wrong(format!("budget is {ru} RU/s: it must be above 0"));
            }
            Some(Budget::Fraction(share)) if !(share > 0.0 && share <= 1.0) => {
                return wrong(format!(
                    "budget is {share} of the provisioned throughput: it must be above 0 and at most 1"
                ));
            }
            _ => {}
        }
        match self.throughput_bucket {
            Some(bucket) if !(1..=5).contains(&bucket) => {
                wrong(format!("throughput_bucket is {bucket}: it must be 1 to 5"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        BulkConfig::default().validate().unwrap();
    }

    #[test]
    fn a_wrong_setting_is_named() {
        type Change = fn(&mut BulkConfig);
        let cases: &[(&str, Change)] = &[
            ("max_operations", |c| c.max_operations = 0),
            ("max_operations", |c| c.max_operations = 101),
            ("max_batch_bytes", |c| c.max_batch_bytes = 0),
            ("max_buffered_bytes", |c| c.max_buffered_bytes = 1),
            ("throttled_share", |c| c.throttled_share = 0.0),
            ("throttled_share", |c| c.throttled_share = 1.0),
            ("throttled_share", |c| c.throttled_share = f64::NAN),
            ("budget", |c| c.budget = Some(Budget::RuPerSecond(0.0))),
            ("budget", |c| {
                c.budget = Some(Budget::RuPerSecond(f64::INFINITY))
            }),
            ("budget", |c| c.budget = Some(Budget::Fraction(1.5))),
            ("budget", |c| c.budget = Some(Budget::Fraction(f64::NAN))),
            ("stalled_after", |c| c.stalled_after = Duration::ZERO),
            ("throughput_bucket", |c| c.throughput_bucket = Some(0)),
            ("throughput_bucket", |c| c.throughput_bucket = Some(6)),
        ];
        for (field, change) in cases {
            let mut config = BulkConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
    }
}
