//! What a job's code is given to build its dataflow with.

mod sources;
mod time;
mod watermarks;
mod writes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidefeed_operators::document::DocumentEncoder;
use tidefeed_operators::enumerator::ReaderParts;
use tidefeed_operators::letters::LetterParts;
use tidefeed_operators::portable::Elsewhere;
use tidefeed_operators::sink::SinkParts;
use tidefeed_operators::source::SourceParts;
use tidefeed_operators::stateful::{Stateful, StatefulParts};
use tidefeed_operators::time::watermark::WatermarkParts;
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::{Error, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::{Operator, OutputBuilderSession, operator};
use timely::dataflow::operators::vec::ToStream;
use timely::dataflow::{Scope, StreamVec};

use crate::graph::table_name;
use crate::plan::{Plan, table_hash};
use crate::trial::Trial;

pub(crate) use time::TimeParts;
pub use watermarks::{Finals, Watermark};

/// A collection of a job: rows with how often each occurs, as they change from epoch to epoch.
///
/// This is differential dataflow's own collection: every operator of that crate works on it.
pub type View<'scope, R> = VecCollection<'scope, u64, R, isize>;

/// What one worker's part of a running dataflow is made from.
pub(crate) struct WorkerParts {
    pub(crate) sources: BTreeMap<String, SourceWorker>,
    pub(crate) sinks: BTreeMap<String, SinkWorker>,
    pub(crate) states: BTreeMap<String, StatefulParts>,
    /// Set when the job has temporal filters.
    pub(crate) time: Option<TimeParts>,
}

/// What one worker's part of a source is made from.
pub(crate) struct SourceWorker {
    pub(crate) parts: SourceParts,
    pub(crate) readers: ReaderParts,
    /// The workers of other processes, if there are any.
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Set when its event time is read.
    pub(crate) watermark: Option<WatermarkParts>,
    /// Set when documents that do not decode are dead letters.
    pub(crate) letters: Option<LetterParts>,
}

/// What one worker's part of a sink is made from.
pub(crate) struct SinkWorker {
    pub(crate) parts: SinkParts,
    pub(crate) encoder: DocumentEncoder,
    /// Set when rows that share a key are dead letters.
    pub(crate) surplus: Option<LetterParts>,
}

enum Mode<'scope> {
    /// The job's code is run once to see what it uses.
    Plan(Rc<RefCell<Plan>>),
    /// The job's code is run over a few documents, to see whether what it exchanges can travel.
    Trial(Trial),
    /// The dataflow is built to run.
    Run {
        ticks: StreamVec<'scope, u64, u64>,
        parts: Box<WorkerParts>,
        reports: Vec<StreamVec<'scope, u64, Report>>,
        /// Built for the first temporal filter.
        epochs: Option<StreamVec<'scope, u64, u64>>,
        /// Of each source whose event time is read.
        watermarks: BTreeMap<String, StreamVec<'scope, u64, u64>>,
    },
}

/// Builds a job's dataflow: change feeds in, differential operators freely, views out.
///
/// The job's code runs once on every worker, and before that to see what it uses and whether what it exchanges can travel, so it must do
/// the same each time.
pub struct Flow<'scope> {
    scope: Scope<'scope, u64>,
    mode: Mode<'scope>,
}

impl<'scope> Flow<'scope> {
    pub(crate) fn plan(scope: Scope<'scope, u64>, plan: Rc<RefCell<Plan>>) -> Self {
        Flow {
            scope,
            mode: Mode::Plan(plan),
        }
    }

    pub(crate) fn trial(scope: Scope<'scope, u64>, trial: Trial) -> Self {
        Flow {
            scope,
            mode: Mode::Trial(trial),
        }
    }

    pub(crate) fn run(
        scope: Scope<'scope, u64>,
        ticks: StreamVec<'scope, u64, u64>,
        parts: WorkerParts,
    ) -> Self {
        Flow {
            scope,
            mode: Mode::Run {
                ticks,
                parts: Box::new(parts),
                reports: Vec::new(),
                epochs: None,
                watermarks: BTreeMap::new(),
            },
        }
    }

    /// The reports of every source, sink and keyed state.
    ///
    /// # Errors
    /// `Internal` when something that was planned was not used: its part of every epoch would be awaited for ever.
    pub(crate) fn finish(self) -> Result<Vec<StreamVec<'scope, u64, Report>>> {
        let Mode::Run { parts, reports, .. } = self.mode else {
            return Ok(Vec::new());
        };
        let WorkerParts {
            sources,
            sinks,
            states,
            time,
        } = &*parts;
        let unused_filter = time.as_ref().and_then(TimeParts::unused);
        match sources
            .keys()
            .chain(sinks.keys())
            .chain(states.keys())
            .map(String::as_str)
            .chain(unused_filter)
            .next()
        {
            None => Ok(reports),
            Some(name) => Err(Error::internal(format!(
                "the job used {name} when it was planned, but does not on a worker: build the same dataflow every time"
            ))),
        }
    }

    /// The dataflow's scope, for operators that need it.
    pub fn scope(&self) -> Scope<'scope, u64> {
        self.scope
    }

    /// A collection that never changes, to join with. Its rows are part of what a checkpoint is checked against.
    ///
    /// # Errors
    /// `Config` when the job uses the name twice, `Data` when a row has no JSON form.
    pub fn table<T: Serialize + Clone + 'static>(
        &mut self,
        name: &str,
        rows: &[T],
    ) -> Result<View<'scope, T>> {
        if let Mode::Plan(plan) = &self.mode {
            let hash = table_hash(name, rows)?;
            let operator = table_name(name, &hash);
            Plan::note("table", &mut plan.borrow_mut().tables, name, hash)?;
            return Ok(planned(self.scope, &operator));
        }
        // One worker brings the rows; whoever needs them elsewhere exchanges them.
        let rows = if self.scope.index() == 0 {
            rows.to_vec()
        } else {
            Vec::new()
        };
        let at_start: Vec<_> = rows.into_iter().map(|row| (row, 0u64, 1isize)).collect();
        Ok(at_start.to_stream(self.scope).as_collection())
    }

    /// Steps a state for each key, and keeps it as safe as the views: for logic that depends on history and not only on what
    /// the collection holds now, such as the first time that something happened.
    ///
    /// For each key whose rows changed in an epoch, `step` runs once, epoch by epoch, with the key, its state (`None` before
    /// the first time, and what it leaves is kept; `None` forgets the key), and the epoch's changes: each value that came or
    /// went, with how often, sorted. What it returns is the key's output from then on; `None` leaves no row. The result is the
    /// collection of outputs.
    ///
    /// - A step sees the *net change of an epoch*, and how changes are grouped into epochs depends on when they are read: a
    ///   row that comes and goes within one epoch is not seen. So a step must come to the same whether changes come one by
    ///   one or together. After a crash, epochs that were sealed are stepped again with the same grouping.
    /// - `step` must be deterministic: no clock, no randomness, no state of its own.
    /// - State and output are kept as JSON with every commit. A newer version of the job reads them back, so give new fields
    ///   a serde default. Keys are kept and compared as JSON: equal keys must have equal JSON and come back from it as they
    ///   were, so maps in a key must be a `BTreeMap` with string keys.
    /// - A `name` that the checkpoint does not know begins with no state, and sees the collection as of the last commit once,
    ///   as rows that come. A known one resumes where it was; if its input, rebuilt, is not what it was, because the code
    ///   above it changed, the job does not start. Give the state another name then.
    ///
    /// # Example
    ///
    /// Each customer's first order above a limit, which stays when the order is cancelled:
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tidefeed::prelude::*;
    ///
    /// # #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    /// # struct Order { id: String, customer: String, cents: i64 }
    /// #[derive(Clone, Serialize)]
    /// struct FirstLarge {
    ///     id: String,
    ///     order: String,
    /// }
    ///
    /// fn views(flow: &mut Flow<'_>) -> Result<()> {
    ///     let orders = flow.change_feed::<Order>("orders")?;
    ///     let large = orders.filter(|order| order.cents > 100_000);
    ///     let by_customer = large.map(|order| (order.customer, order.id));
    ///     let first = flow.stateful("first_large", by_customer, |_customer, first, changes| {
    ///         let came = changes.into_iter().find(|(_order, diff)| *diff > 0);
    ///         *first = first.take().or(came.map(|(order, _diff)| order)); // the state
    ///         first.clone() // the output
    ///     })?;
    ///     flow.upsert("first_large", first.map(|(id, order)| FirstLarge { id, order }))
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `Config` when the job uses the name twice.
    pub fn stateful<K, V, S, O>(
        &mut self,
        name: &str,
        rows: View<'scope, (K, V)>,
        step: impl Fn(&K, &mut Option<S>, Vec<(V, isize)>) -> Option<O> + 'static,
    ) -> Result<View<'scope, (K, O)>>
    where
        K: ExchangeData,
        V: ExchangeData,
        S: Serialize + DeserializeOwned + 'static,
        O: ExchangeData,
    {
        match &mut self.mode {
            Mode::Plan(plan) => {
                let types = std::any::type_name::<(K, V, S, O)>();
                Plan::note("state", &mut plan.borrow_mut().states, name, types)?;
                // Brings nothing, and shows in the dataflow that the output depends on the input.
                type Rows<R> = CapacityContainerBuilder<Vec<(R, u64, isize)>>;
                let operator = format!("Stateful: {name}");
                let planned = rows.inner.unary::<Rows<(K, O)>, _, _, _>(
                    Pipeline,
                    &operator,
                    |_cap, _info| |_input, _output| {},
                );
                Ok(planned.as_collection())
            }
            Mode::Trial(trial) => Ok(trial.stateful(rows, step)),
            Mode::Run { parts, reports, .. } => {
                let parts = parts
                    .states
                    .remove(name)
                    .ok_or_else(|| differs("state", name))?;
                let (outputs, written) = rows.stateful(parts, step);
                reports.push(written);
                Ok(outputs)
            }
        }
    }
}

/// Stands for a source or a table while the job is planned: it brings nothing, and has a name to be known by in the graph.
fn planned<'scope, R: Clone + 'static>(scope: Scope<'scope, u64>, name: &str) -> View<'scope, R> {
    planned_stream::<(R, u64, isize)>(scope, name).as_collection()
}

/// The same for a plain stream.
fn planned_stream<'scope, R: Clone + 'static>(
    scope: Scope<'scope, u64>,
    name: &str,
) -> StreamVec<'scope, u64, R> {
    operator::source(scope, name, |_cap, _info| {
        |_output: &mut OutputBuilderSession<'_, u64, CapacityContainerBuilder<Vec<R>>>| {}
    })
}

/// The job's code used something that it did not use when it was planned.
fn differs(kind: &str, name: &str) -> Error {
    Error::internal(format!(
        "the job uses {kind} {name} on a worker, but did not when it was planned: build the same dataflow every time"
    ))
}
