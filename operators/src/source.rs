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
//!    count as in flight. Some are attached in one activation (`attach.rs`), so that the operators behind work on them
//!    while they are at hand, and no other operator waits for a large epoch. Several changes of one document stay in the
//!    order in which they were read: a document belongs to one feed range and a range to one worker, so the last to arrive
//!    is the newest.
//! 3. Records are decoded before anything of their epoch is handed to the sealer. A document that does not decode stops the run
//!    while nothing of the epoch is durable, so the next run reads it again (I2); the epoch's capability is never dropped. Or the
//!    run goes on without it, as [`DecodeErrors`] says; then it is told of when its epoch is sealed.
//! 4. The records flow downstream at once. When all of an epoch are, their stream passes it, so that the collection can go on to
//!    the next epoch at once. But a second stream, which never carries anything, is kept at the epoch until the epoch is sealed;
//!    then the positions are reported to the committer, ranges that were handed over to the [enumerator](crate::enumerator), and its
//!    capability is dropped. Whoever reads [`Unsealed`] has both as
//!    inputs, so no frontier behind it passes an epoch before that is sealed (I1).

mod attach;
pub mod rows;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use tidefeed_runtime::bridge::{Inbox, Waker};
use tidefeed_runtime::dataflow::Report;
use tidefeed_runtime::failpoint::Step;
use tidefeed_runtime::loader::Loaded;
use tidefeed_runtime::sealer::PartSender;
use tidefeed_runtime::watermarks::Marks;
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Ledger, RecordRef, Result};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::Activator;
use xxhash_rust::xxh3::xxh3_64;

use crate::decode::DecodeErrors;
use crate::enumerator::Released;
use crate::feed::Receipt;
use crate::letters::{Undelivered, UndeliveredUpdate};
use crate::reader::{Arrival, SourceCounters};
use attach::{Attached, Attacher, Progress};
use rows::Unsealed;

/// A document's identity within its source: partition key and id, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// Of the bytes: it chooses the document's worker there and its place here.
    hash: u64,
    bytes: SmallVec<[u8; SHORT_KEY]>,
}

/// Bytes of a key that is kept in place. Most keys made of one short field are; the others are an allocation each.
const SHORT_KEY: usize = 24;

impl DocumentKey {
    /// The key as JSON.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    fn new(bytes: &[u8]) -> Self {
        DocumentKey {
            hash: xxh3_64(bytes),
            bytes: SmallVec::from_slice(bytes),
        }
    }
}

impl From<&[u8]> for DocumentKey {
    fn from(key: &[u8]) -> Self {
        DocumentKey::new(key)
    }
}

impl Serialize for DocumentKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for DocumentKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let key = <&[u8]>::deserialize(deserializer)?;
        Ok(DocumentKey::new(key))
    }
}

/// What a source operator works with, on one worker.
pub struct SourceParts {
    /// The source's name, as in the configuration.
    pub name: String,
    /// What to do with documents that do not decode.
    pub on_decode_error: DecodeErrors,
    /// Counters of the source.
    pub counters: Arc<SourceCounters>,
    /// Pages from the readers of this worker's ranges.
    pub inbox: Inbox<Arrival>,
    /// On worker 0 of a source whose event time is read: all ranges that the run begins with, unless they are known to its marks.
    pub begun: Option<BTreeSet<FeedRangeId>>,
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
    unsealed_cap: Capability<u64>,
    reports_cap: Capability<u64>,
    released_cap: Capability<u64>,
    undecodable_cap: Capability<u64>,
    ranges: Vec<(FeedRangeId, ContinuationToken)>,
    /// Given when the epoch is sealed.
    receipts: Vec<Receipt>,
    released: Vec<Released>,
    marks: Marks,
    undecodable: Vec<Undelivered>,
}

/// What a source operator gives.
pub struct Source<'scope, T> {
    /// The records, in the form that was asked for.
    pub rows: Unsealed<'scope, T>,
    /// What the committer is to know.
    pub reports: StreamVec<'scope, u64, Report>,
    /// Feed ranges that others are to go on with, for [`enumerate`](crate::enumerator::enumerate).
    pub released: StreamVec<'scope, u64, Released>,
    /// How far event time has come, if it is read. Its frontier runs ahead of what is durable, as that of the records does.
    pub marks: StreamVec<'scope, u64, Marks>,
    /// Documents that do not decode, if the run goes on without them; in epochs that are sealed.
    pub undecodable: StreamVec<'scope, u64, UndeliveredUpdate>,
}

/// Attaches pages to epochs. `decode` reads a document, and `form` says what becomes of a record and its value at an epoch, as in
/// [`rows`]; see the module for the rules.
pub fn source<'scope, V, T>(
    ticks: StreamVec<'scope, u64, u64>,
    parts: SourceParts,
    decode: impl Fn(&[u8]) -> Result<V> + 'static,
    form: impl Fn(RecordRef<'_>, Option<V>, u64) -> Option<T> + 'static,
) -> Source<'scope, T>
where
    V: 'static,
    T: Clone + 'static,
{
    let scope = ticks.scope();
    let mut builder = OperatorBuilder::new(format!("Source: {}", parts.name), scope);
    let mut ticks = builder.new_input(ticks, Pipeline);
    let (records_out, records) = builder.new_output();
    let (reports_out, reports) = builder.new_output();
    // Nothing is ever given to it; what it holds back is by capability alone.
    let (_, unsealed) = builder.new_output::<Vec<()>>();
    let (released_out, released) = builder.new_output();
    let (marks_out, marks) = builder.new_output();
    let (undecodable_out, undecodable) = builder.new_output();
    let mut records_out = OutputBuilder::from(records_out);
    let mut reports_out = OutputBuilder::from(reports_out);
    let mut released_out = OutputBuilder::from(released_out);
    let mut marks_out = OutputBuilder::from(marks_out);
    let mut undecodable_out = OutputBuilder::from(undecodable_out);
    let info = builder.operator_info();
    let activator: Activator = scope.activator_for(info.address.clone());
    let wakes = || scope.worker().sync_activator_for(info.address.to_vec());
    parts.inbox.attach(wakes());
    parts.load.attach(wakes());
    let sealed = Waker::default();
    sealed.attach(wakes());
    parts.ledger.wake_when_sealed(sealed);
    let operator = format!("Source: {}", parts.name);
    let mark = parts.ledger.operator(scope.index(), &operator);

    builder.build(move |mut caps| {
        // The first output and the last carry what is loaded. It needs no reports and is sealed already, and its marks come from
        // elsewhere, so the other capabilities go at once.
        let mut load_caps = Some((caps.swap_remove(0), caps.swap_remove(0)));
        drop(caps);
        let ledger = parts.ledger.clone();
        let mut attacher = Attacher {
            parts,
            decode,
            form,
        };
        let mut ticked: VecDeque<Attaching> = VecDeque::new();
        let mut held: VecDeque<Held> = VecDeque::new();
        let mut failed = false;
        move |_frontiers| {
            let _inside = mark.enter();
            if failed {
                return;
            }
            let mut records_out = records_out.activate();
            let mut undecodable_out = undecodable_out.activate();
            let mut marks_out = marks_out.activate();
            // 1. Load, one piece at a time. The next to arrive wakes the operator.
            if let Some((cap, undecodable_cap)) = &mut load_caps {
                match attacher.parts.load.try_next() {
                    Some(Loaded::Records(chunk)) => {
                        let epoch = chunk.epoch.0;
                        cap.downgrade(&epoch);
                        undecodable_cap.downgrade(&epoch);
                        let mut session = records_out.session(cap);
                        let give = |row| session.give(row);
                        let records = chunk.records.iter().map(RecordRef::from);
                        let decoded = attacher.decode_all(records, chunk.epoch, give);
                        match decoded {
                            Ok(undecodable) => undecodable_out
                                .session(undecodable_cap)
                                .give_iterator(undecodable.into_iter().map(|u| (u, epoch, 1))),
                            Err(error) => {
                                failed = true;
                                return ledger.fail(error);
                            }
                        }
                        return activator.activate();
                    }
                    None => return,
                    // Dropped: from here on the frontier follows the ticks.
                    Some(Loaded::All) => load_caps = None,
                }
            }
            // 2. Let go of what is sealed.
            let sealed_through = ledger.sealed_through();
            let mut reports_out = reports_out.activate();
            let mut released_out = released_out.activate();
            while held
                .front()
                .is_some_and(|held| held.epoch <= sealed_through)
            {
                let Some(done) = held.pop_front() else { break };
                let mut session = reports_out.session(&done.reports_cap);
                if attacher.parts.reports_seals {
                    let seals = ledger.take_seals(done.epoch);
                    session.give_iterator(seals.into_iter().map(Report::Seal));
                }
                if !done.ranges.is_empty() {
                    session.give(Report::Tokens {
                        source: attacher.parts.name.clone(),
                        ranges: done.ranges,
                    });
                }
                if !done.marks.is_empty() {
                    session.give(Report::Marks {
                        source: attacher.parts.name.clone(),
                        marks: done.marks,
                    });
                }
                if !done.undecodable.is_empty() {
                    let letters = done.undecodable.into_iter();
                    undecodable_out
                        .session(&done.undecodable_cap)
                        .give_iterator(letters.map(|letter| (letter, done.epoch.0, 1)));
                }
                if !done.released.is_empty() {
                    let mut session = released_out.session(&done.released_cap);
                    session.give_iterator(done.released.into_iter());
                }
                done.receipts.into_iter().for_each(Receipt::give);
                ledger.failpoints().before(Step::CapabilityDrop);
                drop(done.unsealed_cap);
                ledger.failpoints().after(Step::CapabilityDrop);
            }
            // 3. Attach what has arrived to each tick.
            ticks.for_each(|cap, epochs| {
                let attaching = |epoch: u64| Attaching {
                    records_cap: cap.delayed(&epoch, 0),
                    reports_cap: cap.delayed(&epoch, 1),
                    unsealed_cap: cap.delayed(&epoch, 2),
                    released_cap: cap.delayed(&epoch, 3),
                    marks_cap: cap.delayed(&epoch, 4),
                    undecodable_cap: cap.delayed(&epoch, 5),
                    attached: Attached::new(Epoch(epoch)),
                };
                ticked.extend(epochs.drain(..).map(attaching));
            });
            while let Some(epoch) = ticked.front_mut() {
                let attached = {
                    let mut session = records_out.session(&epoch.records_cap);
                    attacher.attach_some(&mut epoch.attached, |row| session.give(row))
                };
                match attached {
                    Ok(Progress::Complete) => {}
                    Ok(Progress::More) => return activator.activate(),
                    // It stays where it is, with its capabilities.
                    Err(error) => {
                        failed = true;
                        return ledger.fail(error);
                    }
                }
                let Some(mut complete) = ticked.pop_front() else {
                    break;
                };
                attacher.complete(&mut complete.attached);
                if !complete.attached.marks.is_empty() {
                    let marks = complete.attached.marks.clone();
                    marks_out.session(&complete.marks_cap).give(marks);
                }
                held.push_back(attacher.seal(complete));
            }
        }
    });
    Source {
        rows: Unsealed { records, unsealed },
        reports,
        released,
        marks,
        undecodable,
    }
}

/// An epoch that pages are attached to.
struct Attaching {
    /// Dropped when everything is attached.
    records_cap: Capability<u64>,
    reports_cap: Capability<u64>,
    unsealed_cap: Capability<u64>,
    released_cap: Capability<u64>,
    /// Dropped when everything is attached.
    marks_cap: Capability<u64>,
    undecodable_cap: Capability<u64>,
    attached: Attached,
}
