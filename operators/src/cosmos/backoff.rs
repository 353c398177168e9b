//! How long to wait before the next attempt. Pure: randomness comes in as a number, time goes out as a duration.

use std::time::Duration;

use serde::Deserialize;

/// How waits grow.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackoffConfig {
    /// The first wait when the service does not say how long. Default 50 ms, a guess between a round trip within a region
    /// and a second. Smaller retries sooner and adds load to a service in trouble; larger adds latency to a passing fault.
    pub initial: Duration,
    /// The longest wait when the service does not say how long. Default 10 s, a guess. Larger notices later that the
    /// service is back.
    pub max: Duration,
    /// The share of a wait that is random, from 0 to 1. Default 0.5. Smaller keeps retries of many requests in step.
    pub jitter: f64,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        BackoffConfig {
            initial: Duration::from_millis(50),
            max: Duration::from_secs(10),
            jitter: 0.5,
        }
    }
}

impl BackoffConfig {
    /// The wait after so many earlier ones. `random` is uniform in `[0, 1)`.
    ///
    /// With `retry_after` the wait is never shorter than the service asked for: jitter comes on top. Without it the wait is
    /// at most the doubled value, and jitter takes from it.
    pub fn wait(&self, earlier: u32, retry_after: Option<Duration>, random: f64) -> Duration {
        let doubled = self
            .initial
            .saturating_mul(1u32 << earlier.min(20))
            .min(self.max);
        let jitter = self.jitter.clamp(0.0, 1.0) * random.clamp(0.0, 1.0);
        match retry_after {
            // Some answers carry a zero, which would be a busy loop.
            Some(asked) => asked.max(Duration::from_millis(1)).mul_f64(1.0 + jitter),
            None => doubled.mul_f64(1.0 - jitter),
        }
    }
}

/// The waits of one request, which double from `initial` to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    attempts: u32,
}

impl Backoff {
    /// A backoff before its first wait.
    pub fn new(config: BackoffConfig) -> Self {
        Backoff {
            config,
            attempts: 0,
        }
    }

    /// Waits handed out since the start or the last [`reset`](Self::reset).
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next [`wait`](BackoffConfig::wait). `random` is uniform in `[0, 1)`.
    pub fn next_wait(&mut self, retry_after: Option<Duration>, random: f64) -> Duration {
        let earlier = self.attempts;
        self.attempts = self.attempts.saturating_add(1);
        self.config.wait(earlier, retry_after, random)
    }

    /// Starts again at `initial`, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(BackoffConfig {
            initial: Duration::from_millis(100),
            max: Duration::from_millis(500),
            jitter: 0.5,
        });
        let waits: Vec<_> = (0..5)
            .map(|_| backoff.next_wait(None, 0.0).as_millis())
            .collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
        assert_eq!(backoff.attempts(), 5);
        backoff.reset();
        assert_eq!(backoff.next_wait(None, 0.0).as_millis(), 100);
    }

    #[test]
    fn jitter_shortens_own_waits_and_lengthens_asked_ones() {
        let mut backoff = Backoff::new(BackoffConfig {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(1),
            jitter: 0.5,
        });
        assert_eq!(backoff.next_wait(None, 1.0).as_millis(), 50);
        let asked = Some(Duration::from_millis(40));
        assert_eq!(backoff.next_wait(asked, 0.0).as_millis(), 40);
        assert_eq!(backoff.next_wait(asked, 1.0).as_millis(), 60);
        assert_eq!(
            backoff.next_wait(Some(Duration::ZERO), 0.0).as_millis(),
            1,
            "a zero must not become a busy loop"
        );
    }

    #[test]
    fn very_many_attempts_do_not_overflow() {
        let mut backoff = Backoff::new(BackoffConfig::default());
        for _ in 0..10_000 {
            assert!(backoff.next_wait(None, 0.3) <= Duration::from_secs(10));
        }
    }
}
