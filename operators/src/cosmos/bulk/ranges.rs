//! The part of the [`Machine`] that knows the container's ranges: where documents belong, and when to read that again.

use std::collections::HashMap;
use std::time::Duration;

use super::classify::Refresh;
use super::flow::Figures;
use super::machine::Machine;
use super::output::Output;
use super::partition::{Pace, Partition, Share};
use super::routing::{RangeId, RoutingKey, RoutingMap};

/// The shortest time between two readings of the map: a split takes longer than that, and reading it costs the account.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

impl<P: Pace> Machine<P> {
    /// Where the pace of a partition stands.
    pub(crate) fn figures(&self, now: Duration, range: &RangeId) -> Option<Figures> {
        let at = self.map.position(range)?;
        Some(self.partitions[at].pace.figures(now))
    }

    /// The position of the physical partition of `key`, as long as the map stays.
    pub(crate) fn position_of(&self, key: &RoutingKey) -> usize {
        self.map.position_of(key)
    }

    /// The container has so many request units a second now; `None` if that is not known.
    pub(crate) fn provisioned(&mut self, ru_per_s: Option<f64>) {
        self.provisioned_ru_per_s = ru_per_s;
        for (range, partition) in self.map.ranges().iter().zip(&mut self.partitions) {
            let share = share(ru_per_s, range.throughput_fraction, self.map.ranges().len());
            partition.pace.share(share);
        }
    }

    /// The ranges have been read again. Operations go to where they belong now; ranges that have stayed keep their pace.
    pub(crate) fn new_map(&mut self, now: Duration, map: RoutingMap) {
        let old = std::mem::take(&mut self.partitions);
        let mut old: HashMap<RangeId, Partition<P>> = old
            .into_iter()
            .map(|partition| (partition.range.clone(), partition))
            .collect();
        let ranges = map.ranges();
        for range in ranges {
            let share = share(
                self.provisioned_ru_per_s,
                range.throughput_fraction,
                ranges.len(),
            );
            let mut partition = match old.remove(&range.id) {
                Some(mut partition) => {
                    partition.pace.share(share);
                    partition
                }
                None => {
                    let pace = P::new(&self.pace, share, now);
                    Partition::new(range.id.clone(), pace)
                }
            };
            partition.held_bytes = 0;
            partition.is_stale = false;
            self.partitions.push(partition);
        }
        for entry in self.order.iter_mut() {
            let at = map.position_of(&entry.operation.routing);
            entry.partition = u32::try_from(at).expect("fewer than 2^32 ranges");
            self.partitions[at].held_bytes += entry.operation.memory_bytes();
        }
        self.map = map;
        self.version += 1;
        self.reading = None;
        // Hash maps have no order, and the same calls are to end the same way.
        let mut orphaned: Vec<_> = old.into_values().collect();
        orphaned.sort_unstable_by(|a, b| a.range.cmp(&b.range));
        let orphans = orphaned.iter_mut().flat_map(Partition::drain);
        for slot in self.adrift.drain(..).chain(orphans) {
            let at = self.order.get(slot).partition;
            self.partitions[at as usize].push_again(slot);
        }
    }

    /// Asks for what must be read again, or says when.
    pub(super) fn refresh(&mut self, now: Duration) -> Option<Duration> {
        self.wanted?;
        if self.reading.is_some() || self.is_ending {
            return None;
        }
        if now < self.read_from {
            return Some(self.read_from);
        }
        self.read_from = now + REFRESH_PAUSE;
        self.reading = self.wanted.take();
        self.out.extend(self.reading.map(Output::Refresh));
        None
    }

    pub(super) fn want(&mut self, refresh: Refresh) {
        if self.reading < Some(refresh) {
            self.wanted = self.wanted.max(Some(refresh));
        }
    }

    pub(super) fn partition_of(&mut self, range: &RangeId) -> Option<&mut Partition<P>> {
        let at = self.map.position(range)?;
        Some(&mut self.partitions[at])
    }
}

/// What a range has of its container: what the service says, or as much as every other.
fn share(provisioned_ru_per_s: Option<f64>, fraction: Option<f64>, ranges: usize) -> Share {
    let fraction = fraction.unwrap_or(1.0 / ranges as f64);
    Share {
        fraction,
        ru_per_s: provisioned_ru_per_s.map(|ru| ru * fraction),
    }
}
