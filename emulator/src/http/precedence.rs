//! What requests say about their precedence in the throughput of a container: a priority level, a throughput bucket.
//!
//! Both are checked and counted, so that a client can be seen to send them. Neither changes who is throttled.

use std::sync::atomic::{AtomicU64, Ordering};

use super::call::Call;
use super::error::ApiError;
use super::headers;

/// Throughput buckets that a container has (service limit).
const BUCKETS: usize = 5;

/// Requests so far by what they said.
#[derive(Debug, Default)]
pub struct Precedence {
    high: AtomicU64,
    low: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Precedence {
    /// Counts what a request says, if anything.
    ///
    /// # Errors
    /// 400 for values that do not exist.
    pub fn note(&self, call: &Call<'_>) -> Result<(), ApiError> {
        if let Some(level) = call.header(&headers::PRIORITY_LEVEL) {
            let counter = if level.eq_ignore_ascii_case("high") {
                &self.high
            } else if level.eq_ignore_ascii_case("low") {
                &self.low
            } else {
                return Err(ApiError::bad_request(
                    "x-ms-cosmos-priority-level must be High or Low",
                ));
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(bucket) = call.header(&headers::THROUGHPUT_BUCKET) {
            let number = bucket.trim().parse::<usize>().ok();
            let counter = number.and_then(|number| self.buckets.get(number.checked_sub(1)?));
            counter
                .ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "x-ms-cosmos-throughput-bucket must be 1 to {BUCKETS}"
                    ))
                })?
                .fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Requests of high and of low priority; those that say nothing are in neither.
    pub fn priorities(&self) -> [u64; 2] {
        [&self.high, &self.low].map(|count| count.load(Ordering::Relaxed))
    }

    /// Requests of each bucket, the first one first.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed))
    }
}
