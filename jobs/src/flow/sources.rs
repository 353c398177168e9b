//! The beginnings of a job's dataflow: what is read from containers.

use differential_dataflow::{AsCollection, ExchangeData};
use serde::de::DeserializeOwned;
use tidefeed_operators::enumerator::enumerate;
use tidefeed_operators::json;
use tidefeed_operators::letters::KeepLetters;
use tidefeed_operators::portable::Elsewhere;
use tidefeed_operators::source::rows::{Change, Unsealed, changes, insertions, upserts};
use tidefeed_operators::source::{DocumentKey, source};
use tidefeed_operators::time::watermark::watermark;
use tidefeed_operators::upsert::UpsertToCollection;
use tidefeed_runtime::{Error, ErrorKind, RecordRef, Result};
use timely::dataflow::operators::vec::ToStream;
use timely::dataflow::{Scope, StreamVec};

use super::{Flow, Mode, View, differs, planned, planned_stream};
use crate::graph::source_name;
use crate::plan::Plan;

impl<'scope> Flow<'scope> {
    /// The documents of the container of `[source.name]`: one row for each, its newest version, maintained as the container
    /// changes.
    ///
    /// `T` must be totally ordered, so it holds no floating-point numbers: use integers or fixed point, which also retract
    /// exactly. Fields that `T` does not name are ignored. A document that does not decode as `T` ends the run with an
    /// error that names it, unless the source's `on_decode_error` says otherwise; then it is as if it were not there.
    ///
    /// # Errors
    /// `Config` when the job uses the source twice.
    pub fn change_feed<T: DeserializeOwned + ExchangeData>(
        &mut self,
        name: &str,
    ) -> Result<View<'scope, T>> {
        let source = self.source::<T, _, _>(name, upserts)?;
        Ok(match source {
            Sourced::Planned => planned(self.scope, &source_name(name)),
            Sourced::Tried(rows) => tried(self.scope, rows),
            Sourced::Running(upserts) => upserts.upsert_to_collection(name),
        })
    }

    /// The documents of `[source.name]`, of which none is ever written again or deleted, such as events with an id of their own: one row
    /// for each. It takes no memory, and less time than [`change_feed`](Self::change_feed), which keeps every document so that a new
    /// version can take its place.
    ///
    /// The promise is the job's. A document that is written again counts twice in this run and once in the next, whose views are then
    /// not those of the commit: it does not start, and says so.
    ///
    /// # Errors
    /// `Config` when the job uses the source twice.
    pub fn append_only_feed<T: DeserializeOwned + ExchangeData>(
        &mut self,
        name: &str,
    ) -> Result<View<'scope, T>> {
        // Each on the worker that reads it.
        let source = self.source::<T, _, _>(name, |_| insertions())?;
        Ok(match source {
            Sourced::Planned => planned(self.scope, &source_name(name)),
            Sourced::Tried(rows) => tried(self.scope, rows),
            Sourced::Running(rows) => rows.sealed(name).as_collection(),
        })
    }

    /// The changes of the container of `[source.name]` as a plain stream, each document's in order: what
    /// [`change_feed`](Self::change_feed) makes its collection from, for operators of timely.
    ///
    /// A stream has no retractions and no state: a document that is written twice is two changes, unless the service or the reader
    /// saw only the newer one. A run that resumes brings the container as of the last commit first, one change for each document
    /// at the commit's epoch, and then what was sealed after it; the sinks know what they have written already, so what is
    /// written from a stream has its effect once ([`write_stream`](Self::write_stream)).
    ///
    /// # Example
    ///
    /// Every change of an order is one more event of its customer:
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use tidefeed::prelude::*;
    /// use tidefeed::timely::dataflow::operators::vec::Map;
    ///
    /// # #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    /// # struct Order { id: String, customer: String, version: u64 }
    /// #[derive(Clone, Serialize)]
    /// struct Event {
    ///     id: String,
    ///     events: u64,
    /// }
    ///
    /// fn views(flow: &mut Flow<'_>) -> Result<()> {
    ///     let changes = flow.change_stream::<Order>("orders")?;
    ///     let orders = changes.flat_map(|change| change.value);
    ///     let events = orders.map(|order| (order.version, Event { id: order.customer, events: 1 }));
    ///     let count = PatchSpec::new().increment("/events").create_missing();
    ///     flow.write_stream("customers", Strategy::Patch(count), events)
    /// }
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `Config` when the job uses the source twice.
    pub fn change_stream<T: DeserializeOwned + ExchangeData>(
        &mut self,
        name: &str,
    ) -> Result<StreamVec<'scope, u64, Change<T>>> {
        // Each on the worker that reads it.
        let source = self.source::<T, _, _>(name, |_| changes())?;
        Ok(match source {
            Sourced::Planned => planned_stream(self.scope, &source_name(name)),
            Sourced::Tried(rows) => {
                let changes = rows.into_iter().enumerate().map(|(number, row)| Change {
                    key: DocumentKey::from(number.to_string().as_bytes()),
                    value: Some(row),
                });
                changes.to_stream(self.scope)
            }
            Sourced::Running(changes) => changes.sealed(name),
        })
    }

    /// What is read from a source, in the form that is made for the workers of other processes.
    fn source<T, U, F>(
        &mut self,
        name: &str,
        form: impl FnOnce(Option<Elsewhere>) -> F,
    ) -> Result<Sourced<'scope, T, U>>
    where
        T: DeserializeOwned + ExchangeData,
        U: Clone + 'static,
        F: Fn(RecordRef<'_>, Option<T>, u64) -> Option<U> + 'static,
    {
        let decode = |body: &[u8]| {
            json::from_slice::<T>(body).map_err(|error| {
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
                Ok(Sourced::Planned)
            }
            Mode::Trial(trial) => {
                let (worker, peers) = (self.scope.index(), self.scope.peers());
                Ok(Sourced::Tried(trial.documents(name, worker, peers)))
            }
            Mode::Run {
                ticks,
                parts,
                reports,
                watermarks,
                ..
            } => {
                let worker = parts.sources.remove(name);
                let worker = worker.ok_or_else(|| differs("source", name))?;
                let form = form(worker.elsewhere);
                let source = source(ticks.clone(), worker.parts, decode, form);
                enumerate(source.released, worker.readers);
                if let Some(parts) = worker.watermark {
                    let unsealed = source.rows.unsealed.clone();
                    let moves = watermark(source.marks, unsealed, parts);
                    watermarks.insert(name.to_owned(), moves);
                }
                reports.push(source.reports);
                reports.extend(
                    worker
                        .letters
                        .map(|parts| source.undecodable.keep_letters(parts)),
                );
                Ok(Sourced::Running(source.rows))
            }
        }
    }
}

/// Rows to begin with, while the job's code is tried.
fn tried<'scope, T: Clone + 'static>(scope: Scope<'scope, u64>, rows: Vec<T>) -> View<'scope, T> {
    let rows = rows.into_iter().map(|row| (row, 0u64, 1isize));
    rows.to_stream(scope).as_collection()
}

/// What the job's code gets of a source.
enum Sourced<'scope, T, U> {
    /// The job is planned: there is nothing to read.
    Planned,
    /// The job's code is tried: documents to begin with.
    Tried(Vec<T>),
    Running(Unsealed<'scope, U>),
}

/// A type's name without its module path.
fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}
