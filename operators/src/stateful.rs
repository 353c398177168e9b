//! The stateful operator: for each key, state and input become new state and an output, and the state is as safe as the views.
//!
//! ```text
//!   (key, value) --by key--> stateful --(key, output)--> the job --> sinks --+
//!                              | |  ^                                        v
//!                      changes | |  +--- written          Report::Seal --> commit
//!                              v +--------------------------^
//!                            state writer --> store
//! ```
//!
//! Numbered rules, per worker and state. C is the epoch of the commit that the run resumes from, 0 without one.
//!
//! 1. Updates wait until the input frontier has passed their epoch. Then the step runs once for each key with a net change, with
//!    that change sorted, and epochs in order: so it is the same for any number of workers and any order of arrival.
//! 2. The rows go downstream at once. The epoch itself is held on the reports until what changed is durable (I4), and only by
//!    workers that changed something. Then the seal is reported at that epoch, once per object (`states.rs`).
//! 3. State that the commit knows is loaded as of C: its outputs are emitted at C, where sinks only rebuild their hashes, and
//!    the input through C, which is in the state already, is only compared with the commit (I8). No frontier passes C before
//!    all is loaded. Epochs beyond C are computed anew, from the sealed inputs.
//! 4. State that the commit does not know sees the collection as of C once, as inserts, in the epoch C + 1. Not in C: what it
//!    becomes is a change to whoever is downstream, and its objects could not be taken into the commit of C any more.
//!    If the checkpoint still holds records of a state of that name which had ended, they are removed in the same epoch.
//! 5. With a watermark, an epoch is complete when that has passed it as well. Where it moves, the keys that asked for it are stepped,
//!    also without a change. The epochs in which it moves are sealed, and it comes again as it was, so this is the same again too.
//!    State that the commit does not know has seen no watermark: it moves in the first epoch, from 0.
//! 6. A key goes to a worker by a hash of its JSON, and so do the records that are loaded, whatever the number of workers was.
//!
//! Limits: the state is in memory, with each key twice (as a value and as JSON). All keys that changed in an epoch are stepped
//! in one activation. An input that is rebuilt differently, because the code above the operator changed, ends the start.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidefeed_runtime::bridge::Inbox;
use tidefeed_runtime::checkpoint::SealPart;
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::loader::Loaded;
use tidefeed_runtime::states::{StateSender, Written, state_source};
use tidefeed_runtime::{Epoch, Error, ErrorKind, Ledger, Result};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator, OutputBuilder};
use xxhash_rust::xxh3::xxh3_64;

use crate::keyed::{KeyBytes, KeyedState, Moment, Outcome, Stepped, Updates, untimed};

/// What a stateful operator works with, on one worker.
pub struct StatefulParts {
    /// The name of the state.
    pub name: String,
    /// What the checkpoint holds of it, of this worker's keys.
    pub load: Inbox<Loaded>,
    /// The epoch of the commit that the run resumes from; 0 on a fresh start.
    pub resumed: Epoch,
    /// Whether that commit knows the state.
    pub known: bool,
    /// Where changes go to be written.
    pub writer: StateSender,
    /// Where the writer answers.
    pub written: Inbox<Written>,
    /// The process's ledger.
    pub ledger: Ledger,
}

/// Each key's newest output.
pub type Outputs<'scope, K, O> = VecCollection<'scope, u64, (K, O), isize>;

/// Steps keyed state.
pub trait Stateful<'scope, K, V> {
    /// The collection of each key's newest output, and reports for the committer, whose frontier passes an epoch when the state
    /// of the epoch is durable.
    ///
    /// See the module for the rules. `step` must be deterministic. A panic in it ends the run.
    fn stateful<S, O, F>(
        self,
        parts: StatefulParts,
        step: F,
    ) -> (Outputs<'scope, K, O>, StreamVec<'scope, u64, Report>)
    where
        S: Serialize + DeserializeOwned + 'static,
        O: ExchangeData,
        F: Fn(&K, &mut Option<S>, Vec<(V, isize)>) -> Option<O> + 'static;

    /// The same where the step also knows a watermark, and can ask to be woken up by it. It is given the key, its state, its output so
    /// far, the changes, and where the watermark was and is. `watermark` has each move on every worker
    /// ([`watermark`](crate::time::watermark::watermark)).
    fn stateful_by<S, O, F>(
        self,
        parts: StatefulParts,
        watermark: StreamVec<'scope, u64, u64>,
        step: F,
    ) -> (Outputs<'scope, K, O>, StreamVec<'scope, u64, Report>)
    where
        S: Serialize + DeserializeOwned + 'static,
        O: ExchangeData,
        F: Fn(&K, &mut Option<S>, Option<&O>, Vec<(V, isize)>, Moment) -> Stepped<O> + 'static;
}

impl<'scope, K: ExchangeData, V: ExchangeData> Stateful<'scope, K, V>
    for VecCollection<'scope, u64, (K, V), isize>
{
    fn stateful<S, O, F>(
        self,
        parts: StatefulParts,
        step: F,
    ) -> (Outputs<'scope, K, O>, StreamVec<'scope, u64, Report>)
    where
        S: Serialize + DeserializeOwned + 'static,
        O: ExchangeData,
        F: Fn(&K, &mut Option<S>, Vec<(V, isize)>) -> Option<O> + 'static,
    {
        build(self, parts, None, untimed(step))
    }

    fn stateful_by<S, O, F>(
        self,
        parts: StatefulParts,
        watermark: StreamVec<'scope, u64, u64>,
        step: F,
    ) -> (Outputs<'scope, K, O>, StreamVec<'scope, u64, Report>)
    where
        S: Serialize + DeserializeOwned + 'static,
        O: ExchangeData,
        F: Fn(&K, &mut Option<S>, Option<&O>, Vec<(V, isize)>, Moment) -> Stepped<O> + 'static,
    {
        build(self, parts, Some(watermark), step)
    }
}

fn build<'scope, K, V, S, O, F>(
    rows: VecCollection<'scope, u64, (K, V), isize>,
    parts: StatefulParts,
    watermark: Option<StreamVec<'scope, u64, u64>>,
    step: F,
) -> (Outputs<'scope, K, O>, StreamVec<'scope, u64, Report>)
where
    K: ExchangeData,
    V: ExchangeData,
    S: Serialize + DeserializeOwned + 'static,
    O: ExchangeData,
    F: Fn(&K, &mut Option<S>, Option<&O>, Vec<(V, isize)>, Moment) -> Stepped<O> + 'static,
{
    let scope = rows.inner.scope();
    let encoded = encode_keys(rows.inner, &parts);
    let mut builder = OperatorBuilder::new(format!("Stateful: {}", parts.name), scope);
    let by_key = Exchange::new(|(key, ..): &Update<V>| route(key));
    let mut input = builder.new_input(encoded, by_key);
    let mut watermark = watermark.map(|stream| builder.new_input(stream, Pipeline));
    let (rows_out, rows) = builder.new_output();
    let (reports_out, reports) = builder.new_output();
    let mut rows_out = OutputBuilder::from(rows_out);
    let mut reports_out = OutputBuilder::from(reports_out);
    let info = builder.operator_info();
    let activator = scope.activator_for(info.address.clone());
    let wakes = || scope.worker().sync_activator_for(info.address.to_vec());
    parts.written.attach(wakes());
    parts.load.attach(wakes());
    let operator = format!("Stateful: {}", parts.name);
    let mark = parts.ledger.operator(scope.index(), &operator);
    let gauge = parts.ledger.operator_gauge(scope.index(), info.global_id);
    builder.build(move |caps| {
        let mut state = KeyedState::new(&parts.name, step);
        let mut driver = Driver::new(parts, caps);
        move |frontiers| {
            let _inside = mark.enter();
            // After a failure every capability stays where it is: nothing of these epochs may count as done.
            if driver.parts.ledger.stopped() {
                return;
            }
            let (mut rows_out, mut reports_out) = (rows_out.activate(), reports_out.activate());
            // 1. Drain.
            input.for_each(|cap, updates| {
                for (key, value, time, diff) in updates.drain(..) {
                    let waiting = driver
                        .waiting_at(time, |time| (cap.delayed(&time, 0), cap.delayed(&time, 1)));
                    waiting.updates.entry(key).or_default().push((value, diff));
                }
            });
            if let Some(watermark) = &mut watermark {
                watermark.for_each(|cap, moved| {
                    let caps = |time: u64| (cap.delayed(&time, 0), cap.delayed(&time, 1));
                    let waiting = driver.waiting_at(*cap.time(), caps);
                    let newest_ms = moved.drain(..).max();
                    waiting.watermark_ms = waiting.watermark_ms.max(newest_ms);
                });
            }
            // 2. Report what is written, and let go of it.
            while let Some(Written { epoch, seal }) = driver.parts.written.try_next() {
                let reports_cap = driver.held.remove(&epoch);
                if let (Some(cap), Some(seal)) = (&reports_cap, seal) {
                    reports_out.session(cap).give(Report::Seal(seal));
                }
                // Dropped here: the state of the epoch is durable.
                drop(reports_cap);
            }
            // 3. Load, in bounded pieces.
            if let Some((rows_cap, _)) = &driver.load_caps {
                match driver.parts.load.try_next() {
                    Some(Loaded::Records(chunk)) if driver.parts.known => {
                        match state.load(chunk.records) {
                            Ok(rows) => {
                                let at = *rows_cap.time();
                                let rows = rows.into_iter().map(|row| (row, at, 1));
                                rows_out.session(rows_cap).give_iterator(rows);
                            }
                            Err(error) => return driver.parts.ledger.fail(error),
                        }
                        return activator.activate();
                    }
                    Some(Loaded::Records(chunk)) => {
                        state.discard(chunk.records);
                        return activator.activate();
                    }
                    // The next to arrive wakes the operator.
                    None => return,
                    Some(Loaded::All) => driver.end_load(state.has_stale()),
                }
            }
            // 4. Step through the epochs that are complete.
            let open = frontiers.iter();
            let bound = open.filter_map(|f| f.frontier().as_option().copied()).min();
            while let Some((time, waiting)) = driver.next_complete(bound) {
                let moment = driver.moves_to(waiting.watermark_ms);
                let observed = driver.parts.known && time == driver.floor;
                let outcome = match observed {
                    true => state.observe(waiting.updates),
                    false => state.advance(waiting.updates, moment),
                };
                let outcome = match outcome {
                    Ok(outcome) => outcome,
                    Err(error) => return driver.parts.ledger.fail(error),
                };
                let report = driver.input_change(&outcome);
                reports_out
                    .session(&waiting.reports_cap)
                    .give_iterator(report.into_iter());
                let rows = outcome.rows.into_iter();
                let rows = rows.map(|(row, diff)| (row, time, diff));
                rows_out.session(&waiting.rows_cap).give_iterator(rows);
                if !outcome.records.is_empty() {
                    driver.write(waiting.reports_cap, outcome.records);
                }
            }
            // 5. Tell the writer how far this is, and whoever looks what it keeps.
            driver.passed(bound);
            gauge.frontier(bound);
            gauge.rows(state.rows() as u64);
            gauge.bytes(state.bytes() as u64);
        }
    });
    (rows.as_collection(), reports)
}

/// A key as JSON, a value, its epoch and its change.
type Update<V> = (KeyBytes, V, u64, isize);

/// Which worker has a key, modulo their number. Other bits of the hash than those that choose a bucket of the checkpoint, or
/// a bucket would be all one worker's.
pub(crate) fn route(key: &[u8]) -> u64 {
    xxh3_64(key) >> 32
}

/// From here on keys travel as JSON, which decides where they go, and which the checkpoint keeps.
fn encode_keys<'scope, K: ExchangeData, V: ExchangeData>(
    rows: StreamVec<'scope, u64, ((K, V), u64, isize)>,
    parts: &StatefulParts,
) -> StreamVec<'scope, u64, Update<V>> {
    let (name, ledger) = (parts.name.clone(), parts.ledger.clone());
    let encode = move |key: &K| -> Result<KeyBytes> {
        let json = serde_json::to_vec(key).map_err(|error| {
            let what = format!("keyed state {name} has a key without JSON form: {key:?}");
            Error::new(ErrorKind::Data, what).with_source(error)
        })?;
        Ok(json.into())
    };
    rows.unary(Pipeline, "EncodeKeys", move |_cap, _info| {
        move |input, output| {
            input.for_each(|cap, rows| {
                let mut session = output.session(&cap);
                for ((key, value), time, diff) in rows.drain(..) {
                    match encode(&key) {
                        Ok(key) => session.give((key, value, time, diff)),
                        Err(error) => ledger.fail(error),
                    }
                }
            });
        }
    })
}

/// Updates of one epoch, and the capabilities that hold it.
struct Waiting<V> {
    updates: Updates<V>,
    /// Where the watermark is from the epoch on, if it moves in it.
    watermark_ms: Option<u64>,
    rows_cap: Capability<u64>,
    reports_cap: Capability<u64>,
}

/// Everything of the operator but the state itself: who waits, and who holds what.
struct Driver<V> {
    parts: StatefulParts,
    /// The lowest epoch of this run. What is below it counts as this epoch's.
    floor: u64,
    /// Hold the floor until everything is loaded: rows, then reports.
    load_caps: Option<(Capability<u64>, Capability<u64>)>,
    waiting: BTreeMap<u64, Waiting<V>>,
    watermark_ms: u64,
    /// Hold the epochs whose changes are being written.
    held: BTreeMap<Epoch, Capability<u64>>,
    told: Option<Option<u64>>,
}

impl<V> Driver<V> {
    fn new(parts: StatefulParts, caps: Vec<Capability<u64>>) -> Self {
        let floor = match (parts.resumed.0, parts.known) {
            (0, _) => 0,
            (committed, true) => committed,
            (committed, false) => committed + 1,
        };
        let mut caps = caps.into_iter().map(|mut cap| {
            cap.downgrade(&floor);
            cap
        });
        Driver {
            parts,
            floor,
            load_caps: caps.next().zip(caps.next()),
            waiting: BTreeMap::new(),
            watermark_ms: 0,
            held: BTreeMap::new(),
            told: None,
        }
    }

    fn waiting_at(
        &mut self,
        time: u64,
        caps: impl FnOnce(u64) -> (Capability<u64>, Capability<u64>),
    ) -> &mut Waiting<V> {
        let time = time.max(self.floor);
        match self.waiting.entry(time) {
            Entry::Occupied(waiting) => waiting.into_mut(),
            Entry::Vacant(vacant) => {
                let (rows_cap, reports_cap) = caps(time);
                vacant.insert(Waiting {
                    updates: Updates::new(),
                    watermark_ms: None,
                    rows_cap,
                    reports_cap,
                })
            }
        }
    }

    /// Everything is loaded: the capabilities go, unless something is to be removed in the first epoch.
    fn end_load(&mut self, stale: bool) {
        if let Some(caps) = self.load_caps.take().filter(|_| stale) {
            self.waiting_at(self.floor, |_| caps);
        }
    }

    /// The lowest epoch below the frontier, once everything is loaded.
    fn next_complete(&mut self, bound: Option<u64>) -> Option<(u64, Waiting<V>)> {
        let lowest = self.waiting.first_entry()?;
        let complete = bound.is_none_or(|bound| *lowest.key() < bound);
        (complete && self.load_caps.is_none()).then(|| lowest.remove_entry())
    }

    /// How the watermark moves in the next epoch.
    fn moves_to(&mut self, to_ms: Option<u64>) -> Moment {
        let before_ms = self.watermark_ms;
        self.watermark_ms = to_ms.map_or(before_ms, |to| to.max(before_ms));
        Moment {
            before_ms,
            now_ms: self.watermark_ms,
        }
    }

    fn input_change<K, O>(&self, outcome: &Outcome<K, O>) -> Option<Report> {
        let changed = outcome.input_rows != 0 || outcome.input_hash != 0;
        changed.then(|| Report::View {
            sink: state_source(&self.parts.name),
            rows: outcome.input_rows,
            hash: outcome.input_hash,
        })
    }

    fn write(&mut self, reports_cap: Capability<u64>, records: Vec<tidefeed_runtime::Record>) {
        let epoch = Epoch(*reports_cap.time());
        let part = SealPart {
            source: state_source(&self.parts.name),
            ranges: Vec::new(),
            records: records.into(),
            marks: Default::default(),
        };
        self.parts.writer.changed(epoch, part);
        self.held.insert(epoch, reports_cap);
    }

    fn passed(&mut self, bound: Option<u64>) {
        if self.load_caps.is_none() && self.told != Some(bound) {
            self.told = Some(bound);
            self.parts.writer.passed(bound.map(Epoch));
        }
    }
}
