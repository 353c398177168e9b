//! Splits, merges and the throughput of a container's partitions.

use std::sync::atomic::Ordering;

use super::container::Container;
use super::environment::MAX_PARTITION_THROUGHPUT;
use super::journal::Event;
use super::map::PartitionMap;
use super::shard::Shard;
use crate::config::MAX_THROUGHPUT;

impl Container {
    /// Tells clients that name one of these partitions to look for others, or takes that back.
    pub fn set_moving(&self, ids: &[u32], moving: bool) {
        let map = self.map();
        for partition in ids.iter().filter_map(|id| map.by_id(*id)) {
            partition.set_moving(moving);
        }
    }

    /// Splits a partition at the hash `at`, or in the middle of its keys; returns the children's ids.
    ///
    /// # Errors
    /// One clause, if there is no such partition or it cannot be split there.
    pub fn split(&self, id: u32, at: Option<u128>) -> Result<[u32; 2], String> {
        let mut map = self.map.write();
        let at = map.split_point(id, at)?;
        self.journal(Event::Split {
            container: self.number,
            partition: id,
            at: format!("{at:032X}"),
        })?;
        let children = map
            .split(id, at)
            .ok_or_else(|| format!("partition key range {id} does not exist"))?;
        self.share_throughput(&map);
        Ok(children)
    }

    /// Merges two neighbouring partitions; returns the new one's id.
    ///
    /// # Errors
    /// One clause, if one of them does not exist or they are not neighbours.
    pub fn merge(&self, a: u32, b: u32) -> Result<u32, String> {
        let mut map = self.map.write();
        map.check_merge(a, b)?;
        self.journal(Event::Merged {
            container: self.number,
            partitions: [a, b],
        })?;
        let id = map
            .merge(a, b)
            .ok_or_else(|| format!("partition key ranges {a} and {b} are not neighbours"))?;
        self.share_throughput(&map);
        Ok(id)
    }

    /// Splits a partition that has grown too large. To be called between requests.
    pub fn settle(&self) {
        let overgrown = self.overgrown.swap(0, Ordering::Relaxed);
        let Some(id) = overgrown.checked_sub(1) else {
            return;
        };
        let id = id as u32;
        let middle = self
            .map()
            .by_id(id)
            .and_then(|partition| partition.inspect(Shard::median_head));
        // A single logical partition cannot be divided.
        if let Some(middle) = middle
            && let Err(error) = self.split(id, Some(middle))
        {
            tracing::debug!(container = self.id, partition = id, error, "cannot split");
        }
    }

    /// Sets the throughput of the container in RU/s; `None` for no limit. Partitions that would get more than the service
    /// allows one are split.
    pub fn set_throughput(&self, throughput: Option<f64>) {
        *self.throughput.lock() = throughput;
        if let Some(total) = throughput {
            let wanted = (total / MAX_PARTITION_THROUGHPUT).ceil() as usize;
            loop {
                let widest = {
                    let map = self.map();
                    if map.partitions().len() >= wanted {
                        break;
                    }
                    map.widest()
                };
                if widest.is_none_or(|id| self.split(id, None).is_err()) {
                    break;
                }
            }
        }
        self.share_throughput(&self.map());
    }

    fn share_throughput(&self, map: &PartitionMap) {
        let share = self
            .throughput
            .lock()
            .map(|total| total / map.partitions().len() as f64);
        let now = self.environment.clock.now_millis();
        for partition in map.partitions() {
            partition.share(share, now);
        }
    }

    /// Limits one partition to `rate` RU/s in place of its share of the throughput; `None` gives it its share again.
    ///
    /// # Errors
    /// One clause, if there is no such partition or the rate is out of range.
    pub fn limit_partition(&self, id: u32, rate: Option<f64>) -> Result<(), String> {
        let most = f64::from(MAX_THROUGHPUT);
        if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate <= most)) {
            return Err(format!(
                "ru_per_s is {rate}, but must be above 0 and at most {most}"
            ));
        }
        let map = self.map();
        let partition = map
            .by_id(id)
            .ok_or_else(|| format!("partition key range {id} does not exist"))?;
        partition.limit(rate, self.environment.clock.now_millis());
        Ok(())
    }

    fn journal(&self, event: Event) -> Result<(), String> {
        let outcome = self.environment.journal(|| vec![event]);
        outcome.map_err(|error| error.to_string())
    }
}
