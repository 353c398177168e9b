//! Metrics of sources and their feed ranges.

use std::collections::BTreeMap;

use tidefeed_runtime::stall::Trouble;

use super::{MAX_RANGES, Metric, Series, Value, counter, gauge};
use crate::status::sources::{RangeLook, SourceLook};

pub(super) fn of_sources(sources: &BTreeMap<String, SourceLook>) -> Vec<Metric> {
    let each = |value: fn(&SourceLook) -> Option<f64>| -> Vec<Series> {
        let series = |source: &SourceLook| {
            Some(Series {
                labels: vec![("source", source.name.clone())],
                value: Value::Number(value(source)?),
            })
        };
        sources.values().filter_map(series).collect()
    };
    vec![
        counter(
            "tidefeed_source_records",
            "Changes read.",
            each(|source| Some(source.records as f64)),
        ),
        counter(
            "tidefeed_source_read_bytes",
            "Bytes of keys and documents read.",
            each(|source| Some(source.bytes as f64)),
        ),
        counter(
            "tidefeed_source_request_units",
            "Request units charged for reading.",
            each(|source| Some(source.ru)),
        ),
        counter(
            "tidefeed_source_decode_errors",
            "Documents that did not decode and that the job goes on without.",
            each(|source| Some(source.decode_errors as f64)),
        ),
        counter(
            "tidefeed_source_dead_letters",
            "Documents of the source that went to the dead letters.",
            each(|source| Some(source.dead_letters as f64)),
        ),
        gauge(
            "tidefeed_source_ranges",
            "Feed ranges that are read now.",
            each(|source| Some(source.ranges.len() as f64)),
        ),
        gauge(
            "tidefeed_source_watermark_timestamp_seconds",
            "The watermark in event time.",
            each(|source| (source.watermark_ms > 0).then(|| source.watermark_ms as f64 / 1e3)),
        ),
    ]
}

pub(super) fn of_ranges(sources: &BTreeMap<String, SourceLook>) -> Vec<Metric> {
    type Of = fn(&RangeLook) -> Option<f64>;
    let each = |value: Of| -> Vec<Series> {
        let of_source = |source: &SourceLook| -> Vec<Series> {
            let ranges = source.ranges.iter().take(MAX_RANGES);
            let series = ranges.filter_map(|(range, look)| {
                Some(Series {
                    labels: vec![("source", source.name.clone()), ("range", range.0.clone())],
                    value: Value::Number(value(look)?),
                })
            });
            series.collect()
        };
        sources.values().flat_map(of_source).collect()
    };
    vec![
        gauge(
            "tidefeed_range_behind_seconds",
            "How far the feed range is behind at most; none while it has not caught up.",
            each(|(status, _)| Some(status.behind?.as_secs_f64())),
        ),
        gauge(
            "tidefeed_range_caught_up",
            "Whether the feed range has caught up.",
            each(|(status, _)| Some(f64::from(u8::from(status.behind.is_some())))),
        ),
        gauge(
            "tidefeed_range_remaining_records",
            "Changes yet to be read, as the service estimates.",
            each(|(status, _)| Some(status.remaining? as f64)),
        ),
        gauge(
            "tidefeed_range_token_age_seconds",
            "Time since the continuation token last moved.",
            each(|(status, _)| Some(status.since_moved.as_secs_f64())),
        ),
        gauge(
            "tidefeed_range_waits_for_room_seconds",
            "How long a page has waited for room: the job is slower than the source. 0 when none does.",
            each(|(status, _)| Some(status.waits_for_room.unwrap_or_default().as_secs_f64())),
        ),
        gauge(
            "tidefeed_range_failing",
            "Whether the present request of the feed range fails and is repeated.",
            each(|(_, trouble)| {
                let failing = matches!(trouble, Some(Trouble::Failing { .. }));
                Some(f64::from(u8::from(failing)))
            }),
        ),
    ]
}
