//! Metrics of workers and their operators.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tidefeed_runtime::Epoch;
use tidefeed_runtime::observe::{OperatorFigures, WorkerFigures};

use super::{MAX_OPERATORS, Metric, Series, Value, gauge};
use crate::status::look::{Look, unix_ms};

pub(super) fn of_workers(workers: &[WorkerFigures]) -> Vec<Metric> {
    let each = |value: fn(&WorkerFigures) -> f64| -> Vec<Series> {
        let series = |worker: &WorkerFigures| Series {
            labels: vec![("worker", worker.worker.to_string())],
            value: Value::Number(value(worker)),
        };
        workers.iter().map(series).collect()
    };
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
    ]
}

/// Operators on all workers of the process, taken together.
pub(super) fn of_operators(look: &Look) -> Vec<Metric> {
    let sum = |value: fn(&OperatorFigures) -> Option<f64>| {
        of_each(&look.workers, value, |one, other| one + other)
    };
    let frontiers = of_each(
        &look.workers,
        |one| one.frontier.map(|Epoch(epoch)| epoch as f64),
        f64::min,
    );
    vec![
        gauge(
            "tidefeed_operator_busy_seconds",
            "Time in an operator, without the operators in it, since the run began.",
            bounded(sum(|one| Some(one.own.as_secs_f64()))),
        ),
        gauge(
            "tidefeed_operator_frontier_lag_seconds",
            "How long ago the epoch was minted that the operator's input frontier is at.",
            bounded(lags(frontiers, look.at)),
        ),
        gauge(
            "tidefeed_arrangement_rows",
            "Rows that an operator keeps.",
            bounded(sum(|one| one.arranged_rows.map(|rows| rows as f64))),
        ),
        gauge(
            "tidefeed_arrangement_bytes",
            "Bytes that an operator keeps, of those that know.",
            bounded(sum(|one| one.arranged_bytes.map(|bytes| bytes as f64))),
        ),
    ]
}

/// By timely's number of the operator, and its name.
type ByOperator<'a> = BTreeMap<(usize, &'a str), f64>;

/// What is known of operators, of several workers put together by `join`.
fn of_each(
    workers: &[WorkerFigures],
    value: fn(&OperatorFigures) -> Option<f64>,
    join: fn(f64, f64) -> f64,
) -> ByOperator<'_> {
    let mut all = ByOperator::new();
    for operator in workers.iter().flat_map(|worker| &worker.operators) {
        if let Some(value) = value(operator) {
            let seen = all.entry((operator.id, &*operator.name));
            seen.and_modify(|seen| *seen = join(*seen, value))
                .or_insert(value);
        }
    }
    all
}

/// Epochs are minted by the clock: their numbers are milliseconds since the UNIX epoch.
fn lags(frontiers: ByOperator<'_>, now: SystemTime) -> ByOperator<'_> {
    let now_ms = unix_ms(now) as f64;
    let lag = |(operator, epoch): ((usize, _), f64)| (operator, (now_ms - epoch).max(0.0) / 1e3);
    frontiers.into_iter().map(lag).collect()
}

/// Those with the lowest numbers: always the same ones of a dataflow.
fn bounded(values: ByOperator<'_>) -> Vec<Series> {
    let series = |((id, name), value): ((usize, &str), f64)| Series {
        labels: vec![("operator", id.to_string()), ("name", name.to_owned())],
        value: Value::Number(value),
    };
    values.into_iter().take(MAX_OPERATORS).map(series).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::config::HttpConfig;
    use crate::health::Health;
    use crate::status::metrics::encoded;

    fn worker(worker: usize, operators: usize) -> WorkerFigures {
        let operator = |id: usize| OperatorFigures {
            id,
            address: [0, id].into(),
            name: format!("Map {id}").into(),
            scope: None,
            is_scope: false,
            busy: Duration::from_secs(100),
            own: Duration::from_secs(1 + worker as u64),
            records_in: 0,
            queued: 0,
            frontier: (id == 2).then_some(Epoch(7_000 + worker as u64)),
            arranged_rows: (id == 1).then_some(10),
            arranged_bytes: None,
            batching_rows: None,
            ended: false,
        };
        WorkerFigures {
            worker,
            // The highest number comes first: the bound is by number, not by place.
            operators: (0..operators).rev().map(operator).collect(),
            ..WorkerFigures::default()
        }
    }

    #[test]
    fn workers_are_taken_together_and_the_first_operators_have_series() {
        let mut look = Health::new(HttpConfig::default()).look();
        look.at = UNIX_EPOCH + Duration::from_secs(9);
        look.workers = vec![worker(0, MAX_OPERATORS + 50), worker(1, MAX_OPERATORS + 50)];
        let text = encoded(&look).expect("text");
        let busy = "tidefeed_operator_busy_seconds{";
        let lines = text.lines().filter(|line| line.starts_with(busy));
        assert_eq!(lines.count(), MAX_OPERATORS);
        for line in [
            format!("{busy}operator=\"0\",name=\"Map 0\"}} 3.0"),
            format!("{busy}operator=\"199\",name=\"Map 199\"}} 3.0"),
            "tidefeed_arrangement_rows{operator=\"1\",name=\"Map 1\"} 20.0".to_owned(),
            "tidefeed_operator_frontier_lag_seconds{operator=\"2\",name=\"Map 2\"} 2.0".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(!text.contains("tidefeed_arrangement_bytes{"), "{text}");
    }
}
