//! Several processes that run one job.
//!
//! ```text
//!            process 0 ------------------ process 1 ------------------ process 2
//!   data        |  `------- timely: records, seals, frontiers --------'   |
//!   control     +---- facts of ledgers, may-write, stop ----+-------------+
//! ```
//!
//! timely's own engine moves records and frontiers between the workers of all processes. What it lacks is here: finding the others
//! and knowing that they belong together (`assemble.rs`, `dial.rs`, `door.rs`, `handshake.rs`, `tls.rs`), noticing that one is lost (`pulse.rs`,
//! `wire.rs`), and an end that is not a hang (`mesh.rs`). What workers of one process share through its [`Ledger`](crate::Ledger) is told
//! between processes by the [facts] of `lead.rs` and `follow.rs`.
//!
//! About each second a member's facts come with a report of itself: a bounded text that only the job understands
//! ([`Ledger::tell_report`](crate::Ledger::tell_report)). Nothing of a run depends on it, so one that is not understood, or does not
//! come, ends nothing.
//!
//! # Rules
//!
//! 1. **Process 0 leads.** It alone has the lease, and so the generation; it decides what becomes of sinks; it mints epochs and
//!    commits. The others are *members*. Each has one control connection with process 0; for data each has one with every other.
//! 2. **Order of a start**: all find process 0 and prove that they belong to it; process 0 takes the checkpoint over and tells
//!    all which generation it is; each reads what it starts from; all connect for data, within that generation; the dataflow begins.
//! 3. **Where each fact of a ledger comes from** in a cluster:
//!
//!    | fact | decided by | reaches the others |
//!    |---|---|---|
//!    | an epoch is minted | process 0, worker 0 | as a tick, through the dataflow |
//!    | an epoch is sealed by a process | its sealer | the frontier holds everybody until all have (I1); for the ticker, as a fact |
//!    | the seals of an epoch, positions, hashes of views | each process | as reports, through the dataflow, to the commit operator |
//!    | pages and bytes that wait, readers without room | each process | as facts, summed by process 0 |
//!    | bytes attached to an epoch | each process | as facts; process 0 counts them as in flight |
//!    | ranges opened, to catch up, to be fixed | process 0, where the enumerators are | nobody needs them |
//!    | ranges ended, read up, caught up, fixed | whoever reads them | as counts; process 0 compares the sums |
//!    | the first load is complete | process 0 | as a fact |
//!    | ranges handed over | the source operator, when sealed | to the enumerator through the dataflow |
//!    | the epoch is acknowledged | the frontier at the commit operator | nobody needs it |
//!    | the views are verified, earlier requests have settled | process 0 | as one fact: sinks may write |
//!    | an epoch is committed | process 0 | as a fact, for displays |
//!    | the run is to end when all is read, or with what is read | anybody | as a fact, to process 0 and from it to all |
//!    | the run is to end now; why it fails | anybody | likewise |
//!
//! 4. **I7**: a member may write as long as process 0 is known to hold the lease: so long after it began to say something as the lease
//!    was to last when process 0 had heard it. The lease of a cluster is never taken over because a lock is free: that proves only that
//!    process 0 is dead.
//! 5. **Lost is for good.** A process that is silent for the peer timeout, or whose connection breaks, is lost; so is one that
//!    says that it fails. Whoever notices tells process 0, which tells all, and the run ends in every process: with its own error
//!    where that is the cause, as fenced if the run is, and elsewhere with [`PeerLost`](crate::ErrorKind::PeerLost). Nobody comes back into a run:
//!    all start again, from the last commit.
//! 6. **Order of an end**: process 0 gives the lease back when every member has said that nothing is under way any more. If one has
//!    not said so, the next run waits.
//!
//! # Limits
//!
//! - Connections are encrypted only with [`Tls`]; without, the network between the processes has to be trusted.
//! - Whatever timely exchanges between processes is encoded by bincode 1.3. A type that has no `Serialize` and `Deserialize` does not
//!   compile; one whose form only a self-describing format can read, as with `#[serde(flatten)]`, `#[serde(untagged)]` or
//!   `skip_serializing_if`, keeps a job from starting as a cluster if its first documents show it, and else ends the run at its first
//!   record.

mod address;
mod assemble;
mod awaited;
mod dial;
mod door;
pub mod facts;
mod follow;
mod frame;
mod handshake;
mod lead;
mod mesh;
mod next;
mod pulse;
mod secret;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use address::Hosts;
pub use assemble::Place;
pub use awaited::Awaited;
pub use facts::{Finish, MAX_REPORT_BYTES, MemberFacts, RangeCounts, RunFacts, Told};
pub use follow::{Begun, Follow};
pub use lead::Lead;
pub use mesh::Mesh;
pub use secret::{SECRET_VARIABLE, Secret};
pub use tls::Tls;
