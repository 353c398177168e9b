//! What a writer has done: counters for each physical partition.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidefeed_runtime::stall::TargetWait;

use super::flow::Figures;
use super::operation::{Answer, Summary};
use super::wire::NoAnswer;
use crate::traffic::{PartitionTraffic, Traffic, TrafficCounters};

/// Upper bounds of the sizes that [`PartitionMetrics::sizes`] tells apart, in operations.
pub const SIZE_BOUNDS: [usize; 5] = [1, 10, 50, 99, 100];

/// What a writer has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BulkMetrics {
    /// By the service's name of the physical partition. Those that were split stay.
    pub partitions: BTreeMap<String, PartitionMetrics>,
    /// What became of the operations that are done.
    pub done: Summary,
    /// What the operations under way take in memory, about.
    pub held_bytes: usize,
    /// How often the ranges have been read after the first time: the service had said that they have changed.
    pub map_reads: u64,
    /// How long operations have been under way without any being acknowledged, in seconds; 0 when none are.
    pub stalled_s: f64,
}

/// What was sent to one physical partition. Every figure counts from the opening of the writer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionMetrics {
    /// Requests that have ended.
    pub requests: u64,
    /// Operations in them.
    pub operations: u64,
    /// Of these, the ones that the service carried out.
    pub written: u64,
    /// Bytes of those, at most.
    pub bytes: u64,
    /// Request units charged.
    pub charge_ru: f64,
    /// Requests that were throttled, or any of whose operations was.
    pub throttled_requests: u64,
    /// Operations that were throttled.
    pub throttled_operations: u64,
    /// Operations that did not succeed, by status and sub-status. Those of a request that failed as a whole are all in here.
    pub failures: BTreeMap<(u16, u32), u64>,
    /// The last of them: status and sub-status, and status 0 for a request without an answer. Not added up.
    pub last_failure: Option<(u16, u32)>,
    /// Requests without an answer.
    pub lost: u64,
    /// The time of all requests together.
    pub time: Duration,
    /// The longest request.
    pub slowest: Duration,
    /// Requests by their number of operations: up to each of [`SIZE_BOUNDS`].
    pub sizes: [u64; SIZE_BOUNDS.len()],
    /// Requests in flight now.
    pub in_flight: u64,
    /// Where its pace stood when the last request ended. Not added up.
    pub pace: Figures,
}

impl BulkMetrics {
    /// All partitions together.
    pub fn total(&self) -> PartitionMetrics {
        let mut total = PartitionMetrics::default();
        self.partitions.values().for_each(|one| total.add(one));
        total
    }

    /// The failure of the partition that has operations in flight or has failed most, and how many operations have failed.
    pub(super) fn last_failure(&self) -> TargetWait {
        let failures = |one: &PartitionMetrics| one.failures.values().sum::<u64>() + one.lost;
        let failed = self.partitions.iter();
        let failed = failed.filter(|(_, one)| one.last_failure.is_some());
        let worst = failed.max_by_key(|(_, one)| (one.in_flight > 0, failures(one)));
        TargetWait {
            quiet: Duration::ZERO,
            partition: worst.map(|(name, _)| name.clone()),
            last_failure: worst.and_then(|(_, one)| one.last_failure),
            failures: self.partitions.values().map(failures).sum(),
        }
    }

    /// A request to this partition has started.
    pub(super) fn sent(&mut self, partition: &str) {
        match self.partitions.get_mut(partition) {
            Some(known) => known.in_flight += 1,
            None => {
                let first = PartitionMetrics {
                    in_flight: 1,
                    ..PartitionMetrics::default()
                };
                self.partitions.insert(partition.to_owned(), first);
            }
        }
    }
}

impl PartitionMetrics {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.operations += other.operations;
        self.written += other.written;
        self.bytes += other.bytes;
        self.charge_ru += other.charge_ru;
        self.throttled_requests += other.throttled_requests;
        self.throttled_operations += other.throttled_operations;
        for (status, count) in &other.failures {
            *self.failures.entry(*status).or_default() += count;
        }
        self.lost += other.lost;
        self.time += other.time;
        self.slowest = self.slowest.max(other.slowest);
        for (sum, count) in self.sizes.iter_mut().zip(other.sizes) {
            *sum += count;
        }
        self.in_flight += other.in_flight;
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, exchange: &Exchange, ended: &Result<Answer, NoAnswer>) {
        let Exchange {
            operations,
            bytes,
            took,
        } = *exchange;
        self.in_flight -= 1;
        self.requests += 1;
        self.operations += operations as u64;
        self.bytes += bytes as u64;
        self.time += took;
        self.slowest = self.slowest.max(took);
        let size = SIZE_BOUNDS.partition_point(|bound| *bound < operations);
        self.sizes[size.min(SIZE_BOUNDS.len() - 1)] += 1;
        let Ok(answer) = ended else {
            self.lost += 1;
            self.last_failure = Some((0, 0));
            return;
        };
        self.charge_ru += answer.charge_ru;
        let (mut throttled, mut failed) = (0, 0);
        for (status, sub_status, count) in failures(answer, operations) {
            failed += count;
            *self.failures.entry((status, sub_status)).or_default() += count as u64;
            self.last_failure = Some((status, sub_status));
            if status == 429 {
                throttled += count as u64;
            }
        }
        self.written += operations.saturating_sub(failed) as u64;
        self.throttled_operations += throttled;
        self.throttled_requests += u64::from(throttled > 0);
    }
}

impl TrafficCounters for Mutex<BulkMetrics> {
    fn traffic(&self) -> Traffic {
        let of = |one: &PartitionMetrics| PartitionTraffic {
            documents: one.written,
            requests: one.requests,
            throttled: one.throttled_requests,
            charge_ru: one.charge_ru,
            in_flight: one.in_flight,
        };
        let metrics = self.lock();
        let partitions = metrics.partitions.iter();
        partitions
            .map(|(name, one)| (name.clone(), of(one)))
            .collect()
    }
}

/// A request, as far as it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) operations: usize,
    pub(super) bytes: usize,
    pub(super) took: Duration,
}

/// Status, sub-status and number of operations that did not succeed.
fn failures(answer: &Answer, operations: usize) -> impl Iterator<Item = (u16, u32, usize)> {
    let has_results = matches!(answer.status, 200 | 207);
    let whole = (!has_results).then_some((answer.status, answer.sub_status, operations));
    let each = answer.results.iter().filter(|result| result.status >= 400);
    let each = each.map(|result| (result.status, result.sub_status, 1));
    whole.into_iter().chain(each)
}

#[cfg(test)]
mod tests {
    use super::super::operation::{Lost, OperationResult};
    use super::*;
    use tidefeed_runtime::Error;

    fn exchange(operations: usize) -> Exchange {
        Exchange {
            operations,
            bytes: 10 * operations,
            took: Duration::from_millis(3),
        }
    }

    fn answer(status: u16, results: &[u16]) -> Result<Answer, NoAnswer> {
        let result = |&status: &u16| OperationResult {
            status,
            ..OperationResult::default()
        };
        Ok(Answer {
            status,
            charge_ru: 2.0,
            results: results.iter().map(result).collect(),
            ..Answer::default()
        })
    }

    fn nothing() -> Result<Answer, NoAnswer> {
        Err(NoAnswer {
            lost: Lost::Maybe,
            error: Error::internal("a test"),
        })
    }

    #[test]
    fn every_request_counts_once() {
        let mut one = PartitionMetrics {
            in_flight: 4,
            ..PartitionMetrics::default()
        };
        one.ended(&exchange(3), &answer(207, &[201, 429, 404]));
        one.ended(&exchange(100), &answer(429, &[]));
        one.ended(&exchange(1), &answer(200, &[200]));
        one.ended(&exchange(2), &nothing());
        assert_eq!((one.requests, one.operations, one.bytes), (4, 106, 1060));
        assert_eq!((one.throttled_requests, one.throttled_operations), (2, 101));
        assert_eq!(one.written, 2, "one of three, none of a hundred, the one");
        assert_eq!((one.lost, one.in_flight, one.charge_ru), (1, 0, 6.0));
        assert_eq!(
            one.failures,
            BTreeMap::from([((404, 0), 1), ((429, 0), 101)])
        );
        assert_eq!(one.last_failure, Some((0, 0)));
        assert_eq!(one.sizes, [1, 2, 0, 0, 1]);
        let mut both = BulkMetrics::default();
        both.partitions.insert("0".into(), one.clone());
        both.partitions.insert("1".into(), one.clone());
        assert_eq!(both.total().operations, 2 * one.operations);
        assert_eq!(both.total().failures[&(429, 0)], 202);
        let traffic = Mutex::new(both).traffic();
        let told = PartitionTraffic {
            documents: 2,
            requests: 4,
            throttled: 2,
            charge_ru: 6.0,
            in_flight: 0,
        };
        assert_eq!(traffic, [("0".into(), told), ("1".into(), told)].into());
    }
}
