//! What a flow is told and what it tells.

use std::time::Duration;

pub(crate) use super::super::config::Budget;

/// The settings of a flow.
#[derive(Clone, Debug)]
pub(crate) struct FlowConfig {
    /// The share of requests that may be throttled when the flow is alone, above 0 and below 1. Default 0.012, from the
    /// simulation: two writers have 0.033 then, which leaves room to 0.05. Larger finds a raised limit sooner.
    pub(crate) throttled_share: f64,
    /// Of the container: the partition's share of an absolute one; a fraction is taken of the reference, or of 500 RU/s without
    /// one. Default none.
    pub(crate) budget: Option<Budget>,
    /// The most requests in flight, 1 or more. Default 4.
    pub(crate) max_in_flight: usize,
    /// The most operations in a request. Default 100.
    pub(crate) max_operations: usize,
    /// The most bytes in a request. Default 1.8 MB.
    pub(crate) max_bytes: usize,
}

impl Default for FlowConfig {
    fn default() -> Self {
        FlowConfig {
            throttled_share: 0.012,
            budget: None,
            max_in_flight: 4,
            max_operations: 100,
            max_bytes: 1_800_000,
        }
    }
}

/// Whether a request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Yes, with at most so many operations and bytes. A single operation may have more.
    Go { max_ops: usize, max_bytes: usize },
    /// Not for so long.
    Wait(Duration),
    /// Not before an answer has come.
    AwaitAnswer,
}

/// A request in flight.
#[derive(Debug)]
#[must_use = "a request that is never answered stays in flight"]
pub(crate) struct Sent {
    pub(super) number: u64,
    pub(super) at: Duration,
    pub(super) ops: usize,
    pub(super) bytes: usize,
    /// Request units taken for it.
    pub(super) estimate: f64,
    /// Whether it had to wait for tokens.
    pub(super) is_paced: bool,
}

/// What the end of a request says about the pace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Request units charged; none if there is no answer.
    pub(crate) charge: Option<f64>,
    /// Operations that were over the request units per second.
    pub(crate) throttled_ops: usize,
    /// Operations that were throttled for another reason.
    pub(crate) refused_ops: usize,
    /// The longest wait that was asked for.
    pub(crate) retry_after: Duration,
    /// Timed out, faulty, or lost after it may have been written. Without this and without a charge nothing was ever sent.
    pub(crate) overloaded: bool,
    /// Larger than the service takes.
    pub(crate) too_large: bool,
}

/// Where the pace of a physical partition stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// The pace, in RU/s.
    pub rate: f64,
    /// The budget, in RU/s.
    pub budget: Option<f64>,
    /// For how much longer nothing is sent.
    pub pause: Duration,
    /// Requests in flight.
    pub in_flight: usize,
    /// The most requests in flight at present.
    pub max_in_flight: usize,
    /// The most bytes in a request at present.
    pub max_bytes: usize,
}
