//! Every change of a partition, deletes and overwritten versions included: what AllVersionsAndDeletes reads.
//!
//! A history is kept only from the moment somebody asks for it (see [`History::start`]), because it costs a version for
//! every write. Since this mode of the feed starts "now" or at a continuation, nobody can miss what came before.
//!
//! Rules:
//! 1. Changes are in LSN order; within an LSN, in the order in which they were made.
//! 2. `floor` of a key range is the LSN up to which its changes are *not* held. Reading from below it is refused, never
//!    answered with a gap.
//! 3. Retention drops from the front and raises the floor of what it drops.

use std::collections::VecDeque;

use super::document::Version;
use super::shard::Stamp;
use crate::epk::{Epk, EpkRange};

/// What happened to a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It did not exist before.
    Create,
    /// It has a new version.
    Replace,
    /// It was deleted by a request.
    Delete,
    /// Its time to live ended.
    Expire,
}

/// One change of one document.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The document's `id`.
    pub id: Box<str>,
    /// Where it lives.
    pub epk: Epk,
    /// The version that the change wrote; none for the ends of a document.
    pub current: Option<Version>,
    /// The version before; none for a creation.
    pub previous: Option<Version>,
    /// When.
    pub stamp: Stamp,
}

/// The changes of one partition.
#[derive(Debug, Default)]
pub struct History {
    changes: VecDeque<Change>,
    floors: Vec<(EpkRange, u64)>,
    bytes: usize,
}

impl History {
    /// Whether changes are recorded.
    pub fn is_recording(&self) -> bool {
        !self.floors.is_empty()
    }

    /// Records from now on: every change after `lsn` of a partition that owns `range`.
    pub fn start(&mut self, range: &EpkRange, lsn: u64) {
        if !self.is_recording() {
            self.floors.push((range.clone(), lsn));
        }
    }

    /// Adds a change, if changes are recorded.
    pub fn push(&mut self, change: impl FnOnce() -> Change) {
        if self.is_recording() {
            self.append(change());
        }
    }

    fn append(&mut self, change: Change) {
        debug_assert!(
            self.changes
                .back()
                .is_none_or(|last| last.stamp.lsn <= change.stamp.lsn)
        );
        self.bytes += footprint(&change);
        self.changes.push_back(change);
    }

    /// Drops what is older than `horizon`, seconds since 1970.
    pub fn retain_since(&mut self, horizon: u32) {
        while self
            .changes
            .front()
            .is_some_and(|change| change.stamp.ts < horizon)
        {
            if let Some(change) = self.changes.pop_front() {
                self.bytes -= footprint(&change);
                for (range, floor) in &mut self.floors {
                    if range.contains(&change.epk) {
                        *floor = change.stamp.lsn.max(*floor);
                    }
                }
            }
        }
    }

    /// Changes after `lsn`, in LSN order; `None` if some of those of `range` are no longer held.
    pub fn after(&self, lsn: u64, range: &EpkRange) -> Option<impl Iterator<Item = &Change>> {
        let held = self.is_recording()
            && self
                .floors
                .iter()
                .all(|(part, floor)| *floor <= lsn || part.intersect(range).is_none());
        let start = self
            .changes
            .partition_point(|change| change.stamp.lsn <= lsn);
        held.then(|| self.changes.range(start..))
    }

    /// Divides the changes between the two sides of `at`.
    pub fn split(self, left: &EpkRange, right: &EpkRange) -> (Self, Self) {
        let (mut a, mut b) = (Self::default(), Self::default());
        for (range, floor) in self.floors {
            a.floors
                .extend(range.intersect(left).map(|range| (range, floor)));
            b.floors
                .extend(range.intersect(right).map(|range| (range, floor)));
        }
        for change in self.changes {
            if left.contains(&change.epk) {
                a.append(change);
            } else {
                b.append(change);
            }
        }
        (a, b)
    }

    /// Joins the changes of two partitions, by LSN.
    pub fn merge(self, other: Self) -> Self {
        let mut merged = Self {
            floors: self.floors,
            ..Self::default()
        };
        merged.floors.extend(other.floors);
        let mut changes: Vec<Change> = self.changes.into_iter().chain(other.changes).collect();
        changes.sort_by_key(|change| change.stamp.lsn);
        changes.into_iter().for_each(|change| merged.append(change));
        merged
    }

    /// All changes held with their floors: what has to be written to restore it.
    pub fn parts(&self) -> (&[(EpkRange, u64)], impl Iterator<Item = &Change>) {
        (&self.floors, self.changes.iter())
    }

    /// Restores what [`Self::parts`] gave.
    pub fn restore(floors: Vec<(EpkRange, u64)>) -> Self {
        Self {
            floors,
            ..Self::default()
        }
    }

    /// Restores one change.
    pub fn restore_change(&mut self, change: Change) {
        self.append(change);
    }

    /// Bytes held, about; texts that the documents share are counted here too.
    pub fn footprint(&self) -> usize {
        self.bytes
    }
}

fn footprint(change: &Change) -> usize {
    let text = |version: &Option<Version>| version.as_ref().map_or(0, Version::size);
    std::mem::size_of::<Change>()
        + change.id.len()
        + change.epk.heap_bytes()
        + text(&change.current).max(text(&change.previous))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(lsn: u64, ts: u32, key: u8) -> Change {
        Change {
            kind: ChangeKind::Delete,
            id: lsn.to_string().into(),
            epk: Epk::from_hashes(&[key; 16]),
            current: None,
            previous: None,
            stamp: Stamp { lsn, ts },
        }
    }

    fn lsns(history: &History, after: u64, range: &EpkRange) -> Option<Vec<u64>> {
        Some(
            history
                .after(after, range)?
                .map(|change| change.stamp.lsn)
                .collect(),
        )
    }

    #[test]
    fn nothing_is_held_before_the_start() {
        let (mut history, full) = (History::default(), EpkRange::full());
        history.push(|| unreachable!("nobody asked for a history yet"));
        assert!(history.after(0, &full).is_none());
        history.start(&full, 7);
        history.push(|| change(8, 1, 1));
        assert_eq!(lsns(&history, 7, &full), Some(vec![8]));
        assert_eq!(lsns(&history, 8, &full), Some(vec![]));
        assert_eq!(lsns(&history, 6, &full), None);
    }

    #[test]
    fn retention_raises_the_floor() {
        let (mut history, full) = (History::default(), EpkRange::full());
        history.start(&full, 0);
        for lsn in 1..=10 {
            history.push(|| change(lsn, lsn as u32, 1));
        }
        history.retain_since(6);
        assert_eq!(lsns(&history, 5, &full), Some(vec![6, 7, 8, 9, 10]));
        assert_eq!(lsns(&history, 4, &full), None);
        history.retain_since(100);
        assert_eq!(lsns(&history, 10, &full), Some(vec![]));
        assert_eq!(history.footprint(), 0);
    }

    #[test]
    fn floors_follow_their_keys_through_splits_and_merges() {
        let halves = EpkRange::split_evenly(2);
        let mut left = History::default();
        left.start(&halves[0], 5);
        left.push(|| change(6, 1, 0x01));
        let mut right = History::default();
        right.start(&halves[1], 50);
        right.push(|| change(51, 1, 0x3E));
        let merged = left.merge(right);
        assert_eq!(lsns(&merged, 5, &halves[0]), Some(vec![6, 51]));
        assert_eq!(
            lsns(&merged, 5, &EpkRange::full()),
            None,
            "the right half starts at 50"
        );
        let (left, right) = merged.split(&halves[0], &halves[1]);
        assert_eq!(lsns(&left, 5, &halves[0]), Some(vec![6]));
        assert_eq!(lsns(&right, 50, &halves[1]), Some(vec![51]));
        assert_eq!(lsns(&right, 49, &halves[1]), None);
    }
}
