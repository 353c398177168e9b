//! Prometheus's text of metrics, in the form of OpenMetrics.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tidefeed_runtime::{Durations, Error, Result};

use super::{Kind, Metric, Value};

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of buckets, seconds: from an epoch in memory to a store that is slow.
const BUCKETS_S: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Metrics as Prometheus reads them.
///
/// # Errors
/// `Internal` when they cannot be written, which memory takes.
pub(super) fn text_of(metrics: Vec<Metric>) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Table(metrics)));
    let mut out = String::new();
    text::encode(&mut out, &registry)
        .map_err(|error| Error::internal("metrics have no text").with_source(error))?;
    Ok(out)
}

#[derive(Debug)]
struct Table(Vec<Metric>);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::result::Result<(), fmt::Error> {
        for metric in &self.0 {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for series in &metric.series {
                // Without labels there are no braces.
                if series.labels.is_empty() {
                    series.value.encode(metric.kind, &mut family)?;
                } else {
                    let mut one = family.encode_family(&series.labels)?;
                    series.value.encode(metric.kind, &mut one)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(
        &self,
        kind: Kind,
        to: &mut MetricEncoder<'_>,
    ) -> std::result::Result<(), fmt::Error> {
        match self {
            Value::Number(number) if kind == Kind::Counter => {
                to.encode_counter::<NoLabelSet, _, u64>(number, None)
            }
            Value::Number(number) => to.encode_gauge(number),
            Value::Durations(durations) => {
                let (sum, count) = (durations.sum().as_secs_f64(), durations.count());
                to.encode_histogram::<NoLabelSet>(sum, count, &buckets(durations), None)
            }
        }
    }
}

/// How many are in each bucket, without those in smaller ones.
fn buckets(durations: &Durations) -> Vec<(f64, u64)> {
    let mut below = 0;
    let mut all: Vec<_> = Vec::with_capacity(BUCKETS_S.len() + 1);
    for bound in BUCKETS_S {
        let up_to = durations.at_most(Duration::from_secs_f64(bound)).max(below);
        all.push((bound, up_to - below));
        below = up_to;
    }
    all.push((f64::INFINITY, durations.count().saturating_sub(below)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let mut durations = Durations::default();
        for ms in [1, 2, 7, 7, 400, 90_000] {
            durations.add(Duration::from_millis(ms));
        }
        let buckets = buckets(&durations);
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 6);
        let of = |bound: f64| {
            let found = buckets.iter().find(|(upper, _)| *upper == bound);
            found.map(|(_, count)| *count)
        };
        let some = (of(0.01), of(0.5), of(f64::INFINITY));
        assert_eq!(some, (Some(2), Some(1), Some(1)));
    }
}
