//! Which calls of the service are worth a line in the log: those that were slow and those that failed, sampled.
//!
//! A call that was throttled is neither: that is flow control, and has lines of its own when it lasts. What the service says of a
//! failure is not logged, because it may quote documents and their ids; with the activity id its support finds the rest.

use std::fmt::Display;
use std::time::Duration;

use tidefeed_runtime::line_limit::LineLimit;

use super::failure::Failure;

/// A call that takes longer is slow. A page or a batch usually takes some 10 ms, and some 100 ms across regions.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// What is known of a call that has ended. Status 0 is a call without an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Call {
    pub(crate) status: u16,
    pub(crate) sub_status: u32,
    /// The name of the last attempt, for support.
    pub(crate) activity_id: String,
    pub(crate) charge_ru: f64,
    pub(crate) took: Duration,
    /// Attempts before the last one, as far as they are one call for whoever made it.
    pub(crate) retries: usize,
}

impl Call {
    /// One that has failed.
    pub(super) fn failed(failure: &Failure, took: Duration) -> Self {
        Call {
            status: failure.status,
            sub_status: failure.sub_status,
            activity_id: failure.activity_id.clone(),
            charge_ru: failure.charge_ru,
            took,
            retries: failure.requests.saturating_sub(1),
        }
    }
}

/// Logs a call that read from, or wrote to, a range of a container (`side`).
pub(super) fn slow(side: &str, container: &dyn Display, range: &dyn Display, call: &Call) {
    static LIMIT: LineLimit = LineLimit::often();
    if let Some(held_back) = LIMIT.take() {
        tracing::info!(
            event = "slow_call",
            side,
            %container,
            %range,
            status = call.status,
            sub_status = call.sub_status,
            activity_id = call.activity_id,
            charge_ru = call.charge_ru,
            took_s = call.took.as_secs_f64(),
            retries = call.retries,
            held_back,
            "a call was slow"
        );
    }
}

/// Logs a call that has failed.
pub(super) fn failed(side: &str, container: &dyn Display, range: &dyn Display, call: &Call) {
    static LIMIT: LineLimit = LineLimit::often();
    if let Some(held_back) = LIMIT.take() {
        tracing::info!(
            event = "failed_call",
            side,
            %container,
            %range,
            status = call.status,
            sub_status = call.sub_status,
            activity_id = call.activity_id,
            charge_ru = call.charge_ru,
            took_s = call.took.as_secs_f64(),
            retries = call.retries,
            held_back,
            "a call has failed"
        );
    }
}
