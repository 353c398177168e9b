//! The throughput of one physical partition: a bucket of request units that fills with time.
//!
//! The bucket holds one second's worth. A call is admitted while the bucket is not empty, whatever the call will cost;
//! what it cost is taken out afterwards, so the level may fall below zero and later calls wait for that too. This is how
//! the service does it: the cost of a call is known only when it is done.

use crate::ru::Charge;

/// A bucket of request units, in hundredths.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Hundredths of a request unit per second.
    rate: u64,
    level: i64,
    /// When the level was last brought up to date, in milliseconds.
    at_ms: u64,
    /// What that left over, in thousandths of a hundredth.
    rest: u64,
}

impl Meter {
    /// A full bucket of `rate` request units per second.
    pub fn new(rate: f64, now_ms: u64) -> Self {
        let rate = ((rate * 100.0) as u64).max(1);
        Self {
            rate,
            level: rate as i64,
            at_ms: now_ms,
            rest: 0,
        }
    }

    /// Changes the rate; what was saved up or overdrawn stays.
    pub fn set_rate(&mut self, rate: f64, now_ms: u64) {
        self.fill(now_ms);
        let fresh = Self::new(rate, now_ms);
        self.rate = fresh.rate;
        self.level = self.level.min(fresh.level);
    }

    /// Whether a call may run.
    ///
    /// # Errors
    /// The milliseconds after which it may, if nobody else comes first.
    pub fn admit(&mut self, now_ms: u64) -> Result<(), u64> {
        self.fill(now_ms);
        if self.level > 0 {
            return Ok(());
        }
        let missing = self.level.unsigned_abs() + 1;
        Err((missing * 1_000).div_ceil(self.rate))
    }

    /// Takes out what a call cost.
    pub fn consume(&mut self, charge: Charge) {
        self.level = self.level.saturating_sub(charge.hundredths() as i64);
    }

    fn fill(&mut self, now_ms: u64) {
        // A clock that was set back fills nothing, until it is where it was.
        let elapsed = now_ms.saturating_sub(self.at_ms);
        let gain = u128::from(elapsed) * u128::from(self.rate) + u128::from(self.rest);
        let whole = i64::try_from(gain / 1_000).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(whole).min(self.rate as i64);
        self.rest = (gain % 1_000) as u64;
        self.at_ms = self.at_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_allows_its_rate_and_debt_is_paid_back() {
        let mut meter = Meter::new(100.0, 0);
        let mut admitted = 0;
        while meter.admit(0).is_ok() {
            meter.consume(Charge::write(1_000));
            admitted += 1;
        }
        // 5.5 units a write: 18 fit, and the 19th goes below zero.
        assert_eq!(admitted, 19);
        let wait = meter.admit(0).unwrap_err();
        assert!((40..=60).contains(&wait), "{wait}");
        assert!(meter.admit(wait - 1).is_err());
        assert!(meter.admit(wait).is_ok());
    }

    #[test]
    fn the_long_run_average_is_the_rate() {
        for (step, rate) in [1, 3, 7, 50]
            .into_iter()
            .flat_map(|step| [1.23, 133.33, 400.0].map(|rate| (step, rate)))
        {
            let (mut meter, mut units) = (Meter::new(rate, 0), 0.0);
            let mut now = 0;
            while now < 600_000 {
                while meter.admit(now).is_ok() {
                    meter.consume(Charge::write(10));
                    units += 5.5;
                }
                now += step;
            }
            // A second's worth is there at the beginning, and the last call may overdraw.
            let (least, most) = (rate * 599.0, rate * 601.0 + 5.5);
            assert!(
                (least..=most).contains(&units),
                "step {step}, {rate}: {units}"
            );
        }
    }

    #[test]
    fn a_new_rate_forgives_nothing_and_counts_from_now_on() {
        let mut meter = Meter::new(100.0, 0);
        while meter.admit(0).is_ok() {
            meter.consume(Charge::write(1_000));
        }
        meter.set_rate(1_000.0, 0);
        let wait = meter.admit(0).unwrap_err();
        assert!((4..=6).contains(&wait), "{wait}");
        let mut meter = Meter::new(1_000.0, 0);
        meter.set_rate(5.0, 0);
        assert!(meter.admit(0).is_ok());
        meter.consume(Charge::write(1_000));
        assert!(meter.admit(0).is_err(), "no more than a second's worth");
    }

    #[test]
    fn an_idle_bucket_holds_one_second() {
        let mut meter = Meter::new(10.0, 0);
        assert!(meter.admit(3_600_000).is_ok());
        meter.consume(Charge::write(1_000));
        meter.consume(Charge::write(1_000));
        assert!(meter.admit(3_600_000).is_err());
    }
}
