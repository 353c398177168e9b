//! What a look comes to as metrics: a table, and Prometheus's text of it.
//!
//! Names and units follow Prometheus: base units, `_total` at the end of what only grows. Labels are names from the configuration,
//! feed ranges, physical partitions, operators and processes, so there are so many series as the job has parts; of a source
//! [`MAX_RANGES`] feed ranges at most have series of their own, of a sink [`MAX_PARTITIONS`] partitions, and [`MAX_OPERATORS`] operators. Counters begin at 0 with the process. The table for people is docs/metrics.md, which a test holds to this one.

mod job;
mod sinks;
mod sources;
mod text;
mod workers;

use tidefeed_runtime::{Durations, Result};

use super::look::Look;
pub(crate) use text::CONTENT_TYPE;
use text::text_of;

/// Feed ranges of a source with series of their own.
const MAX_RANGES: usize = 512;

/// Physical partitions of a sink with series of their own.
const MAX_PARTITIONS: usize = 512;

/// Operators with series of their own, those with the lowest numbers.
const MAX_OPERATORS: usize = 200;

/// A metric with its series.
#[derive(Debug)]
struct Metric {
    /// Without the `_total` of counters.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    series: Vec<Series>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
struct Series {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Durations(Durations),
}

/// The metrics of a job as Prometheus reads them.
///
/// # Errors
/// `Internal` when they cannot be written, which memory takes.
pub(crate) fn encoded(look: &Look) -> Result<String> {
    text_of(table(look))
}

fn counter(name: &'static str, help: &'static str, series: Vec<Series>) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Counter,
        series,
    }
}

fn gauge(name: &'static str, help: &'static str, series: Vec<Series>) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Gauge,
        series,
    }
}

fn histogram(name: &'static str, help: &'static str, series: Vec<Series>) -> Metric {
    Metric {
        name,
        help,
        kind: Kind::Histogram,
        series,
    }
}

fn one(value: f64) -> Vec<Series> {
    vec![Series {
        labels: Vec::new(),
        value: Value::Number(value),
    }]
}

fn some(value: Option<f64>) -> Vec<Series> {
    value.map(one).unwrap_or_default()
}

fn table(look: &Look) -> Vec<Metric> {
    let mut all = job::of_job(look);
    all.extend(job::of_epochs(look));
    all.extend(job::of_store(look));
    all.extend(sources::of_sources(&look.totals.sources));
    all.extend(sources::of_ranges(&look.totals.sources));
    all.extend(sinks::of_sinks(look));
    all.extend(sinks::of_partitions(&look.totals.sinks));
    all.extend(workers::of_workers(&look.workers));
    all.extend(workers::of_operators(look));
    all.extend(job::of_process(look));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tidefeed_operators::traffic::PartitionTraffic;

    use super::super::sinks::SinkLook;
    use super::*;
    use crate::config::HttpConfig;
    use crate::health::Health;

    #[test]
    fn names_say_what_prometheus_expects() {
        let table = table(&Health::new(HttpConfig::default()).look());
        let names: BTreeSet<_> = table.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), table.len(), "a name is there twice");
        for metric in &table {
            let Metric {
                name, help, kind, ..
            } = metric;
            assert!(help.ends_with('.'), "{name}: {help}");
            assert!(!name.ends_with("_total") && !name.contains("_ms"), "{name}");
            assert!(*kind == Kind::Counter || !help.is_empty(), "{name}");
        }
    }

    #[test]
    fn text_ends_as_openmetrics_does() {
        let text = encoded(&Health::new(HttpConfig::default()).look()).expect("text");
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(
            text.contains("# TYPE process_cpu_seconds counter"),
            "{text}"
        );
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
        assert!(
            text.contains("tidefeed_state{state=\"starting\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn what_the_store_did_is_counted_and_timed() {
        let mut look = Health::new(HttpConfig::default()).look();
        let store = &mut look.totals.store;
        (store.objects_written, store.bytes_written) = (2, 700);
        store.writes.add(Duration::from_millis(3));
        store.writes.add(Duration::from_millis(30));
        let text = encoded(&look).expect("text");
        for line in [
            "tidefeed_checkpoint_written_objects_total 2",
            "tidefeed_checkpoint_written_bytes_total 700",
            "tidefeed_checkpoint_write_seconds_bucket{le=\"0.005\"} 1",
            "tidefeed_checkpoint_write_seconds_count 2",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn partitions_have_series_and_not_too_many() {
        let mut look = Health::new(HttpConfig::default()).look();
        let traffic = PartitionTraffic {
            documents: 7,
            in_flight: 2,
            ..PartitionTraffic::default()
        };
        let named = |number: usize| (format!("{number:04}"), traffic);
        let sink = SinkLook {
            traffic: Some((0..MAX_PARTITIONS + 10).map(named).collect()),
            ..SinkLook::default()
        };
        look.totals.sinks.insert("view".to_owned(), sink);
        let text = encoded(&look).expect("text");
        let name = "tidefeed_sink_partition_documents_total{";
        let lines = text.lines().filter(|line| line.starts_with(name));
        assert_eq!(lines.count(), MAX_PARTITIONS);
        let all = 2 * (MAX_PARTITIONS + 10);
        for line in [
            format!("{name}sink=\"view\",partition=\"0511\"}} 7"),
            format!("tidefeed_sink_requests_in_flight{{sink=\"view\"}} {all}"),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }

    #[test]
    fn stages_of_epochs_are_a_histogram() {
        let mut look = Health::new(HttpConfig::default()).look();
        look.totals.stages.committed.add(Duration::from_millis(3));
        let text = encoded(&look).expect("text");
        let line = "tidefeed_epoch_stage_seconds_bucket{le=\"+Inf\",stage=\"committed\"} 1";
        assert!(text.contains(line), "{text}");
    }

    /// Every metric has its line in the documentation, and there are no others.
    #[test]
    fn the_documentation_has_all_of_them() {
        let table = table(&Health::new(HttpConfig::default()).look());
        let names = table.iter().map(|metric| match metric.kind {
            Kind::Counter => format!("{}_total", metric.name),
            Kind::Gauge | Kind::Histogram => metric.name.to_owned(),
        });
        let names: BTreeSet<_> = names.collect();
        let page = include_str!("../../../docs/metrics.md");
        let lines = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let told: BTreeSet<_> = lines
            .filter_map(|line| Some(line.split_once('`')?.0.to_owned()))
            .collect();
        assert_eq!(names, told);
    }
}
