//! What a simulation saw.

/// One request that was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) arrived_s: f64,
    pub(super) writer: usize,
    pub(super) server: usize,
    pub(super) ru: f64,
    pub(super) ops: usize,
    pub(super) throttled_ops: usize,
}

/// What was observed.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) records: Vec<Record>,
    /// When pacing last made a writer wait.
    pub(super) last_wait_s: f64,
}

impl Outcome {
    fn within(&self, from: f64, to: f64) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .filter(move |record| from <= record.arrived_s && record.arrived_s < to)
    }

    /// RU per second that `chosen` requests were charged.
    pub(super) fn ru_per_s(&self, from: f64, to: f64, chosen: impl Fn(&Record) -> bool) -> f64 {
        self.within(from, to)
            .filter(|r| chosen(r))
            .map(|r| r.ru)
            .sum::<f64>()
            / (to - from)
    }

    /// The share of the requests that had any operation throttled.
    pub(super) fn throttled_requests(&self, from: f64, to: f64) -> f64 {
        share(
            self.within(from, to)
                .map(|r| (1, usize::from(r.throttled_ops > 0))),
        )
    }

    /// The share of the operations that were throttled.
    pub(super) fn throttled_operations(&self, from: f64, to: f64) -> f64 {
        share(self.within(from, to).map(|r| (r.ops, r.throttled_ops)))
    }

    /// The most that arrived in any second.
    pub(super) fn busiest_second(&self) -> f64 {
        let (mut sum, mut most, mut first) = (0.0, 0.0f64, 0);
        for record in &self.records {
            sum += record.ru;
            while self.records[first].arrived_s + 1.0 <= record.arrived_s {
                sum -= self.records[first].ru;
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }
}

fn share(counts: impl Iterator<Item = (usize, usize)>) -> f64 {
    let (all, part) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    part as f64 / all.max(1) as f64
}
