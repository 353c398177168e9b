//! Which documents a feed or query is about: physical partitions, and an interval of keys in each.

use crate::epk::EpkRange;
use crate::http::{ApiError, Call, headers};
use crate::partition_key::parse_components;
use crate::store::{Container, Partition};

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
pub fn of<'a>(container: &'a Container, call: &Call<'_>) -> Result<Vec<Piece<'a>>, ApiError> {
    let asked = match call.header(&headers::PARTITION_KEY) {
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
    };
    if let Some(id) = call.header(&headers::PARTITION_KEY_RANGE_ID) {
        return by_id(container, id, asked).map(|piece| vec![piece]);
    }
    let asked = asked.unwrap_or_else(EpkRange::full);
    Ok(container
        .partitions()
        .iter()
        .filter_map(|partition| {
            Some(Piece {
                partition,
                range: partition.range.intersect(&asked)?,
            })
        })
        .collect())
}

fn by_id<'a>(
    container: &'a Container,
    id: &str,
    asked: Option<EpkRange>,
) -> Result<Piece<'a>, ApiError> {
    // Some clients write the container's resource id before the range id.
    let number = id.rsplit(',').next().unwrap_or(id).trim();
    let partition = number
        .parse()
        .ok()
        .and_then(|number| container.partition_by_id(number))
        .ok_or_else(|| {
            ApiError::partition_gone(format!("the partition key range {number} does not exist"))
        })?;
    let range = match asked {
        None => partition.range.clone(),
        Some(asked) => partition
            .range
            .intersect(&asked)
            .filter(|_| partition.range.covers(&asked))
            .ok_or_else(|| {
                ApiError::partition_gone(format!("the key range is not within partition {number}"))
            })?,
    };
    Ok(Piece { partition, range })
}
