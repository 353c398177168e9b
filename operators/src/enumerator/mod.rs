//! Which feed ranges are read, and by which worker: one enumerator for each source, on worker 0, through the dataflow.
//!
//! ```text
//!             worker 0                                    every worker
//!   lister --listings--> enumerator --orders-->   readers --pages--> source --upserts-->
//!                              ^                                        |
//!                              +--------- ranges handed over -----------+  when their epoch is sealed
//! ```
//!
//! Rules:
//!
//! 1. At the start every range is placed on the worker with the fewest. Ranges are divided until there are as many as asked
//!    for, at least, so that every worker has some; a range that was never read before it is begun, one with a position
//!    as by rule 2.
//! 2. When a partition has split, or a range is too large, its reader is told to *hand it over*: after a whole page it leaves
//!    the parts and its position with its worker, and ends. The source operator attaches that to an epoch: in one seal the
//!    position of the range is replaced by that position for each part, so no crash can lose one of them (I6).
//! 3. When the frontier shows that every process has sealed that epoch, each part is placed on the worker with the fewest
//!    ranges, and read from there. So its pages are in later epochs than those of the range before, whichever worker
//!    they come from, and changes of one document stay in order.
//! 4. Ranges of partitions that merge stay as they are, side by side in one partition: each has a position of its own, and the
//!    service reads a part of a partition as well as a whole one.
//! 5. An independent range that [appears](ChangeFeed::ranges_appear) is placed like those of the start: at the position that a
//!    run before this one left, if there is one, else at its beginning. It counts as no part of the first load.
//!
//! A partition that splits is read on all the while: the service's client reads a range across its partitions. So nothing
//! depends on how soon a split is seen, only how many workers share the load.

mod lister;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::bridge::{Inbox, InboxSender, Tasks};
use tidefeed_runtime::{ContinuationToken, FeedRangeId, Ledger};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use tokio::sync::watch;

pub use lister::{Lister, Listing};
pub use plan::{Assignment, Division, finer};

use crate::feed::{ChangeFeed, Start};
use crate::reader::{Arrival, RangeStart, Readers};

/// A feed range that was handed over, in an epoch that is sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Released {
    /// The range.
    pub range: FeedRangeId,
    /// What tiles it.
    pub parts: Vec<FeedRangeId>,
    /// The position from which each of them is to be read.
    pub token: ContinuationToken,
    /// Whether each of them has yet to catch up for the first time.
    pub loading: bool,
}

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    Read(RangeStart),
    Divide(FeedRangeId, Vec<FeedRangeId>),
}

/// What the enumerator of a source works with, on worker 0.
pub struct EnumeratorParts {
    /// The ranges to begin with.
    pub starts: Vec<RangeStart>,
    /// The partitions that there are at the start.
    pub live: Vec<FeedRangeId>,
    /// The ranges whenever they have changed.
    pub changes: Inbox<Listing>,
    /// Positions of independent ranges that are not there at the start, in case they appear.
    pub absent: BTreeMap<FeedRangeId, ContinuationToken>,
    /// Ranges to read at least.
    pub least: usize,
    /// No range is placed yet.
    pub assignment: Assignment,
}

/// What the readers of a source work with, on one worker.
pub struct ReaderParts {
    /// The source's name.
    pub source: String,
    /// The worker.
    pub worker: usize,
    /// What all readers of the source share.
    pub readers: Arc<Readers>,
    /// Where their pages go.
    pub inbox: InboxSender<Arrival>,
    /// Starts them.
    pub tasks: Tasks,
    /// On worker 0.
    pub enumerator: Option<EnumeratorParts>,
}

/// Enumerates the ranges of a source and starts their readers; see the module for the rules.
pub fn enumerate<'scope>(released: StreamVec<'scope, u64, Released>, mut parts: ReaderParts) {
    let scope = released.scope();
    let enumerator = parts.enumerator.take();
    let readers = Arc::clone(&parts.readers);
    let ledger = readers.ledger.clone();
    let name = format!("Enumerator: {}", parts.source);
    type Given = CapacityContainerBuilder<Vec<(u64, Order)>>;
    let to_enumerator = Exchange::new(|_: &Released| 0);
    let orders = released.unary_frontier::<Given, _, _, _>(to_enumerator, &name, |cap, info| {
        let source = parts.source.clone();
        let mut enumerator = enumerator.map(|parts| {
            let activator = scope.worker().sync_activator_for(info.address.to_vec());
            parts.changes.attach(activator);
            (cap, Enumerator::new(parts, source, ledger.clone()))
        });
        move |(input, frontier), output| {
            let Some((cap, state)) = &mut enumerator else {
                return;
            };
            input.for_each(|cap, released| {
                let waiting = state.released.entry(*cap.time()).or_default();
                waiting.append(released);
            });
            let bound = frontier.frontier().as_option().copied();
            let orders = state.orders(bound, &*readers.feed);
            // Before the lister's share is given back: the run must not end between the two.
            ledger.open_ranges(orders.appeared);
            output.session(&cap).give_iterator(orders.given.into_iter());
            if orders.listed_last {
                ledger.range_ended();
            }
            match bound {
                // What it holds back is the readers alone.
                Some(bound) => cap.downgrade(&bound),
                None => enumerator = None,
            }
        }
    });
    let name = format!("Readers: {}", parts.source);
    let to_worker = Exchange::new(|(worker, _): &(u64, Order)| *worker);
    let mut divisions = Divisions::default();
    orders.sink(to_worker, &name, move |(input, _frontier)| {
        input.for_each(|_cap, orders| {
            // Of ranges that have ended by themselves.
            divisions.retain(|_range, division| !division.is_closed());
            for (_, order) in orders.drain(..) {
                match order {
                    Order::Read(start) => parts.read(start, &mut divisions),
                    Order::Divide(range, into) => {
                        // One that has ended meanwhile has nothing left to hand over.
                        if let Some(division) = divisions.remove(&range) {
                            division.send_replace(Some(into));
                        }
                    }
                }
            }
        });
    });
}

/// How the readers of a worker are told to hand over, by range.
type Divisions = BTreeMap<FeedRangeId, watch::Sender<Option<Vec<FeedRangeId>>>>;

impl ReaderParts {
    fn read(&self, start: RangeStart, divisions: &mut Divisions) {
        let (divide, division) = watch::channel(None);
        divisions.insert(start.range.clone(), divide);
        let name = format!(
            "the reader of source {}, feed range {}",
            self.source, start.range
        );
        let readers = Arc::clone(&self.readers);
        let reader = readers.read(start, self.worker, division, self.inbox.clone());
        self.tasks.spawn(name, reader);
    }
}

/// The state of the enumerator.
struct Enumerator {
    /// The source's name.
    source: String,
    parts: EnumeratorParts,
    /// Ranges that were handed over, by epoch, until it is sealed everywhere.
    released: BTreeMap<u64, Vec<Released>>,
    ledger: Ledger,
}

/// What the enumerator says at once.
#[derive(Default)]
struct Orders {
    /// By worker.
    given: Vec<(u64, Order)>,
    /// How many ranges are to be read that the run did not know of.
    appeared: usize,
    /// Nothing will appear any more.
    listed_last: bool,
}

impl Enumerator {
    fn new(parts: EnumeratorParts, source: String, ledger: Ledger) -> Self {
        Enumerator {
            source,
            parts,
            ledger,
            released: BTreeMap::new(),
        }
    }

    /// What is to be said now. Epochs below `bound` are sealed everywhere.
    fn orders(&mut self, bound: Option<u64>, feed: &dyn ChangeFeed) -> Orders {
        let mut orders = Orders::default();
        let mut starts = std::mem::take(&mut self.parts.starts);
        starts.extend(self.handed_over(bound));
        let mut changed = !starts.is_empty();
        while let Some(Listing { live, last }) = self.parts.changes.try_next() {
            self.parts.live = live;
            orders.listed_last |= last;
            changed = true;
        }
        if !changed {
            return orders;
        }
        for start in starts {
            orders.given.push(self.place(start));
        }
        if feed.ranges_appear() {
            let appeared = self.appeared();
            orders.appeared = appeared.len();
            for start in appeared {
                orders.given.push(self.place(start));
            }
        }
        let EnumeratorParts {
            live,
            least,
            assignment,
            ..
        } = &mut self.parts;
        let divide = |range: &FeedRangeId, parts| feed.divide(range, parts);
        let divisions = assignment.divisions(live, *least, divide).into_iter();
        orders.given.extend(divisions.map(|division| {
            let order = Order::Divide(division.range, division.parts);
            (division.worker as u64, order)
        }));
        orders
    }

    /// The parts of ranges that were handed over in epochs below `bound`.
    fn handed_over(&mut self, bound: Option<u64>) -> Vec<RangeStart> {
        let mut starts = Vec::new();
        while let Some(epoch) = self.released.first_entry()
            && bound.is_none_or(|bound| *epoch.key() < bound)
        {
            let at = *epoch.key();
            for released in epoch.remove() {
                tracing::info!(
                    event = "split",
                    source = self.source,
                    range = %released.range,
                    epoch = at,
                    parts = released.parts.len(),
                    into = named(&released.parts),
                    "a feed range goes on in parts"
                );
                self.parts.assignment.release(&released.range);
                self.ledger
                    .handed_over(released.parts.len(), released.loading);
                let start = Start::Token(released.token);
                starts.extend(released.parts.into_iter().map(|range| RangeStart {
                    range,
                    start: start.clone(),
                    loading: released.loading,
                }));
            }
        }
        starts
    }

    /// Independent ranges that nobody reads yet.
    fn appeared(&mut self) -> Vec<RangeStart> {
        let EnumeratorParts {
            live,
            absent,
            assignment,
            ..
        } = &mut self.parts;
        let start = |range: &FeedRangeId| RangeStart {
            range: range.clone(),
            start: match absent.remove(range) {
                Some(token) => Start::Token(token),
                None => Start::Beginning,
            },
            loading: false,
        };
        assignment.unread(live).map(start).collect()
    }

    fn place(&mut self, start: RangeStart) -> (u64, Order) {
        let worker = self.parts.assignment.place(start.range.clone()) as u64;
        (worker, Order::Read(start))
    }
}

/// Parts that a line names.
const NAMED: usize = 8;

fn named(parts: &[FeedRangeId]) -> String {
    let named = parts.iter().take(NAMED).map(ToString::to_string);
    named.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
