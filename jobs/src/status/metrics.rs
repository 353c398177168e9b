//! What a look comes to as metrics: a table, and Prometheus's text of it.
//!
//! Names and units follow Prometheus: base units, `_total` at the end of what only grows. Labels are names from the configuration,
//! feed ranges and processes, so there are so many series as the job has parts; of a source [`MAX_RANGES`] feed ranges at most have series
//! of their own. Counters begin at 0 with the process. The table for people is docs/metrics.md, which a test holds to this one.

mod text;

use std::collections::BTreeMap;

use tidefeed_runtime::observe::WorkerFigures;
use tidefeed_runtime::stall::Trouble;
use tidefeed_runtime::{Durations, Result, StageHistograms};

use super::look::{Look, SinkLook};
use super::sources::SourceLook;
pub(crate) use text::CONTENT_TYPE;
use text::text_of;

/// Feed ranges of a source with series of their own.
pub(crate) const MAX_RANGES: usize = 512;

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
    let mut all = of_job(look);
    all.extend(of_epochs(look));
    all.extend(of_sources(&look.totals.sources));
    all.extend(of_ranges(&look.totals.sources));
    all.extend(of_sinks(look));
    all.extend(of_workers(&look.workers));
    all.extend(of_process(look));
    all
}

fn of_job(look: &Look) -> Vec<Metric> {
    let info = Series {
        labels: vec![
            ("job_name", look.job.name.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("process", look.position.process.to_string()),
        ],
        value: Value::Number(1.0),
    };
    let state = Series {
        labels: vec![("state", look.state())],
        value: Value::Number(1.0),
    };
    vec![
        gauge(
            "tidefeed_info",
            "Which job and process this is.",
            vec![info],
        ),
        gauge("tidefeed_state", "What the process is doing.", vec![state]),
        gauge(
            "tidefeed_stalled",
            "Whether anything holds the job.",
            one(f64::from(u8::from(look.holds.stalled))),
        ),
        gauge(
            "tidefeed_generation",
            "The number of the run that has the checkpoint.",
            some(look.generation.map(|generation| generation as f64)),
        ),
    ]
}

fn of_epochs(look: &Look) -> Vec<Metric> {
    let figures = look.epochs.as_ref().map(|epochs| epochs.figures);
    let oldest = figures.map(|figures| figures.oldest_uncommitted.unwrap_or_default());
    let since_commit = figures.and_then(|figures| figures.since_commit);
    vec![
        counter(
            "tidefeed_commits",
            "Commits made durable.",
            one(look.totals.commits as f64),
        ),
        counter(
            "tidefeed_seals",
            "Seals made durable by this process.",
            one(look.totals.seals as f64),
        ),
        histogram(
            "tidefeed_epoch_stage_seconds",
            "Time from minting an epoch until it came to a stage, of committed ones.",
            of_stages(&look.totals.stages),
        ),
        gauge(
            "tidefeed_oldest_uncommitted_epoch_age_seconds",
            "Age of the oldest epoch that is not committed; 0 when all are.",
            some(oldest.map(|age| age.as_secs_f64())),
        ),
        gauge(
            "tidefeed_since_commit_seconds",
            "Time since the last commit was durable.",
            some(since_commit.map(|since| since.as_secs_f64())),
        ),
    ]
}

/// From minted to each stage.
fn of_stages(stages: &StageHistograms) -> Vec<Series> {
    let all = [
        ("sealed", &stages.sealed),
        ("frontier", &stages.frontier),
        ("written", &stages.written),
        ("committed", &stages.committed),
    ];
    let series = all.map(|(stage, durations)| Series {
        labels: vec![("stage", stage.to_owned())],
        value: Value::Durations(durations.clone()),
    });
    series.into()
}

fn of_workers(workers: &[WorkerFigures]) -> Vec<Metric> {
    let each = |value: fn(&WorkerFigures) -> f64| -> Vec<Series> {
        let series = |worker: &WorkerFigures| Series {
            labels: vec![("worker", worker.worker.to_string())],
            value: Value::Number(value(worker)),
        };
        workers.iter().map(series).collect()
    };
    let mut arranged: BTreeMap<(usize, &str), u64> = BTreeMap::new();
    for operator in workers.iter().flat_map(|worker| &worker.operators) {
        if let Some(rows) = operator.arranged_rows {
            *arranged.entry((operator.id, &*operator.name)).or_default() += rows;
        }
    }
    let arranged = arranged.into_iter().map(|((id, name), rows)| Series {
        labels: vec![("operator", id.to_string()), ("name", name.to_owned())],
        value: Value::Number(rows as f64),
    });
    vec![
        gauge(
            "tidefeed_worker_busy_seconds",
            "Time in operators since the run began.",
            each(|worker| worker.busy.as_secs_f64()),
        ),
        gauge(
            "tidefeed_worker_parked_seconds",
            "Time without work since the run began.",
            each(|worker| worker.parked.as_secs_f64()),
        ),
        gauge(
            "tidefeed_worker_queued_records",
            "Records that wait for operators of the worker.",
            each(|worker| {
                let queued = worker.operators.iter().map(|one| one.queued);
                queued.sum::<u64>() as f64
            }),
        ),
        gauge(
            "tidefeed_arrangement_rows",
            "Rows that an operator keeps arranged, on all workers of the process.",
            arranged.collect(),
        ),
    ]
}

fn of_sources(sources: &BTreeMap<String, SourceLook>) -> Vec<Metric> {
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

fn of_ranges(sources: &BTreeMap<String, SourceLook>) -> Vec<Metric> {
    type Of = fn(&super::sources::RangeLook) -> Option<f64>;
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

fn of_sinks(look: &Look) -> Vec<Metric> {
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

/// The names that every Prometheus client has.
fn of_process(look: &Look) -> Vec<Metric> {
    let process = look.process;
    let started = look.started_at.duration_since(std::time::UNIX_EPOCH);
    vec![
        counter(
            "process_cpu_seconds",
            "Processor time, of all cores.",
            one(process.cpu.as_secs_f64()),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            one(process.memory_bytes as f64),
        ),
        gauge(
            "process_open_fds",
            "Open files and connections.",
            one(process.open_files as f64),
        ),
        gauge(
            "process_start_time_seconds",
            "When the process began, since the UNIX epoch.",
            some(started.ok().map(|started| started.as_secs_f64())),
        ),
        gauge(
            "tidefeed_tokio_tasks",
            "Tasks of the I/O runtime.",
            one(look.tokio_tasks as f64),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

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
