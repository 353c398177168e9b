//! What the operators of a process are at: how busy each is, what comes to it, what waits for it, what it keeps.
//!
//! ```text
//!     worker's thread                                                       any thread
//!     timely's log ----------> sums by operator and channel --every 200 ms--> Figures::snapshot
//!     differential's log ----> Arrangements: rows by operator ------------------^
//!     Tidefeed's operators --> OperatorGauge: frontier, rows, bytes ------------|
//! ```
//!
//! 1. A worker is watched from before its dataflow is built: an operator is in timely's log only if the log was there first. So
//!    [`Figures::switch`] is for the workers that have yet to start.
//! 2. timely hands its log on once a step, and on the worker's own thread. There it is added up: an event adds to one place in a
//!    list. Nothing is kept of an event, so nothing grows with epochs, messages or time, but with the number of operators only.
//! 3. Sums are shown to others five times a second, also by a worker that has nothing to do, as it wakes up that often. So they
//!    are at most 250 ms old ([`WorkerFigures::since`] says of when they are), and the last ones are shown when the worker ends.
//! 4. All figures only grow, except those that are a state: queued, arranged, the frontier. Rates are the reader's.
//! 5. Time is the innermost operator's: [`OperatorFigures::own`] of a scope is timely's tracking of progress in it, and
//!    [`OperatorFigures::busy`] has what is in it too. The dataflow itself is the outermost scope.
//! 6. A channel is told of at the operator where it ends, and it comes from an operator too: the edges of the scopes between are
//!    left out.
//! 7. Queued is what was sent to a worker of this process by another or itself, less what it has taken. Of two workers the sums are
//!    not of the same moment, so it is off by what they exchange in 200 ms.
//!
//! # Limits
//!
//! - A worker that is inside an operator says nothing until that returns, or until some ninety events have come together: its figures
//!   stand still, and so does `since`. What it is at is in [`stall`](crate::stall).
//! - timely does not say how a channel hands records out: that it is exchanged shows when a record went to another worker.
//! - What comes from another process is counted when it is taken, and not while it waits.
//! - timely tells of the frontiers of single operators only with each message about progress, which costs more than all of this. So
//!   a frontier is known of the operators that say it themselves, with an [`OperatorGauge`].
//! - Rows are what differential has put into the batches of an arrangement: an update that cancels another counts until a merge has
//!   brought both together, which may be never for those of the last epochs. Batches that are shared count where they were made.
//! - Differential does not know the bytes of an arrangement. They are known of operators that say them.
//!
//! # Cost
//!
//! Nothing per record. An event costs 57 ns on the machine of the benchmarks, of which timely's reading of the clock is 25, its buffer
//! 30, and the addition here the rest. There are two events for each message on each channel (a message is 8 KiB of records), and two
//! or three for each call of an operator. The throughput of one worker goes down by
//!
//! - 2 % in a view of differential's that does nothing else, at 2 to 3 million rows a second (1000 to 10,000 rows an epoch);
//! - 5 % to 10 % in a chain of operators that only add numbers, and 30 % with ten of them an epoch and no pause between epochs.
//!
//! That is 57 ns in what a message costs otherwise: where a row costs a microsecond in all, as in a job that decodes, seals and
//! writes it, it comes to less than 1 %. That is reckoned, not measured.
//!
//! The test `figures_cost_little` measures it. A job that needs the last percent has [`Figures::switch`].

mod arrangements;
mod figures;
mod gauge;
mod graph;
mod log;
mod sums;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

pub use arrangements::Arrangements;
pub use figures::{ChannelFigures, Figures, OperatorFigures, WorkerFigures};
pub use gauge::OperatorGauge;
pub(crate) use log::register;

use arrangements::Arranged;
use gauge::Said;
use graph::Graph;
use sums::Sums;

/// What is known of one worker.
#[derive(Debug, Default)]
struct Watch {
    seen: Mutex<Seen>,
    arranged: Mutex<Vec<Arranged>>,
    said: Mutex<BTreeMap<usize, Arc<Said>>>,
}

/// What its log comes to, as it was shown last.
#[derive(Clone, Debug, Default)]
struct Seen {
    graph: Arc<Graph>,
    sums: Sums,
}

#[cfg(test)]
mod tests;
