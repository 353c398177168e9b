//! Metrics of sinks.

use super::{Metric, Series, Value, counter, gauge};
use crate::status::look::{Look, SinkLook};

pub(super) fn of_sinks(look: &Look) -> Vec<Metric> {
    let each = |value: fn(&SinkLook) -> Option<f64>| -> Vec<Series> {
        let series = |(name, sink): (&String, &SinkLook)| {
            Some(Series {
                labels: vec![("sink", name.clone())],
                value: Value::Number(value(sink)?),
            })
        };
        look.totals.sinks.iter().filter_map(series).collect()
    };
    let budgets = look.job.budgets.iter().map(|(name, budget)| Series {
        labels: vec![("sink", name.clone())],
        value: Value::Number(*budget),
    });
    vec![
        counter(
            "tidefeed_sink_upserts",
            "Documents upserted, created, replaced or patched.",
            each(|sink| Some(sink.upserts as f64)),
        ),
        counter(
            "tidefeed_sink_deletes",
            "Documents deleted.",
            each(|sink| Some(sink.deletes as f64)),
        ),
        counter(
            "tidefeed_sink_ignored",
            "Writes that their own condition turned away.",
            each(|sink| Some(sink.ignored as f64)),
        ),
        counter(
            "tidefeed_sink_requests",
            "Requests sent, retries included.",
            each(|sink| Some(sink.requests as f64)),
        ),
        counter(
            "tidefeed_sink_throttled_requests",
            "Requests answered with throttling.",
            each(|sink| Some(sink.throttled as f64)),
        ),
        counter(
            "tidefeed_sink_request_units",
            "Request units charged for writing.",
            each(|sink| Some(sink.ru)),
        ),
        counter(
            "tidefeed_sink_dead_letters",
            "Documents that went to the dead letters.",
            each(|sink| Some(sink.dead_letters as f64)),
        ),
        gauge(
            "tidefeed_sink_batch_age_seconds",
            "How long the oldest batch has been at the target; 0 when none is.",
            each(|sink| Some(sink.writing.unwrap_or_default().as_secs_f64())),
        ),
        gauge(
            "tidefeed_sink_budget_request_units",
            "Request units a second that the configuration lets the sink use.",
            budgets.collect(),
        ),
    ]
}
