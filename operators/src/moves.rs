//! Documents that move to another partition key: an insert under the new one, then a delete under the old one.
//!
//! Cosmos DB cannot change a document's partition key, so a row that moves is two documents. Were the old one deleted first, a
//! reader, or a crash, would find neither. So the insert is acknowledged before the delete begins. That needs both in one
//! worker's hands: rows are dealt out by id then, and not by partition key and id.
//!
//! Only a move within one epoch is meant, or within epochs that fold. A row that goes in one epoch and comes back under another
//! key in a later one was gone in between, and so is its document.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3Default;

use crate::target::DocumentWrite;

/// How a sink writes rows whose partition key changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moves {
    /// The document under the new key is there before the one under the old key goes. All documents with one id are one worker's.
    #[default]
    InOrder,
    /// In any order, so for a moment there may be neither. For containers in which many documents share an id, such as one
    /// named `profile` in every partition: the workers share them evenly.
    Unordered,
}

impl Moves {
    /// Which worker's a document is: the hash that deals out rows, and what a container held before.
    pub(crate) fn hash(self, partition_key: &str, id: &str) -> u64 {
        let mut hasher = Xxh3Default::new();
        if self == Moves::Unordered {
            partition_key.hash(&mut hasher);
        }
        id.hash(&mut hasher);
        hasher.finish()
    }

    /// The writes of a batch that may go at once, and those that may only go when all of these are acknowledged.
    pub(crate) fn split(
        self,
        writes: Vec<DocumentWrite>,
    ) -> (Vec<DocumentWrite>, Vec<DocumentWrite>) {
        if self == Moves::Unordered {
            return (writes, Vec::new());
        }
        let deleted = writes.iter().filter(|write| write.action.is_delete());
        let deleted: HashSet<&str> = deleted.map(|write| &*write.id).collect();
        let come = writes.iter().filter(|write| !write.action.is_delete());
        let moved: HashSet<String> = come
            .filter(|write| deleted.contains(&*write.id))
            .map(|write| write.id.clone())
            .collect();
        if moved.is_empty() {
            return (writes, Vec::new());
        }
        writes
            .into_iter()
            .partition(|write| !write.action.is_delete() || !moved.contains(&write.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, id: &str, body: Option<&'static str>) -> DocumentWrite {
        let key = format!("[{key:?}]");
        match body {
            Some(body) => DocumentWrite::upsert(key, id, body),
            None => DocumentWrite::delete(key, id),
        }
    }

    #[test]
    fn a_move_is_deleted_where_it_was_after_everything_else() {
        let writes = vec![
            write("old", "moves", None),
            write("a", "goes", None),
            write("new", "moves", Some("{}")),
            write("a", "comes", Some("{}")),
        ];
        let (first, then) = Moves::InOrder.split(writes.clone());
        assert_eq!(first, writes[1..]);
        assert_eq!(then, writes[..1]);
        assert_eq!(Moves::Unordered.split(writes.clone()), (writes, Vec::new()));
    }

    #[test]
    fn both_places_of_a_move_are_one_workers() {
        let of = |moves: Moves, key| moves.hash(key, "a");
        assert_eq!(of(Moves::InOrder, "[1]"), of(Moves::InOrder, "[2]"));
        assert_ne!(of(Moves::Unordered, "[1]"), of(Moves::Unordered, "[2]"));
    }
}
