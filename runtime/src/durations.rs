//! How long something took, over and over: what buckets and quantiles are made of.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest that is told apart: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Durations, counted. Two digits are kept, from a microsecond to an hour; what is longer counts as an hour in all but the sum.
///
/// ```
/// use std::time::Duration;
/// use tidefeed_runtime::Durations;
///
/// let mut durations = Durations::default();
/// durations.add(Duration::from_millis(2));
/// durations.add(Duration::from_millis(30));
/// assert_eq!(durations.count(), 2);
/// assert_eq!(durations.sum(), Duration::from_millis(32));
/// assert_eq!(durations.at_most(Duration::from_millis(10)), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Durations {
    micros: Histogram<u64>,
    sum: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        // The bounds are constants, so creation cannot fail.
        let micros =
            Histogram::new_with_bounds(1, LONGEST_US, 2).expect("constant histogram bounds");
        Durations {
            micros,
            sum: Duration::ZERO,
        }
    }
}

impl Durations {
    /// One more.
    pub fn add(&mut self, duration: Duration) {
        self.micros.saturating_record(micros(duration));
        self.sum = self.sum.saturating_add(duration);
    }

    /// All of another.
    pub fn merge(&mut self, other: &Durations) {
        // They are of the same bounds, so this cannot fail.
        let _ = self.micros.add(&other.micros);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// How many were not longer than `bound`, to the two digits that are kept: a cumulative bucket.
    pub fn at_most(&self, bound: Duration) -> u64 {
        self.micros.count_between(0, micros(bound).min(LONGEST_US))
    }

    /// What the share `quantile` of them, from 0 to 1, were not longer than; nothing if there were none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let known = !self.micros.is_empty();
        known.then(|| Duration::from_micros(self.micros.value_at_quantile(quantile)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_quantiles_are_those_of_a_sorted_list() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        let mut all: Vec<_> = (0..2000)
            .map(|_| Duration::from_micros(1 << random.u32(0..30)) * random.u32(1..1000) / 1000)
            .collect();
        all.iter().for_each(|one| durations.add(*one));
        all.sort_unstable();
        assert_eq!(durations.count(), 2000);
        assert_eq!(durations.sum(), all.iter().sum::<Duration>());
        for quantile in [0.5, 0.9, 0.99] {
            let exact = all[(2000.0 * quantile) as usize - 1].max(Duration::from_micros(1));
            let told = durations.quantile(quantile).expect("there are some");
            let off = told.as_secs_f64() / exact.as_secs_f64() - 1.0;
            assert!(
                off.abs() <= 0.011 || told.abs_diff(exact).as_micros() <= 1,
                "seed {seed}"
            );
        }
        for bound in [10, 1000, 100_000].map(Duration::from_micros) {
            let told = durations.at_most(bound) as usize;
            let near = |share: f64| {
                let bound = bound.mul_f64(share);
                all.iter().filter(|one| **one <= bound).count()
            };
            assert!(
                (near(0.88)..=near(1.12)).contains(&told),
                "seed {seed}: {told}"
            );
        }
        let all_of_it = durations.at_most(Duration::from_secs(10_000));
        assert_eq!(all_of_it, durations.count());
    }
}
