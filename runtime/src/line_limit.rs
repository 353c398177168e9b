//! A limit on lines of the log that would come again and again: a bucket of tokens, and how many lines it has held back.
//!
//! The next line that gets through says how many did not, in its field `held_back`.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many lines may come at once, and how often one may come after those. Pure: the caller tells the time.
#[derive(Clone, Debug)]
pub struct Limit {
    burst: u32,
    every: Duration,
    /// When the bucket is full again.
    full_at: Duration,
    held_back: u64,
}

impl Limit {
    /// `burst` lines at once, at least one, and one after each `every`.
    pub const fn new(burst: u32, every: Duration) -> Self {
        Limit {
            burst,
            every,
            full_at: Duration::ZERO,
            held_back: 0,
        }
    }

    /// Whether a line may come now: then how many were held back since the last one.
    pub fn take(&mut self, now: Duration) -> Option<u64> {
        let others = self.every.saturating_mul(self.burst.saturating_sub(1));
        if self.full_at > now.saturating_add(others) {
            self.held_back += 1;
            return None;
        }
        self.full_at = self.full_at.max(now) + self.every;
        Some(std::mem::take(&mut self.held_back))
    }
}

/// A [`Limit`] by the machine's clock, for a `static` beside the line that it limits: what has to be kept readable is the log of
/// the process, however many parts write the same line.
#[derive(Debug)]
pub struct LineLimit(Mutex<(Limit, Option<Instant>)>);

impl LineLimit {
    /// `burst` lines at once, and one after each `every`.
    pub const fn new(burst: u32, every: Duration) -> Self {
        LineLimit(parking_lot::const_mutex((Limit::new(burst, every), None)))
    }

    /// Ten at once and one a second: for what may happen with every request.
    pub const fn often() -> Self {
        Self::new(10, Duration::from_secs(1))
    }

    /// Five at once and one a minute: for what is repeated until somebody mends it.
    pub const fn rarely() -> Self {
        Self::new(5, Duration::from_secs(60))
    }

    /// Whether a line may come now: then how many were held back since the last one.
    pub fn take(&self) -> Option<u64> {
        let (limit, began) = &mut *self.0.lock();
        let began = *began.get_or_insert_with(Instant::now);
        limit.take(began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_gets_through_and_then_one_at_a_time() {
        let mut limit = Limit::new(10, Duration::from_secs(1));
        let mut through = Vec::new();
        for ms in 0..5_000 {
            let now = Duration::from_millis(ms);
            through.extend(limit.take(now).map(|held_back| (ms, held_back)));
        }
        let burst: Vec<(u64, u64)> = (0..10).map(|ms| (ms, 0)).collect();
        assert_eq!(through[..10], burst[..]);
        assert_eq!(
            through[10..],
            [(1000, 990), (2000, 999), (3000, 999), (4000, 999)]
        );
        // Full again, and no fuller than that.
        let later = Duration::from_secs(1000);
        assert_eq!(limit.take(later), Some(999));
        assert_eq!((0..20).filter_map(|_| limit.take(later)).count(), 9);
    }

    #[test]
    fn a_bucket_of_one() {
        let mut limit = Limit::new(1, Duration::from_secs(60));
        let second = Duration::from_secs;
        assert_eq!(limit.take(second(7)), Some(0));
        assert_eq!(limit.take(second(66)), None);
        assert_eq!(limit.take(second(67)), Some(1));
        assert_eq!(limit.take(second(500)), Some(0));
    }

    #[test]
    fn the_clock_of_the_machine_limits_too() {
        static LIMIT: LineLimit = LineLimit::rarely();
        let taken: Vec<u64> = (0..100).filter_map(|_| LIMIT.take()).collect();
        assert_eq!(taken, [0; 5]);
    }
}
