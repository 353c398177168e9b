//! What is stored: account, databases, containers, physical partitions, documents.
//!
//! ```text
//! account -> database -> container -> map of partitions -> partition -> shard (documents, indexes, log, history)
//!                           `-> transaction: writes of one request, judged, made durable (journal), then visible
//! ```

mod account;
mod container;
mod document;
mod environment;
mod expiry;
mod history;
mod journal;
mod log;
mod map;
mod meter;
mod partition;
mod reshape;
mod shard;
mod topology;
mod transaction;
mod unique;

pub use account::{Account, Database, Offer};
pub use container::{Container, Definition};
pub use document::{Document, Version};
pub use environment::{Environment, Limits, StoreError};
pub use history::{Change, ChangeKind};
pub use journal::{Journal, OpenError};
pub use map::PartitionMap;
pub use partition::Partition;
pub use shard::Draft;
pub use transaction::Transaction;
