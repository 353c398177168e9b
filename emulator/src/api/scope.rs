//! Which documents a feed or query is about: physical partitions, and an interval of keys in each.

use crate::epk::EpkRange;
use crate::http::{ApiError, Call, headers};
use crate::partition_key::parse_components;
use crate::store::{Container, Partition, PartitionMap};

/// A partition and the part of it that is asked for.
pub struct Piece<'a> {
    /// The partition.
    pub partition: &'a Partition,
    /// Part of the partition's own range.
    pub range: EpkRange,
}

impl Piece<'_> {
    /// Whether the whole partition is asked for.
    pub fn is_whole(&self) -> bool {
        self.range == self.partition.range
    }
}

/// The pieces that a call addresses, in key order: by partition key, by partition key range id, by EPK interval, or all.
///
/// # Errors
/// 400 for malformed headers, 410 if the client's map of partitions is not the server's.
pub fn of<'a>(
    container: &Container,
    map: &'a PartitionMap,
    call: &Call<'_>,
) -> Result<Vec<Piece<'a>>, ApiError> {
    let asked = asked(container, call)?;
    if let Some(id) = call.header(&headers::PARTITION_KEY_RANGE_ID) {
        return by_id(map, id, asked).map(|piece| vec![piece]);
    }
    Ok(pieces(map, &asked.unwrap_or_else(EpkRange::full)))
}

/// The parts of partitions that make up a key range, in key order.
pub fn pieces<'a>(map: &'a PartitionMap, asked: &EpkRange) -> Vec<Piece<'a>> {
    map.partitions()
        .iter()
        .filter_map(|partition| {
            Some(Piece {
                partition,
                range: partition.range.intersect(asked)?,
            })
        })
        .collect()
}

/// The keys that a call is about; `None` for all of those that it addresses otherwise.
fn asked(container: &Container, call: &Call<'_>) -> Result<Option<EpkRange>, ApiError> {
    Ok(match call.header(&headers::PARTITION_KEY) {
        Some(text) => {
            let components = parse_components(text).map_err(ApiError::bad_request)?;
            if components.is_empty() {
                call.epk_range()?
            } else {
                Some(
                    container
                        .key
                        .range(&components)
                        .map_err(ApiError::key_mismatch)?,
                )
            }
        }
        None => call.epk_range()?,
    })
}

/// The partition with a partition key range id.
///
/// # Errors
/// 410/1002 if there is none, or if it is about to be split or merged.
pub fn partition<'a>(map: &'a PartitionMap, id: &str) -> Result<&'a Partition, ApiError> {
    // Some clients write the container's resource id before the range id.
    let number = id.rsplit(',').next().unwrap_or(id).trim();
    let partition = number
        .parse()
        .ok()
        .and_then(|number| map.by_id(number))
        .ok_or_else(|| {
            ApiError::partition_gone(format!("the partition key range {number} does not exist"))
        })?;
    if partition.is_moving() {
        return Err(ApiError::partition_gone(format!(
            "the partition key range {number} is being split or merged"
        )));
    }
    Ok(partition)
}

fn by_id<'a>(
    map: &'a PartitionMap,
    id: &str,
    asked: Option<EpkRange>,
) -> Result<Piece<'a>, ApiError> {
    let partition = partition(map, id)?;
    let range = match asked {
        None => partition.range.clone(),
        Some(asked) => partition
            .range
            .intersect(&asked)
            .filter(|_| partition.range.covers(&asked))
            .ok_or_else(|| {
                ApiError::partition_gone(format!(
                    "the key range is not within partition {}",
                    partition.id
                ))
            })?,
    };
    Ok(Piece { partition, range })
}
