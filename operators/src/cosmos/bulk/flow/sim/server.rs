//! Three ways in which a service may meter the throughput of a partition, and one that does not.

/// How throughput is metered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// A bucket that holds a second's worth, as the embedded server has it.
    Bucket,
    /// So much in every second of the clock, and nothing is carried over.
    Window,
    /// A bucket that holds 50 ms' worth: next to nothing is saved up.
    NoBank,
    /// No limit.
    Unlimited,
}

/// One physical partition. An operation is admitted while anything is left, and what it cost is booked afterwards.
#[derive(Debug)]
pub(super) struct Server {
    shape: Shape,
    limit: f64,
    level: f64,
    /// When the level was last brought up to date, in microseconds.
    at: u64,
}

impl Server {
    pub(super) fn new(shape: Shape, limit: f64) -> Self {
        Server {
            shape,
            limit,
            level: 0.0,
            at: 0,
        }
    }

    pub(super) fn set_limit(&mut self, limit: f64, now: u64) {
        self.fill(now);
        if self.shape == Shape::Window {
            self.level += limit - self.limit;
        }
        self.limit = limit;
        self.fill(now);
    }

    fn fill(&mut self, now: u64) {
        match self.shape {
            Shape::Bucket | Shape::NoBank => {
                let most = self.limit
                    * if self.shape == Shape::Bucket {
                        1.0
                    } else {
                        0.05
                    };
                self.level += self.limit * (now - self.at) as f64 / 1e6;
                self.level = self.level.min(most);
            }
            Shape::Window if now / 1_000_000 > self.at / 1_000_000 || self.at == 0 => {
                // What the last operation of a second cost too much is forgiven, as nothing is carried over.
                self.level = self.limit;
            }
            Shape::Window | Shape::Unlimited => {}
        }
        self.at = now;
    }

    /// Admits an operation, or says how many microseconds to wait. Without throughput everything is refused, for 10 ms.
    pub(super) fn operation(&mut self, now: u64, cost: f64) -> Result<(), u64> {
        self.fill(now);
        if self.limit == 0.0 && self.shape != Shape::Unlimited {
            return Err(10_000);
        }
        if self.shape == Shape::Unlimited || self.level > 0.0 {
            self.level -= cost;
            return Ok(());
        }
        let micros = match self.shape {
            Shape::Window => 1_000_000 - now % 1_000_000,
            _ => (-self.level / self.limit * 1e6) as u64 + 1,
        };
        // The header is in whole milliseconds.
        Err(micros.div_ceil(1_000) * 1_000)
    }
}
