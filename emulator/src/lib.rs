//! An embedded Azure Cosmos DB server over HTTP on loopback: enough of the REST protocol for the official SDKs.
//!
//! ```text
//! socket -> connection -> http (signature, routing) -> api (one noun per file) -> store (partitions, logs, indexes)
//!             |- faults (rule by rule)                   `-> query (text -> tree -> rows)
//!             `- admin (faults, status, clock)
//! ```
//!
//! What it is for: demonstrations, tests and benchmarks that need a real change feed at real sizes. A change feed page
//! costs the documents it returns, an idle poll costs nothing, and a document costs its text and a few hundred bytes.
//!
//! # Supported
//! - Account read; databases, containers, partition key ranges and throughput offers.
//! - Items: create, read, replace, upsert, delete, with entity tags, in text and in Cosmos binary JSON.
//! - Transactional batches, atomic, under one LSN.
//! - The change feed in LatestVersion mode, by partition, by part of a partition and by partition key.
//! - Feeds and simple queries with continuations.
//! - Faults on command: refusals, delays, lost connections and frozen requests, by rule and seed ([`FaultRule`]).
//! - A seed file, and an admin API under `/_emulator/`: faults, status and the clock.
//! - Single (version 2) and hierarchical partition keys; master-key signatures; HTTP/1.1 and HTTP/2.
//!
//! # Not supported, and refused by name
//! Change feed mode AllVersionsAndDeletes; the query plan request, `DISTINCT`, `GROUP BY`, `JOIN`, subqueries; bulk
//! (non-atomic batches); PATCH; TTL; unique keys; version 1 partition keys; stored procedures; Entra tokens.
//!
//! There are no partition splits and merges, no throttling (charges and offers are reported, not enforced), one region,
//! no TLS, and nothing survives the process.
//!
//! # Invariants
//! 1. Everything that one request writes in a partition is visible at once, under one LSN.
//! 2. A change feed page never splits an LSN; its continuation covers exactly what was returned.
//! 3. No request, however malformed, stops the server.

mod admin;
mod api;
mod binary_json;
mod clock;
mod config;
mod connection;
#[doc(hidden)]
pub mod direct;
mod epk;
mod faults;
mod http;
mod ids;
mod json;
mod partition_key;
mod query;
mod ru;
mod seed;
mod server;
mod store;

pub use config::{EmulatorConfig, FsyncPolicy, WELL_KNOWN_KEY};
pub use faults::{FaultAction, FaultOperation, FaultRule};
pub use server::{Emulator, EmulatorStats, FaultError, StartError, TopologyError};
pub use store::OpenError;
