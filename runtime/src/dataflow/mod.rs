//! The two operators that every job has: [`ticks()`], where epochs begin, and [`commit()`], where they end.
//!
//! ```text
//!   ticks --(epoch)--> sources --(records)--> the job --(changes)--> sinks --+
//!                         |                                                  | Report::View, Report::Rebuilt
//!                         +------- Report::Seal, Report::Tokens --------> commit
//! ```

mod commit;
mod ticks;

pub use commit::{Report, Resumed, SinkStart, commit};
pub use ticks::ticks;
