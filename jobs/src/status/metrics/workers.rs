//! Metrics of workers and their operators.

use std::collections::BTreeMap;

use tidefeed_runtime::observe::WorkerFigures;

use super::{Metric, Series, Value, gauge};

pub(super) fn of_workers(workers: &[WorkerFigures]) -> Vec<Metric> {
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
