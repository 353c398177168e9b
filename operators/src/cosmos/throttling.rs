//! Lines about throttling and about failures that last: one when they begin, one when they are over.

use std::fmt::Display;
use std::time::Duration;

use tidefeed_runtime::episode::{Change, Episode};

/// Calls that are throttled one after the other before that is worth a line. A guess: a sink looks for the service's limit by
/// running into it now and then.
const THROTTLED: u64 = 3;
/// Throttling is over when no call was throttled for so long. A guess: a service that has had enough says so again within
/// seconds.
const THROTTLED_NO_MORE: Duration = Duration::from_secs(5);

/// The throttling of one feed range, or of one partition that is written to.
#[derive(Clone, Debug)]
pub(super) struct Throttling(Episode);

impl Default for Throttling {
    fn default() -> Self {
        Throttling(Episode::new(THROTTLED, THROTTLED_NO_MORE))
    }
}

impl Throttling {
    /// A call has ended. `side` is what it was to do: to read or to write.
    pub(super) fn ended(
        &mut self,
        now: Duration,
        throttled: bool,
        side: &str,
        container: &dyn Display,
        range: &dyn Display,
    ) {
        let change = match throttled {
            true => self.0.happened(now),
            false => self.0.look(now),
        };
        tell(change, side, container, range);
    }

    /// When to look again, if no call ends before.
    pub(super) fn due(&self) -> Option<Duration> {
        self.0.due()
    }
}

fn tell(change: Option<Change>, side: &str, container: &dyn Display, range: &dyn Display) {
    match change {
        None => {}
        Some(Change::Begun { count }) => tracing::info!(
            event = "throttle_begin",
            side,
            %container,
            %range,
            count,
            "the service throttles, and is asked more slowly"
        ),
        Some(Change::Over { lasted, count }) => tracing::info!(
            event = "throttle_end",
            side,
            %container,
            %range,
            lasted_s = lasted.as_secs_f64(),
            count,
            "the service throttles no longer"
        ),
    }
}
