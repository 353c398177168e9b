//! Durability: a journal of everything that changes, and the way back.
//!
//! ```text
//! DIR/lock              held while a server uses the directory
//! DIR/journal-<n>.log   records since the n-th start, beginning with all that was there then
//! ```
//!
//! Rules:
//! 1. A change is appended before it is made and before the client hears of it. An append that fails leaves no trace.
//! 2. A record is whole or it is not there: length, checksum, payload. What a request changes is one record. What a
//!    killed process or a power cut left half written at the end is cut off; damage anywhere else is an error that names
//!    the file and the place.
//! 3. At a start the journal is replayed and what results is written to a fresh journal, so its size follows the data and
//!    the writes since the last start. The old journal goes when the new one is on disk.
//! 4. Records stand in the order in which their changes were made, as far as that matters: a change is made under the
//!    lock under which it was appended. Containers are known by number, which are never used again, so what a request
//!    that was under way did to a container after its end can be told, and is skipped.
//! 5. The clock is not kept: a server whose clock was moved forward starts at the system's time again. LSNs and `_ts` do
//!    not go backwards.
//!
//! An acknowledged write survives the process: it is with the operating system. Whether it survives the machine depends
//! on [`FsyncPolicy`].

mod codec;
mod file;
mod replay;
mod snapshot;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::file::{DirectoryLock, LogFile};
use super::account::{Account, Offer};
use super::transaction::Mutation;
use crate::config::FsyncPolicy;

pub use self::replay::OpenError;

/// A change other than a write of documents.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// First of every journal: what the numbers of the account start from.
    Opened {
        /// See [`super::environment::Environment::salt`].
        salt: u32,
        /// Last number of the account.
        numbers: u64,
    },
    /// A database.
    DatabaseCreated {
        /// Name.
        id: String,
        /// Number in the account.
        number: u32,
        /// Entity tag.
        etag: String,
        /// Seconds since 1970.
        ts: u32,
    },
    /// A database with all its containers.
    DatabaseDeleted {
        /// Number in the account.
        number: u32,
    },
    /// A container with empty partitions of the same width.
    ContainerCreated {
        /// Number of the database.
        database: u32,
        /// Number in the account.
        number: u32,
        /// How many partitions.
        partitions: usize,
        /// As the client gave them, checked and completed.
        #[serde(with = "as_text")]
        properties: Value,
        /// Seconds since 1970.
        ts: u32,
    },
    /// New properties.
    ContainerReplaced {
        /// Number in the account.
        container: u32,
        /// As at creation.
        #[serde(with = "as_text")]
        properties: Value,
        /// Number behind its entity tag.
        etag: u64,
        /// Seconds since 1970.
        ts: u32,
    },
    /// The end of a container.
    ContainerDeleted {
        /// Number in the account.
        container: u32,
    },
    /// The state of a container without its documents; they follow.
    ContainerState(ContainerState),
    /// The beginning of a journal ends here: all that was there has been told.
    Complete,
    /// An offer, new or changed.
    OfferSet(Offer),
    /// A partition was split.
    Split {
        /// Number in the account.
        container: u32,
        /// Partition key range id of the parent.
        partition: u32,
        /// The hash at which it was split, hexadecimal.
        at: String,
    },
    /// Two partitions were merged.
    Merged {
        /// Number in the account.
        container: u32,
        /// Their partition key range ids.
        partitions: [u32; 2],
    },
    /// A container's history is recorded from here on.
    HistoryStarted {
        /// Number in the account.
        container: u32,
    },
}

/// See [`Event::ContainerState`].
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerState {
    /// Number of the database.
    database: u32,
    number: u32,
    #[serde(with = "as_text")]
    properties: Value,
    ts: u32,
    rids: u64,
    etags: u64,
    map_version: u64,
    next_partition: u32,
    partitions: Vec<PartitionState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartitionState {
    id: u32,
    min: String,
    max: String,
    parents: Vec<u32>,
    lsn: u64,
    ts: u32,
    /// Key ranges whose history is held, and from which LSN on.
    floors: Vec<(String, String, u64)>,
}

/// JSON as text within JSON. Clients' JSON may be as deep as the parser allows, so it cannot stand inside something else.
pub(super) mod as_text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use serde_json::Value;

    pub fn serialize<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}

/// The journal of a running server.
#[derive(Debug)]
pub struct Journal {
    file: LogFile,
    /// Held until the last write is on disk: fields are dropped in order.
    _lock: DirectoryLock,
}

impl Journal {
    /// Restores what `directory` holds and opens its journal; creates both if there is nothing.
    ///
    /// # Errors
    /// [`OpenError`]: another server uses the directory, it cannot be read or written, or it is damaged.
    pub fn open(
        directory: &Path,
        policy: FsyncPolicy,
        build: impl FnOnce(u32) -> Account,
    ) -> Result<Account, OpenError> {
        replay::open(directory, policy, build)
    }

    /// Appends writes of documents.
    ///
    /// # Errors
    /// Of the file system; the journal is as before then.
    pub fn write(
        &self,
        container: u32,
        partition: u32,
        mutations: &[Mutation],
    ) -> std::io::Result<()> {
        self.file
            .append(|out| codec::encode_writes(out, container, partition, mutations))
    }

    /// Appends other changes, all or none.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn events(&self, events: &[Event]) -> std::io::Result<()> {
        let mut payload = Vec::new();
        codec::encode_events(&mut payload, events)?;
        self.file.append(|out| out.extend_from_slice(&payload))
    }
}
