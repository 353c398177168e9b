//! The two operators that every job has: [`ticks()`], where epochs begin, and [`commit()`], where they end.
//!
//! ```text
//!   ticks --(epoch)--> sources --(records)--> the job --(changes)--> sinks --+
//!                         |                                                  | Report::View, Report::Rebuilt
//!                         +------- Report::Seal, Report::Tokens --------> commit
//! ```
//!
//! A stateful operator within the job reports as well: what its input comes to, and the seals of its state.

mod commit;
mod ticks;

pub use commit::{Report, Resumed, SinkStart, commit};
pub use ticks::ticks;
