//! The thin, impure end of retrying: sleeps what [`Backoff`] says and reports long outages.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tidefeed_runtime::line_limit::LineLimit;

use super::backoff::{Backoff, BackoffConfig};
use super::failure::Failure;

/// Waits between the attempts of one request, or of one feed range.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
}

impl Retry {
    pub(crate) fn new(config: BackoffConfig) -> Self {
        Retry {
            backoff: Backoff::new(config),
        }
    }

    /// A success: the next fault waits shortly again.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
    }

    /// How long to wait after `failure`; whoever asks has its own lines about it.
    pub(crate) fn wait(&mut self, failure: &Failure) -> Duration {
        self.backoff.next_wait(failure.retry_after, random())
    }

    /// How long to wait after `failure`, reported as it grows: throttling is flow control and quiet, an outage is not.
    pub(crate) fn wait_after(
        &mut self,
        failure: &Failure,
        what: &dyn std::fmt::Display,
    ) -> Duration {
        let wait = self.wait(failure);
        let attempts = self.backoff.attempts();
        static LIMIT: LineLimit = LineLimit::rarely();
        if failure.is_throttled() || !attempts.is_power_of_two() || attempts < 4 {
            tracing::debug!(%what, attempts, ?wait, cause = %failure.message, "will try again");
        } else if let Some(held_back) = LIMIT.take() {
            tracing::warn!(
                event = "retrying",
                %what,
                attempts,
                wait_s = wait.as_secs_f64(),
                status = failure.status,
                sub_status = failure.sub_status,
                activity_id = failure.activity_id,
                cause = failure.cause(),
                held_back,
                "still failing, will try again"
            );
        }
        wait
    }
}

/// Uniform in `[0, 1)`. Each `RandomState` has keys of its own, which is random enough to keep retries out of step.
pub(crate) fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
