//! A budget of request units per second for reading. Pure: the clock comes in.
//!
//! A bucket that fills at the rate and holds a second of it. A request may be sent while there is something in the bucket; it takes
//! out what requests have cost of late, and when its charge is known, the difference is made up. So the level may fall below
//! zero, and what was overspent is waited out before the next request: over time the rate holds exactly, whatever a page costs.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Weight of the newest charge in what the next is expected to be.
const NEWEST: f64 = 0.25;

/// What an idle poll costs in the service, for the first guess.
const IDLE_POLL_RU: f64 = 2.0;

/// Spends a budget of request units, for all ranges of a container.
#[derive(Debug)]
pub(super) struct Pacer {
    per_second: f64,
    level: f64,
    at: Instant,
    expected: f64,
}

impl Pacer {
    /// A full bucket.
    pub(super) fn new(per_second: NonZeroU32, now: Instant) -> Self {
        let per_second = f64::from(per_second.get());
        Pacer {
            per_second,
            level: per_second,
            at: now,
            expected: IDLE_POLL_RU,
        }
    }

    /// Lets a request go, and returns what it took; to be given to [`settle`](Self::settle).
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(super) fn admit(&mut self, now: Instant) -> Result<f64, Duration> {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_second).min(self.per_second);
        self.at = self.at.max(now);
        if self.level <= 0.0 {
            // A little more than it takes, so that nobody asks in vain.
            let wait = Duration::from_secs_f64(-self.level / self.per_second);
            return Err(wait + Duration::from_millis(1));
        }
        self.level -= self.expected;
        Ok(self.expected)
    }

    /// The request that took `taken` was charged `charged`.
    pub(super) fn settle(&mut self, taken: f64, charged: f64) {
        self.level += taken - charged;
        self.expected += NEWEST * (charged - self.expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several readers that ask whenever they may, with charges of any size: the sum never runs ahead of the budget by more than
    /// the bucket and one request of each, and does not fall behind it.
    #[test]
    fn the_rate_holds_whatever_pages_cost() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for per_second in [1, 10, 400, 100_000] {
            let most = random.f64() * f64::from(per_second) * 3.0 + 3.0;
            let readers = random.usize(1..6);
            let start = Instant::now();
            let mut pacer = Pacer::new(NonZeroU32::new(per_second).unwrap(), start);
            let mut due = vec![start; readers];
            let mut spent = 0.0;
            let seconds = 200.0;
            loop {
                let next = (0..readers).min_by_key(|reader| due[*reader]).unwrap();
                let now = due[next];
                let elapsed = (now - start).as_secs_f64();
                if elapsed > seconds {
                    break;
                }
                match pacer.admit(now) {
                    Err(wait) => due[next] = now + wait,
                    Ok(taken) => {
                        let charged = random.f64() * most;
                        pacer.settle(taken, charged);
                        spent += charged;
                        due[next] = now + Duration::from_millis(1);
                    }
                }
                let allowed = f64::from(per_second) * (elapsed + 1.0) + most;
                assert!(spent <= allowed, "{spent} of {allowed} after {elapsed} s");
            }
            let share = spent / (f64::from(per_second) * seconds);
            // What a reader can ask for within a millisecond may be less than the budget.
            let possible = most / 2.0 * 1000.0 * readers as f64 / f64::from(per_second);
            assert!(share > 0.95 || possible < 1.1, "only {share} of the budget");
        }
    }

    #[test]
    fn requests_on_their_way_count_as_what_they_are_expected_to_cost() {
        let now = Instant::now();
        let mut pacer = Pacer::new(NonZeroU32::new(10).unwrap(), now);
        for _ in 0..40 {
            pacer.settle(20.0, 20.0);
        }
        assert!(pacer.admit(now).is_ok());
        let wait = pacer
            .admit(now)
            .expect_err("twice what was there is on its way");
        assert!((0.9..1.1).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(pacer.admit(now + Duration::from_millis(1100)).is_ok());
    }

    #[test]
    fn an_idle_hour_saves_no_more_than_a_second() {
        let start = Instant::now();
        let mut pacer = Pacer::new(NonZeroU32::new(10).unwrap(), start);
        let now = start + Duration::from_secs(3600);
        let taken = pacer.admit(now).unwrap();
        pacer.settle(taken, 30.0);
        let wait = pacer.admit(now).expect_err("20 units too many");
        assert!((1.9..2.1).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
