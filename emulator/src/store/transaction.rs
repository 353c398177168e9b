//! A request's writes in one partition: judged one after another, then made durable and visible at once.
//!
//! A transaction holds the partition's lock. Until [`Transaction::commit`] nothing is changed: what the operations so far
//! would leave is seen through [`Transaction::find`], so an operation sees the ones before it. Dropping the transaction
//! takes everything back. With a journal, `commit` writes to it first and changes nothing if that fails.

use parking_lot::RwLockWriteGuard;

use super::container::Container;
use super::document::Version;
use super::environment::StoreError;
use super::history::ChangeKind;
use super::partition::Partition;
use super::shard::{Draft, Shard, Stamp, key_hash};
use crate::epk::Epk;

/// One change of one document, as the journal keeps it.
#[derive(Debug)]
pub enum Mutation {
    /// Write a version.
    Put {
        /// The document.
        draft: Draft,
        /// What is written; its text is the draft's.
        version: Version,
    },
    /// Take a document away.
    Remove {
        /// Where it lives.
        epk: Epk,
        /// Its `id`.
        id: Box<str>,
        /// By request or by expiry.
        kind: ChangeKind,
        /// When.
        stamp: Stamp,
    },
}

impl Mutation {
    /// Key of the document.
    pub fn key(&self) -> (&Epk, &str) {
        match self {
            Self::Put { draft, .. } => (&draft.epk, &draft.id),
            Self::Remove { epk, id, .. } => (epk, id),
        }
    }

    /// Carries it out.
    pub fn apply(self, shard: &mut Shard) {
        match self {
            Self::Put { draft, version } => shard.put(draft, version),
            Self::Remove {
                epk,
                id,
                kind,
                stamp,
            } => {
                shard.remove(&epk, &id, kind, stamp);
            }
        }
    }
}

/// Writes that are being judged.
pub struct Transaction<'a> {
    container: &'a Container,
    partition: &'a Partition,
    shard: RwLockWriteGuard<'a, Shard>,
    stamp: Stamp,
    mutations: Vec<Mutation>,
    /// Key hashes of `mutations`, for a quick look.
    hashes: Vec<u64>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        container: &'a Container,
        partition: &'a Partition,
        shard: RwLockWriteGuard<'a, Shard>,
        now: u32,
    ) -> Self {
        Self {
            container,
            partition,
            stamp: shard.next_stamp(now),
            shard,
            mutations: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// The current version of a document, as of the operations so far.
    pub fn find(&self, epk: &Epk, id: &str) -> Option<&Version> {
        if !self.mutations.is_empty() {
            let hash = key_hash(epk, id);
            for (index, known) in self.hashes.iter().enumerate().rev() {
                if *known == hash && self.mutations[index].key() == (epk, id) {
                    return match &self.mutations[index] {
                        Mutation::Put { version, .. } => Some(version),
                        Mutation::Remove { .. } => None,
                    };
                }
            }
        }
        self.shard.get(epk, id).map(|document| &document.version)
    }

    /// Whether another document has one of the draft's unique values.
    pub fn violates_unique_key(&self, draft: &Draft) -> bool {
        if draft.unique.is_empty() {
            return false;
        }
        let me = (&draft.epk, &*draft.id);
        let last = |key| {
            self.mutations
                .iter()
                .rev()
                .find(|mutation| mutation.key() == key)
        };
        draft.unique.iter().any(|hash| {
            let pending = self.mutations.iter().any(|mutation| {
                let key = mutation.key();
                key != me
                    && matches!(last(key), Some(Mutation::Put { draft, .. }) if draft.unique.contains(hash))
            });
            pending
                || self.shard.unique_owner(*hash).is_some_and(|owner| {
                    let key = (&owner.epk, &*owner.id);
                    key != me && last(key).is_none()
                })
        })
    }

    /// Writes a document and returns the new version. `rid` is that of the version that [`Self::find`] found, if any.
    pub fn put(&mut self, draft: Draft, rid: Option<u64>) -> Version {
        let rid = rid.unwrap_or_else(|| self.container.rids.next());
        let version = Version {
            text: draft.text.clone(),
            rid,
            etag: self.container.etags.next(),
            lsn: self.stamp.lsn,
            ts: self.stamp.ts,
        };
        self.push(Mutation::Put {
            draft,
            version: version.clone(),
        });
        version
    }

    /// Deletes a document.
    pub fn remove(&mut self, epk: Epk, id: Box<str>) {
        let stamp = self.stamp;
        self.push(Mutation::Remove {
            epk,
            id,
            kind: ChangeKind::Delete,
            stamp,
        });
    }

    /// LSN that a reply shall name if nothing was written.
    pub fn lsn(&self) -> u64 {
        self.shard.lsn()
    }

    /// Makes the writes durable and visible; returns the newest LSN then.
    ///
    /// # Errors
    /// [`StoreError::Journal`] if they could not be made durable; nothing is changed then.
    pub fn commit(mut self) -> Result<u64, StoreError> {
        if !self.mutations.is_empty() {
            self.container
                .apply(self.partition, &mut self.shard, self.mutations)?;
        }
        Ok(self.shard.lsn())
    }

    fn push(&mut self, mutation: Mutation) {
        let (epk, id) = mutation.key();
        self.hashes.push(key_hash(epk, id));
        self.mutations.push(mutation);
    }
}
