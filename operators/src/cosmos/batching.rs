//! How a batch of writes becomes requests. Pure: no client, no clock.
//!
//! Documents that share a partition key travel together as transactional batches, within the service's limits; a document
//! that is alone in its partition goes as a point write. A request that turns out too big is halved, and one that fails
//! because a document to delete is not there is taken apart.

use std::collections::HashMap;

use serde::Deserialize;
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::target::DocumentWrite;

/// How much goes into one request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchLimits {
    /// The most documents in a transactional batch, 1 to 100. Default 100, the service's limit. 1 sends every document by
    /// itself.
    pub max_operations: usize,
    /// The most bytes in a transactional batch. Default 1.8 MB: the service's limit is 2 MB, and it counts what it wraps
    /// around the documents. Smaller spreads a partition's load; larger is refused by the service and then halved.
    pub max_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits {
            max_operations: 100,
            max_bytes: 1_800_000,
        }
    }
}

impl BatchLimits {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(1..=100).contains(&self.max_operations) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "max_operations is {}: it must be 1 to 100",
                    self.max_operations
                ),
            ));
        }
        if self.max_bytes == 0 {
            return Err(Error::new(ErrorKind::Config, "max_bytes must not be zero"));
        }
        Ok(())
    }
}

/// The writes of one request; all of one partition key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) partition_key: String,
    pub(crate) writes: Vec<DocumentWrite>,
}

/// What the operation wraps around a document: `{"operationType":"Upsert","resourceBody":…},`.
const OPERATION_OVERHEAD_BYTES: usize = 64;

fn size_bytes(write: &DocumentWrite) -> usize {
    OPERATION_OVERHEAD_BYTES + write.id.len() + write.body.as_ref().map_or(0, |body| body.len())
}

/// Groups `batch` by partition key, in the order in which the keys appear.
pub(crate) fn plan(batch: Vec<DocumentWrite>, limits: &BatchLimits) -> Vec<Unit> {
    let mut units: Vec<(Unit, usize)> = Vec::new();
    // The unit of each partition key that is still open.
    let mut open: HashMap<String, usize> = HashMap::new();
    for write in batch {
        let size = size_bytes(&write);
        if let Some(&index) = open.get(&write.partition_key) {
            let (unit, bytes) = &mut units[index];
            if unit.writes.len() < limits.max_operations && *bytes + size <= limits.max_bytes {
                *bytes += size;
                unit.writes.push(write);
                continue;
            }
        }
        open.insert(write.partition_key.clone(), units.len());
        let unit = Unit {
            partition_key: write.partition_key.clone(),
            writes: vec![write],
        };
        units.push((unit, size));
    }
    units.into_iter().map(|(unit, _)| unit).collect()
}

impl Unit {
    /// Two halves. The unit must have at least two writes.
    pub(crate) fn halves(mut self) -> [Unit; 2] {
        let second = Unit {
            partition_key: self.partition_key.clone(),
            writes: self.writes.split_off(self.writes.len() / 2),
        };
        [self, second]
    }

    /// After a batch failed because the document that operation `missing` would delete is not there: the upserts together,
    /// and each other delete by itself, since after a crash most of them are likely to be gone as well and a batch would
    /// find them one at a time.
    pub(crate) fn without_deleted(self, missing: usize) -> Vec<Unit> {
        let partition_key = self.partition_key;
        let (upserts, deletes): (Vec<_>, Vec<_>) = self
            .writes
            .into_iter()
            .enumerate()
            .filter(|(index, _)| *index != missing)
            .map(|(_, write)| write)
            .partition(|write| write.body.is_some());
        let unit = |writes| Unit {
            partition_key: partition_key.clone(),
            writes,
        };
        let upserts = (!upserts.is_empty()).then(|| unit(upserts));
        upserts
            .into_iter()
            .chain(deletes.into_iter().map(|delete| unit(vec![delete])))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, id: &str, bytes: usize) -> DocumentWrite {
        DocumentWrite {
            partition_key: format!("[{key:?}]"),
            id: id.to_owned(),
            body: (bytes > 0).then(|| vec![b' '; bytes].into()),
        }
    }

    fn ids(units: &[Unit]) -> Vec<Vec<&str>> {
        units
            .iter()
            .map(|unit| unit.writes.iter().map(|write| write.id.as_str()).collect())
            .collect()
    }

    #[test]
    fn documents_of_one_partition_travel_together_within_the_limits() {
        let limits = BatchLimits {
            max_operations: 2,
            max_bytes: 1000,
        };
        let batch = vec![
            write("a", "1", 10),
            write("b", "2", 10),
            write("a", "3", 0),
            write("a", "4", 10),
            write("b", "5", 920),
            write("c", "6", 5000),
            write("c", "7", 10),
        ];
        let units = plan(batch, &limits);
        assert_eq!(
            ids(&units),
            [
                vec!["1", "3"],
                vec!["2"],
                vec!["4"],
                vec!["5"],
                vec!["6"],
                vec!["7"]
            ]
        );
    }

    #[test]
    fn nothing_is_lost_and_no_unit_mixes_partitions() {
        let batch: Vec<_> = (0..1000)
            .map(|n| write(&(n % 7).to_string(), &n.to_string(), n % 3 * 400))
            .collect();
        let limits = BatchLimits::default();
        let units = plan(batch.clone(), &limits);
        let mut sent: Vec<_> = units.iter().flat_map(|unit| unit.writes.clone()).collect();
        sent.sort_by_key(|write| write.id.parse::<u32>().unwrap());
        assert_eq!(sent, batch);
        for unit in &units {
            assert!(unit.writes.len() <= limits.max_operations);
            assert!(unit.writes.iter().map(size_bytes).sum::<usize>() <= limits.max_bytes);
            assert!(
                unit.writes
                    .iter()
                    .all(|write| write.partition_key == unit.partition_key)
            );
        }
        assert_eq!(
            units.len(),
            7 * 2,
            "143 documents a partition are two batches"
        );
    }

    #[test]
    fn halves_keep_everything() {
        let unit = plan(
            vec![write("a", "1", 1), write("a", "2", 1), write("a", "3", 1)],
            &BatchLimits::default(),
        )
        .remove(0);
        assert_eq!(ids(&unit.halves()), [vec!["1"], vec!["2", "3"]]);
    }

    #[test]
    fn a_missing_document_takes_the_deletes_apart() {
        let unit = plan(
            vec![
                write("a", "1", 1),
                write("a", "2", 0),
                write("a", "3", 0),
                write("a", "4", 1),
            ],
            &BatchLimits::default(),
        )
        .remove(0);
        assert_eq!(ids(&unit.without_deleted(1)), [vec!["1", "4"], vec!["3"]]);
        let only = plan(
            vec![write("a", "1", 0), write("a", "2", 0)],
            &BatchLimits::default(),
        )
        .remove(0);
        assert_eq!(ids(&only.without_deleted(0)), [vec!["2"]]);
    }

    #[test]
    fn limits_are_checked() {
        BatchLimits::default().validate().unwrap();
        for (max_operations, max_bytes) in [(0, 1), (101, 1), (1, 0)] {
            let limits = BatchLimits {
                max_operations,
                max_bytes,
            };
            assert_eq!(limits.validate().unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
