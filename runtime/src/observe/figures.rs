//! What others see: the figures of all workers of a process, put together from what each has shown last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::arrangements::{Arranged, Arrangements};
use super::gauge::Said;
use super::graph::{Edge, Graph};
use super::{Seen, Watch};
use crate::Epoch;

/// The figures of a process's operators. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Figures(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    workers: Mutex<BTreeMap<usize, Arc<Watch>>>,
}

/// What a worker has been at.
#[derive(Clone, Debug, Default)]
pub struct WorkerFigures {
    /// Counted over all processes.
    pub worker: usize,
    /// Up to when these figures are, since the worker began. It stands still while the worker is stuck.
    pub since: Duration,
    /// Running operators.
    pub busy: Duration,
    /// Waiting for work. The rest of the time went between the operators.
    pub parked: Duration,
    /// In the order of the dataflow; a scope comes before what is in it.
    pub operators: Vec<OperatorFigures>,
    /// Each ends at an operator.
    pub channels: Vec<ChannelFigures>,
}

/// An operator, or a scope, on one worker. Its number, address and name are the same on all workers.
#[derive(Clone, Debug)]
pub struct OperatorFigures {
    /// timely's number of it; channels have such numbers too, so there are gaps.
    pub id: usize,
    /// Its place among the scopes. The dataflow's own has one part.
    pub address: Arc<[usize]>,
    /// Its name.
    pub name: Arc<str>,
    /// The number of the scope that it is in; none for a dataflow itself.
    pub scope: Option<usize>,
    /// Whether there are operators in it.
    pub is_scope: bool,
    /// At work, with everything that is in it.
    pub busy: Duration,
    /// At work, without the operators in it.
    pub own: Duration,
    /// Records that it took. Of a scope: that entered it.
    pub records_in: u64,
    /// Records that were sent to it in this process, and that it has not taken yet.
    pub queued: u64,
    /// Its input frontier, if it says so, and if there still is one.
    pub frontier: Option<Epoch>,
    /// What it keeps arranged, or says that it keeps.
    pub arranged_rows: Option<u64>,
    /// The same in bytes, if it says so.
    pub arranged_bytes: Option<u64>,
    /// Rows on their way into its arrangement: their epoch is not complete.
    pub batching_rows: Option<u64>,
    /// It has nothing more to do.
    pub ended: bool,
}

/// What went from one operator to another, as one worker has seen it.
#[derive(Clone, Copy, Debug)]
pub struct ChannelFigures {
    /// timely's number of it.
    pub id: usize,
    /// The number of the operator that it comes from.
    pub from: usize,
    /// The number of the operator at which it ends.
    pub to: usize,
    /// Which input of that.
    pub to_port: usize,
    /// Records that this worker sent.
    pub sent: u64,
    /// Of these, to other workers; if there are any on some worker, records are exchanged.
    pub sent_to_others: u64,
    /// Records that this worker took.
    pub received: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Figures(Arc::new(Shared {
            on: AtomicBool::new(true),
            workers: Mutex::default(),
        }))
    }
}

impl Figures {
    /// Whether workers that start from now on are watched. They are, unless it is said otherwise.
    pub fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Release);
    }

    /// Whether workers are watched.
    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Acquire)
    }

    /// What takes in differential's log of a worker; nothing if the figures are off.
    pub fn arrangements(&self, worker: usize) -> Option<Arrangements> {
        self.is_on().then(|| Arrangements::new(self.watch(worker)))
    }

    /// The workers of this process that are watched, in their order.
    pub fn snapshot(&self) -> Vec<WorkerFigures> {
        let watches: Vec<_> = {
            let workers = self.0.workers.lock();
            let known = workers.iter();
            known
                .map(|(worker, watch)| (*worker, Arc::clone(watch)))
                .collect()
        };
        let seen = |(worker, watch): &(usize, Arc<Watch>)| (*worker, watch.seen.lock().clone());
        let all: Vec<_> = watches.iter().map(seen).collect();
        let of_worker = |((worker, watch), (_, seen)): (&(usize, Arc<Watch>), &(usize, Seen))| {
            let begun = !seen.graph.nodes.is_empty();
            begun.then(|| worker_figures(*worker, watch, seen, &all))
        };
        watches.iter().zip(&all).filter_map(of_worker).collect()
    }

    pub(super) fn watch(&self, worker: usize) -> Arc<Watch> {
        let mut workers = self.0.workers.lock();
        Arc::clone(workers.entry(worker).or_default())
    }

    pub(super) fn said(&self, worker: usize, operator: usize) -> Arc<Said> {
        let watch = self.watch(worker);
        let mut said = watch.said.lock();
        Arc::clone(said.entry(operator).or_default())
    }
}

fn worker_figures(
    worker: usize,
    watch: &Watch,
    seen: &Seen,
    all: &[(usize, Seen)],
) -> WorkerFigures {
    let Seen { graph, sums } = seen;
    let channel = |edge: &Edge| {
        let through = sums.through(edge.id);
        ChannelFigures {
            id: edge.id,
            from: graph.nodes[edge.from].id,
            to: graph.nodes[edge.to].id,
            to_port: edge.to_port,
            sent: through.sent,
            sent_to_others: through.sent_to_others,
            received: through.received,
        }
    };
    let mut operators = plain(watch, seen);
    for (channel, to) in &graph.inputs {
        operators[*to].records_in += sums.through(*channel).received;
    }
    for Edge { id, to, .. } in &graph.edges {
        let sent: u64 = all
            .iter()
            .map(|(_, from)| from.sums.sent_to(*id, worker))
            .sum();
        operators[*to].queued += sent.saturating_sub(sums.through(*id).received_here);
    }
    nest(graph, &mut operators);
    let outermost = operators.iter().filter(|one| one.scope.is_none());
    WorkerFigures {
        worker,
        since: Duration::from_nanos(sums.at_ns),
        busy: outermost.map(|one| one.busy).sum(),
        parked: Duration::from_nanos(sums.parked_ns),
        channels: graph.edges.iter().map(channel).collect(),
        operators,
    }
}

/// The operators by themselves.
fn plain(watch: &Watch, Seen { graph, sums }: &Seen) -> Vec<OperatorFigures> {
    let (said, arranged) = (watch.said.lock(), watch.arranged.lock());
    let rows = |rows: i64| u64::try_from(rows).unwrap_or(0);
    let operator = |node: &super::graph::Node| {
        let said = said.get(&node.id);
        let arranged = arranged.get(node.id).filter(|one| one.known);
        let arranged_rows = arranged.map(|Arranged { rows: all, .. }| rows(*all));
        OperatorFigures {
            id: node.id,
            address: Arc::clone(&node.address),
            name: Arc::clone(&node.name),
            scope: node.scope.map(|scope| graph.nodes[scope].id),
            is_scope: node.is_scope,
            busy: Duration::ZERO,
            own: Duration::from_nanos(sums.own(node.id)),
            records_in: 0,
            queued: 0,
            frontier: said.and_then(|said| said.frontier()),
            arranged_rows: said.and_then(|said| said.rows()).or(arranged_rows),
            arranged_bytes: said.and_then(|said| said.bytes()),
            batching_rows: arranged.map(|one| rows(one.batching)),
            ended: sums.ended.contains(&node.id),
        }
    };
    graph.nodes.iter().map(operator).collect()
}

/// What a scope is busy with is in its operators too. They come after it.
fn nest(graph: &Graph, operators: &mut [OperatorFigures]) {
    for at in (0..operators.len()).rev() {
        operators[at].busy += operators[at].own;
        if let Some(scope) = graph.nodes[at].scope {
            operators[scope].busy += operators[at].busy;
            operators[scope].queued += operators[at].queued;
        }
    }
}
