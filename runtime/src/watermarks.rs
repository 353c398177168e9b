//! Watermarks: how far the event times of a source have come, as data of seals and commits.
//!
//! A watermark is a moment that is computed from data: records whose own time is before it are not expected any more. It is no
//! frontier, and holds nothing back. Rules:
//!
//! 1. **A range** stands where its [`Mark`] says: at the newest time that it brought, less what its records may be out of order by. It
//!    stands at 0 before its first record, and never goes back.
//! 2. **The source** stands where its slowest range does, of those that are not idle. If all are idle it stands where the fastest
//!    does: nothing is expected of the others. It never goes back: a range that wakes up may bring times behind the watermark, and
//!    those records are late.
//! 3. **Splits and merges** hand the position on: a range that is new stands where the slowest of those stood that it overlaps, and
//!    takes their place.
//! 4. **The ranges of a run** are in its first epoch, all of them, if they are not those of the run before, so that one which has
//!    brought nothing yet counts as well. A range that is not among them has ended.
//!
//! # In a checkpoint
//!
//! What is idle depends on a clock, and where the watermark is in an epoch on how far the readers were then; so a replay must not decide
//! again. What readers have found is data of the epoch's seal ([`Marks`], beside the tokens of the same ranges: I2), and everything
//! above is a function of that alone, whatever the number of workers and the order of their parts. A commit keeps where ranges and
//! source stood ([`Watermarks`]), and a resumed run stands there and applies the marks of each sealed epoch beyond it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Epoch, FeedRangeId};

/// Where one feed range stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// No earlier time is expected of it, milliseconds since the UNIX epoch; 0 before its first record.
    pub at_ms: u64,
    /// Whether nothing is expected of it for now.
    pub idle: bool,
}

/// What one worker's readers have found in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// All ranges that the run reads, on one worker in its first epoch; not if they are those of the run before.
    pub begun: Option<BTreeSet<FeedRangeId>>,
    /// The ranges that stand elsewhere than before, or have become idle or woken up.
    pub ranges: BTreeMap<FeedRangeId, Mark>,
}

impl Marks {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.begun.is_none() && self.ranges.is_empty()
    }

    /// Takes note of a range, after everything else that it has brought in the epoch.
    pub fn note(&mut self, range: FeedRangeId, mark: Mark) {
        let noted = self.ranges.entry(range).or_default();
        noted.at_ms = noted.at_ms.max(mark.at_ms);
        noted.idle = mark.idle;
    }
}

/// Where a source stands as of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermarks {
    /// The watermark, milliseconds since the UNIX epoch; 0 until every range has brought something or is idle.
    pub watermark_ms: u64,
    /// Its ranges.
    pub ranges: BTreeMap<FeedRangeId, Mark>,
}

impl Watermarks {
    /// Goes on by an epoch: what all workers have found in it, in any order.
    pub fn apply(&mut self, parts: &[Marks]) {
        for begun in parts.iter().filter_map(|part| part.begun.as_ref()) {
            self.begin(begun);
        }
        let moved = || parts.iter().flat_map(|part| &part.ranges);
        for (id, mark) in moved() {
            if let Some(known) = self.ranges.get_mut(id) {
                *known = after(*known, *mark);
            }
        }
        let new = moved().filter(|(id, _)| !self.ranges.contains_key(*id));
        let new: BTreeMap<_, _> = new
            .map(|(id, mark)| (id.clone(), after(self.inherited(id), *mark)))
            .collect();
        if !new.is_empty() {
            self.ranges
                .retain(|old, _| !new.keys().any(|new| new.overlaps(old)));
            self.ranges.extend(new);
        }
        self.watermark_ms = self.watermark_ms.max(self.slowest_ms());
    }

    /// These are the ranges from now on.
    fn begin(&mut self, begun: &BTreeSet<FeedRangeId>) {
        let mark = |id: &FeedRangeId| {
            let known = self.ranges.get(id).copied();
            (id.clone(), known.unwrap_or_else(|| self.inherited(id)))
        };
        self.ranges = begun.iter().map(mark).collect();
    }

    /// Where a new range stands: with the slowest that it overlaps.
    fn inherited(&self, new: &FeedRangeId) -> Mark {
        let overlapped = || {
            let known = self.ranges.iter();
            known.filter(|(old, _)| new.overlaps(old)).map(|(_, m)| m)
        };
        Mark {
            at_ms: overlapped().map(|mark| mark.at_ms).min().unwrap_or(0),
            idle: overlapped().count() > 0 && overlapped().all(|mark| mark.idle),
        }
    }

    fn slowest_ms(&self) -> u64 {
        let marks = || self.ranges.values();
        let active = marks().filter(|mark| !mark.idle).map(|mark| mark.at_ms);
        let fastest = || marks().map(|mark| mark.at_ms).max();
        active.min().or_else(fastest).unwrap_or(0)
    }
}

/// Where a range stands that stood at `known` and has brought `mark`.
fn after(known: Mark, mark: Mark) -> Mark {
    Mark {
        at_ms: known.at_ms.max(mark.at_ms),
        idle: mark.idle,
    }
}

/// Where a source stood at a commit, and what was sealed beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkHistory {
    /// As of the commit.
    pub committed: Watermarks,
    /// Of each sealed epoch beyond it that has any, rising.
    pub sealed: Vec<(Epoch, Vec<Marks>)>,
}

impl MarkHistory {
    /// Takes note of a part of an epoch that is not below those before.
    pub fn seal(&mut self, epoch: Epoch, marks: Marks) {
        match self.sealed.last_mut() {
            Some((last, parts)) if *last == epoch => parts.push(marks),
            _ => self.sealed.push((epoch, vec![marks])),
        }
    }

    /// Where the source stands after all of it.
    pub fn newest(&self) -> Watermarks {
        let mut newest = self.committed.clone();
        for (_, parts) in &self.sealed {
            newest.apply(parts);
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> FeedRangeId {
        FeedRangeId(name.to_owned())
    }

    fn mark(at_ms: u64, idle: bool) -> Mark {
        Mark { at_ms, idle }
    }

    fn moved(marks: &[(&str, Mark)]) -> Marks {
        let ranges = marks.iter().map(|(name, mark)| (id(name), *mark));
        Marks {
            begun: None,
            ranges: ranges.collect(),
        }
    }

    fn begun(names: &[&str]) -> Marks {
        Marks {
            begun: Some(names.iter().map(|name| id(name)).collect()),
            ranges: BTreeMap::new(),
        }
    }

    fn after_all(epochs: &[&[Marks]]) -> Vec<u64> {
        let mut watermarks = Watermarks::default();
        let apply = |parts: &&[Marks]| {
            watermarks.apply(parts);
            watermarks.watermark_ms
        };
        epochs.iter().map(apply).collect()
    }

    #[test]
    fn the_slowest_range_holds_it_until_it_is_idle() {
        let found = after_all(&[
            // The list of ranges may come after what other workers have found in the same epoch.
            &[moved(&[("a", mark(1_000, false))]), begun(&["a", "b"])],
            &[moved(&[("b", mark(500, false))])],
            &[moved(&[("b", mark(0, true))])],
            // It wakes up behind the watermark, which does not go back, and holds it again.
            &[moved(&[("b", mark(600, false))])],
            &[moved(&[("a", mark(2_000, false))])],
            &[moved(&[("b", mark(1_500, false))])],
        ]);
        assert_eq!(found, [0, 500, 1_000, 1_000, 1_000, 1_500]);
    }

    #[test]
    fn where_all_are_idle_the_fastest_counts() {
        let found = after_all(&[
            &[begun(&["a", "b", "c"])],
            &[moved(&[("a", mark(1_000, true)), ("b", mark(500, true))])],
            &[moved(&[("c", mark(0, true))])],
        ]);
        assert_eq!(found, [0, 0, 1_000]);
    }

    #[test]
    fn children_stand_where_their_parents_stood() {
        let child = mark(0, false);
        let found = after_all(&[
            &[begun(&["-80", "80-FF"])],
            &[moved(&[
                ("-80", mark(1_000, false)),
                ("80-FF", mark(500, false)),
            ])],
            // The parent moves in the epoch in which it is handed over.
            &[moved(&[
                ("80-FF", mark(700, false)),
                ("80-C0", child),
                ("C0-FF", child),
            ])],
            &[moved(&[("80-C0", mark(2_000, false))])],
            &[moved(&[("C0-FF", mark(3_000, false))])],
            // Two of three ranges become one: the slower of both counts.
            &[moved(&[("-C0", mark(0, false))])],
            &[moved(&[("-C0", mark(2_500, false))])],
        ]);
        assert_eq!(found, [0, 500, 700, 700, 1_000, 1_000, 2_500]);
    }

    #[test]
    fn a_run_names_its_ranges_and_those_of_before_end() {
        let mut watermarks = Watermarks::default();
        watermarks.apply(&[begun(&["file:a", "file:b", "-FF"])]);
        watermarks.apply(&[moved(&[
            ("file:a", mark(900, false)),
            ("-FF", mark(80, true)),
        ])]);
        assert_eq!(watermarks.watermark_ms, 0);
        // The file that nobody has read is gone, and what was one range is two.
        watermarks.apply(&[begun(&["file:a", "-80", "80-FF"])]);
        assert_eq!(watermarks.watermark_ms, 900);
        let inherited = mark(80, true);
        let expected = [
            (id("-80"), inherited),
            (id("80-FF"), inherited),
            (id("file:a"), mark(900, false)),
        ];
        assert_eq!(watermarks.ranges, expected.into());
    }

    /// Whatever happens, the watermark never goes back, nothing that no range has brought moves it, the order of the parts of an epoch
    /// does not matter, and a run that goes on from any commit stands where the other does.
    #[test]
    fn any_history_is_monotone_and_can_be_taken_up_at_any_epoch() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let mut names: Vec<FeedRangeId> = id("-FF").divide(4, u64::MAX);
            let mut watermarks = Watermarks::default();
            let mut histories = vec![MarkHistory::default()];
            let mut newest = 0;
            let mut first = Some(names.iter().cloned().collect());
            for epoch in 1..60 {
                let mut parts = vec![Marks::default(), Marks::default(), Marks::default()];
                parts[0].begun = first.take();
                for _ in 0..random.u8(..6) {
                    let at = random.usize(..names.len());
                    let found = Mark {
                        at_ms: epoch * 100 + random.u64(..300),
                        idle: random.u8(..4) == 0,
                    };
                    newest = newest.max(found.at_ms);
                    // A range is on one worker.
                    parts[at % 3].note(names[at].clone(), found);
                }
                if random.u8(..10) == 0 {
                    let at = random.usize(..names.len());
                    let parent = names.swap_remove(at);
                    for child in parent.divide(2, u64::MAX) {
                        parts[at % 3].note(child.clone(), Mark::default());
                        names.push(child);
                    }
                    names.sort_unstable();
                }
                let before = watermarks.watermark_ms;
                let mut other = watermarks.clone();
                watermarks.apply(&parts);
                assert!((before..=newest).contains(&watermarks.watermark_ms));
                random.shuffle(&mut parts);
                other.apply(&parts);
                assert_eq!(other, watermarks);
                assert_eq!(watermarks.ranges.len(), names.len());
                for history in &mut histories {
                    parts
                        .iter()
                        .for_each(|marks| history.seal(Epoch(epoch), marks.clone()));
                    assert_eq!(history.newest(), watermarks);
                }
                if random.u8(..8) == 0 {
                    let json = serde_json::to_string(&watermarks).expect("JSON");
                    histories.push(MarkHistory {
                        committed: serde_json::from_str(&json).expect("the same"),
                        sealed: Vec::new(),
                    });
                }
            }
        }
    }
}
