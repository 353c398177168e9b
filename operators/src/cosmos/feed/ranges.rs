//! Feed ranges and their names.

use azure_data_cosmos::feed::FeedRange;
use azure_data_cosmos::models::EffectivePartitionKey;
use azure_data_cosmos::options::ReadFeedRangesOptions;
use tidefeed_runtime::{FeedRangeId, Result};

use crate::cosmos::backoff::BackoffConfig;
use crate::cosmos::container::Container;
use crate::cosmos::failure::Failure;
use crate::cosmos::retry::Retry;

/// The feed ranges of a container as they are now, in key order. Passing faults are retried without limit.
///
/// # Errors
/// What no retry can mend.
pub(crate) async fn feed_ranges(
    container: &Container,
    backoff: &BackoffConfig,
) -> Result<Vec<FeedRange>> {
    let mut retry = Retry::new(backoff.clone());
    loop {
        let options = ReadFeedRangesOptions::default().with_force_refresh(true);
        let failure = match container.client().read_feed_ranges(Some(options)).await {
            Ok(mut ranges) => {
                ranges.sort_by(|a, b| a.min_inclusive().cmp(b.min_inclusive()));
                return Ok(ranges);
            }
            Err(error) => Failure::of(&error),
        };
        if !failure.is_passing() {
            return Err(failure.into_error(format!(
                "cannot list the feed ranges of container {container}"
            )));
        }
        tokio::time::sleep(retry.wait_after(&failure, container)).await;
    }
}

/// The service hashes partition keys to numbers whose two leading bits are zero, so that nothing is beyond.
pub(super) const END_OF_HASHES: u64 = 0x40 << 56;

/// Its name: the bounds.
pub(crate) fn range_id(range: &FeedRange) -> FeedRangeId {
    FeedRangeId(format!(
        "{}-{}",
        range.min_inclusive().to_hex(),
        range.max_exclusive().to_hex()
    ))
}

/// The range with this name.
pub(super) fn parse_range(id: &str) -> Option<FeedRange> {
    let (min, max) = id.split_once('-')?;
    let min = EffectivePartitionKey::try_from(min).ok()?;
    let max = EffectivePartitionKey::try_from(max).ok()?;
    if min >= max {
        return None;
    }
    FeedRange::new(min, max).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_names_can_be_read_back() {
        for id in [
            "-FF",
            "-1FFFFFFFFFFFFFFF",
            "1FFFFFFFFFFFFFFF-3FFF",
            "05C1-FF",
        ] {
            let range = parse_range(id).unwrap();
            assert_eq!(range_id(&range).0, id);
        }
        for malformed in ["", "FF", "-", "FF-05", "05-05", "0-FF", "xy-FF", "05-FF-"] {
            assert!(parse_range(malformed).is_none(), "{malformed}");
        }
        assert_eq!(parse_range("-FF").unwrap(), FeedRange::full());
    }
}
