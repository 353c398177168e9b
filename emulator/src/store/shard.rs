//! The documents of one physical partition with their indexes: everything behind the partition's lock.
//!
//! Invariants:
//! 1. A slot is in all indexes (key, place, log; expiry and unique values if it has any) or in none.
//! 2. LSN and `_ts` never go backwards; all documents of one request share an LSN.
//! 3. Reading changes after LSN `n` costs the changes returned, not the documents held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::document::{Document, NEVER, Version};
use super::history::{Change, ChangeKind, History};
use super::log::ChangeLog;
use super::unique::UniqueIndex;
use crate::epk::{Epk, EpkRange};

const CHUNK: usize = 512;

/// A document that is about to be written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The `id` property.
    pub id: Box<str>,
    /// Where it lives.
    pub epk: Epk,
    /// See [`Version::text`].
    pub text: Arc<[u8]>,
    /// Seconds that it lives after its last write; `None` for ever.
    pub ttl: Option<u32>,
    /// Its values for the container's unique keys.
    pub unique: Box<[u128]>,
}

/// When a write happens: the LSN and time of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Position in the partition's history.
    pub lsn: u64,
    /// Seconds since 1970.
    pub ts: u32,
}

/// Key of the ordered index: effective partition key (first component), then creation order.
type Place = (u64, u64, u64);

/// A document on its way to another shard, with its unique values.
pub(super) type Entry = (Document, Box<[u128]>);

/// Documents and indexes of a partition.
#[derive(Debug, Default)]
pub struct Shard {
    /// Slots in chunks, so that growing never copies documents.
    chunks: Vec<Vec<Option<Document>>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    by_place: BTreeMap<Place, u32>,
    /// Slots of documents that expire, by expiry.
    expiries: BTreeSet<(u32, u32)>,
    unique: UniqueIndex,
    log: ChangeLog,
    history: History,
    lsn: u64,
    ts: u32,
    footprint: usize,
}

impl Shard {
    /// An empty shard at a position that another one reached.
    pub(super) fn at(stamp: Stamp, history: History) -> Self {
        Self {
            lsn: stamp.lsn,
            ts: stamp.ts,
            history,
            ..Self::default()
        }
    }

    /// LSN of the newest change; 0 before the first.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// LSN and time of the newest change.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            lsn: self.lsn,
            ts: self.ts,
        }
    }

    /// LSN and time of the next change, if it happens at `now`.
    pub fn next_stamp(&self, now: u32) -> Stamp {
        Stamp {
            lsn: self.lsn + 1,
            ts: self.ts.max(now),
        }
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Bytes of documents, indexes and history, about.
    pub fn footprint(&self) -> usize {
        const PLACE_BYTES: usize = 48;
        const KEY_BYTES: usize = 8;
        const EXPIRY_BYTES: usize = 16;
        self.footprint
            + self.len() * PLACE_BYTES
            + self.by_key.capacity() * KEY_BYTES
            + self.expiries.len() * EXPIRY_BYTES
            + self.unique.footprint()
            + self.log.footprint()
            + self.history.footprint()
            + self.free.capacity() * std::mem::size_of::<u32>()
    }

    /// The document with a key.
    pub fn get(&self, epk: &Epk, id: &str) -> Option<&Document> {
        self.find(epk, id).map(|slot| self.document(slot))
    }

    /// The document that holds a unique value.
    pub fn unique_owner(&self, hash: u128) -> Option<&Document> {
        self.unique.owner(hash).map(|slot| self.document(slot))
    }

    /// Changes, deletes included, for as long as somebody wants them.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// See [`Self::history`].
    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    /// When the next document expires; [`NEVER`] if none does.
    pub fn next_expiry(&self) -> u32 {
        self.expiries.first().map_or(NEVER, |(expiry, _)| *expiry)
    }

    /// Keys of the documents that expire at `now` or before, the first to expire first.
    pub fn expired(&self, now: u32) -> Vec<(u32, Epk, Box<str>)> {
        self.expiries
            .range(..(now.saturating_add(1), 0))
            .map(|(expiry, slot)| {
                let document = self.document(*slot);
                (*expiry, document.epk.clone(), document.id.clone())
            })
            .collect()
    }

    /// Gives every document a new expiry.
    pub fn reset_expiries(&mut self, ttl: impl Fn(&Version) -> Option<u32>) {
        self.expiries.clear();
        for slot in 0..self.chunks.iter().map(Vec::len).sum::<usize>() as u32 {
            let Some(document) = &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
            else {
                continue;
            };
            document.expiry = expiry(&document.version, ttl(&document.version));
            if document.expiry != NEVER {
                self.expiries.insert((document.expiry, slot));
            }
        }
    }

    /// Writes a version of a document, which moves to the end of the change log.
    pub fn put(&mut self, draft: Draft, version: Version) {
        let stamp = Stamp {
            lsn: version.lsn,
            ts: version.ts,
        };
        self.reach(stamp);
        let current = self.history.is_recording().then(|| version.clone());
        let existing = self.find(&draft.epk, &draft.id);
        let key = current
            .is_some()
            .then(|| (draft.id.clone(), draft.epk.clone()));
        let previous = match existing {
            Some(slot) => Some(self.replace(slot, draft.ttl, draft.unique, version)),
            None => {
                self.adopt(draft, version);
                None
            }
        };
        if let Some((id, epk)) = key {
            self.history.push(|| Change {
                kind: match previous {
                    Some(_) => ChangeKind::Replace,
                    None => ChangeKind::Create,
                },
                id,
                epk,
                current,
                previous,
                stamp,
            });
        }
    }

    /// Takes a document away and returns its last version.
    pub fn remove(
        &mut self,
        epk: &Epk,
        id: &str,
        kind: ChangeKind,
        stamp: Stamp,
    ) -> Option<Version> {
        let slot = self.find(epk, id)?;
        self.reach(stamp);
        let Document {
            id, epk, version, ..
        } = self.take(slot)?;
        self.history.push(|| Change {
            kind,
            id,
            epk,
            current: None,
            previous: Some(version.clone()),
            stamp,
        });
        Some(version)
    }

    /// Adds a document that is not there, without a word to the history. Its LSN may not be before the log's last.
    pub(super) fn adopt(&mut self, draft: Draft, version: Version) {
        let slot = self.vacant();
        let log_position = self.log.append(version.lsn, version.ts, slot);
        let Draft {
            id,
            epk,
            ttl,
            unique,
            ..
        } = draft;
        self.by_place.insert(place(&epk, version.rid), slot);
        let hash = key_hash(&epk, &id);
        let document = Document {
            id,
            epk,
            expiry: expiry(&version, ttl),
            version,
            log_position,
        };
        if document.expiry != NEVER {
            self.expiries.insert((document.expiry, slot));
        }
        self.unique.claim(slot, unique);
        self.footprint += document.footprint();
        self.chunks[slot as usize / CHUNK][slot as usize % CHUNK] = Some(document);
        let chunks = &self.chunks;
        self.by_key.insert_unique(hash, slot, |slot| {
            chunks[*slot as usize / CHUNK][*slot as usize % CHUNK]
                .as_ref()
                .map_or(0, |document| key_hash(&document.epk, &document.id))
        });
    }

    /// All documents in LSN order with their unique values, and the history; the shard is empty then.
    pub(super) fn dissolve(mut self) -> (Vec<Entry>, History) {
        let slots: Vec<u32> = self.log.after(0).collect();
        let documents = slots
            .into_iter()
            .filter_map(|slot| {
                let unique = self.unique.release(slot);
                let document = self.chunks[slot as usize / CHUNK][slot as usize % CHUNK].take()?;
                Some((document, unique))
            })
            .collect();
        (documents, self.history)
    }

    /// Current documents whose newest change is after `lsn`, in LSN order.
    pub fn changes_after(&self, lsn: u64) -> impl Iterator<Item = &Document> {
        // An idle poll must not search the log.
        let changes = (lsn < self.lsn).then(|| self.log.after(lsn));
        changes
            .into_iter()
            .flatten()
            .map(|slot| self.document(slot))
    }

    /// Current documents whose newest change is at `ts` or later, in LSN order.
    pub fn changes_since(&self, ts: u32) -> impl Iterator<Item = &Document> {
        self.log.since(ts).map(|slot| self.document(slot))
    }

    /// Documents of an interval in the order of places, after the document of key `after.0` and number `after.1`.
    pub fn scan<'a>(
        &'a self,
        range: &'a EpkRange,
        after: Option<(u128, u64)>,
    ) -> impl Iterator<Item = &'a Document> {
        let (low, high) = range.heads();
        let from = match after {
            Some((head, rid)) if head >= low => split_head(head, rid.saturating_add(1)),
            _ => split_head(low, 0),
        };
        let to = split_head(high, u64::MAX);
        let places = (from <= to).then(|| self.by_place.range(from..=to));
        places
            .into_iter()
            .flatten()
            .map(|(_, slot)| self.document(*slot))
            .filter(|document| range.contains(&document.epk))
    }

    /// The first component of the key in the middle of the documents; `None` if all have the same.
    pub fn median_head(&self) -> Option<u128> {
        let head = |place: &Place| u128::from(place.0) << 64 | u128::from(place.1);
        let first = head(self.by_place.keys().next()?);
        // Asked after every write to a logical partition that has grown too large: no walk then.
        if self.by_place.keys().next_back().map(head) == Some(first) {
            return None;
        }
        let middle = self.by_place.keys().skip(self.len() / 2).map(head);
        middle.into_iter().find(|head| *head > first)
    }

    fn find(&self, epk: &Epk, id: &str) -> Option<u32> {
        self.by_key
            .find(key_hash(epk, id), |slot| {
                let document = self.document(*slot);
                &*document.id == id && document.epk == *epk
            })
            .copied()
    }

    fn document(&self, slot: u32) -> &Document {
        self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
            .as_ref()
            .expect("indexes hold only occupied slots")
    }

    fn reach(&mut self, stamp: Stamp) {
        self.lsn = self.lsn.max(stamp.lsn);
        self.ts = self.ts.max(stamp.ts);
    }

    fn replace(
        &mut self,
        slot: u32,
        ttl: Option<u32>,
        unique: Box<[u128]>,
        version: Version,
    ) -> Version {
        let log_position = self.log.append(version.lsn, version.ts, slot);
        let document = self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
            .as_mut()
            .expect("indexes hold only occupied slots");
        let new_expiry = expiry(&version, ttl);
        if document.expiry != new_expiry {
            self.expiries.remove(&(document.expiry, slot));
            if new_expiry != NEVER {
                self.expiries.insert((new_expiry, slot));
            }
            document.expiry = new_expiry;
        }
        self.footprint += version.text.len();
        let previous = std::mem::replace(&mut document.version, version);
        self.footprint -= previous.text.len();
        let old_position = std::mem::replace(&mut document.log_position, log_position);
        self.unique.claim(slot, unique);
        self.log.kill(old_position);
        self.sweep_log();
        previous
    }

    fn take(&mut self, slot: u32) -> Option<Document> {
        let document = self.chunks[slot as usize / CHUNK][slot as usize % CHUNK].take()?;
        self.by_place
            .remove(&place(&document.epk, document.version.rid));
        if let Ok(entry) = self
            .by_key
            .find_entry(key_hash(&document.epk, &document.id), |other| {
                *other == slot
            })
        {
            entry.remove();
        }
        self.expiries.remove(&(document.expiry, slot));
        self.unique.release(slot);
        self.free.push(slot);
        self.footprint -= document.footprint();
        self.log.kill(document.log_position);
        self.sweep_log();
        Some(document)
    }

    fn vacant(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(None);
        (last * CHUNK + self.chunks[last].len() - 1) as u32
    }

    fn sweep_log(&mut self) {
        if self.log.wants_sweep() {
            let chunks = &mut self.chunks;
            self.log.sweep(|slot, position| {
                if let Some(document) = &mut chunks[slot as usize / CHUNK][slot as usize % CHUNK] {
                    document.log_position = position;
                }
            });
        }
    }
}

fn expiry(version: &Version, ttl: Option<u32>) -> u32 {
    ttl.map_or(NEVER, |ttl| version.ts.saturating_add(ttl))
}

/// The hash by which documents are found.
pub fn key_hash(epk: &Epk, id: &str) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), epk.head() as u64)
}

fn place(epk: &Epk, rid: u64) -> Place {
    split_head(epk.head(), rid)
}

fn split_head(head: u128, rid: u64) -> Place {
    ((head >> 64) as u64, head as u64, rid)
}

#[cfg(test)]
mod tests;
