//! The physical partitions of a container, in key order.

use super::partition::Partition;
use super::shard::Shard;
use crate::epk::{Epk, EpkRange};

/// End of the space of hashed keys: the two top bits are clear.
const KEY_SPACE: u128 = 1 << 126;

/// The partitions that tile a container's keys.
#[derive(Debug)]
pub struct PartitionMap {
    partitions: Vec<Partition>,
    version: u64,
    next_id: u32,
}

impl PartitionMap {
    /// Empty partitions of the same width.
    pub fn even(count: usize) -> Self {
        let partitions: Vec<Partition> = EpkRange::split_evenly(count)
            .into_iter()
            .zip(0..)
            .map(|(range, id)| Partition::new(id, range, Vec::new(), Shard::default()))
            .collect();
        Self {
            next_id: partitions.len() as u32,
            version: 0,
            partitions,
        }
    }

    /// Puts a map back together.
    pub fn restore(partitions: Vec<Partition>, version: u64, next_id: u32) -> Self {
        Self {
            partitions,
            version,
            next_id,
        }
    }

    /// The partitions in key order.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Counts the splits and merges so far.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The id that the next new partition gets.
    pub fn next_id(&self) -> u32 {
        self.next_id
    }

    /// The partition that owns `epk`.
    pub fn of(&self, epk: &Epk) -> &Partition {
        let after = self
            .partitions
            .partition_point(|partition| epk.cmp_bound(&partition.range.min).is_ge());
        &self.partitions[after.saturating_sub(1)]
    }

    /// The partition with a partition key range id.
    pub fn by_id(&self, id: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.id == id)
    }

    /// Whether every change is recorded, for AllVersionsAndDeletes.
    pub fn is_recording(&self) -> bool {
        self.partitions
            .iter()
            .all(|partition| partition.shard.read().history().is_recording())
    }

    /// Records every change from now on, where that is not done yet.
    pub fn start_history(&self) {
        for partition in &self.partitions {
            let mut shard = partition.shard.write();
            let lsn = shard.lsn();
            shard.history_mut().start(&partition.range, lsn);
        }
    }

    /// The partition with the widest interval of keys.
    pub fn widest(&self) -> Option<u32> {
        let width = |partition: &&Partition| {
            let (low, high) = partition.range.heads();
            high.min(KEY_SPACE).saturating_sub(low)
        };
        // The first of several: `max_by_key` would take the last.
        let widest = self.partitions.iter().rev().max_by_key(width)?;
        Some(widest.id)
    }

    /// Where a partition would be split: at `at`, or in the middle of its keys.
    ///
    /// # Errors
    /// One clause, if there is no such partition or no key between its ends.
    pub fn split_point(&self, id: u32, at: Option<u128>) -> Result<u128, String> {
        let partition = self
            .by_id(id)
            .ok_or_else(|| format!("partition key range {id} does not exist"))?;
        let (low, high) = partition.range.heads();
        let high = high.min(KEY_SPACE);
        let at = at.unwrap_or(low + (high.saturating_sub(low)) / 2);
        if at <= low || at >= high {
            return Err(format!(
                "partition key range {id} cannot be split at {}: that is not inside it",
                crate::epk::to_hex(&at.to_be_bytes())
            ));
        }
        Ok(at)
    }

    /// Splits a partition at a point that [`Self::split_point`] gave; returns the children's ids.
    pub fn split(&mut self, id: u32, at: u128) -> Option<[u32; 2]> {
        let index = self.position(id)?;
        let parent = self.partitions.remove(index);
        let bound = at.to_be_bytes().to_vec();
        let left = EpkRange {
            min: parent.range.min.clone(),
            max: bound.clone(),
        };
        let right = EpkRange {
            min: bound,
            max: parent.range.max.clone(),
        };
        let mut parents = parent.parents.clone();
        parents.push(id);
        let (a, b) = parent.into_shard().split(&left, &right);
        let ids = [self.next_id, self.next_id + 1];
        let children = [
            Partition::new(ids[0], left, parents.clone(), a),
            Partition::new(ids[1], right, parents, b),
        ];
        self.partitions.splice(index..index, children);
        self.next_id += 2;
        self.version += 1;
        Some(ids)
    }

    /// Whether two partitions can be merged: both exist and are neighbours.
    ///
    /// # Errors
    /// One clause that says what is wrong.
    pub fn check_merge(&self, a: u32, b: u32) -> Result<(), String> {
        let place = |id| {
            self.position(id)
                .ok_or_else(|| format!("partition key range {id} does not exist"))
        };
        if place(a)?.abs_diff(place(b)?) == 1 {
            return Ok(());
        }
        Err(format!(
            "partition key ranges {a} and {b} are not neighbours"
        ))
    }

    /// Merges two neighbours; returns the new partition's id.
    pub fn merge(&mut self, a: u32, b: u32) -> Option<u32> {
        self.check_merge(a, b).ok()?;
        let index = self.position(a)?.min(self.position(b)?);
        let (left, right) = (self.partitions.remove(index), self.partitions.remove(index));
        let range = EpkRange {
            min: left.range.min.clone(),
            max: right.range.max.clone(),
        };
        let mut parents = left.parents.clone();
        parents.extend(right.parents.iter().filter(|id| !left.parents.contains(id)));
        parents.extend([left.id, right.id]);
        let shard = left.into_shard().merge(right.into_shard());
        let id = self.next_id;
        self.partitions
            .insert(index, Partition::new(id, range, parents, shard));
        self.next_id += 1;
        self.version += 1;
        Some(id)
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.partitions
            .iter()
            .position(|partition| partition.id == id)
    }
}
