//! What happened in one range, as the feed tells it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::SystemTime;

use bytes::Bytes;
use tidefeed_runtime::{Record, Records};

use super::MemoryOptions;

#[derive(Default)]
pub(super) struct Log {
    /// What happened, by position and place within the position.
    pub(super) entries: BTreeMap<(u64, u32), Entry>,
    /// The newest entry of each key.
    pub(super) newest: HashMap<String, (u64, u32)>,
    pub(super) last: u64,
}

pub(super) struct Entry {
    pub(super) key: String,
    /// Where the partition key is in the key space.
    pub(super) hash: u64,
    pub(super) body: Option<Bytes>,
    pub(super) at: SystemTime,
}

impl Log {
    /// A document that is there, and its etag.
    pub(super) fn document(&self, key: &str) -> Option<(&Bytes, String)> {
        let at @ (position, place) = self.newest.get(key)?;
        let body = self.entries[at].body.as_ref()?;
        Some((body, format!("\"{position}-{place}\"")))
    }

    pub(super) fn append(&mut self, position: u64, entry: Entry, options: &MemoryOptions) {
        let (key, removed) = (entry.key.clone(), entry.body.is_none());
        let exists = |log: &Log| {
            let newest = log.newest.get(&key);
            newest.is_some_and(|at| log.entries[at].body.is_some())
        };
        if removed && !exists(self) {
            return;
        }
        // LatestVersion: what is overwritten is gone from the feed.
        if let Some(old) = self.newest.remove(&key) {
            self.entries.remove(&old);
        }
        if removed && !options.deletes_in_feed {
            return;
        }
        let place = match self.entries.range(..=(position, u32::MAX)).next_back() {
            Some((&(last, place), _)) if last == position => place + 1,
            _ => 0,
        };
        self.newest.insert(key, (position, place));
        self.entries.insert((position, place), entry);
    }

    /// The last position before `time`.
    pub(super) fn before(&self, time: SystemTime) -> u64 {
        self.entries
            .iter()
            .find(|(_, entry)| entry.at >= time)
            .map_or(self.last, |((position, _), _)| position - 1)
    }

    /// The records after `after` whose partition key is `within`. `after` moves to the last one's position.
    pub(super) fn page(
        &self,
        after: &mut u64,
        page_size: usize,
        within: impl Fn(u64) -> bool,
    ) -> Records {
        let mut records = Records::new();
        let rest = (Bound::Excluded((*after, u32::MAX)), Bound::Unbounded);
        for (&(position, _), entry) in self.entries.range(rest) {
            if !within(entry.hash) {
                continue;
            }
            if records.len() >= page_size && position != *after {
                break;
            }
            *after = position;
            records.push(Record {
                key: Bytes::from(entry.key.clone()),
                body: entry.body.clone(),
            });
        }
        records
    }
}
