//! Faults on command: requests that are refused, delayed, lost or held, by rule.
//!
//! ```text
//! rules (data) -> engine: request -> decision -> server: waits, refuses, closes connections
//! ```
//!
//! Rules are looked at before anything else is, signatures included, and only for the data API. They are set from Rust
//! ([`crate::Emulator::set_faults`]) or over HTTP, by `PUT /_emulator/faults` with
//!
//! ```json
//! {"seed": 7, "rules": [
//!   {"operation": "upsert", "container": "orders", "skip": 100, "times": 5, "action": "drop-after"},
//!   {"operation": ["reads", "batch"], "probability": 0.1, "action": {"status": {"status": 429, "retry_after_ms": 20}}},
//!   {"operation": "change-feed", "partition": 2, "action": {"delay": {"ms": 300, "jitter_ms": 100}}}
//! ]}
//! ```
//!
//! See [`FaultRule`] for the members of a rule, [`FaultAction`] for the actions and [`FaultOperation`] for the names.
//!
//! A client that gives up while its request is delayed or frozen takes the request back: it is not carried out. Use
//! `drop-after` for a write that happened and whose client does not know, and `status-after` for one whose client is told
//! that it failed.

mod engine;
mod injected;
mod live;
mod operation;
mod random;
mod rule;

pub use engine::{End, FaultEngine, Subject};
pub use live::{Faults, Verdict};
pub use operation::FaultOperation;
pub use rule::{FaultAction, FaultPlan, FaultRule};
