//! The server's clock: the system's time, moved forward on request.
//!
//! Tests of what depends on time (expiry, retention, starts at a point in time) advance the clock instead of waiting. It
//! follows the system's clock otherwise, and it is never more than 50 years ahead, so that no date overflows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most milliseconds ahead of the system's clock: 50 years of 365 days.
const MAX_OFFSET_MS: u64 = 50 * 365 * 86_400_000;

/// The time by which a server decides.
#[derive(Debug, Default)]
pub struct Clock {
    offset_ms: AtomicU64,
}

impl Clock {
    /// Milliseconds since 1970.
    pub fn now_millis(&self) -> u64 {
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        to_millis(elapsed).saturating_add(self.advanced_millis())
    }

    /// Seconds since 1970.
    pub fn now_seconds(&self) -> u32 {
        u32::try_from(self.now_millis() / 1_000).unwrap_or(u32::MAX)
    }

    /// By how many milliseconds the clock is ahead of the system's.
    pub fn advanced_millis(&self) -> u64 {
        self.offset_ms.load(Ordering::Relaxed)
    }

    /// Moves the clock forward, at most to its limit.
    pub fn advance(&self, by: Duration) {
        let add = |offset: u64| Some(offset.saturating_add(to_millis(by)).min(MAX_OFFSET_MS));
        // The closure never refuses, so neither does the update.
        let _ = self
            .offset_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_add_up_to_a_limit() {
        let clock = Clock::default();
        let before = clock.now_millis();
        clock.advance(Duration::from_secs(3_600));
        clock.advance(Duration::from_millis(500));
        assert_eq!(clock.advanced_millis(), 3_600_500);
        assert!(clock.now_millis() >= before + 3_600_500);
        assert!(u64::from(clock.now_seconds()) >= (before + 3_600_500) / 1_000);
        clock.advance(Duration::MAX);
        assert_eq!(clock.advanced_millis(), MAX_OFFSET_MS);
        assert!(clock.now_seconds() < u32::MAX);
    }
}
