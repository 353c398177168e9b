//! Time in views: rows that come and go because time passes, and windows over the times that rows carry.
//!
//! | what | where |
//! |---|---|
//! | the epochs that a dataflow can show something at | [`epochs`] |
//! | temporal filter: a row is there from one moment until another | [`valid`], [`schedule`] |
//! | tumbling, hopping and session windows | [`windowed`], [`windows`] |
//! | event time, as documents say it | [`event_time`] |
//! | watermarks, computed from it | [`range_mark`] in the reader, [`watermark`], [`watermarks`](tidefeed_runtime::watermarks) |
//! | windows that are final when a watermark has passed | [`finals`] |
//!
//! # What time is
//!
//! Time is the epoch: the only clock of a job, in milliseconds since the UNIX epoch, and never standing or going back. A row
//! whose time comes between two epochs changes in the second one; between epochs nothing is written and nothing committed, so there
//! is no other place for it. An idle job mints an epoch every `epoch.max_ms`: that is how late a change may show. A job that was
//! down finds everything that fell due meanwhile in its first new epoch.
//!
//! *Event time* is another thing: when something has happened, as a document says. It is data, and no clock. Windows over it need
//! no other time to be right; only to be *final* they need a watermark, which is computed from what the readers have found.
//!
//! # Why a crash changes nothing
//!
//! A view with time in it is a function of the source collection *and the epoch*. Three rules make it the same function again:
//!
//! 1. **At a commit.** A resumed run loads the collection as of the commit at the commit's epoch, and the filter looks at the rows
//!    as of that epoch. So the view is the committed one, whatever happened on the way, and can be compared with it (I8).
//! 2. **Beyond it.** An epoch in which rows fall due is visible outside, even if nothing was read in it. So it is sealed, with nothing
//!    in it ([`Due`](tidefeed_runtime::sealer::Due)), and a resumed run is told of every sealed epoch
//!    ([`EPOCHS`](tidefeed_runtime::loader::EPOCHS)): everything falls due again exactly where it did. This is I3 for time. Without it a
//!    patch with an increment would count twice, as its stamp is the epoch; and even an upsert could stay for ever: a row that
//!    came by time, was written, and was deleted in the source before the next run's first epoch would not be in the view, and
//!    nobody would take it out of the container.
//! 3. **What an epoch without anything due holds** is the same as the epoch before, so it needs no seal, and an idle job with
//!    filters costs what one without costs.
//!
//! What depends on a watermark is the same again because the watermark is: the marks of the feed ranges are in the seals, beside the
//! tokens of the same ranges (I2), and where it stood in the commit. An epoch in which a mark moved is sealed, also without a record.
//! Which ranges were idle was decided by a clock, once, and is not decided again.
//!
//! # Limits
//!
//! - Rows must come to a filter through operators that let go of an epoch when it is complete. An operator of the job's own that holds
//!   one until a later one comes would wait for ever: an epoch without data is not sealed before the filters have seen to it.
//! - If a clock is set back between two runs, time stands still until it has caught up.
//! - One document with a time far ahead moves the watermark of its range there, for good. Read `_ts`, which the service sets, or
//!   correct the time before it is written.
//! - A watermark is that of one source, and there is none of rows that are joined from two.
//! - When all ranges are idle the watermark stands still, so the newest windows stay open until something comes. A bounded run ends
//!   with them open.
//! - A bounded run in which a sink is still being rebuilt when the last epoch is over commits at one millisecond after that
//!   epoch. A row that falls due in that very millisecond makes the next start say that the view differs, and ask for `--rebuild`.

pub mod epochs;
pub mod event_time;
pub mod finals;
pub mod range_mark;
pub mod schedule;
#[cfg(test)]
mod tests;
pub mod valid;
pub mod watermark;
pub mod windowed;
pub mod windows;
