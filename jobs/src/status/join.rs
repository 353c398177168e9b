//! What the reports of a job's processes come to together. Pure: no clock, no network.
//!
//! | of several processes | are |
//! |---|---|
//! | counts, rates, what is queued, kept or under way | sums |
//! | feed ranges, processes | all of them |
//! | ages, frontiers, quantiles, shares of the busiest worker | the worst |
//! | busy shares | means over the workers of those that answer |
//! | throttled shares | of all requests |
//! | what holds the job, its epochs, commits and bases | process 0's |
//!
//! Sources, sinks and partitions are matched by their names, operators by number and name: every worker has the same dataflow. Each
//! field is named here, so that one that is added to a report does not compile before somebody says what becomes of it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::report::{
    Channel, Checkpoint, FORM, Graph, Operator, Partition, Process, Report, Sink, Source,
};

/// What a process tells of itself, for the report of the whole job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    /// [`FORM`].
    pub(super) form: u32,
    /// When the process began.
    pub(super) started_at_ms: u64,
    pub(super) process: Process,
    pub(super) checkpoint: Checkpoint,
    pub(super) sources: Vec<Source>,
    pub(super) sinks: Vec<Sink>,
    pub(super) graph: Graph,
}

impl Part {
    /// Of the process that tells the report.
    pub(super) fn of(report: Report) -> Part {
        let own = report.job.process;
        let mut processes = report.processes.into_iter();
        Part {
            form: FORM,
            started_at_ms: report.job.started_at_ms,
            process: processes.find(|one| one.process == own).unwrap_or_default(),
            checkpoint: report.checkpoint,
            sources: report.sources,
            sinks: report.sinks,
            graph: report.graph,
        }
    }

    /// When it has been silent for so long: it does nothing that is known of, and what had an age then is older now.
    pub(super) fn still(&mut self, for_ms: u64) {
        self.checkpoint.bytes_per_s = None;
        for source in &mut self.sources {
            (source.records_per_s, source.bytes_per_s, source.ru_per_s) = (0.0, 0.0, 0.0);
            for range in &mut source.ranges {
                (range.records_per_s, range.ru_per_s) = (0.0, 0.0);
                range.token_age_ms += for_ms;
                range.behind_ms = range.behind_ms.map(|behind| behind + for_ms);
                range.answered_ms = range.answered_ms.map(|answered| answered + for_ms);
            }
        }
        for sink in &mut self.sinks {
            (sink.documents_per_s, sink.ru_per_s) = (0.0, 0.0);
            (sink.requests_per_s, sink.throttled_share) = (0.0, 0.0);
            sink.writing_ms = sink.writing_ms.map(|writing| writing + for_ms);
            for partition in &mut sink.partitions {
                (partition.documents_per_s, partition.ru_per_s) = (0.0, 0.0);
                partition.throttled_share = 0.0;
            }
        }
        for operator in &mut self.graph.operators {
            (operator.busy_share, operator.busiest_share) = (0.0, 0.0);
            operator.records_in_per_s = 0.0;
            operator.frontier_lag_ms = operator.frontier_lag_ms.map(|lag| lag + for_ms);
        }
        for channel in &mut self.graph.channels {
            channel.records_per_s = 0.0;
        }
    }

    /// Of a process that has ended: what it has counted, and nothing that was so only then.
    pub(super) fn ended(mut self) -> Part {
        self.still(0);
        self.graph = Graph::default();
        for source in &mut self.sources {
            (source.watermark_at_ms, source.ranges) = (None, Vec::new());
        }
        for sink in &mut self.sinks {
            (sink.in_flight, sink.writing_ms, sink.ru_budget_per_s) = (None, None, None);
            sink.partitions = Vec::new();
        }
        self
    }

    /// With what an earlier process in the same place has counted.
    pub(super) fn after(&mut self, past: &Part) {
        add_checkpoint(&mut self.checkpoint, &past.checkpoint);
        for source in &past.sources {
            add_to(&mut self.sources, source, same_source, add_source);
        }
        for sink in &past.sinks {
            add_to(&mut self.sinks, sink, same_sink, add_sink);
        }
    }
}

/// The report of a job: that of process 0, and the parts of the others.
pub(super) fn join(mut whole: Report, parts: &[Part]) -> Report {
    let workers = whole.processes.iter().map(|one| one.workers.len()).sum();
    let mut dataflow = Dataflow::new(std::mem::take(&mut whole.graph), workers);
    for part in parts {
        add_checkpoint(&mut whole.checkpoint, &part.checkpoint);
        for source in &part.sources {
            add_to(&mut whole.sources, source, same_source, add_source);
        }
        for sink in &part.sinks {
            add_to(&mut whole.sinks, sink, same_sink, add_sink);
        }
        let answers = part.process.state.is_some();
        let workers = if answers {
            part.process.workers.len()
        } else {
            0
        };
        dataflow.add(&part.graph, workers);
        whole.processes.push(part.process.clone());
    }
    for source in &mut whole.sources {
        source
            .ranges
            .sort_by(|a, b| (&a.range, a.process).cmp(&(&b.range, b.process)));
    }
    whole.processes.sort_by_key(|one| one.process);
    whole.graph = dataflow.graph;
    whole
}

/// Adds to the one that is the same, or beside all.
fn add_to<T: Clone>(all: &mut Vec<T>, one: &T, same: fn(&T, &T) -> bool, add: fn(&mut T, &T)) {
    match all.iter_mut().find(|sum| same(sum, one)) {
        Some(sum) => add(sum, one),
        None => all.push(one.clone()),
    }
}

/// What comes of two that are known; else the one that is.
fn both<T: Copy>(sum: &mut Option<T>, one: &Option<T>, of: impl Fn(T, T) -> T) {
    *sum = match (*sum, *one) {
        (Some(a), Some(b)) => Some(of(a, b)),
        (a, b) => a.or(b),
    };
}

fn add<T: std::ops::Add<Output = T>>(a: T, b: T) -> T {
    a + b
}

/// The mean of two that weigh so much.
fn mean((a, weighs_a): (f64, f64), (b, weighs_b): (f64, f64)) -> f64 {
    match weighs_a + weighs_b {
        weight if weight > 0.0 => (a * weighs_a + b * weighs_b) / weight,
        _ => 0.0,
    }
}

fn add_checkpoint(sum: &mut Checkpoint, one: &Checkpoint) {
    let Checkpoint {
        // Process 0's.
        location: _,
        last_commit_at_ms: _,
        last_base_at_ms: _,
        commits: _,
        bases: _,
        seals,
        objects_written,
        bytes_written,
        bytes_per_s,
        objects_deleted,
        write_p50_ms,
        write_p99_ms,
    } = one;
    sum.seals += seals;
    both(&mut sum.objects_written, objects_written, add);
    both(&mut sum.bytes_written, bytes_written, add);
    both(&mut sum.bytes_per_s, bytes_per_s, add);
    both(&mut sum.objects_deleted, objects_deleted, add);
    both(&mut sum.write_p50_ms, write_p50_ms, f64::max);
    both(&mut sum.write_p99_ms, write_p99_ms, f64::max);
}

fn same_source(a: &Source, b: &Source) -> bool {
    a.name == b.name
}

fn add_source(sum: &mut Source, one: &Source) {
    let Source {
        name: _,
        kind: _,
        records,
        records_per_s,
        bytes,
        bytes_per_s,
        ru,
        ru_per_s,
        decode_errors,
        dead_letters,
        watermark_at_ms,
        ranges,
    } = one;
    sum.records += records;
    sum.records_per_s += records_per_s;
    sum.bytes += bytes;
    sum.bytes_per_s += bytes_per_s;
    sum.ru += ru;
    sum.ru_per_s += ru_per_s;
    sum.decode_errors += decode_errors;
    sum.dead_letters += dead_letters;
    both(&mut sum.watermark_at_ms, watermark_at_ms, u64::min);
    sum.ranges.extend_from_slice(ranges);
}

fn same_sink(a: &Sink, b: &Sink) -> bool {
    a.name == b.name
}

fn add_sink(sum: &mut Sink, one: &Sink) {
    let Sink {
        name: _,
        kind: _,
        upserts,
        deletes,
        documents_per_s,
        ignored,
        ru,
        ru_per_s,
        ru_budget_per_s,
        requests,
        requests_per_s,
        in_flight,
        throttled,
        throttled_share,
        dead_letters,
        writing_ms,
        partitions,
    } = one;
    sum.throttled_share = mean(
        (sum.throttled_share, sum.requests_per_s),
        (*throttled_share, *requests_per_s),
    );
    sum.upserts += upserts;
    sum.deletes += deletes;
    sum.documents_per_s += documents_per_s;
    sum.ignored += ignored;
    sum.ru += ru;
    sum.ru_per_s += ru_per_s;
    both(&mut sum.ru_budget_per_s, ru_budget_per_s, add);
    sum.requests += requests;
    sum.requests_per_s += requests_per_s;
    both(&mut sum.in_flight, in_flight, add);
    sum.throttled += throttled;
    sum.dead_letters += dead_letters;
    both(&mut sum.writing_ms, writing_ms, u64::max);
    for partition in partitions {
        add_to(
            &mut sum.partitions,
            partition,
            |a, b| a.partition == b.partition,
            add_partition,
        );
    }
}

fn add_partition(sum: &mut Partition, one: &Partition) {
    let Partition {
        partition: _,
        documents_per_s,
        ru_per_s,
        in_flight,
        throttled_share,
    } = one;
    sum.documents_per_s += documents_per_s;
    sum.ru_per_s += ru_per_s;
    sum.in_flight += in_flight;
    // How many requests it is of is not known.
    sum.throttled_share = sum.throttled_share.max(*throttled_share);
}

/// Operators and channels of all processes.
struct Dataflow {
    graph: Graph,
    /// Of those processes that are in it and answer.
    workers: usize,
    operators: HashMap<u64, usize>,
    channels: HashMap<Ends, usize>,
}

/// Where a channel leads from and to, and which one of those that do.
type Ends = (u64, u64, usize);

/// A channel's ends and its place among all.
fn ends(channels: &[Channel]) -> impl Iterator<Item = (Ends, usize)> {
    let mut seen: HashMap<(u64, u64), usize> = HashMap::new();
    channels.iter().enumerate().map(move |(at, channel)| {
        let next = seen.entry((channel.from, channel.to)).or_default();
        *next += 1;
        ((channel.from, channel.to, *next), at)
    })
}

impl Dataflow {
    fn new(graph: Graph, workers: usize) -> Self {
        let operators = graph.operators.iter().enumerate();
        Dataflow {
            workers,
            operators: operators.map(|(at, one)| (one.id, at)).collect(),
            channels: ends(&graph.channels).collect(),
            graph,
        }
    }

    fn add(&mut self, one: &Graph, workers: usize) {
        let weights = (self.workers as f64, workers as f64);
        for operator in &one.operators {
            match self.operators.get(&operator.id) {
                Some(at) => add_operator(&mut self.graph.operators[*at], operator, weights),
                None => {
                    let at = self.graph.operators.len();
                    self.operators.insert(operator.id, at);
                    self.graph.operators.push(operator.clone());
                }
            }
        }
        for (ends, at) in ends(&one.channels) {
            let channel = one.channels[at];
            match self.channels.get(&ends) {
                Some(sum) => add_channel(&mut self.graph.channels[*sum], &channel),
                None => {
                    self.channels.insert(ends, self.graph.channels.len());
                    self.graph.channels.push(channel);
                }
            }
        }
        self.workers += workers;
    }
}

fn add_operator(sum: &mut Operator, one: &Operator, (workers, more): (f64, f64)) {
    let Operator {
        id: _,
        name,
        scope: _,
        is_scope: _,
        source,
        sink,
        busy_share,
        busiest_share,
        records_in,
        records_in_per_s,
        frontier_lag_ms,
        frontier,
        arranged_rows,
        arranged_bytes,
        queued,
    } = one;
    // Of another dataflow: one more of them is no figure of this one.
    if sum.name != *name {
        return;
    }
    sum.source = sum.source.take().or_else(|| source.clone());
    sum.sink = sum.sink.take().or_else(|| sink.clone());
    sum.busy_share = mean((sum.busy_share, workers), (*busy_share, more));
    sum.busiest_share = sum.busiest_share.max(*busiest_share);
    sum.records_in += records_in;
    sum.records_in_per_s += records_in_per_s;
    both(&mut sum.frontier_lag_ms, frontier_lag_ms, u64::max);
    both(&mut sum.frontier, frontier, u64::min);
    both(&mut sum.arranged_rows, arranged_rows, add);
    both(&mut sum.arranged_bytes, arranged_bytes, add);
    sum.queued += queued;
}

fn add_channel(sum: &mut Channel, one: &Channel) {
    let Channel {
        from: _,
        to: _,
        records,
        records_per_s,
        exchanged,
    } = one;
    sum.records += records;
    sum.records_per_s += records_per_s;
    sum.exchanged |= exchanged;
}

#[cfg(test)]
mod tests;
