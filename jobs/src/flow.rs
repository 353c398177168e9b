//! What a job's code is given to build its dataflow with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidefeed_operators::document::{DocumentEncoder, EncodeDocuments};
use tidefeed_operators::sink::{SinkParts, UpsertDocuments};
use tidefeed_operators::source::{SourceParts, source};
use tidefeed_operators::upsert::UpsertToCollection;
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::{Error, ErrorKind, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::{Operator, OutputBuilderSession, operator};
use timely::dataflow::operators::vec::ToStream;
use timely::dataflow::{Scope, StreamVec};

use crate::graph::{sink_name, source_name, table_name};
use crate::plan::{Plan, table_hash};

/// A collection of a job: rows with how often each occurs, as they change from epoch to epoch.
///
/// This is differential dataflow's own collection: every operator of that crate works on it.
pub type View<'scope, R> = VecCollection<'scope, u64, R, isize>;

/// What one worker's part of a running dataflow is made from.
pub(crate) struct WorkerParts {
    pub(crate) sources: BTreeMap<String, SourceParts>,
    pub(crate) sinks: BTreeMap<String, (SinkParts, DocumentEncoder)>,
}

enum Mode<'scope> {
    /// The job's code is run once to see what it uses.
    Plan(Rc<RefCell<Plan>>),
    /// The dataflow is built to run.
    Run {
        ticks: StreamVec<'scope, u64, u64>,
        parts: WorkerParts,
        reports: Vec<StreamVec<'scope, u64, Report>>,
    },
}

/// Builds a job's dataflow: change feeds in, differential operators freely, views out.
///
/// The job's code runs once on every worker, and once before to see what it uses, so it must do the same each time.
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

    pub(crate) fn run(
        scope: Scope<'scope, u64>,
        ticks: StreamVec<'scope, u64, u64>,
        parts: WorkerParts,
    ) -> Self {
        Flow {
            scope,
            mode: Mode::Run {
                ticks,
                parts,
                reports: Vec::new(),
            },
        }
    }

    /// The reports of every source and sink.
    ///
    /// # Errors
    /// `Internal` when something that was planned was not used: its part of every epoch would be awaited for ever.
    pub(crate) fn finish(self) -> Result<Vec<StreamVec<'scope, u64, Report>>> {
        let Mode::Run { parts, reports, .. } = self.mode else {
            return Ok(Vec::new());
        };
        match parts.sources.keys().chain(parts.sinks.keys()).next() {
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

    /// The documents of the container of `[source.name]`: one row for each, its newest version, maintained as the container
    /// changes.
    ///
    /// `T` must be totally ordered, so it holds no floating-point numbers: use integers or fixed point, which also retract
    /// exactly. Fields that `T` does not name are ignored. A document that does not decode as `T` ends the run with an
    /// error that names it.
    ///
    /// # Errors
    /// `Config` when the job uses the source twice.
    pub fn change_feed<T: DeserializeOwned + ExchangeData>(
        &mut self,
        name: &str,
    ) -> Result<View<'scope, T>> {
        let decode = |body: &Bytes| {
            serde_json::from_slice::<T>(body).map_err(|error| {
                let what = format!("it is no {}", short_type_name::<T>());
                Error::new(ErrorKind::Data, what).with_source(error)
            })
        };
        match &mut self.mode {
            Mode::Plan(plan) => {
                Plan::note(
                    "source",
                    &mut plan.borrow_mut().sources,
                    name,
                    std::any::type_name::<T>(),
                )?;
                Ok(planned(self.scope, &source_name(name)))
            }
            Mode::Run {
                ticks,
                parts,
                reports,
            } => {
                let parts = parts
                    .sources
                    .remove(name)
                    .ok_or_else(|| differs("source", name))?;
                let (upserts, tokens) = source(ticks.clone(), parts, decode);
                reports.push(tokens);
                Ok(upserts.upsert_to_collection(name))
            }
        }
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

    /// Keeps the container of `[sink.name]` equal to `rows`: a new or changed row is upserted, a removed one deleted, once per
    /// epoch or less.
    ///
    /// Each row is a document: a JSON object with a string `id` and the fields of the container's partition key. Two rows
    /// with the same partition key and id end the run with an error that names them. A row must have the same JSON form each
    /// time it is written: keep maps in a `BTreeMap`, not in a `HashMap`.
    ///
    /// # Errors
    /// `Config` when the job uses the sink twice.
    pub fn upsert<R: Serialize + Clone + 'static>(
        &mut self,
        name: &str,
        rows: View<'scope, R>,
    ) -> Result<()> {
        match &mut self.mode {
            Mode::Plan(plan) => {
                rows.inner
                    .sink(Pipeline, &sink_name(name), |(_input, _frontier)| {});
                Plan::note(
                    "sink",
                    &mut plan.borrow_mut().sinks,
                    name,
                    std::any::type_name::<R>(),
                )
            }
            Mode::Run { parts, reports, .. } => {
                let (parts, encoder) = parts
                    .sinks
                    .remove(name)
                    .ok_or_else(|| differs("sink", name))?;
                let ledger = parts.ledger.clone();
                reports.push(
                    rows.inner
                        .encode_documents(encoder, ledger)
                        .upsert_documents(parts),
                );
                Ok(())
            }
        }
    }
}

/// Stands for a source or a table while the job is planned: it brings nothing, and has a name to be known by in the graph.
fn planned<'scope, R: Clone + 'static>(scope: Scope<'scope, u64>, name: &str) -> View<'scope, R> {
    type Rows<R> = CapacityContainerBuilder<Vec<(R, u64, isize)>>;
    operator::source(scope, name, |_cap, _info| {
        |_output: &mut OutputBuilderSession<'_, u64, Rows<R>>| {}
    })
    .as_collection()
}

/// The job's code used something that it did not use when it was planned.
fn differs(kind: &str, name: &str) -> Error {
    Error::internal(format!(
        "the job uses {kind} {name} on a worker, but did not when it was planned: build the same dataflow every time"
    ))
}

/// A type's name without its module path.
fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}
