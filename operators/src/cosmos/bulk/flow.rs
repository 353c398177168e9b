//! Congestion control (work in progress).

use std::time::Duration;
macro_rules! k { ($n:literal, $d:expr) => {{ static V: std::sync::OnceLock<f64> = std::sync::OnceLock::new(); *V.get_or_init(|| std::env::var($n).map_or($d, |v| v.parse().unwrap())) }}; }

mod budget;
mod cost;
mod delivered;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use budget::Log;
use cost::Cost;
use delivered::Delivered;

const START_RATE: f64 = 500.0;
const FLOOR: f64 = 5.0;
const MOST: f64 = 1e9;
const DOUBLING: Duration = Duration::from_millis(100);
const HOLD: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const FIRST_BYTES: usize = 220_201;
const LEAST_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug)]
pub enum Budget {
    RuPerSecond(f64),
    Fraction(f64),
}

#[derive(Clone, Debug)]
pub struct FlowConfig {
    pub throttled_share: f64,
    pub budget: Option<Budget>,
    pub max_in_flight: usize,
    pub max_operations: usize,
    pub max_bytes: usize,
}

impl Default for FlowConfig {
    fn default() -> Self {
        FlowConfig {
            throttled_share: k!("SHARE", 0.015),
            budget: None,
            max_in_flight: 4,
            max_operations: 100,
            max_bytes: 1_800_000,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Permit {
    Go { max_ops: usize, max_bytes: usize },
    Wait(Duration),
    AwaitAnswer,
}

#[derive(Debug)]
pub struct Sent {
    number: u64,
    at: Duration,
    ops: usize,
    bytes: usize,
    estimate: f64,
    paced: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub charge: Option<f64>,
    pub throttled_ops: usize,
    pub refused_ops: usize,
    pub retry_after: Duration,
    pub overloaded: bool,
    pub too_large: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub rate: f64,
    pub paused: Duration,
    pub in_flight: usize,
    pub max_in_flight: usize,
}

#[derive(Debug)]
pub struct Flow {
    config: FlowConfig,
    reference: Option<f64>,
    rate: f64,
    tokens: f64,
    filled_at: Duration,
    starting: Option<Duration>,
    grown_at: Duration,
    number: u64,
    cut_at: u64,
    quiet: f64,
    paced: bool,
    paused_until: Duration,
    refusals: u32,
    refused_cut_at: Option<Duration>,
    in_flight: usize,
    window: usize,
    good: usize,
    max_bytes: usize,
    good_big: usize,
    round_trip: Duration,
    cost: Cost,
    delivered: Delivered,
    log: Log,
}

impl Flow {
    pub fn new(config: FlowConfig, reference: Option<f64>, now: Duration) -> Self {
        let reference = sane(reference);
        let rate = reference.map_or(START_RATE, |known| 0.9 * known).clamp(FLOOR, MOST);
        Flow {
            reference,
            rate,
            tokens: 0.0,
            filled_at: now,
            starting: Some(if reference.is_some() { now + HOLD } else { now }),
            grown_at: now,
            number: 0,
            cut_at: 0,
            quiet: 0.0,
            paced: false,
            paused_until: now,
            refusals: 0,
            refused_cut_at: None,
            in_flight: 0,
            window: config.max_in_flight.max(1),
            good: 0,
            max_bytes: FIRST_BYTES.min(config.max_bytes),
            good_big: 0,
            round_trip: Duration::from_millis(5),
            cost: Cost::default(),
            delivered: Delivered::new(now),
            log: Log::default(),
            config,
        }
    }

    pub fn permit(&mut self, now: Duration) -> Permit {
        if self.in_flight >= self.window {
            return Permit::AwaitAnswer;
        }
        if now < self.paused_until {
            return Permit::Wait(self.paused_until - now);
        }
        self.fill(now);
        let op = self.cost.of_operation();
        let missing = self.quantum() - op - self.tokens;
        if missing > 1e-6 {
            self.paced = true;
            let wait = Duration::from_secs_f64(missing / self.pace());
            return Permit::Wait(wait + Duration::from_micros(1));
        }
        let mut ops = (self.tokens / op) as usize + 1;
        if let Some(budget) = self.budget() {
            match self.log.room(now, budget, op) {
                Ok(room) => ops = ops.min(room),
                Err(Some(wait)) => return Permit::Wait(wait + Duration::from_micros(1)),
                Err(None) => return Permit::AwaitAnswer,
            }
        }
        Permit::Go {
            max_ops: ops.clamp(1, self.config.max_operations),
            max_bytes: self.max_bytes,
        }
    }

    pub fn sent(&mut self, now: Duration, ops: usize, bytes: usize) -> Sent {
        let estimate = self.cost.of(ops, bytes);
        self.tokens -= estimate;
        self.in_flight += 1;
        let sent = Sent {
            number: self.number,
            at: now,
            ops,
            bytes,
            estimate,
            paced: self.paced,
        };
        if !sent.paced {
            self.delivered.restart(now);
        }
        self.paced = false;
        self.number += 1;
        if self.budget().is_some() {
            self.log.sent(sent.number, estimate);
        }
        sent
    }

    pub fn answered(&mut self, now: Duration, sent: Sent, seen: &Seen) {
        self.fill(now);
        self.in_flight -= 1;
        let charge = seen.charge.filter(|charge| charge.is_finite());
        let spent = match charge {
            Some(charge) => charge.clamp(0.0, MOST),
            None if seen.overloaded => sent.estimate,
            None => 0.0,
        };
        self.tokens += sent.estimate - spent;
        self.log.answered(now, sent.number, spent);
        if charge.is_some() {
            self.cost.learn(&sent, spent, seen.throttled_ops + seen.refused_ops);
            let rtt = now.saturating_sub(sent.at);
            self.round_trip = (self.round_trip * 7 + rtt) / 8;
        }
        if sent.number >= self.cut_at && sent.paced {
            self.delivered.add(sent.at, spent);
        }
        if seen.throttled_ops > 0 {
            self.throttled(now, &sent, seen.retry_after);
        } else if seen.refused_ops > 0 {
            self.refused(now, seen.retry_after);
        } else if charge.is_some() && !seen.overloaded && !seen.too_large {
            self.refusals = 0;
            self.grow(now, &sent);
        }
        self.adapt(now, &sent, seen, charge.is_some());
    }

    pub fn reference(&mut self, ru_per_s: Option<f64>) {
        let ru_per_s = sane(ru_per_s);
        if let (Some(old), Some(new)) = (self.reference, ru_per_s) {
            self.rate = (self.rate * new / old).clamp(FLOOR, MOST);
        }
        self.reference = ru_per_s;
    }

    pub fn figures(&self, now: Duration) -> Figures {
        Figures {
            rate: self.pace(),
            paused: self.paused_until.saturating_sub(now),
            in_flight: self.in_flight,
            max_in_flight: self.window,
        }
    }

    fn budget(&self) -> Option<f64> {
        match self.config.budget? {
            Budget::RuPerSecond(ru) => Some(ru),
            Budget::Fraction(share) => Some(share * self.reference.unwrap_or(START_RATE)),
        }
    }

    fn pace(&self) -> f64 {
        self.rate.min(self.budget().unwrap_or(MOST)).max(FLOOR)
    }

    fn quantum(&self) -> f64 {
        let q = Duration::from_secs_f64(k!("Q", 0.02)).max(self.round_trip * 3 / 2 / self.window as u32);
        let op = self.cost.of_operation();
        let ops = (self.pace() * q.as_secs_f64() / op).floor();
        op * ops.clamp(1.0, self.config.max_operations as f64)
    }

    fn fill(&mut self, now: Duration) {
        let pace = self.pace();
        let most = self.quantum() + (pace * k!("SLACK", 0.02));
        let from = self.filled_at;
        if now > from {
            self.tokens += pace * (now - from).as_secs_f64();
            self.filled_at = now;
        }
        self.tokens = self.tokens.clamp(-pace * LONGEST_PAUSE.as_secs_f64(), most);
    }

    fn throttled(&mut self, now: Duration, sent: &Sent, retry_after: Duration) {
        self.pause(now, retry_after.max(SHORTEST_PAUSE));
        if k!("ZERO", 2.0) >= 1.0 { self.tokens = self.tokens.min(0.0); }
        if k!("ZERO", 2.0) >= 2.0 { self.filled_at = self.filled_at.max(self.paused_until); }
        if sent.number < self.cut_at {
            return;
        }
        let mut rate = self.rate * k!("BETA", 0.96);
        if let Some(delivered) = self.delivered.rate(sent.at)
            && delivered < k!("DEEP", 0.8) * self.rate
        {
            rate = rate.min(delivered * k!("BETA", 0.96)).max(self.rate / 2.0);
        }
        if self.starting.take().is_some()
            && let Some(known) = self.reference
        {
            rate = rate.min(known.max(rate / 16.0) * k!("BETA", 0.96));
        }
        self.rate = rate.max(FLOOR);
        self.cut_at = self.number;
        self.quiet = 0.0;
        self.delivered.restart(now);
    }

    fn refused(&mut self, now: Duration, retry_after: Duration) {
        let backoff = Duration::from_millis(50) * (1 << self.refusals.min(7));
        self.refusals = self.refusals.saturating_add(1);
        self.pause(now, retry_after.max(backoff));
        self.delivered.restart(self.paused_until);
        if self.refused_cut_at.is_none_or(|at| now >= at + Duration::from_secs(1)) {
            self.refused_cut_at = Some(now);
            self.rate = (self.rate * k!("BETA", 0.96)).max(FLOOR);
        }
    }

    fn pause(&mut self, now: Duration, wait: Duration) {
        self.paused_until = self.paused_until.max(now + wait.min(LONGEST_PAUSE));
    }

    fn grow(&mut self, now: Duration, sent: &Sent) {
        let elapsed = now.saturating_sub(self.grown_at).min(DOUBLING);
        self.grown_at = now;
        if !sent.paced || self.budget().is_some_and(|budget| self.rate >= budget) {
            return;
        }
        if let Some(from) = self.starting {
            if now >= from {
                self.rate *= 2f64.powf(elapsed.as_secs_f64() / DOUBLING.as_secs_f64());
            }
        } else {
            let share = self.config.throttled_share;
            self.quiet += 1.0;
            let accelerate = 1.0 + (self.quiet * share / k!("N0", 1.5)).powi(3);
            let scale = (self.rate * self.reference.unwrap_or(self.rate.powf(1.0-k!("UEXP", 0.0)) * 1000f64.powf(k!("UEXP", 0.0)))).sqrt();
            self.rate += (share * (1.0 - k!("BETA", 0.96)) * scale * accelerate).min(self.rate / 10.0);
        }
        self.rate = self.rate.min(MOST);
    }

    fn adapt(&mut self, now: Duration, sent: &Sent, seen: &Seen, answered: bool) {
        if seen.overloaded {
            self.window = (self.window / 2).max(1);
            self.good = 0;
        } else if answered && self.window < self.config.max_in_flight {
            self.good += 1;
            if self.good >= 50 {
                self.good = 0;
                self.window += 1;
            }
        }
        if seen.overloaded || seen.too_large {
            self.max_bytes = (self.max_bytes / 2).max(LEAST_BYTES);
            self.good_big = 0;
        } else if answered
            && 2 * sent.bytes > self.max_bytes
            && now.saturating_sub(sent.at) < Duration::from_millis(500)
        {
            self.good_big += 1;
            if self.good_big >= 20 {
                self.good_big = 0;
                self.max_bytes = (self.max_bytes / 4 * 5).min(self.config.max_bytes);
            }
        }
    }
}

fn sane(ru_per_s: Option<f64>) -> Option<f64> {
    ru_per_s.filter(|ru| ru.is_finite() && *ru > 0.0)
}
