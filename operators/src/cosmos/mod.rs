//! Azure Cosmos DB behind the ports: everything in Tidefeed that names Azure is in this folder.
//!
//! ```text
//!     AccountConfig --connect--> Account --open / create_if_absent--> Container
//!                                                                       |-- CosmosFeed    (port ChangeFeed)
//!                                                                       |-- BulkWriter    (writes, usable without any dataflow)
//!                                                                       |-- CosmosTarget  (port Target, over a BulkWriter)
//!                                                                       |-- CosmosReader  (whole contents, for checks)
//!                                                                       |-- ContainerDeadLetters (port DeadLetters)
//!                                                                       |-- ContainerProgress    (port ProgressMarks)
//!                                                                       `-- Redelivery    (port Redeliver)
//! ```
//!
//! # Who retries
//!
//! Of what goes through the SDK, which is everything but bulk writes, one rule in two layers, so that no wait is counted twice:
//!
//! - The SDK retries what it alone can mend: it refreshes its map of partitions after a split (410), fails over between
//!   regions, and repeats a read whose connection broke. All of that is bounded by the SDK.
//! - Tidefeed retries throttling (429) and whatever the SDK gives up on, without limit. The SDK's own throttling retries
//!   are switched off: its budget (9 tries, 30 s) is too short for a feed that must never stop, and its waits are
//!   invisible to whoever paces the requests.
//!
//! What counts as passing is one pure table, [`classify`]; how long to wait is one pure struct, [`Backoff`].
//!
//! Change feeds are read through the SDK's own driver, the layer below it, because the SDK does not hand out the bytes of a page
//! (`driver`); to the service it is the same client.
//!
//! The SDK has no bulk requests, so those go through a small client of our own (`bulk/wire`), which repeats nothing: pace,
//! retries and order are `bulk`'s, with a table of their own, [`Classifier`], as what a status means for a write depends on the
//! write. Writes of more than 1.9 MB, and all of them behind a proxy or to a server with a certificate of its own, go through
//! the SDK. The client can go when the SDK has one.
//!
//! # Limits
//!
//! In LatestVersion mode the change feed carries neither deletes nor versions that were overwritten before they were read. In
//! AllVersionsAndDeletes mode it carries both, and a position in it is lost when it is older than the container's retention.

mod account;
mod account_config;
mod backoff;
mod backtrace;
mod bulk;
mod container;
mod dead_letters;
mod diagnostics;
mod document;
mod driver;
mod entra;
mod failure;
mod feed;
mod indexing;
mod partition_key;
mod point;
mod progress;
mod provision;
mod reader;
mod redeliver;
mod retry;
mod status;
mod target;
mod throttling;

/// What a credential of one's own implements; it is `azure_core`'s.
pub use azure_core::credentials::TokenCredential;

pub use account::Account;
pub use account_config::{AccountConfig, AccountKey, Credential};
pub use backoff::{Backoff, BackoffConfig};
pub use backtrace::disable_library_backtraces;
pub use bulk::classify::{Classifier, Refresh, Subject, Verdict};
pub use bulk::config::{Budget, BulkConfig, Poison, Policy, Priority, WriteOrder};
pub use bulk::flow::Figures as PaceFigures;
pub use bulk::metrics::{BulkMetrics, PartitionMetrics, SIZE_BOUNDS};
pub use bulk::operation::{Action, DocumentKey, Refusal, Summary, Write};
pub use bulk::writer::{BulkWriter, Receipt};
pub use container::Container;
pub use dead_letters::ContainerDeadLetters;
pub use feed::{CosmosFeed, FeedConfig, FeedMode, OnExpired, SoftDelete};
pub use indexing::Indexing;
pub use progress::ContainerProgress;
pub use provision::{ContainerSpec, DefaultTtl, Throughput};
pub use reader::{CosmosReader, sample};
pub use redeliver::Redelivery;
pub use status::{Disposition, classify};
pub use target::CosmosTarget;
