//! Durability: a journal of everything that changes, and the way back.
//!
//! ```text
//! DIR/lock              held while a server uses the directory
//! DIR/journal-<n>.log   records since the n-th start, beginning with all that was there then
//! ```
//!
//! Rules:
//! 1. A change is appended before it is made and before the client hears of it. An append that fails leaves no trace.
//! 2. A record is whole or it is not there: length, checksum, payload. What a killed process or a power cut left half
//!    written at the end is cut off; damage anywhere else is an error that names the file and the place.
//! 3. At a start the journal is replayed and what results is written to a fresh journal, so its size follows the data and
//!    the writes since the last start. The old journal goes when the new one is on disk.
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

use self::file::LogFile;
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
        /// Name.
        id: String,
    },
    /// A container with empty partitions of the same width.
    ContainerCreated {
        /// Name of the database.
        database: String,
        /// Number in the account.
        number: u32,
        /// How many partitions.
        partitions: usize,
        /// As the client gave them, checked and completed.
        properties: Value,
        /// Seconds since 1970.
        ts: u32,
    },
    /// New properties.
    ContainerReplaced {
        /// Number in the account.
        container: u32,
        /// As at creation.
        properties: Value,
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
    /// A partition's history is recorded from here on.
    HistoryStarted {
        /// Number in the account.
        container: u32,
        /// Partition key range id.
        partition: u32,
        /// Everything after this LSN is held.
        lsn: u64,
    },
}

/// See [`Event::ContainerState`].
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerState {
    database: String,
    number: u32,
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

/// The journal of a running server.
#[derive(Debug)]
pub struct Journal {
    file: LogFile,
    /// Held until the last write is on disk: fields are dropped in order.
    _lock: std::fs::File,
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

    /// Appends another change.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn event(&self, event: &Event) -> std::io::Result<()> {
        let mut payload = Vec::new();
        codec::encode_event(&mut payload, event)?;
        self.file.append(|out| out.extend_from_slice(&payload))
    }
}
