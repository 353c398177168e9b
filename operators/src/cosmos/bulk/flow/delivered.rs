//! The rate at which the service has really taken writes.

use std::time::Duration;

const SLOT: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Delivered {
    from: Duration,
    older: f64,
    newer_from: Duration,
    newer: f64,
    requests: u32,
}

impl Delivered {
    pub(super) fn new(from: Duration) -> Self {
        Delivered {
            from,
            older: 0.0,
            newer_from: from,
            newer: 0.0,
            requests: 0,
        }
    }

    pub(super) fn restart(&mut self, from: Duration) {
        *self = Delivered::new(from);
    }

    pub(super) fn add(&mut self, at: Duration, ru: f64) {
        if at >= self.newer_from + SLOT {
            self.from = self.newer_from;
            self.older = self.newer;
            self.newer_from = at;
            self.newer = 0.0;
        }
        self.newer += ru;
        self.requests += 1;
    }

    pub(super) fn rate(&self, at: Duration) -> Option<f64> {
        let span = at.saturating_sub(self.from).as_secs_f64();
        (self.requests >= 2 && span > 0.0).then(|| (self.older + self.newer) / span)
    }
}
