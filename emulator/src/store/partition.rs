//! One physical partition: an interval of keys and the shard that holds them.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::shard::Shard;
use crate::epk::EpkRange;

/// A physical partition of a container.
#[derive(Debug)]
pub struct Partition {
    /// Partition key range id, as clients name it.
    pub id: u32,
    /// The keys it owns.
    pub range: EpkRange,
    shard: RwLock<Shard>,
}

impl Partition {
    /// An empty partition.
    pub fn new(id: u32, range: EpkRange) -> Self {
        Self {
            id,
            range,
            shard: RwLock::default(),
        }
    }

    /// The documents, for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Shard> {
        self.shard.read()
    }

    /// The documents, for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, Shard> {
        self.shard.write()
    }

    /// The session token after the change `lsn`: version 0, one region.
    pub fn session_token(&self, lsn: u64) -> String {
        let mut text = Vec::with_capacity(24);
        crate::json::write_number(&mut text, self.id);
        text.extend_from_slice(b":0#");
        crate::json::write_number(&mut text, lsn);
        text.extend_from_slice(b"#0=");
        crate::json::write_number(&mut text, lsn);
        String::from_utf8(text).unwrap_or_default()
    }
}
