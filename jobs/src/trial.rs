//! Whether what a job exchanges can travel between processes: its code, tried over a few of its documents.
//!
//! timely encodes what it sends to another process with bincode 1.3, which is not self-describing: a type with serde's `flatten`,
//! `untagged`, `tag` or `skip_serializing_if` does not come back from it, or comes back as something else. No bound shows that, and
//! most exchanges are within differential's operators, whose types only the job's code knows. So it is tried:
//!
//! 1. A few documents are read from the beginning of each source.
//! 2. The job's code runs over them twice, within this process: on one worker, where nothing is encoded, and on several,
//!    between which everything is, as between processes. Nothing is written: sinks add up hashes of their rows, and keyed
//!    state begins empty and is not kept.
//! 3. If the first run comes to its end and the second does not, or to other views, something cannot travel. The operator that met it
//!    and the types of its channels are named.
//! 4. Whatever else goes wrong, as a feed that does not answer or code that panics in both runs, says nothing here. The run will
//!    meet it.
//!
//! A cluster is tried before it takes the checkpoint over, by process 0, which tells the others; `JOB check` says what came out. It costs a
//! page of each source, which is about one request unit a document. So a job that starts as one process is not tried: nothing that
//! it exchanges is encoded.
//!
//! # Limits
//!
//! - What none of those documents reaches is not tried: an empty source, a join without matches, results of final windows, a row
//!   that happens to stay with its worker. A cluster ends when it meets such a type, and says what to leave out.
//! - A job whose views come out in another way each time, which it must not, is taken for one whose types do not travel.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use bytes::Bytes;
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, ExchangeData};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_runtime::bridge::panic_message;
use tidefeed_runtime::{Epoch, Error, ErrorKind, Ledger, Result, run_encoded_workers, run_workers};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::worker::Worker;
use xxhash_rust::xxh3::xxh3_64;

use crate::build::Build;
use crate::config::{JobConfig, Place};
use crate::flow::{Flow, View};
use crate::job::Feeds;

mod met;

use met::Met;

/// Documents of a source that are tried, and how many bytes of them: one page has that, and more of the same shape find nothing new.
const DOCUMENTS: usize = 64;
const BYTES: usize = 1 << 20;
/// How long all sources together may take to bring them, and a run over them. A start does not wait longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Workers between which everything is encoded: of rows with one key, all but those of one worker travel.
const WORKERS: usize = 4;
/// A worker that sleeps longer would not see that another has failed.
const PARK: Duration = Duration::from_millis(5);

/// Bodies of documents by source.
pub(crate) type Documents = BTreeMap<String, Vec<Bytes>>;

/// For each sink the sum of the hashes of its rows.
type Views = BTreeMap<String, u64>;

/// Reads a few documents of each source. One that does not answer has none.
pub(crate) async fn sample(feeds: &Feeds, config: &JobConfig) -> Documents {
    let mut documents = Documents::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for (name, feed) in feeds {
        // What is posted is there once, for the run.
        let section = config.source.get(name);
        if section.is_none_or(|source| matches!(source.place(), Place::Posts)) {
            continue;
        }
        match tokio::time::timeout_at(deadline, first_of(&**feed)).await {
            Ok(Ok(bodies)) => {
                documents.insert(name.clone(), bodies);
            }
            Ok(Err(error)) => {
                tracing::debug!(source = %name, error = %error.report(), "nothing to try");
            }
            Err(_) => tracing::debug!(source = %name, "nothing to try within {PATIENCE:?}"),
        }
    }
    documents
}

async fn first_of(feed: &dyn ChangeFeed) -> Result<Vec<Bytes>> {
    let mut bodies: Vec<Bytes> = Vec::new();
    let mut room = BYTES;
    for range in feed.ranges().await? {
        let mut pages = feed.open(&range, Start::Beginning).await?;
        let page = pages.next_page().await?;
        for body in page.records.into_iter().filter_map(|record| record.body) {
            let Some(left) = room.checked_sub(body.len()) else {
                return Ok(bodies);
            };
            room = left;
            bodies.push(body);
            if bodies.len() == DOCUMENTS {
                return Ok(bodies);
            }
        }
    }
    Ok(bodies)
}

/// Tries the job's code over documents.
///
/// # Errors
/// `Config` when something that it exchanges does not come to another process as it was.
pub(crate) fn try_exchange(build: &Build, documents: Documents) -> Result<()> {
    if documents.values().all(Vec::is_empty) {
        return Ok(());
    }
    let documents = Arc::new(documents);
    let plain = match run(build, &documents, false) {
        Ok(views) => views,
        Err(error) => {
            tracing::debug!(error = %error.report(), "the job's code was not tried");
            return Ok(());
        }
    };
    let what = match run(build, &documents, true) {
        Ok(views) if views == plain => return Ok(()),
        Ok(views) => {
            let differs = |(sink, sum): &(&String, &u64)| views.get(*sink) != Some(sum);
            let sink = plain.iter().find(differs).map_or("", |(sink, _)| sink);
            format!("the rows of sink {sink} are others when they have")
        }
        Err(error) if error.kind() == ErrorKind::Unreachable => {
            tracing::debug!("the job's code was not tried to the end");
            return Ok(());
        }
        Err(error) => error.report(),
    };
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "what the job exchanges cannot travel between processes: {what}; map it to a type without serde's flatten, untagged, \
             tag, skip and skip_serializing_if before it is joined, counted or reduced, or run one process"
        ),
    ))
}

/// One run over the documents, to its end.
fn run(build: &Build, documents: &Arc<Documents>, encoded: bool) -> Result<Views> {
    say_nothing_of_panics_here();
    let views = Arc::new(Mutex::new(Views::new()));
    let ledger = Ledger::new(Epoch(0), Epoch(0));
    let (build, trial) = (
        Arc::clone(build),
        Trial {
            documents: Arc::clone(documents),
            views: Arc::clone(&views),
        },
    );
    let ended = ledger.clone();
    let attempt = move |worker: &mut Worker| attempt(worker, &build, &trial, &ended);
    match encoded {
        true => run_encoded_workers(WORKERS, &ledger, attempt)?,
        false => run_workers(1, None, &ledger, attempt)?,
    }
    let views = std::mem::take(&mut *views.lock());
    Ok(views)
}

fn attempt(worker: &mut Worker, build: &Build, trial: &Trial, ledger: &Ledger) -> Result<()> {
    TRIED.set(true);
    let met = Met::record(worker);
    let run = catch_unwind(AssertUnwindSafe(|| {
        worker.dataflow::<u64, _, _>(|scope| build(&mut Flow::trial(scope, trial.clone())))?;
        let deadline = Instant::now() + PATIENCE;
        while worker.has_dataflows() && !ledger.stopped() {
            if Instant::now() > deadline {
                let what = "the code takes too long";
                return Err(Error::new(ErrorKind::Unreachable, what));
            }
            worker.step_or_park(Some(PARK));
        }
        Ok(())
    }));
    run.unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(Error::internal(met.describe(worker, &message)))
    })
}

thread_local! {
    static TRIED: Cell<bool> = const { Cell::new(false) };
}

/// A panic on a worker of a trial is an answer. Other threads say theirs as before.
fn say_nothing_of_panics_here() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !TRIED.get() {
                usual(info);
            }
        }));
    });
}

/// What a worker's dataflow is built from when the job's code is tried.
#[derive(Clone)]
pub(crate) struct Trial {
    documents: Arc<Documents>,
    views: Arc<Mutex<Views>>,
}

impl Trial {
    /// The documents of a source that this worker begins with.
    pub(crate) fn documents<T: DeserializeOwned>(
        &self,
        source: &str,
        worker: usize,
        peers: usize,
    ) -> Vec<T> {
        let bodies = self.documents.get(source).into_iter().flatten();
        let mine = bodies.skip(worker).step_by(peers);
        // One that is none is for the run to refuse.
        mine.filter_map(|body| serde_json::from_slice(body).ok())
            .collect()
    }

    /// Adds a sink's rows up.
    pub(crate) fn upsert<R: Serialize + Clone + 'static>(&self, sink: &str, rows: View<'_, R>) {
        let (sink, views) = (sink.to_owned(), Arc::clone(&self.views));
        rows.inner.sink(Pipeline, "Try", move |(input, _frontier)| {
            input.for_each(|_cap, rows| {
                let mut views = views.lock();
                let sum = views.entry(sink.clone()).or_default();
                for (row, _time, times) in rows.drain(..) {
                    // A row without a JSON form is for the run to refuse.
                    let json = serde_json::to_vec(&row).unwrap_or_default();
                    *sum = sum.wrapping_add(xxh3_64(&json).wrapping_mul(times as u64));
                }
            });
        });
    }

    /// Takes what a stream's sink gets. What it makes of it depends on the order, which may differ.
    pub(crate) fn write<D: Clone + 'static>(&self, records: StreamVec<'_, u64, D>) {
        records.sink(Pipeline, "Try", |(input, _frontier)| {
            input.for_each(|_cap, _records| {});
        });
    }

    /// Steps keyed state once for each key.
    pub(crate) fn stateful<'scope, K, V, S, O>(
        &self,
        rows: View<'scope, (K, V)>,
        step: impl Fn(&K, &mut Option<S>, Vec<(V, isize)>) -> Option<O> + 'static,
    ) -> View<'scope, (K, O)>
    where
        K: ExchangeData,
        V: ExchangeData,
        S: 'static,
        O: ExchangeData,
    {
        type Rows<R> = CapacityContainerBuilder<Vec<(R, u64, isize)>>;
        let by_key = Exchange::new(|((key, _), ..): &((K, V), u64, isize)| {
            xxh3_64(&serde_json::to_vec(key).unwrap_or_default())
        });
        let stepped =
            rows.inner
                .unary_frontier::<Rows<(K, O)>, _, _, _>(by_key, "Try", |_cap, _info| {
                    let mut keys: BTreeMap<K, Vec<(V, isize)>> = BTreeMap::new();
                    let mut first_cap = None;
                    move |(input, frontier), output| {
                        input.for_each(|cap, rows| {
                            first_cap.get_or_insert_with(|| cap.retain(0));
                            for ((key, value), _time, times) in rows.drain(..) {
                                keys.entry(key).or_default().push((value, times));
                            }
                        });
                        // All rows are there; the capability goes with the last output.
                        if frontier.frontier().is_empty()
                            && let Some(cap) = first_cap.take()
                        {
                            let mut session = output.session(&cap);
                            for (key, mut changes) in std::mem::take(&mut keys) {
                                consolidate(&mut changes);
                                if let Some(row) = step(&key, &mut None, changes) {
                                    session.give(((key, row), *cap.time(), 1));
                                }
                            }
                        }
                    }
                });
        stepped.as_collection()
    }
}

#[cfg(test)]
mod tests;
