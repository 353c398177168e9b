//! The dataflow of a process in a report: operators of all its workers, taken together.

use std::collections::BTreeMap;
use std::time::Duration;

use tidefeed_runtime::Epoch;
use tidefeed_runtime::observe::{OperatorFigures, WorkerFigures};

use super::look::{Rate, share};
use super::report::{Channel, Graph, Operator, Worker};
use super::totals::Totals;

/// Two snapshots of the workers' figures, one after the other.
pub(super) struct Snapshots<'a> {
    pub(super) now: &'a [WorkerFigures],
    pub(super) before: &'a [WorkerFigures],
    pub(super) at_ms: u64,
    pub(super) rate: Rate,
}

/// What an operator did on one worker: busy for so long of so long.
type Busy = (Duration, Duration);

impl Snapshots<'_> {
    pub(super) fn workers(&self) -> Vec<Worker> {
        let worker = |now: &WorkerFigures| {
            let before = self.before_of(now);
            let past = |of: fn(&WorkerFigures) -> Duration| {
                of(now).saturating_sub(before.map(of).unwrap_or_default())
            };
            Worker {
                worker: u32::try_from(now.worker).unwrap_or(u32::MAX),
                busy_share: share(past(|one| one.busy), past(|one| one.since)),
                queued: now.operators.iter().map(|one| one.queued).sum(),
            }
        };
        self.now.iter().map(worker).collect()
    }

    pub(super) fn graph(&self, totals: &Totals) -> Graph {
        let Some(first) = self.now.first() else {
            return Graph::default();
        };
        let mut operators = Vec::with_capacity(first.operators.len());
        let (by_id, before) = (by_id(self.now), by_id(self.before));
        for one in &first.operators {
            let on_workers = by_id.get(&one.id).map(Vec::as_slice).unwrap_or_default();
            let before = before.get(&one.id).map(Vec::as_slice).unwrap_or_default();
            let mut operator = self.operator(one, on_workers, before);
            (operator.source, operator.sink) = belongs_to(&one.name, totals);
            operators.push(operator);
        }
        Graph {
            operators,
            channels: self.channels(),
        }
    }

    fn operator(&self, one: &OperatorFigures, now: &[Seen<'_>], before: &[Seen<'_>]) -> Operator {
        let was = |worker: usize| before.iter().find(|(index, _)| *index == worker);
        let busy = now.iter().map(|(worker, seen)| {
            let before = was(*worker).map(|(_, seen)| seen.busy).unwrap_or_default();
            let busy: Busy = (seen.busy.saturating_sub(before), self.past(*worker));
            share(busy.0, busy.1)
        });
        let busy: Vec<f64> = busy.collect();
        let sum = |all: &[Seen<'_>], of: fn(&OperatorFigures) -> u64| -> u64 {
            all.iter().map(|(_, seen)| of(seen)).sum()
        };
        let known = |of: fn(&OperatorFigures) -> Option<u64>| {
            now.iter()
                .filter_map(|(_, seen)| of(seen))
                .reduce(|a, b| a + b)
        };
        let records = sum(now, |seen| seen.records_in);
        let records_before = (!before.is_empty()).then(|| sum(before, |seen| seen.records_in));
        let frontier = now.iter().filter_map(|(_, seen)| seen.frontier).min();
        Operator {
            id: one.id as u64,
            name: one.name.to_string(),
            scope: one.scope.map(|scope| scope as u64),
            is_scope: one.is_scope,
            source: None,
            sink: None,
            busy_share: busy.iter().sum::<f64>() / busy.len().max(1) as f64,
            busiest_share: busy.iter().copied().fold(0.0, f64::max),
            records_in: records,
            records_in_per_s: self.rate.of(records, records_before),
            // Epochs are minted by the clock: their numbers are milliseconds since the UNIX epoch.
            frontier_lag_ms: frontier.map(|Epoch(epoch)| self.at_ms.saturating_sub(epoch)),
            frontier: frontier.map(|epoch| epoch.0),
            arranged_rows: known(|seen| seen.arranged_rows),
            arranged_bytes: known(|seen| seen.arranged_bytes),
            queued: sum(now, |seen| seen.queued),
        }
    }

    /// Between the two snapshots of a worker.
    fn past(&self, worker: usize) -> Duration {
        let since = |of: &[WorkerFigures]| {
            let found = of.iter().find(|one| one.worker == worker);
            found.map(|one| one.since).unwrap_or_default()
        };
        since(self.now).saturating_sub(since(self.before))
    }

    fn channels(&self) -> Vec<Channel> {
        let sent = |workers: &[WorkerFigures]| {
            let mut all: BTreeMap<usize, (usize, usize, u64, bool)> = BTreeMap::new();
            for one in workers.iter().flat_map(|worker| &worker.channels) {
                let sum = all.entry(one.id).or_insert((one.from, one.to, 0, false));
                sum.2 += one.sent;
                sum.3 |= one.sent_to_others > 0;
            }
            all
        };
        let before = sent(self.before);
        let channel = |(id, (from, to, records, exchanged)): (usize, (usize, usize, u64, bool))| {
            let before = before.get(&id).map(|(_, _, records, _)| *records);
            Channel {
                from: from as u64,
                to: to as u64,
                records,
                records_per_s: self.rate.of(records, before),
                exchanged,
            }
        };
        sent(self.now).into_iter().map(channel).collect()
    }

    fn before_of(&self, now: &WorkerFigures) -> Option<&WorkerFigures> {
        self.before.iter().find(|one| one.worker == now.worker)
    }
}

/// An operator on a worker.
type Seen<'a> = (usize, &'a OperatorFigures);

fn by_id(workers: &[WorkerFigures]) -> BTreeMap<usize, Vec<Seen<'_>>> {
    let mut all: BTreeMap<usize, Vec<Seen<'_>>> = BTreeMap::new();
    for worker in workers {
        for operator in &worker.operators {
            all.entry(operator.id)
                .or_default()
                .push((worker.worker, operator));
        }
    }
    all
}

/// The source or the sink that an operator of Tidefeed's is of, by its name.
fn belongs_to(name: &str, totals: &Totals) -> (Option<String>, Option<String>) {
    let of = |prefix: &str| name.strip_prefix(prefix).map(str::to_owned);
    if let Some(source) = of("Source: ") {
        return (Some(source), None);
    }
    match of("Upsert: ") {
        Some(sink) if totals.sinks.contains_key(&sink) => (None, Some(sink)),
        source => (source, None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidefeed_runtime::observe::ChannelFigures;

    use super::*;

    fn worker(worker: usize, since: u64, busy: u64, records: u64) -> WorkerFigures {
        let operator = OperatorFigures {
            id: 3,
            address: Arc::from([0, 1]),
            name: Arc::from("Source: orders"),
            scope: Some(0),
            is_scope: false,
            busy: Duration::from_millis(busy),
            own: Duration::from_millis(busy),
            records_in: records,
            queued: 2,
            frontier: Some(Epoch(9_000 + worker as u64)),
            arranged_rows: Some(10),
            arranged_bytes: None,
            batching_rows: None,
            ended: false,
        };
        WorkerFigures {
            worker,
            since: Duration::from_millis(since),
            busy: Duration::from_millis(busy),
            parked: Duration::ZERO,
            operators: vec![operator],
            channels: vec![ChannelFigures {
                id: 5,
                from: 1,
                to: 3,
                to_port: 0,
                sent: records,
                sent_to_others: worker as u64,
                received: records,
            }],
        }
    }

    #[test]
    fn workers_are_taken_together_and_shares_are_of_the_time_between() {
        let before = [worker(0, 1_000, 900, 10), worker(1, 1_000, 0, 10)];
        let now = [worker(0, 2_000, 1_000, 110), worker(1, 2_000, 500, 110)];
        let snapshots = Snapshots {
            now: &now,
            before: &before,
            at_ms: 10_000,
            rate: Rate::between(Some(8_000), 10_000),
        };
        let graph = snapshots.graph(&Totals::default());
        let [source] = graph.operators.as_slice() else {
            panic!("{graph:?}")
        };
        assert!((source.busiest_share - 0.5).abs() < 1e-9, "{source:?}");
        assert!((source.busy_share - 0.3).abs() < 1e-9, "{source:?}");
        assert_eq!((source.records_in, source.records_in_per_s), (220, 100.0));
        assert_eq!(
            (source.arranged_rows, source.arranged_bytes),
            (Some(20), None)
        );
        assert_eq!((source.frontier_lag_ms, source.queued), (Some(1_000), 4));
        assert_eq!(source.source.as_deref(), Some("orders"));
        let [channel] = graph.channels.as_slice() else {
            panic!("{graph:?}")
        };
        assert_eq!((channel.from, channel.to, channel.records), (1, 3, 220));
        assert!(channel.exchanged);
        let shares: Vec<_> = snapshots
            .workers()
            .iter()
            .map(|one| one.busy_share)
            .collect();
        assert!((shares[0] - 0.1).abs() < 1e-9 && (shares[1] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_upserts_is_of_a_sink_if_there_is_one_of_that_name() {
        let mut totals = Totals::default();
        totals.sinks.insert("view".to_owned(), Default::default());
        let own = |name: &str| Some(name.to_owned());
        assert_eq!(belongs_to("Upsert: view", &totals), (None, own("view")));
        assert_eq!(belongs_to("Upsert: orders", &totals), (own("orders"), None));
        assert_eq!(belongs_to("Map", &totals), (None, None));
    }
}
