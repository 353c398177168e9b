//! Sees to it that a view has at most one row under each partition key and id.
//!
//! Two rows under one key would make the document in the container depend on the order in which they came, and deleting
//! one would delete the document of the other. So each worker counts the live rows of its keys; a count other than 0 or 1
//! at the end of an epoch is the job's mistake. It costs a 16-byte hash and a count for each live document.

use std::collections::HashMap;

use bytes::Bytes;
use tidefeed_runtime::{Error, ErrorKind};
use xxhash_rust::xxh3::Xxh3Default;

use crate::document::ViewDocument;
use crate::fold::ViewUpdate;

/// The most of a row that an error shows.
const SHOWN_BYTES: usize = 500;

/// Live rows by key.
#[derive(Debug, Default)]
pub struct LiveRows {
    counts: HashMap<u128, isize>,
}

impl LiveRows {
    /// How many keys have a live row.
    pub fn rows(&self) -> usize {
        self.counts.len()
    }

    /// What they take in memory, about: a hash, a count and a byte of the table's own for each that there is room for.
    pub fn bytes(&self) -> usize {
        self.counts.capacity() * (size_of::<(u128, isize)>() + 1)
    }

    /// Takes in all updates of one epoch.
    ///
    /// # Errors
    /// When a key has several rows at the end of the epoch, with those that came in it.
    pub fn apply(&mut self, updates: &[ViewUpdate]) -> Result<(), SeveralRows> {
        let keys: Vec<u128> = updates.iter().map(|(row, ..)| key_hash(row)).collect();
        for (key, (_, _, diff)) in keys.iter().zip(updates) {
            *self.counts.entry(*key).or_default() += diff;
        }
        for (key, (document, _, diff)) in keys.iter().zip(updates) {
            match self.counts.get(key).copied() {
                Some(0) => drop(self.counts.remove(key)),
                Some(count) if count > 1 && *diff > 0 => {
                    return Err(SeveralRows::of(document, updates));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn key_hash(document: &ViewDocument) -> u128 {
    let mut hasher = Xxh3Default::new();
    hasher.update(document.partition_key.as_bytes());
    hasher.update(document.id.as_bytes());
    hasher.digest128()
}

/// Rows of a view that share a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeveralRows {
    /// The partition key as a JSON array.
    pub partition_key: Box<str>,
    /// The id.
    pub id: Box<str>,
    /// The first two rows that are known, as JSON. One is missing if it came in an earlier epoch: bodies are not kept.
    rows: Vec<Bytes>,
}

impl SeveralRows {
    fn of(document: &ViewDocument, updates: &[ViewUpdate]) -> Self {
        let ViewDocument {
            partition_key, id, ..
        } = document;
        let mut conflict = SeveralRows {
            partition_key: partition_key.clone(),
            id: id.clone(),
            rows: Vec::new(),
        };
        conflict.look_in(updates);
        conflict
    }

    /// True when both rows are known.
    pub fn is_whole(&self) -> bool {
        self.rows.len() > 1
    }

    /// Takes rows of the key that came with `updates`, until both are known.
    pub fn look_in(&mut self, updates: &[ViewUpdate]) {
        for (row, _, diff) in updates {
            let same = (&row.partition_key, &row.id) == (&self.partition_key, &self.id);
            for _ in 0..if same { *diff } else { 0 } {
                self.add(Bytes::copy_from_slice(&row.body));
            }
        }
    }

    /// Takes a row, until both are known.
    pub fn add(&mut self, row: Bytes) {
        if !self.is_whole() {
            self.rows.push(row);
        }
    }

    /// The error that names the key and the rows.
    pub fn into_error(self) -> Error {
        let rows: Vec<_> = self.rows.iter().map(|row| shown(row)).collect();
        Error::new(
            ErrorKind::Data,
            format!(
                "several rows of the view share partition key {} and id {:?}, such as {}: make the id unique, or reduce the \
                 rows to one",
                self.partition_key,
                self.id,
                rows.join(" and "),
            ),
        )
    }
}

/// A row as an error shows it: all of it, unless it is long.
fn shown(row: &[u8]) -> String {
    match row.get(..SHOWN_BYTES) {
        Some(start) => format!("{}..", String::from_utf8_lossy(start)),
        None => String::from_utf8_lossy(row).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, body: &str, diff: isize) -> ViewUpdate {
        let document = ViewDocument {
            partition_key: "[1]".into(),
            id: id.into(),
            body: body.as_bytes().into(),
            position: 0,
        };
        (document, 1, diff)
    }

    #[test]
    fn rows_may_replace_each_other_within_an_epoch() {
        let mut rows = LiveRows::default();
        rows.apply(&[row("a", "1", 1), row("b", "1", 1)])
            .expect("one row each");
        rows.apply(&[row("a", "2", 1), row("a", "1", -1), row("b", "1", -1)])
            .expect("replaced");
        assert_eq!(rows.rows(), 1, "a document that is gone is forgotten");
        assert!(rows.bytes() >= 24, "{}", rows.bytes());
    }

    #[test]
    fn a_second_row_is_found_in_whatever_epoch_it_comes() {
        let mut rows = LiveRows::default();
        rows.apply(&[row("a", "1", 1)]).expect("one row");
        let mut conflict = rows.apply(&[row("a", "2", 1)]).expect_err("two rows");
        conflict.look_in(&[row("b", "3", 1), row("a", "0", -1)]);
        assert!(!conflict.is_whole(), "the other row is in the container");
        conflict.add("1".into());
        let report = conflict.into_error().report();
        assert!(report.contains("id \"a\", such as 2 and 1:"), "{report}");
        let twice = LiveRows::default().apply(&[row("a", "1", 2)]);
        assert!(twice.is_err_and(|conflict| conflict.is_whole()));
    }
}
