//! An embedded Azure Cosmos DB server over HTTP on loopback: enough of the REST protocol for the official SDKs.
//!
//! ```text
//! socket -> server -> http (signature, routing) -> api (one noun per file) -> store (partitions, logs, indexes)
//!                                                   `-> query (text -> tree -> rows)
//! ```
//!
//! What it is for: demonstrations, tests and benchmarks that need a real change feed at real sizes. A change feed page
//! costs the documents it returns, an idle poll costs nothing, and a document costs its text and a few hundred bytes.
//!
//! # Supported
//! - Account read; databases, containers, partition key ranges and throughput offers.
//! - Items: create, read, replace, upsert, delete and patch, with entity tags, in text and in Cosmos binary JSON; unique
//!   keys; time to live.
//! - Transactional batches, atomic, and bulk batches by partition key range; each under one LSN.
//! - The change feed in both modes, LatestVersion and AllVersionsAndDeletes, by container, partition, part of a partition,
//!   partition key and key prefix.
//! - Feeds and queries with continuations, and the query plans by which clients merge partitions: filters, joins within an
//!   item, subqueries, `ORDER BY`, `GROUP BY`, `DISTINCT`, windows, aggregates and the common functions.
//! - Splits and merges of partitions, on command and by size or throughput; positions in feeds stay good.
//! - Throughput: a charge on every reply, and 429 with a time to wait when [`EmulatorConfig::throughput`] is set.
//! - Faults on command, a clock that can be advanced, the state of the server: in code, and as `/_emulator/` over HTTP.
//! - Data in memory, or in a directory ([`EmulatorConfig::data`]).
//! - Single (version 2) and hierarchical partition keys; session tokens; HTTP/1.1 and HTTP/2.
//! - Master-key signatures, and one Entra token ([`EmulatorConfig::entra_token`]) that is compared with what is sent.
//!
//! # Not supported, and refused by name
//! Version 1 partition keys; stored procedures, triggers and user-defined functions; users and permissions. In
//! queries: `ORDER BY` beside `GROUP BY`; `DISTINCT`, windows and aggregates in a subquery over the whole container; bitwise
//! operators; dates, regular expressions, spatial, vector and full-text search.
//!
//! There is one region, one replica and no TLS.
//!
//! # Known differences from the service
//! - AllVersionsAndDeletes needs no continuous backup: it is recorded from the first read in that mode on, and it can be
//!   read across a merge.
//! - A replace cannot change the `id` of an item, and items are nested 127 levels deep at most, not 128.
//! - Throughput is not enforced unless [`EmulatorConfig::throughput`] is set; a database's throughput then limits each of
//!   its containers to all of it. There is no burst capacity.
//! - A partition splits at a size only if the server is told to, and two merge only on command.
//! - An Entra token may do everything that the key may; in the service it cannot create databases and containers.
//! - Priority levels and throughput buckets are checked and counted, and give nobody more or less.
//! - Charges follow a simple model of document sizes, not of indexes.
//!
//! # Admin API
//! Without signatures, for clients on the same machine, and never hit by faults:
//!
//! | request | does |
//! |---|---|
//! | `GET /_emulator/status` | counts down to the partition; `/_emulator/dbs/{db}/colls/{coll}` is one container of it |
//! | `GET`, `PUT`, `DELETE /_emulator/faults` | shows rules with their hits, replaces them, takes them back ([`FaultRule`]) |
//! | `POST /_emulator/dbs/{db}/colls/{coll}/ranges/{id}/split` | splits a partition |
//! | `PUT /_emulator/dbs/{db}/colls/{coll}/ranges/{id}/throughput` | limits one partition: `{"ru_per_s": 100}`, or `null` |
//! | `POST /_emulator/dbs/{db}/colls/{coll}/merge` | merges two: `{"ranges": ["4", "5"]}` |
//! | `GET`, `POST /_emulator/clock` | shows the server's clock, moves it forward: `{"advance_ms": 60000}` |
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
