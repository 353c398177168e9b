//! What all containers of a server share: the clock, the journal and the limits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::journal::{Event, Journal};
use crate::clock::Clock;

/// Highest throughput of a physical partition, in RU/s (service limit).
pub const MAX_PARTITION_THROUGHPUT: f64 = 10_000.0;

/// What the server is configured to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Physical partitions of a new container.
    pub partitions: usize,
    /// RU/s of a container that was created without any; `None` if throughput is not enforced.
    pub throughput: Option<u32>,
    /// How long AllVersionsAndDeletes can be read back, if the container does not say.
    pub retention: Duration,
    /// Bytes at which a partition is split.
    pub split_at_bytes: Option<u64>,
}

/// What all containers of a server share.
#[derive(Debug)]
pub struct Environment {
    /// The only clock.
    pub clock: Arc<Clock>,
    /// Where writes are made durable, if they are; set when what it holds has been restored.
    pub journal: OnceLock<Journal>,
    /// Configuration.
    pub limits: Limits,
    /// See [`super::document::Rendering::salt`].
    pub salt: u32,
}

impl Environment {
    /// Appends what a request changes to the journal, if there is one.
    pub(super) fn journal(&self, events: impl FnOnce() -> Vec<Event>) -> std::io::Result<()> {
        match self.journal.get() {
            Some(journal) => journal.events(&events()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl Environment {
    /// Defaults, and `partitions` partitions for each container.
    pub fn for_tests(partitions: usize) -> Self {
        Self {
            clock: Arc::default(),
            journal: OnceLock::new(),
            limits: Limits {
                partitions,
                throughput: None,
                retention: Duration::from_secs(7 * 86_400),
                split_at_bytes: None,
            },
            salt: 1,
        }
    }
}

/// Why the store refused a call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The partition's throughput is used up.
    #[error("the throughput of the partition is used up")]
    Throttled {
        /// Milliseconds after which it is not.
        retry_after_ms: u64,
    },
    /// The database of what was to be created is gone.
    #[error("the database does not exist any more")]
    DatabaseGone,
    /// The journal could not be written.
    #[error("the write could not be made durable, and was not made: {0}")]
    Journal(#[from] std::io::Error),
}
