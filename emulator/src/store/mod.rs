//! What the server remembers: account, databases, containers, and the documents of each physical partition.
//!
//! ```text
//! Account -> Database -> Container -> Partition [min, max) -> Shard: documents + indexes, behind one lock
//!                                                              |- by key      (epk, id) -> slot, a hash table
//!                                                              |- by place    (epk, rid) -> slot, ordered: feeds, queries
//!                                                              `- change log  lsn -> slot, ordered: the change feed
//! ```
//!
//! Maps of names are read-locked only while a name is looked up. A write locks one partition for as long as it takes to
//! swap a document and note it in the log; there is no lock above partitions.

mod account;
mod container;
mod document;
mod log;
mod partition;
mod shard;

pub use account::{Account, Database, Offer};
pub use container::Container;
pub use document::Document;
pub use partition::Partition;
pub use shard::{Draft, Shard, Stamp};
