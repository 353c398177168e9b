//! What was spent in the last second.

use std::collections::VecDeque;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Log {
    open: Vec<(u64, f64)>,
    spent: VecDeque<(Duration, f64)>,
}

impl Log {
    pub(super) fn sent(&mut self, number: u64, estimate: f64) {
        self.open.push((number, estimate));
    }

    pub(super) fn answered(&mut self, now: Duration, number: u64, ru: f64) {
        if let Some(at) = self.open.iter().position(|(n, _)| *n == number) {
            self.open.swap_remove(at);
            self.spent.push_back((now, ru));
        }
    }

    pub(super) fn room(&mut self, now: Duration, budget: f64, op: f64) -> Result<usize, Option<Duration>> {
        while self.spent.front().is_some_and(|(at, _)| *at + SECOND <= now) {
            self.spent.pop_front();
        }
        let open: f64 = self.open.iter().map(|(_, ru)| ru).sum();
        let spent: f64 = self.spent.iter().map(|(_, ru)| ru).sum();
        let room = ((budget - open - spent) / op).floor();
        if room >= 1.0 || (self.open.is_empty() && self.spent.is_empty()) {
            return Ok((room as usize).max(1));
        }
        Err(self.spent.front().map(|(at, _)| *at + SECOND - now))
    }
}
