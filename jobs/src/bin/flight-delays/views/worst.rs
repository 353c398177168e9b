//! The largest delay of each group.

use differential_dataflow::operators::ThresholdTotal;
use differential_dataflow::{ExchangeData, VecCollection};
use serde::{Deserialize, Serialize};
use std::hash::Hash;

/// Which of a flight's two delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum At {
    /// At departure.
    Departure,
    /// At arrival.
    Arrival,
}

/// Delays in one bucket of the lower level. 32 minutes cut the range of delays of about 1,400 minutes into 44 buckets, so
/// that both levels are small.
const BUCKET_MIN: i32 = 32;

/// The largest of the delays of each group, at departure and at arrival.
///
/// Most changes bring a delay that the group already has, and end at the count of it. A delay that is new, or gone, is
/// compared with the others in its bucket; the largest of a bucket, if that changes, with those of the other buckets.
pub fn worst_delays<'s, K>(
    delays: VecCollection<'s, u64, (K, At, i32), isize>,
) -> VecCollection<'s, u64, ((K, At), i32), isize>
where
    K: ExchangeData + Hash,
{
    delays
        .threshold_total(|_, count| isize::from(*count > 0))
        .map(|(group, at, delay)| ((group, at, delay.div_euclid(BUCKET_MIN)), delay))
        .reduce_named("WorstInBucket", keep_largest)
        .map(|((group, at, _bucket), delay)| ((group, at), delay))
        .reduce_named("Worst", keep_largest)
}

/// Values come in order: the last is the largest.
fn keep_largest<K>(_: &K, values: &[(&i32, isize)], largest: &mut Vec<(i32, isize)>) {
    if let Some((value, _)) = values.last() {
        largest.push((**value, 1));
    }
}
