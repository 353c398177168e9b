//! What a target has sent, by the physical partitions of its container, for whoever watches the job.

use std::collections::BTreeMap;

/// What was sent to each physical partition since the target was opened, by the service's name of it. Those that were split stay.
pub type Traffic = BTreeMap<String, PartitionTraffic>;

/// What was sent to one physical partition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartitionTraffic {
    /// Writes that the service carried out.
    pub documents: u64,
    /// Requests that have ended, retries included.
    pub requests: u64,
    /// Of these, the ones that were throttled, in whole or in part.
    pub throttled: u64,
    /// Request units charged.
    pub charge_ru: f64,
    /// Requests in flight now.
    pub in_flight: u64,
}

/// Where a target counts its requests. It may outlive the target, and keeps nothing of it alive but the counts.
pub trait TrafficCounters: Send + Sync {
    /// The counts by now.
    fn traffic(&self) -> Traffic;
}
