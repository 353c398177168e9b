//! The source operator: pages become records of an epoch, and the epoch is held until it is sealed.
//!
//! Numbered rules, per worker and source:
//!
//! 1. First the checkpoint is loaded, as its pieces arrive from the [loader](tidefeed_runtime::loader): the collection as of the
//!    commit at the commit's epoch, then every sealed epoch beyond it at its own time. All of it is durable already, so nothing
//!    of it is sealed again. Until the last piece the operator keeps the right to emit at those epochs, so no frontier passes
//!    them, and ticks wait. One piece is decoded in one activation, so loading never keeps a worker from its other operators.
//! 2. At a tick the pages that have arrived are attached to the epoch, up to a number of bytes, which is larger during the
//!    first load; a source never waits for a range. A page gives its room back when it is attached: from there on its bytes
//!    count as in flight. Of several changes of one document only the last is kept: a document belongs to one feed range and
//!    a range to one worker, so the last to arrive is the newest, and downstream a tie within an epoch would be decided by
//!    value.
//! 3. Records are decoded before anything is handed to the sealer. A document that does not decode stops the run while
//!    nothing of the epoch is durable, so the next run reads it again (I2).
//! 4. The records flow downstream at once, but the capability for the epoch is kept until the epoch is sealed (I1); then
//!    the positions are reported to the committer, and the capability is dropped.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::bridge::{Inbox, Waker};
use tidefeed_runtime::checkpoint::SealPart;
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::failpoint::Step;
use tidefeed_runtime::loader::{Chunk, Loaded};
use tidefeed_runtime::sealer::{Part, PartSender};
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Ledger, Record, Result};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::Activator;
use xxhash_rust::xxh3::xxh3_64;

use crate::reader::Arrival;

/// A document's identity within its source: partition key and id, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentKey(Box<[u8]>);

impl DocumentKey {
    /// The key as JSON.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&Bytes> for DocumentKey {
    fn from(key: &Bytes) -> Self {
        DocumentKey(key.as_ref().into())
    }
}

/// One change of a document at an epoch: its new value, or its removal.
pub type Upsert<V> = (DocumentKey, Option<V>, u64);

/// What a source operator works with, on one worker.
pub struct SourceParts {
    /// The source's name, as in the configuration.
    pub name: String,
    /// Pages from the readers of this worker's ranges.
    pub inbox: Inbox<Arrival>,
    /// This worker's share of what the checkpoint holds.
    pub load: Inbox<Loaded>,
    /// Where parts of epochs go to be sealed.
    pub parts: PartSender,
    /// Bytes to attach to one epoch, at most; the page that crosses the bound still goes.
    pub max_bytes: u64,
    /// The same until every range has caught up for the first time.
    pub max_load_bytes: u64,
    /// True on exactly one source operator of a process: it reports the process's seals.
    pub reports_seals: bool,
    /// The process's ledger.
    pub ledger: Ledger,
}

/// An epoch whose records are downstream and whose seal is awaited.
struct Held {
    epoch: Epoch,
    /// Dropped when the epoch is sealed: until then no frontier passes it.
    records_cap: Capability<u64>,
    reports_cap: Capability<u64>,
    ranges: Vec<(FeedRangeId, ContinuationToken)>,
}

/// Turns pages into upserts. `decode` reads a document; see the module for the rules.
pub fn source<'scope, V, D>(
    ticks: StreamVec<'scope, u64, u64>,
    parts: SourceParts,
    decode: D,
) -> (
    StreamVec<'scope, u64, Upsert<V>>,
    StreamVec<'scope, u64, Report>,
)
where
    V: Clone + 'static,
    D: Fn(&Bytes) -> Result<V> + 'static,
{
    let scope = ticks.scope();
    let mut builder = OperatorBuilder::new(format!("Source: {}", parts.name), scope);
    let mut ticks = builder.new_input(ticks, Pipeline);
    let (records_out, records) = builder.new_output();
    let (reports_out, reports) = builder.new_output();
    let mut records_out = OutputBuilder::from(records_out);
    let mut reports_out = OutputBuilder::from(reports_out);
    let info = builder.operator_info();
    let activator: Activator = scope.activator_for(info.address.clone());
    let wakes = || scope.worker().sync_activator_for(info.address.to_vec());
    parts.inbox.attach(wakes());
    parts.load.attach(wakes());
    let sealed = Waker::default();
    sealed.attach(wakes());
    parts.ledger.wake_when_sealed(sealed);

    builder.build(move |mut caps| {
        // Output 0 carries what is loaded; it needs no reports, so that capability goes at once.
        caps.truncate(1);
        let mut load_cap = caps.pop();
        let mut attach = Attach { parts, decode };
        let mut held: VecDeque<Held> = VecDeque::new();
        move |_frontiers| {
            let mut records_out = records_out.activate();
            // 1. Load, one piece at a time. The next to arrive wakes the operator.
            if let Some(cap) = &mut load_cap {
                match attach.parts.load.try_next() {
                    Some(Loaded::Records(chunk)) => {
                        match load(chunk, &attach.decode) {
                            Ok((epoch, upserts)) => {
                                cap.downgrade(&epoch.0);
                                records_out.session(cap).give_iterator(upserts.into_iter());
                            }
                            Err(error) => attach.parts.ledger.fail(error),
                        }
                        return activator.activate();
                    }
                    None => return,
                    // Dropped: from here on the frontier follows the ticks.
                    Some(Loaded::All) => load_cap = None,
                }
            }
            // 2. Attach what has arrived to each tick.
            ticks.for_each(|cap, epochs| {
                for epoch in epochs.drain(..).map(Epoch) {
                    let (records_cap, reports_cap) =
                        (cap.delayed(&epoch.0, 0), cap.delayed(&epoch.0, 1));
                    attach.parts.ledger.failpoints().before(Step::Attach);
                    match attach.attach(epoch) {
                        Ok((upserts, ranges)) => {
                            attach.parts.ledger.failpoints().after(Step::Attach);
                            records_out
                                .session(&records_cap)
                                .give_iterator(upserts.into_iter());
                            held.push_back(Held {
                                epoch,
                                records_cap,
                                reports_cap,
                                ranges,
                            });
                        }
                        Err(error) => attach.parts.ledger.fail(error),
                    }
                }
            });
            // 3. Let go of what is sealed.
            let sealed_through = attach.parts.ledger.sealed_through();
            let mut reports_out = reports_out.activate();
            while held
                .front()
                .is_some_and(|held| held.epoch <= sealed_through)
            {
                let Some(done) = held.pop_front() else { break };
                let mut session = reports_out.session(&done.reports_cap);
                if attach.parts.reports_seals {
                    session.give_iterator(
                        attach
                            .parts
                            .ledger
                            .take_seals(done.epoch)
                            .into_iter()
                            .map(Report::Seal),
                    );
                }
                if !done.ranges.is_empty() {
                    session.give(Report::Tokens {
                        source: attach.parts.name.clone(),
                        ranges: done.ranges,
                    });
                }
                attach
                    .parts
                    .ledger
                    .failpoints()
                    .before(Step::CapabilityDrop);
                drop(done.records_cap);
                attach.parts.ledger.failpoints().after(Step::CapabilityDrop);
            }
        }
    });
    (records, reports)
}

/// Attaches what has arrived to an epoch.
struct Attach<D> {
    parts: SourceParts,
    decode: D,
}

impl<D> Attach<D> {
    /// Takes pages, hands their records and positions to the sealer and returns the upserts with the positions.
    #[allow(clippy::type_complexity)] // a pair of two plain lists
    fn attach<V>(
        &mut self,
        epoch: Epoch,
    ) -> Result<(Vec<Upsert<V>>, Vec<(FeedRangeId, ContinuationToken)>)>
    where
        D: Fn(&Bytes) -> Result<V>,
    {
        let mut newest = NewestRecords::default();
        let mut ranges = BTreeMap::new();
        let mut bytes = 0;
        // Read once: the last page of the load may be among those attached here.
        let max_bytes = match self.parts.ledger.loaded() {
            true => self.parts.max_bytes,
            false => self.parts.max_load_bytes,
        };
        while bytes < max_bytes {
            let Some(arrival) = self.parts.inbox.try_next() else {
                break;
            };
            let counts = arrival.counts();
            let Arrival {
                range,
                page,
                bytes: page_bytes,
                caught_up,
                ..
            } = arrival;
            ranges.insert(range, page.token);
            if caught_up {
                self.parts.ledger.caught_up(epoch);
            }
            if counts {
                bytes += page_bytes;
                self.parts.ledger.page_attached(epoch, page_bytes);
                page.records
                    .into_iter()
                    .for_each(|record| newest.add(record));
            }
        }
        let ranges: Vec<_> = ranges.into_iter().collect();
        let upserts = decode_all(&newest.records, epoch, &self.decode)?;
        let seal = (!ranges.is_empty()).then(|| SealPart {
            source: self.parts.name.clone(),
            ranges: ranges.clone(),
            records: newest.records,
        });
        // The sealer is gone only when the run has failed, and then its failure is already known.
        let _ = self.parts.parts.send(Part { epoch, seal });
        Ok((upserts, ranges))
    }
}

fn decode_all<V>(
    records: &[Record],
    epoch: Epoch,
    decode: impl Fn(&Bytes) -> Result<V>,
) -> Result<Vec<Upsert<V>>> {
    let upsert = |record: &Record| {
        let value = record
            .body
            .as_ref()
            .map(&decode)
            .transpose()
            .map_err(|error| {
                let key = String::from_utf8_lossy(&record.key).into_owned();
                error.wrap(format!(
                    "document {key} does not decode: correct it in its container"
                ))
            })?;
        Ok((DocumentKey::from(&record.key), value, epoch.0))
    };
    records.iter().map(upsert).collect()
}

/// Records of one epoch, one per document.
#[derive(Default)]
struct NewestRecords {
    records: Vec<Record>,
    /// Where each key is in them.
    at: HashTable<usize>,
}

impl NewestRecords {
    fn add(&mut self, record: Record) {
        let NewestRecords { records, at } = self;
        let entry = at.entry(
            xxh3_64(&record.key),
            |at| records[*at].key == record.key,
            |at| xxh3_64(&records[*at].key),
        );
        match entry {
            Entry::Occupied(at) => records[*at.get()] = record,
            Entry::Vacant(at) => {
                at.insert(records.len());
                records.push(record);
            }
        }
    }
}

/// Decodes a piece of the checkpoint, and gives its room back.
fn load<V>(chunk: Chunk, decode: impl Fn(&Bytes) -> Result<V>) -> Result<(Epoch, Vec<Upsert<V>>)> {
    let upserts = decode_all(&chunk.records, chunk.epoch, decode)?;
    Ok((chunk.epoch, upserts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, body: Option<&str>) -> Record {
        Record {
            key: Bytes::copy_from_slice(key.as_bytes()),
            body: body.map(|b| Bytes::copy_from_slice(b.as_bytes())),
        }
    }

    #[test]
    fn of_several_changes_in_an_epoch_the_last_counts() {
        let mut newest = NewestRecords::default();
        for (key, body) in [
            ("a", Some("9")),
            ("b", Some("1")),
            ("a", Some("2")),
            ("b", None),
        ] {
            newest.add(record(key, body));
        }
        assert_eq!(newest.records, [record("a", Some("2")), record("b", None)]);
    }
}
