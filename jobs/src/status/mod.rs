//! How a job does: one report of it, each second, for its page, for `status` and for scripts.
//!
//! 1. Operators, readers and sinks count what they do in any case, in atomics. Each second somebody looks at the counters
//!    ([`look`]), and rates come from two looks, one after the other. So it costs the same whoever watches, and nothing for a record.
//! 2. A report is of one process. That of process 0 names the others, with when they were heard of last.
//! 3. It has no document, no key and no secret in it ([`report`]).

mod graph;
mod letters;
mod look;
pub(crate) mod metrics;
mod process;
pub(crate) mod report;
mod reporter;
mod show;
mod sinks;
mod sources;
mod totals;
pub(crate) mod watch;

pub(crate) use letters::{Counted, LetterCounts};
pub(crate) use look::{EpochLook, JobFacts, Look};
pub(crate) use process::ProcessFigures;
pub(crate) use reporter::Reporter;
pub(crate) use sources::{RangeLook, ranges};
pub(crate) use totals::Totals;
