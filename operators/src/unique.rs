//! Sees to it that a view has at most one row under each partition key and id.
//!
//! Two rows under one key would make the document in the container depend on the order in which they came, and deleting
//! one would delete the document of the other. So each worker counts the live rows of its keys; a count other than 0 or 1
//! at the end of an epoch is the job's mistake. It costs a 16-byte hash and a count for each live document.

use std::collections::HashMap;

use tidefeed_runtime::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::Xxh3Default;

use crate::document::ViewDocument;
use crate::fold::ViewUpdate;

/// Live rows by key.
#[derive(Debug, Default)]
pub struct LiveRows {
    counts: HashMap<u128, isize>,
}

impl LiveRows {
    /// Takes in all updates of one epoch.
    ///
    /// # Errors
    /// `Data` when a key has several rows at the end of the epoch, naming it and one of the rows.
    pub fn apply(&mut self, updates: &[ViewUpdate]) -> Result<()> {
        let keys: Vec<u128> = updates.iter().map(|(row, ..)| key_hash(row)).collect();
        for (key, (_, _, diff)) in keys.iter().zip(updates) {
            *self.counts.entry(*key).or_default() += diff;
        }
        for (key, (document, _, diff)) in keys.iter().zip(updates) {
            match self.counts.get(key).copied() {
                Some(0) => drop(self.counts.remove(key)),
                Some(count) if count > 1 && *diff > 0 => {
                    return Err(several_rows(document, updates));
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

fn several_rows(document: &ViewDocument, updates: &[ViewUpdate]) -> Error {
    let same = |other: &ViewDocument| {
        (&other.partition_key, &other.id) == (&document.partition_key, &document.id)
    };
    let come = updates
        .iter()
        .filter(|(other, _, diff)| *diff > 0 && same(other));
    let rows: Vec<_> = come
        .take(2)
        .map(|(row, ..)| String::from_utf8_lossy(&row.body))
        .collect();
    Error::new(
        ErrorKind::Data,
        format!(
            "several rows of the view share partition key {} and id {:?}, such as {}: make the id unique, or reduce the \
             rows to one",
            document.partition_key,
            document.id,
            rows.join(" and "),
        ),
    )
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
        assert_eq!(rows.counts.len(), 1, "a document that is gone is forgotten");
    }

    #[test]
    fn a_second_row_is_found_in_whatever_epoch_it_comes() {
        let mut rows = LiveRows::default();
        rows.apply(&[row("a", "1", 1)]).expect("one row");
        let error = rows.apply(&[row("a", "2", 1)]).expect_err("two rows");
        assert!(error.report().contains("id \"a\""), "{}", error.report());
        assert!(LiveRows::default().apply(&[row("a", "1", 2)]).is_err());
    }
}
