//! How a job does: one report of it, each second, for its page, for `status` and for scripts.
//!
//! 1. Operators, readers and sinks count what they do in any case, in atomics. Each second somebody looks at the counters
//!    ([`look`]), and rates come from two looks, one after the other. So it costs the same whoever watches, and nothing for a record.
//! 2. A look is of one process. A member tells process 0 its own report each second, a bounded text ([`told`]), and process 0 shows
//!    what all of them come to ([`gather`], [`join`]).
//! 3. It has no document, no key and no secret in it ([`report`]).

mod gather;
mod graph;
mod join;
mod letters;
mod look;
pub(crate) mod metrics;
mod process;
pub(crate) mod report;
mod reporter;
mod show;
mod sinks;
mod sources;
mod told;
mod totals;
pub(crate) mod watch;

pub(crate) use letters::{Counted, LetterCounts};
pub(crate) use look::{EpochLook, JobFacts, Look};
pub(crate) use process::ProcessFigures;
pub(crate) use reporter::Reporter;
pub(crate) use sources::{RangeLook, ranges};
pub(crate) use told::Teller;
pub(crate) use totals::Totals;
