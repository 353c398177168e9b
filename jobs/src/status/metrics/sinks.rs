//! Metrics of sinks and the physical partitions that they write to.

use std::collections::BTreeMap;

use tidefeed_operators::traffic::PartitionTraffic;

use super::{MAX_PARTITIONS, Metric, Series, Value, counter, gauge};
use crate::status::look::Look;
use crate::status::sinks::SinkLook;

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
            each(|sink| Some(sink.counted.upserts as f64)),
        ),
        counter(
            "tidefeed_sink_deletes",
            "Documents deleted.",
            each(|sink| Some(sink.counted.deletes as f64)),
        ),
        counter(
            "tidefeed_sink_ignored",
            "Writes that their own condition turned away.",
            each(|sink| Some(sink.counted.ignored as f64)),
        ),
        counter(
            "tidefeed_sink_requests",
            "Requests sent, retries included.",
            each(|sink| Some(sink.counted.requests as f64)),
        ),
        counter(
            "tidefeed_sink_throttled_requests",
            "Requests answered with throttling.",
            each(|sink| Some(sink.counted.throttled as f64)),
        ),
        counter(
            "tidefeed_sink_request_units",
            "Request units charged for writing.",
            each(|sink| Some(sink.counted.charge_ru)),
        ),
        counter(
            "tidefeed_sink_dead_letters",
            "Documents that went to the dead letters.",
            each(|sink| Some(sink.dead_letters as f64)),
        ),
        gauge(
            "tidefeed_sink_requests_in_flight",
            "Requests in flight, of targets that count them.",
            each(|sink| Some(sink.in_flight()? as f64)),
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

pub(super) fn of_partitions(sinks: &BTreeMap<String, SinkLook>) -> Vec<Metric> {
    let each = |value: fn(&PartitionTraffic) -> f64| -> Vec<Series> {
        let of_sink = |(name, sink): (&String, &SinkLook)| -> Vec<Series> {
            let partitions = sink.traffic.iter().flatten().take(MAX_PARTITIONS);
            let series = partitions.map(|(partition, traffic)| Series {
                labels: vec![("sink", name.clone()), ("partition", partition.clone())],
                value: Value::Number(value(traffic)),
            });
            series.collect()
        };
        sinks.iter().flat_map(of_sink).collect()
    };
    vec![
        counter(
            "tidefeed_sink_partition_documents",
            "Writes that a physical partition carried out.",
            each(|traffic| traffic.documents as f64),
        ),
        counter(
            "tidefeed_sink_partition_requests",
            "Requests to a physical partition that have ended, retries included.",
            each(|traffic| traffic.requests as f64),
        ),
        counter(
            "tidefeed_sink_partition_throttled_requests",
            "Of these, the ones that were throttled, in whole or in part.",
            each(|traffic| traffic.throttled as f64),
        ),
        counter(
            "tidefeed_sink_partition_request_units",
            "Request units that a physical partition charged.",
            each(|traffic| traffic.charge_ru),
        ),
        gauge(
            "tidefeed_sink_partition_requests_in_flight",
            "Requests to a physical partition in flight.",
            each(|traffic| traffic.in_flight as f64),
        ),
    ]
}
