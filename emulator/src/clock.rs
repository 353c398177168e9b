//! The server's clock: wall time, plus what tests have advanced it by.
//!
//! Time to live, retention and throttling read this clock and no other, so a test reaches the end of a retention of
//! days without waiting for it. The clock never goes backwards by command.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Wall time plus an offset.
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
        elapsed.as_millis() as u64 + self.offset_ms.load(Ordering::Relaxed)
    }

    /// Seconds since 1970.
    pub fn now_seconds(&self) -> u32 {
        (self.now_millis() / 1_000) as u32
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX / 4);
        self.offset_ms.fetch_add(by, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_moves_the_time_forward() {
        let clock = Clock::default();
        let before = clock.now_millis();
        clock.advance(Duration::from_secs(3_600));
        assert!(clock.now_millis() >= before + 3_600_000);
        assert!(u64::from(clock.now_seconds()) * 1_000 >= before + 3_599_000);
    }
}
