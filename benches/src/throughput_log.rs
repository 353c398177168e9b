//! What a container and its writers did over time, and what that says: use, throttled share, when it has settled.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tidefeed_operators::cosmos::BulkWriter;
use tokio::time::{MissedTickBehavior, interval};

use crate::Outcome;
use crate::control::Control;

/// Time between two samples.
const EVERY: Duration = Duration::from_millis(250);
/// Use and throttled share are looked at over this time when it is asked whether they have settled.
pub const WINDOW: Duration = Duration::from_secs(5);
/// Least use and largest throttled share that count as settled.
pub const LEAST_USE: f64 = 0.95;
/// See [`LEAST_USE`].
pub const MOST_THROTTLED: f64 = 0.05;

/// Counts since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// Request units used in each partition, as the server counts them.
    pub partitions_ru: Vec<f64>,
    /// Request units charged to each writer, as it counts them.
    pub writers_ru: Vec<f64>,
    /// Requests of all writers.
    pub requests: u64,
    /// Those among them that were throttled, or any of whose operations was.
    pub throttled: u64,
    /// Operations of all writers.
    pub operations: u64,
    /// Those among them that were throttled.
    pub throttled_operations: u64,
}

impl Sample {
    /// Request units used in all partitions.
    pub fn ru(&self) -> f64 {
        self.partitions_ru.iter().sum()
    }
}

/// Samples, in the order in which they were taken.
pub struct ThroughputLog {
    control: Control,
    begun: Instant,
    samples: Vec<Sample>,
    /// What the container has, from when on.
    limits: Vec<(Duration, f64)>,
}

impl ThroughputLog {
    /// Of a container that has so many request units per second.
    pub fn new(control: Control, ru_per_s: f64) -> Self {
        ThroughputLog {
            control,
            begun: Instant::now(),
            samples: Vec::new(),
            limits: vec![(Duration::ZERO, ru_per_s)],
        }
    }

    /// Changes what the container has, and returns when that was.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn provision(&mut self, ru_per_s: u32) -> Outcome<Duration> {
        self.control.provision(ru_per_s)?;
        let at = self.begun.elapsed();
        self.limits.push((at, f64::from(ru_per_s)));
        Ok(at)
    }

    /// Samples for so long.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn watch(&mut self, writers: &[&BulkWriter], time: Duration) -> Outcome<Window<'_>> {
        let end = self.begun.elapsed() + time;
        let first = self.samples.len();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample(writers)?;
            if self.begun.elapsed() >= end {
                return Ok(self.window(first..self.samples.len()));
            }
        }
    }

    fn sample(&mut self, writers: &[&BulkWriter]) -> Outcome {
        let (at, partitions) = self.control.partitions()?;
        let totals = writers.iter().map(|writer| writer.metrics().total());
        let mut sample = Sample {
            at: at - self.begun,
            partitions_ru: partitions.iter().map(|one| one.request_units).collect(),
            ..Sample::default()
        };
        for total in totals {
            sample.writers_ru.push(total.charge_ru);
            sample.requests += total.requests;
            sample.throttled += total.throttled_requests;
            sample.operations += total.operations;
            sample.throttled_operations += total.throttled_operations;
        }
        self.samples.push(sample);
        Ok(())
    }

    fn window(&self, samples: std::ops::Range<usize>) -> Window<'_> {
        Window {
            samples: &self.samples[samples],
        }
    }

    /// How long after `change` use and throttled share are right: the first moment from which on they are, for [`WINDOW`].
    pub fn settled_after(&self, change: Duration, ru_per_s: f64) -> Option<Duration> {
        settled_after(&self.samples, change, ru_per_s)
    }

    /// Writes `bulk-throughput.csv` and `.svg` into a directory.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn plot(&self, directory: &Path) -> Outcome {
        std::fs::create_dir_all(directory)?;
        let seconds = seconds(&self.samples, &self.limits);
        std::fs::write(directory.join("bulk-throughput.csv"), csv(&seconds))?;
        std::fs::write(directory.join("bulk-throughput.svg"), svg(&seconds))?;
        Ok(())
    }
}

/// Some samples.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    samples: &'a [Sample],
}

impl Window<'_> {
    fn ends(&self) -> (&Sample, &Sample) {
        match self.samples {
            [first, .., last] => (first, last),
            _ => unreachable!("a window has its first and its last moment"),
        }
    }

    fn rate(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let (first, last) = self.ends();
        (of(last) - of(first)) / (last.at - first.at).as_secs_f64()
    }

    /// Request units used per second.
    pub fn ru_per_s(&self) -> f64 {
        self.rate(Sample::ru)
    }

    /// The same, without what a second has above `limit`: what was saved up before does not make up for what is lost now.
    fn ru_per_s_up_to(&self, limit: f64) -> f64 {
        let (mut from, last) = self.ends();
        let (mut used, mut seconds) = (0.0, 0.0);
        for sample in self.samples {
            let passed = (sample.at - from.at).as_secs_f64();
            if passed >= 1.0 || sample.at == last.at && passed > 0.0 {
                used += (sample.ru() - from.ru()).min(limit * passed);
                seconds += passed;
                from = sample;
            }
        }
        used / seconds
    }

    /// The same in each partition.
    pub fn partitions_ru_per_s(&self) -> Vec<f64> {
        let count = self.samples[0].partitions_ru.len();
        let rate = |at: usize| self.rate(|sample| sample.partitions_ru[at]);
        (0..count).map(rate).collect()
    }

    /// The same for each writer.
    pub fn writers_ru_per_s(&self) -> Vec<f64> {
        let count = self.samples[0].writers_ru.len();
        let rate = |at: usize| self.rate(|sample| sample.writers_ru[at]);
        (0..count).map(rate).collect()
    }

    /// Share of the requests that were throttled.
    pub fn throttled_share(&self) -> f64 {
        let (first, last) = self.ends();
        let requests = (last.requests - first.requests).max(1);
        (last.throttled - first.throttled) as f64 / requests as f64
    }

    /// Share of the operations that were throttled.
    pub fn throttled_operations_share(&self) -> f64 {
        let (first, last) = self.ends();
        let operations = (last.operations - first.operations).max(1);
        (last.throttled_operations - first.throttled_operations) as f64 / operations as f64
    }

    /// The least use, in request units per second, and the largest throttled share of any [`WINDOW`] in it.
    pub fn worst(&self) -> (f64, f64) {
        let mut worst = (f64::INFINITY, 0.0_f64);
        for first in 0..self.samples.len() {
            if let Some(window) = window_from(&self.samples[first..]) {
                worst.0 = worst.0.min(window.ru_per_s());
                worst.1 = worst.1.max(window.throttled_share());
            }
        }
        worst
    }
}

/// The first [`WINDOW`] of these samples, if they are as long.
fn window_from(samples: &[Sample]) -> Option<Window<'_>> {
    let first = samples.first()?.at;
    let last = samples.iter().position(|one| one.at >= first + WINDOW)?;
    Some(Window {
        samples: &samples[..=last],
    })
}

fn settled_after(samples: &[Sample], change: Duration, ru_per_s: f64) -> Option<Duration> {
    let from = samples.iter().position(|sample| sample.at >= change)?;
    (from..samples.len()).find_map(|first| {
        let window = window_from(&samples[first..])?;
        let is_right = window.ru_per_s_up_to(ru_per_s) >= LEAST_USE * ru_per_s
            && window.throttled_share() <= MOST_THROTTLED;
        is_right.then(|| samples[first].at - change)
    })
}

/// One second.
#[derive(Clone, Debug, Default)]
struct Second {
    limit_ru: f64,
    used_ru: f64,
    requests: u64,
    throttled: u64,
}

/// What happened second by second. A sample that is late counts for the second in which it was due, in proportion.
fn seconds(samples: &[Sample], limits: &[(Duration, f64)]) -> Vec<Second> {
    let Some(begin) = samples.first().map(|sample| sample.at) else {
        return Vec::new();
    };
    let mut seconds: Vec<Second> = Vec::new();
    for pair in samples.windows(2) {
        let [before, after] = pair else { continue };
        let (from, to) = (
            (before.at - begin).as_secs_f64(),
            (after.at - begin).as_secs_f64(),
        );
        let mut at = from;
        while at < to {
            let index = at as usize;
            let until = to.min((index + 1) as f64);
            let share = (until - at) / (to - from);
            if seconds.len() <= index {
                seconds.resize(index + 1, Second::default());
            }
            seconds[index].used_ru += share * (after.ru() - before.ru());
            at = until;
        }
        let second = &mut seconds[from as usize];
        second.requests += after.requests - before.requests;
        second.throttled += after.throttled - before.throttled;
    }
    // The last one is not whole.
    seconds.pop();
    for (index, second) in (0..).zip(&mut seconds) {
        let middle = begin + Duration::from_secs(index) + Duration::from_millis(500);
        let current = limits.iter().rev().find(|(from, _)| *from <= middle);
        second.limit_ru = current.map_or(0.0, |(_, limit)| *limit);
    }
    seconds
}

fn csv(seconds: &[Second]) -> String {
    let mut text = String::from("second,provisioned_ru,used_ru,requests,throttled_requests\n");
    for (at, second) in seconds.iter().enumerate() {
        let Second {
            limit_ru,
            used_ru,
            requests,
            throttled,
        } = second;
        let _ = writeln!(
            text,
            "{at},{limit_ru:.0},{used_ru:.0},{requests},{throttled}"
        );
    }
    text
}

fn svg(seconds: &[Second]) -> String {
    const WIDTH: f64 = 800.0;
    const HEIGHT: f64 = 240.0;
    const LEFT: f64 = 60.0;
    let most = seconds
        .iter()
        .fold(1.0_f64, |most, one| most.max(one.limit_ru).max(one.used_ru));
    let count = seconds.len().max(2) as f64;
    let x = |second: f64| LEFT + second / count * WIDTH;
    let y = |ru: f64| 20.0 + HEIGHT * (1.0 - ru / (1.05 * most));
    let line = |of: &dyn Fn(&Second) -> f64| {
        let mut points = String::new();
        for (at, second) in seconds.iter().enumerate() {
            let height = y(of(second));
            let _ = write!(
                points,
                "{:.1},{height:.1} {:.1},{height:.1} ",
                x(at as f64),
                x(at as f64 + 1.0)
            );
        }
        points
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + LEFT + 20.0,
        HEIGHT + 70.0,
    );
    let decade = 10_f64.powf(most.log10().floor() - 1.0);
    let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * decade);
    let step = steps.into_iter().find(|step| most / step < 8.0);
    let step = step.unwrap_or(20.0 * decade);
    for tick in (0..)
        .map(|n| f64::from(n) * step)
        .take_while(|ru| *ru <= 1.05 * most)
    {
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick:.0}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            y(tick) + 4.0,
            height = y(tick),
        );
    }
    let every = (count / 10.0 / 10.0).ceil().max(1.0) * 10.0;
    for tick in (0..)
        .map(|n| f64::from(n) * every)
        .take_while(|second| *second <= count)
    {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick:.0} s</text>",
            x(tick),
            HEIGHT + 38.0,
        );
    }
    for (label, color, width, of) in [
        (
            "provisioned RU/s",
            "#999",
            1.0,
            &(|one: &Second| one.limit_ru) as &dyn Fn(&Second) -> f64,
        ),
        ("used RU/s", "#1668b4", 1.5, &|one: &Second| one.used_ru),
    ] {
        let place = if width > 1.0 { 200.0 } else { LEFT };
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" points=\"{}\"/>\
             <text x=\"{place}\" y=\"{:.1}\" fill=\"{color}\">{label}</text>",
            line(of).trim_end(),
            HEIGHT + 60.0,
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"330\" y=\"{:.1}\" fill=\"#b43016\">| seconds with throttled requests</text>",
        HEIGHT + 60.0
    );
    for (at, _) in seconds
        .iter()
        .enumerate()
        .filter(|(_, one)| one.throttled > 0)
    {
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#b43016\"/>",
            HEIGHT + 14.0,
            HEIGHT + 20.0,
            x = x(at as f64 + 0.5),
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples every quarter of a second, of a container whose use changes from `before` to `after` at second `change`.
    fn samples(before: f64, after: f64, change: f64) -> Vec<Sample> {
        let of = |index: u32| {
            let at = f64::from(index) * 0.25;
            let used = before * at.min(change) + after * (at - change).max(0.0);
            Sample {
                at: Duration::from_secs_f64(at),
                partitions_ru: vec![used / 2.0; 2],
                requests: u64::from(index) * 100,
                throttled: u64::from(index) * 2,
                ..Sample::default()
            }
        };
        (0..80).map(of).collect()
    }

    #[test]
    fn it_has_settled_when_a_whole_window_is_right() {
        let samples = samples(1_000.0, 2_000.0, 6.0);
        let after = |ru| settled_after(&samples, Duration::from_secs(2), ru);
        assert_eq!(after(1_000.0), Some(Duration::ZERO));
        // Of a window of five seconds one tenth of the step may lie before it.
        assert_eq!(after(2_000.0), Some(Duration::from_millis(3_500)));
        assert_eq!(after(2_200.0), None);
        let mut burst = samples.clone();
        for (index, sample) in burst.iter_mut().enumerate() {
            // Nothing for four seconds, then all of it at once, which is no more than one second of it.
            sample.partitions_ru = vec![if index < 16 {
                0.0
            } else {
                1_000.0 * index as f64 * 0.25
            }];
        }
        let settled = settled_after(&burst, Duration::ZERO, 1_000.0);
        assert_eq!(settled, Some(Duration::from_secs(3)));
        let mut throttled = samples.clone();
        throttled.iter_mut().for_each(|one| one.throttled *= 3);
        assert_eq!(settled_after(&throttled, Duration::ZERO, 1_000.0), None);
    }

    #[test]
    fn seconds_share_what_lies_between_samples() {
        let limits = [(Duration::ZERO, 1_000.0), (Duration::from_secs(6), 2_000.0)];
        let seconds = seconds(&samples(1_000.0, 2_000.0, 6.0), &limits);
        assert_eq!(seconds.len(), 19);
        for (at, second) in seconds.iter().enumerate() {
            let expected = if at < 6 { 1_000.0 } else { 2_000.0 };
            assert!((second.used_ru - expected).abs() < 1e-6, "{at} {second:?}");
            assert_eq!(second.limit_ru, expected, "{at}");
            assert_eq!((second.requests, second.throttled), (400, 8));
        }
        assert_eq!(csv(&seconds).lines().nth(7), Some("6,2000,2000,400,8"));
        let drawn = svg(&seconds);
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert!(drawn.ends_with("</svg>\n") && !drawn.contains("NaN"));
    }
}
