//! Metrics as a request of OTLP: `ExportMetricsServiceRequest` of opentelemetry/proto/collector/metrics/v1, and what is in it.
//!
//! A family of Prometheus is a metric of the same name: a counter a monotonic sum, a gauge a gauge, a histogram one with
//! explicit bounds; what adds up is cumulative since the start of the process.

use std::time::{SystemTime, UNIX_EPOCH};

use super::protobuf::Message;
use super::text::{Buckets, Family, Kind, Labels};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;

/// Of whom the metrics are, and when.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) job: String,
    pub(super) process: u32,
    pub(super) started_at: SystemTime,
    pub(super) at: SystemTime,
}

pub(super) fn encoded(families: &[Family], origin: &Origin) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let resource = Message::default()
        .message(1, attribute("service.name", &origin.job))
        .message(1, attribute("service.version", version))
        .message(
            1,
            attribute("service.instance.id", &origin.process.to_string()),
        );
    let scope = Message::default().text(1, "tidefeed").text(2, version);
    let metrics = families.iter().map(|family| metric(family, origin));
    let of_scope = Message::default().message(1, scope).messages(2, metrics);
    let of_resource = Message::default().message(1, resource).message(2, of_scope);
    Message::default().message(1, of_resource).into_bytes()
}

fn metric(family: &Family, origin: &Origin) -> Message {
    let metric = Message::default()
        .text(1, &family.name)
        .text(2, &family.help)
        .text(3, unit(&family.name));
    let points = family
        .numbers
        .iter()
        .map(|(labels, value)| point(labels, origin).double(4, *value));
    let data = Message::default();
    match family.kind {
        Kind::Gauge => metric.message(5, data.messages(1, points)),
        Kind::Counter => {
            let sum = data.messages(1, points).number(2, CUMULATIVE).number(3, 1);
            metric.message(7, sum)
        }
        Kind::Histogram => {
            let points = family.buckets.iter();
            let points = points.map(|(labels, buckets)| histogram(labels, buckets, origin));
            metric.message(9, data.messages(1, points).number(2, CUMULATIVE))
        }
    }
}

/// A point without its value.
fn point(labels: &Labels, origin: &Origin) -> Message {
    let attributes = labels.iter().map(|(name, value)| attribute(name, value));
    times(origin).messages(7, attributes)
}

fn histogram(labels: &Labels, buckets: &Buckets, origin: &Origin) -> Message {
    let attributes = labels.iter().map(|(name, value)| attribute(name, value));
    let bounds = buckets.bounds.iter().map(|bound| bound.to_bits());
    times(origin)
        .fixed(4, buckets.count)
        .double(5, buckets.sum)
        .packed(6, buckets.counts.iter().copied())
        .packed(7, bounds)
        .messages(9, attributes)
}

fn times(origin: &Origin) -> Message {
    Message::default()
        .fixed(2, nanos(origin.started_at))
        .fixed(3, nanos(origin.at))
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(name: &str, value: &str) -> Message {
    let value = Message::default().text(1, value);
    Message::default().text(1, name).message(2, value)
}

/// As the names of Prometheus end, in the letters of UCUM.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    }
}
