//! What was spent within the last second.

use std::collections::VecDeque;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Request units that count against a budget: those in flight, and those answered within the last second.
#[derive(Debug, Default)]
pub(super) struct Spent {
    in_flight: f64,
    requests_in_flight: usize,
    answered: VecDeque<(Duration, f64)>,
    answered_sum: f64,
}

impl Spent {
    pub(super) fn sent(&mut self, estimate: f64) {
        self.in_flight += estimate;
        self.requests_in_flight += 1;
    }

    /// A request is answered. It counts for a second from now on, or not at all.
    pub(super) fn answered(&mut self, now: Duration, estimate: f64, spent: Option<f64>) {
        self.requests_in_flight -= 1;
        self.in_flight = match self.requests_in_flight {
            // No rest of rounding outlives a moment without requests.
            0 => 0.0,
            _ => self.in_flight - estimate,
        };
        if let Some(spent) = spent {
            self.answered.push_back((now, spent));
            self.answered_sum += spent;
        }
    }

    /// How many operations of `op` request units, the dearest of `peak`, are within `budget` now. One is if nothing else counts.
    ///
    /// # Errors
    /// How long to wait, or none if an answer has to come first.
    pub(super) fn room(
        &mut self,
        now: Duration,
        budget: f64,
        op: f64,
        peak: f64,
    ) -> Result<usize, Option<Duration>> {
        while let Some((at, spent)) = self.answered.front()
            && *at + SECOND <= now
        {
            self.answered_sum -= spent;
            self.answered.pop_front();
        }
        if self.answered.is_empty() {
            self.answered_sum = 0.0;
        }
        // An estimate is an average: any request may turn out dearer, by about an operation's spread.
        let peak = peak.clamp(op, 3.0 * op);
        let spread = (peak - op) * self.requests_in_flight as f64;
        let room = budget - self.in_flight - self.answered_sum - spread;
        let ops = (room / peak) as usize;
        match self.answered.front() {
            _ if ops > 0 => Ok(ops),
            None if self.requests_in_flight == 0 => Ok(1),
            first => Err(first.map(|(at, _)| *at + SECOND - now)),
        }
    }
}
