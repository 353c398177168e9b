//! Splitting and merging shards.
//!
//! Documents and changes keep their LSNs. So a position that a client took before is good after: on the side of a split
//! that has its keys, and in a merged shard for the keys it was about. The LSNs of a merged shard's next changes are
//! above those of both parts.

use super::document::{Document, NEVER};
use super::shard::{Draft, Entry, Shard, Stamp};
use crate::epk::EpkRange;

impl Shard {
    /// Divides the documents and changes between two halves of the key range.
    pub fn split(self, left: &EpkRange, right: &EpkRange) -> (Self, Self) {
        let stamp = self.stamp();
        let (documents, history) = self.dissolve();
        let (history_left, history_right) = history.split(left, right);
        let (mut a, mut b) = (
            Self::at(stamp, history_left),
            Self::at(stamp, history_right),
        );
        for entry in documents {
            let side = if left.contains(&entry.0.epk) {
                &mut a
            } else {
                &mut b
            };
            side.take_over(entry);
        }
        (a, b)
    }

    /// Joins two shards with different keys.
    pub fn merge(self, other: Self) -> Self {
        let (a, b) = (self.stamp(), other.stamp());
        let stamp = Stamp {
            lsn: a.lsn.max(b.lsn),
            ts: a.ts.max(b.ts),
        };
        let (documents, history) = self.dissolve();
        let (more, other_history) = other.dissolve();
        let mut merged = Self::at(stamp, history.merge(other_history));
        let mut documents: Vec<_> = documents.into_iter().chain(more).collect();
        documents.sort_by_key(|(document, _)| document.version.lsn);
        documents
            .into_iter()
            .for_each(|entry| merged.take_over(entry));
        merged
    }

    fn take_over(&mut self, (document, unique): Entry) {
        let Document {
            id,
            epk,
            version,
            expiry,
            ..
        } = document;
        let draft = Draft {
            id,
            epk,
            text: version.text.clone(),
            ttl: (expiry != NEVER).then(|| expiry.saturating_sub(version.ts)),
            unique,
        };
        self.adopt(draft, version);
    }
}
