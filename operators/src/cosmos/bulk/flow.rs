//! How fast one physical partition is written to: a pace in request units, learnt from what the service charges and refuses.
//!
//! Pure: the time comes in as an argument, nothing is random. The caller asks [`Flow::permit`] whenever it has operations to
//! send, tells [`Flow::sent`] what it sent, and gives what that returned back to [`Flow::answered`] when the request ends,
//! in whatever way.
//!
//! # Rules
//! 1. **Pace.** Tokens, in request units, come at the rate. A request may go when there are enough for all but its last
//!    operation, which is how the service admits: while anything is left. So a request holds what the rate gives in
//!    20 ms, but at least 1 and at most `max_operations` operations. Tokens are kept for another 20 ms at most, so a late
//!    timer loses nothing and an idle time is not made up for.
//! 2. **Cost.** An estimate is taken when a request goes and put right by the charge when it is answered. An operation that
//!    cost more than there was leaves a debt. A lost request is paid for, one that was never written is not.
//! 3. **Cut.** A request with any operation throttled cuts the rate by 4 %; requests sent before a cut do not cut again.
//!    From the fourth in a row on the cuts deepen, to 30 %. Where the service asks for 100 ms or more, the cut is by the
//!    share of the time that it refused to work, to a quarter at most.
//! 4. **Pause.** Nothing is sent before the service wants it, at most for a minute.
//! 5. **Growth.** Every good answer to a request that had to wait for tokens adds to the rate. `throttled_share` of the requests
//!    being throttled is where growth and cuts are in balance if the rate is the reference. The growth is larger below the
//!    reference and smaller above, by the power 1.5: that makes writers equal that share a partition. The longer nothing was
//!    throttled the larger it gets, with the third power: that finds a limit that was raised.
//!    Below half of the rate at which the throttling began it doubles every 100 ms instead, so that a storm that ends is over soon, however
//!    far the rate fell. Each time that throttling begins below that, the half of it counts.
//! 6. **Start** at nine tenths of the reference, and after half a second without throttling, or at once at 500 RU/s if there
//!    is none, double every 100 ms until the first throttling. A server without a limit is soon not paced at all.
//! 7. **Budget.** What was charged within a second, and what is in flight, stays within it. A charge counts from its answer,
//!    so that no second at the service has more, wherever in its round trip a request was booked.
//! 8. What the service refuses for other reasons than request units doubles a pause from 50 ms to 6.4 s, and cuts once a second.
//!    Overload and timeouts halve what is in flight and the bytes of a request; good answers bring both back.
//!
//! Every penalty ends: pauses and debts after a minute at most, the rest with good answers. The rate never falls below 5 RU/s.
//!
//! # Figures
//! From `flow/sim.rs`, the worst of 40 seeds; operations of 4.4 to 13.2 RU, timers that are late. Near is a round trip of 1 ms,
//! far 15 to 20 ms. The servers: a bucket of one second (what the embedded server has), a strict second of the clock, and a
//! bucket of 50 ms. "Throttled" counts a request if any of its operations was.
//!
//! | simulation | bucket of 1 s | by the second | bucket of 50 ms |
//! |---|---|---|---|
//! | 1,000 RU/s, 300 s: used; throttled near, far | 99.9 %; 1.4, 1.5 % | 100 %; 1.4, 2.2 % | 99.9 %; 1.4, 1.5 % |
//! | 4,000 RU/s | 99.9 %; 1.4, 1.4 % | 99.6 %; 1.4, 1.6 % | 99.8 %; 1.4, 1.4 % |
//! | the same, throughput unknown | 99.9 %; 1.4, 1.2 % | 98.7 %; 1.1, 1.2 % | 99.5 %; 1.2, 1.1 % |
//! | throttled operations, 1,000; 4,000 RU/s | 0.7; 0.2 % | 1.9; 1.0 % | 0.7; 0.2 % |
//! | worst 5 s of all these: used; throttled | 98.4 %; 2.8 % | 96.1 %; 3.4 % | 97.9 %; 2.4 % |
//! | doubled, halved: settled after | 7 s; 1 s | 4 s; 0 s | 4 s; 1 s |
//! | refused everything for 2 or 20 s (8 seeds): settled after | 9 s | 5 s | 5 s |
//! | two writers, 120 to 240 s after the second joined: ratio, mean; worst | 0.94; 0.77 | 0.94; 0.82 | 0.93; 0.80 |
//! | the same, throughput unknown | 0.93; 0.80 | 0.93; 0.79 | 0.93; 0.83 |
//! | two writers: throttled | 3.3 % | 3.0 % | 3.3 % |
//!
//! By the second, and without knowing the throughput, the second writer has a quarter of the first's share after half a minute.
//! A budget: at most 1.02 times it in any second; 97 to 99 % of 2,000 RU/s is used, 88 % of 100 RU/s. Without a limit nothing is
//! paced after 1.7 s. One partition of four limited to a tenth: the others keep at least 95 % of their speed.
//!
//! # Limits
//! A budget below 5 RU/s is not kept. A reference that is off by more than a factor of 6 shares less fairly. `n` writers of one partition have `n` to the power 1.5
//! times the throttled requests of one, at most 4 times. At less than about 200 RU/s every request is a single operation, and a
//! doubled limit is found after some 150 requests rather than after 10 s.

use std::time::Duration;

mod budget;
mod cost;
mod pace;
#[cfg(test)]
mod sim;
mod terms;
#[cfg(test)]
mod tests;

use budget::Spent;
use cost::Cost;
pub use terms::Figures;
pub(crate) use terms::{Budget, FlowConfig, Permit, Seen, Sent};

/// How long the rate collects for one request. Shorter makes requests smaller and throttling shallower, longer makes them fewer.
const QUANTUM: Duration = Duration::from_millis(20);
/// For how much longer unused tokens are kept: timers fire late on a busy machine.
const SLACK: Duration = Duration::from_millis(20);
/// What a cut leaves of the rate.
const CUT: f64 = 0.96;
/// What the deepest cut leaves that the number of refusals in a row can cause.
const DEEPEST_CUT: f64 = 0.7;
/// What the deepest cut leaves that a long pause can cause.
const DEEPEST_CUT_BY_PAUSE: f64 = 0.25;
/// From here on the length of a pause says how far the rate was off: the service counts by the second. Shorter ones only say
/// what the last operation cost too much.
const LONG_PAUSE: Duration = Duration::from_millis(100);
/// Good answers in a row, when paced, after which growth has doubled.
const RESTLESS_AFTER: f64 = 90.0;
/// How much more the rate grows the further it is below the reference.
const FAIRNESS: f64 = 1.5;
/// Between these, so that a wrong reference does not stop growth, and many writers do not throttle each other all the time.
const FAIR: (f64, f64) = (0.06, 4.0);
/// The reference if the throughput is unknown, in RU/s: between the 100 and 10,000 that a physical partition can have.
const UNKNOWN: f64 = 1_000.0;
/// The first rate if the throughput is unknown, in RU/s.
const START_RATE: f64 = 500.0;
/// How long a flow that knows its reference starts at that.
const START_HOLD: Duration = Duration::from_millis(500);
const START_DOUBLING: Duration = Duration::from_millis(100);
/// The lowest rate, in RU/s: one write of a small document in a second or two.
const FLOOR: f64 = 5.0;
/// More than any partition can have, in RU/s.
const CEILING: f64 = 1e9;
/// The longest pause and the longest debt.
const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// What other clients of the service put into a request.
const FIRST_BYTES: usize = 220_201;
const LEAST_BYTES: usize = 64 << 10;
/// A request that takes longer is not a reason for larger ones.
const BRISK: Duration = Duration::from_millis(500);

/// The pace of one physical partition.
#[derive(Debug)]
pub(crate) struct Flow {
    config: FlowConfig,
    /// RU/s that the partition has, if known.
    reference: Option<f64>,
    /// The share of an absolute budget, 0 to 1.
    fraction: f64,
    /// RU/s.
    rate: f64,
    tokens: f64,
    filled_at: Duration,
    /// Until the first throttling: from when on the rate doubles.
    doubling_from: Option<Duration>,
    grown_at: Duration,
    requests: u64,
    /// Requests with lower numbers were sent before the last cut.
    cut_at: u64,
    throttled_in_a_row: u32,
    /// Good answers to paced requests since the last cut.
    good_since_cut: f64,
    /// The rate at which throttling began, in RU/s; 0 as long as it did not.
    began_at: f64,
    /// Whether the next request has had to wait for tokens.
    is_paced: bool,
    paused_until: Duration,
    refused_in_a_row: u32,
    refused_cut_at: Option<Duration>,
    in_flight: usize,
    max_in_flight: usize,
    good: u32,
    max_bytes: usize,
    good_large: u32,
    round_trip: Duration,
    cost: Cost,
    spent: Spent,
}

impl Flow {
    /// A flow at its start. `reference` is what the partition has in RU/s, if that is known.
    pub(crate) fn new(config: FlowConfig, reference: Option<f64>, now: Duration) -> Self {
        let reference = sane(reference);
        let rate = reference.map_or(START_RATE, |known| 0.9 * known);
        let hold = reference.map_or(Duration::ZERO, |_| START_HOLD);
        Flow {
            reference,
            fraction: 1.0,
            rate: rate.clamp(FLOOR, CEILING),
            tokens: 0.0,
            filled_at: now,
            doubling_from: Some(now + hold),
            grown_at: now,
            requests: 0,
            cut_at: 0,
            throttled_in_a_row: 0,
            good_since_cut: 0.0,
            began_at: 0.0,
            is_paced: false,
            paused_until: now,
            refused_in_a_row: 0,
            refused_cut_at: None,
            in_flight: 0,
            max_in_flight: config.max_in_flight.max(1),
            good: 0,
            max_bytes: FIRST_BYTES.min(config.max_bytes),
            good_large: 0,
            round_trip: Duration::ZERO,
            cost: Cost::default(),
            spent: Spent::default(),
            config,
        }
    }

    /// Whether a request may start now. To be asked only when there is something to send.
    pub(crate) fn permit(&mut self, now: Duration) -> Permit {
        if self.in_flight >= self.max_in_flight {
            return Permit::AwaitAnswer;
        }
        if now < self.paused_until {
            return Permit::Wait(self.paused_until - now);
        }
        self.fill(now);
        let op = self.cost.of_operation();
        let missing = self.quantum() - op - self.tokens;
        // At the start the rate runs ahead of what is needed, or a burst of answers would still find it too low.
        self.is_paced |= self.doubling_from.is_some() && self.tokens < self.most_tokens() / 2.0;
        if missing > 1e-6 {
            self.is_paced = true;
            return Permit::Wait(at_least(missing / self.pace()));
        }
        let mut ops = (self.tokens / op) as usize + 1;
        if let Some(budget) = self.budget() {
            match self.spent.room(now, budget, op, self.cost.peak()) {
                Ok(room) => ops = ops.min(room),
                Err(Some(wait)) => return Permit::Wait(wait),
                Err(None) => return Permit::AwaitAnswer,
            }
        }
        Permit::Go {
            max_ops: ops.clamp(1, self.config.max_operations.max(1)),
            max_bytes: self.max_bytes,
        }
    }

    /// A request has started.
    pub(crate) fn sent(&mut self, now: Duration, ops: usize, bytes: usize) -> Sent {
        let sent = Sent {
            number: self.requests,
            at: now,
            ops,
            bytes,
            estimate: self.cost.of(ops, bytes),
            is_paced: std::mem::take(&mut self.is_paced),
        };
        self.requests += 1;
        self.in_flight += 1;
        self.tokens -= sent.estimate;
        self.spent.sent(sent.estimate);
        sent
    }

    /// A request has ended, in any way.
    pub(crate) fn answered(&mut self, now: Duration, sent: Sent, seen: &Seen) {
        self.fill(now);
        self.in_flight -= 1;
        let charge = seen.charge.filter(|charge| charge.is_finite());
        let spent = match charge {
            Some(charge) => charge.clamp(0.0, CEILING),
            None if seen.overloaded => sent.estimate,
            None => 0.0,
        };
        self.tokens += sent.estimate - spent;
        let is_counted = self.config.budget.is_some();
        self.spent
            .answered(now, sent.estimate, is_counted.then_some(spent));
        if charge.is_some() {
            self.cost
                .learn(&sent, spent, seen.throttled_ops + seen.refused_ops);
            let round_trip = now.saturating_sub(sent.at);
            self.round_trip = (self.round_trip * 7 + round_trip) / 8;
        }
        let is_good = charge.is_some() && !seen.overloaded && !seen.too_large;
        if seen.throttled_ops > 0 {
            self.throttled(now, &sent, seen.retry_after);
        } else if seen.refused_ops > 0 {
            self.refused(now, seen.retry_after);
        } else if is_good {
            self.refused_in_a_row = 0;
            if sent.number >= self.cut_at {
                self.throttled_in_a_row = 0;
            }
            self.grow(now, &sent);
        }
        self.adapt_in_flight(seen, is_good);
        self.adapt_bytes(now, &sent, seen, is_good);
    }

    /// The partition has so many RU/s now; none if that is unknown.
    pub(crate) fn reference(&mut self, ru_per_s: Option<f64>) {
        let ru_per_s = sane(ru_per_s);
        if let (Some(old), Some(new)) = (self.reference, ru_per_s) {
            self.rate = (self.rate * new / old).clamp(FLOOR, CEILING);
        }
        self.reference = ru_per_s;
    }

    /// The partition is this share of the container, 0 to 1.
    pub(crate) fn fraction(&mut self, fraction: f64) {
        self.fraction = fraction;
    }

    /// Where the flow stands.
    pub(crate) fn figures(&self, now: Duration) -> Figures {
        Figures {
            rate: self.pace(),
            budget: self.budget(),
            pause: self.paused_until.saturating_sub(now),
            in_flight: self.in_flight,
            max_in_flight: self.max_in_flight,
            max_bytes: self.max_bytes,
        }
    }

    fn budget(&self) -> Option<f64> {
        match self.config.budget? {
            Budget::RuPerSecond(ru) => Some(ru * self.fraction),
            Budget::Fraction(share) => Some(share * self.reference.unwrap_or(START_RATE)),
        }
    }

    fn pace(&self) -> f64 {
        self.rate.min(self.budget().unwrap_or(CEILING)).max(FLOOR)
    }

    /// Request units of a request.
    fn quantum(&self) -> f64 {
        // Far from the service requests must be larger, or those in flight would not do.
        let spread =
            self.round_trip * 3 / 2 / u32::try_from(self.max_in_flight).unwrap_or(u32::MAX);
        let op = self.cost.of_operation();
        let ops = (self.pace() * QUANTUM.max(spread).as_secs_f64() / op).floor();
        op * ops.clamp(1.0, self.config.max_operations.max(1) as f64)
    }

    fn most_tokens(&self) -> f64 {
        self.quantum() + self.pace() * SLACK.as_secs_f64()
    }

    fn fill(&mut self, now: Duration) {
        let pace = self.pace();
        self.tokens += pace * now.saturating_sub(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        let debt = pace * LONGEST.as_secs_f64();
        self.tokens = self.tokens.clamp(-debt, self.most_tokens());
    }

    /// Operations were refused for want of request units.
    fn throttled(&mut self, now: Duration, sent: &Sent, retry_after: Duration) {
        let active = sent.at.saturating_sub(self.paused_until);
        self.pause(now, retry_after.max(SHORTEST_PAUSE));
        // The service has nothing left, and begins to have something when it says so.
        self.tokens = self.tokens.min(0.0);
        self.filled_at = self.filled_at.max(self.paused_until);
        if sent.number < self.cut_at {
            return;
        }
        let is_start = self.doubling_from.take().is_some();
        let left = match self.reference {
            Some(known) if is_start => known.max(self.rate / 16.0) / self.rate * CUT,
            None if is_start => 0.5,
            _ => cut(self.throttled_in_a_row, active, retry_after),
        };
        let before = self.rate;
        self.rate = (self.rate * left.min(CUT)).max(FLOOR);
        if is_start {
            self.began_at = self.rate;
        } else if self.throttled_in_a_row == 0 {
            self.began_at = before.max(self.began_at / 2.0);
        }
        self.throttled_in_a_row = self.throttled_in_a_row.saturating_add(1);
        self.cut_at = self.requests;
        self.good_since_cut = 0.0;
    }

    /// Operations were refused for another reason.
    fn refused(&mut self, now: Duration, retry_after: Duration) {
        let backoff = REFUSED_PAUSE * (1 << self.refused_in_a_row.min(7));
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        self.pause(now, retry_after.max(backoff));
        let due = self.refused_cut_at.map(|at| at + Duration::from_secs(1));
        if due.is_none_or(|due| now >= due) {
            self.refused_cut_at = Some(now);
            self.rate = (self.rate * CUT).max(FLOOR);
        }
    }

    fn pause(&mut self, now: Duration, wait: Duration) {
        self.paused_until = self.paused_until.max(now + wait.min(LONGEST));
    }

    fn grow(&mut self, now: Duration, sent: &Sent) {
        let elapsed = now.saturating_sub(self.grown_at).min(START_DOUBLING);
        self.grown_at = now;
        let is_bound_by_budget = self.budget().is_some_and(|budget| self.rate >= budget);
        if !sent.is_paced || is_bound_by_budget {
            return;
        }
        let doubled = self.rate * (elapsed.as_secs_f64() / START_DOUBLING.as_secs_f64()).exp2();
        match self.doubling_from {
            Some(from) if now < from => {}
            Some(_) => self.rate = doubled,
            None if self.rate < self.began_at / 2.0 => self.rate = doubled.min(self.began_at / 2.0),
            None => {
                self.good_since_cut += 1.0;
                let fair = (self.reference.unwrap_or(UNKNOWN) / self.rate).powf(FAIRNESS);
                let restless = (self.good_since_cut / RESTLESS_AFTER).powi(3);
                let growth = fair.clamp(FAIR.0, FAIR.1) + restless;
                let step = self.config.throttled_share * (1.0 - CUT) * growth;
                self.rate *= 1.0 + step.min(0.1);
            }
        }
        self.rate = self.rate.min(CEILING);
    }

    fn adapt_in_flight(&mut self, seen: &Seen, is_good: bool) {
        if seen.overloaded {
            self.max_in_flight = (self.max_in_flight / 2).max(1);
            self.good = 0;
        } else if is_good && self.max_in_flight < self.config.max_in_flight {
            self.good += 1;
            if self.good >= 50 {
                self.good = 0;
                self.max_in_flight += 1;
            }
        }
    }

    fn adapt_bytes(&mut self, now: Duration, sent: &Sent, seen: &Seen, is_good: bool) {
        let is_large = sent.bytes > self.max_bytes / 2;
        if seen.overloaded || seen.too_large {
            let least = LEAST_BYTES.min(self.config.max_bytes);
            self.max_bytes = (self.max_bytes / 2).max(least);
            self.good_large = 0;
        } else if is_good && is_large && now.saturating_sub(sent.at) < BRISK {
            self.good_large += 1;
            if self.good_large >= 20 {
                self.good_large = 0;
                self.max_bytes = (self.max_bytes / 4 * 5).min(self.config.max_bytes);
            }
        }
    }
}

/// What a cut leaves of the rate, after so many in a row without a good answer in between, and `active` after the last pause.
fn cut(in_a_row: u32, active: Duration, retry_after: Duration) -> f64 {
    let depth = in_a_row.saturating_sub(2).min(4);
    let left = CUT.powi(1 << depth).max(DEEPEST_CUT);
    if retry_after < LONG_PAUSE {
        return left;
    }
    // A second's worth went in a part of the second.
    let (active, pause) = (active.as_secs_f64(), retry_after.as_secs_f64());
    left.min(active / (active + pause))
        .max(DEEPEST_CUT_BY_PAUSE)
}

/// So many seconds, rounded up: a wait that is a little too short would be asked for again and again.
fn at_least(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds) + Duration::from_micros(1)
}

/// What nobody can pace by is as good as unknown.
fn sane(ru_per_s: Option<f64>) -> Option<f64> {
    ru_per_s.filter(|ru| ru.is_finite() && *ru > 0.0)
}
