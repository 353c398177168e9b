//! The documents of one physical partition with their indexes: everything behind the partition's lock.
//!
//! Invariants:
//! 1. A slot is in all three indexes (key, place, log) or in none.
//! 2. LSN and `_ts` never go backwards; all documents of one batch share an LSN.
//! 3. Reading changes after LSN `n` costs the changes returned, not the documents held.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::document::Document;
use super::log::ChangeLog;
use crate::epk::{Epk, EpkRange};

const CHUNK: usize = 512;

/// A document that is about to be written.
#[derive(Debug)]
pub struct Draft {
    /// The `id` property.
    pub id: Box<str>,
    /// Where it lives.
    pub epk: Epk,
    /// See [`Document::text`].
    pub text: Box<[u8]>,
}

/// When a write happens: the LSN and time of one point write or one batch.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Position in the partition's history.
    pub lsn: u64,
    /// Seconds since 1970.
    pub ts: u32,
}

/// Key of the ordered index: effective partition key (first component), then creation order.
type Place = (u64, u64, u64);

/// Documents and indexes of a partition.
#[derive(Debug, Default)]
pub struct Shard {
    /// Slots in chunks, so that growing never copies documents.
    chunks: Vec<Vec<Option<Document>>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    by_place: BTreeMap<Place, u32>,
    log: ChangeLog,
    lsn: u64,
    ts: u32,
    footprint: usize,
}

impl Shard {
    /// LSN of the newest change; 0 before the first.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Bytes of documents and indexes, about.
    pub fn footprint(&self) -> usize {
        const PLACE_BYTES: usize = 48;
        const KEY_BYTES: usize = 8;
        self.footprint
            + self.len() * PLACE_BYTES
            + self.by_key.capacity() * KEY_BYTES
            + self.log.footprint()
            + self.free.capacity() * std::mem::size_of::<u32>()
    }

    /// Opens the next change; every write needs a stamp, and writes of one batch share it.
    pub fn advance(&mut self, now: u32) -> Stamp {
        self.lsn += 1;
        self.ts = self.ts.max(now);
        Stamp {
            lsn: self.lsn,
            ts: self.ts,
        }
    }

    /// The slot of a document.
    pub fn find(&self, epk: &Epk, id: &str) -> Option<u32> {
        self.by_key
            .find(key_hash(epk, id), |slot| {
                let document = self.document(*slot);
                &*document.id == id && document.epk == *epk
            })
            .copied()
    }

    /// The document in a slot that [`Self::find`] or an iterator returned.
    pub fn document(&self, slot: u32) -> &Document {
        self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
            .as_ref()
            .expect("indexes hold only occupied slots")
    }

    fn document_mut(&mut self, slot: u32) -> &mut Document {
        self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
            .as_mut()
            .expect("indexes hold only occupied slots")
    }

    /// Adds a document that is not there yet and returns its slot.
    pub fn insert(&mut self, draft: Draft, rid: u64, etag: u64, stamp: Stamp) -> u32 {
        let slot = self.vacant();
        let log_position = self.log.append(stamp.lsn, stamp.ts, slot);
        let Draft { id, epk, text } = draft;
        self.by_place.insert(place(&epk, rid), slot);
        let hash = key_hash(&epk, &id);
        let document = Document {
            id,
            epk,
            text,
            rid,
            etag,
            lsn: stamp.lsn,
            ts: stamp.ts,
            log_position,
        };
        self.footprint += document.footprint();
        self.chunks[slot as usize / CHUNK][slot as usize % CHUNK] = Some(document);
        let chunks = &self.chunks;
        self.by_key.insert_unique(hash, slot, |slot| {
            chunks[*slot as usize / CHUNK][*slot as usize % CHUNK]
                .as_ref()
                .map_or(0, |document| key_hash(&document.epk, &document.id))
        });
        slot
    }

    /// Gives a document a new text; it moves to the end of the change log.
    pub fn replace(&mut self, slot: u32, text: Box<[u8]>, etag: u64, stamp: Stamp) {
        let log_position = self.log.append(stamp.lsn, stamp.ts, slot);
        let (new_bytes, document) = (text.len(), self.document_mut(slot));
        let old_bytes = std::mem::replace(&mut document.text, text).len();
        let old_position = std::mem::replace(&mut document.log_position, log_position);
        document.etag = etag;
        document.lsn = stamp.lsn;
        document.ts = stamp.ts;
        self.footprint = self.footprint + new_bytes - old_bytes;
        self.log.kill(old_position);
        self.sweep_log();
    }

    /// Takes a document away.
    pub fn remove(&mut self, slot: u32) -> Document {
        let document = self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
            .take()
            .expect("indexes hold only occupied slots");
        self.by_place.remove(&place(&document.epk, document.rid));
        if let Ok(entry) = self
            .by_key
            .find_entry(key_hash(&document.epk, &document.id), |other| {
                *other == slot
            })
        {
            entry.remove();
        }
        self.free.push(slot);
        self.footprint -= document.footprint();
        self.log.kill(document.log_position);
        self.sweep_log();
        document
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

fn key_hash(epk: &Epk, id: &str) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), epk.head() as u64)
}

fn place(epk: &Epk, rid: u64) -> Place {
    split_head(epk.head(), rid)
}

fn split_head(head: u128, rid: u64) -> Place {
    ((head >> 64) as u64, head as u64, rid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epk::hash_component;

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// The obvious implementation: documents in a list, sorted when asked.
    #[derive(Default)]
    struct Model(Vec<(u64, u32, u64, Epk, String)>);

    impl Model {
        fn write(&mut self, stamp: Stamp, order: u64, epk: &Epk, id: &str) {
            self.delete(epk, id);
            self.0
                .push((stamp.lsn, stamp.ts, order, epk.clone(), id.to_owned()));
        }

        fn delete(&mut self, epk: &Epk, id: &str) {
            self.0.retain(|entry| !(entry.3 == *epk && entry.4 == id));
        }

        fn ids(&self, keep: impl Fn(&(u64, u32, u64, Epk, String)) -> bool) -> Vec<String> {
            let mut entries: Vec<_> = self.0.iter().filter(|entry| keep(entry)).collect();
            entries.sort_by_key(|entry| (entry.0, entry.2));
            entries.into_iter().map(|entry| entry.4.clone()).collect()
        }
    }

    fn draft(epk: &Epk, id: &str, length: usize) -> Draft {
        Draft {
            id: id.into(),
            epk: epk.clone(),
            text: vec![b'x'; length].into(),
        }
    }

    #[test]
    fn random_writes_equal_a_naive_model() {
        for seed in 1..=20 {
            let mut random = Random(seed * 0x9E37_79B9);
            let (mut shard, mut model, mut rid, mut order) =
                (Shard::default(), Model::default(), 0, 0);
            let keys: Vec<Epk> = (0..4u8)
                .map(|key| Epk::from_hashes(&hash_component(&[key])))
                .collect();
            for round in 0..800u32 {
                let stamp = shard.advance(round / 10);
                // A batch of up to five writes under one LSN, some of them of the same document.
                for _ in 0..=random.below(5) {
                    let epk = &keys[random.below(4) as usize];
                    let id = format!("i{}", random.below(30));
                    order += 1;
                    match shard.find(epk, &id) {
                        Some(slot) if random.below(3) == 0 => {
                            assert_eq!(*shard.remove(slot).id, *id);
                            model.delete(epk, &id);
                        }
                        Some(slot) => {
                            shard.replace(
                                slot,
                                vec![b'y'; random.below(90) as usize].into(),
                                order,
                                stamp,
                            );
                            model.write(stamp, order, epk, &id);
                        }
                        None => {
                            rid += 1;
                            shard.insert(
                                draft(epk, &id, random.below(90) as usize),
                                rid,
                                order,
                                stamp,
                            );
                            model.write(stamp, order, epk, &id);
                        }
                    }
                }
                if round % 7 == 0 {
                    let after = random.below(shard.lsn() + 2);
                    let ids: Vec<String> = shard
                        .changes_after(after)
                        .map(|document| document.id.to_string())
                        .collect();
                    assert_eq!(
                        ids,
                        model.ids(|entry| entry.0 > after),
                        "seed {seed} round {round} after {after}"
                    );
                    let since = random.below(u64::from(round / 10) + 2) as u32;
                    let ids: Vec<String> = shard
                        .changes_since(since)
                        .map(|document| document.id.to_string())
                        .collect();
                    assert_eq!(
                        ids,
                        model.ids(|entry| entry.1 >= since),
                        "seed {seed} round {round} since {since}"
                    );
                    let one = EpkRange::prefix(&keys[0]);
                    assert_eq!(
                        shard.scan(&one, None).count(),
                        model.ids(|entry| entry.3 == keys[0]).len()
                    );
                }
            }
            assert_eq!(shard.len(), model.0.len());
            let held: usize = shard.changes_after(0).map(Document::footprint).sum();
            assert_eq!(shard.footprint, held);
        }
    }

    #[test]
    fn memory_follows_documents_and_not_writes() {
        let mut shard = Shard::default();
        let epk = Epk::from_hashes(&[1; 16]);
        for index in 0..1_000u64 {
            let stamp = shard.advance(0);
            shard.insert(draft(&epk, &index.to_string(), 200), index, index, stamp);
        }
        let before = shard.footprint();
        for write in 0..100_000u64 {
            let stamp = shard.advance(0);
            let slot = shard
                .find(&epk, &(write % 1_000).to_string())
                .expect("it was inserted");
            shard.replace(slot, vec![b'x'; 200].into(), write, stamp);
        }
        assert!(
            shard.footprint() < before + 64 * 1024,
            "{before} {}",
            shard.footprint()
        );
    }

    #[test]
    fn scans_continue_behind_a_place() {
        let mut shard = Shard::default();
        for index in 0..200u64 {
            let epk = Epk::from_hashes(&hash_component(&(index % 20).to_le_bytes()));
            let stamp = shard.advance(0);
            shard.insert(draft(&epk, &index.to_string(), 1), index + 1, 0, stamp);
        }
        for range in EpkRange::split_evenly(3) {
            let whole: Vec<u64> = shard
                .scan(&range, None)
                .map(|document| document.rid)
                .collect();
            let (mut pieces, mut after) = (Vec::new(), None);
            while let Some(document) = shard.scan(&range, after).next() {
                after = Some((document.epk.head(), document.rid));
                pieces.push(document.rid);
            }
            assert_eq!(pieces, whole);
        }
        assert_eq!(shard.scan(&EpkRange::full(), None).count(), 200);
    }
}
