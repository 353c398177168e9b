//! Watermarks: how far the event times of a source have come, as a pure decision.
//!
//! A watermark is a moment that is computed from data: records whose own time is before it are not expected any more. It is no
//! frontier, and holds nothing back. Rules:
//!
//! 1. **A range** stands at the newest time that was seen in it, less `out_of_orderness`. A range without a record yet stands at 0.
//! 2. **The source** stands where its slowest range does, of those that are not idle. If all are idle it stands where the fastest
//!    does: nothing is expected of the others. It never goes back: a range that wakes up may bring times behind the watermark, and
//!    those records are late.
//! 3. **Idle** is a range that was asked and had nothing, for `idle_after`, since its last record. It was *asked*: a range whose reader
//!    waits for room, is throttled or is away has not said that it has nothing, and holds the watermark. So a slow job never
//!    makes its own input late.
//! 4. **Splits and merges** hand the position on: a range stands where the slowest of those stood that it takes the place of, and is
//!    idle only if all of them were.
//!
//! # In a checkpoint
//!
//! What is idle depends on a clock, and what is late on how far the readers were when; so a replay must not decide again. The
//! operator that holds a `Watermarks` calls [`close`](Watermarks::close) when it has attached an epoch, and what that returns is data
//! of the epoch's seal, beside the tokens of the same ranges: [`Mark`] for each range that has changed, and the watermark itself, which
//! the ranges alone do not tell (rule 2). A resumed run [`take`](Watermarks::take)s the marks of the commit and then of each
//! sealed epoch, and stands where the run before stood.
//!
//! # Limits
//!
//! One record with a time far ahead moves the watermark there. Read `_ts`, which the service sets, or check the time first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::FeedRangeId;

/// When records are late, and ranges idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// How far a record may be behind the newest of its range without being late. Larger waits longer; smaller makes more records
    /// late.
    pub out_of_orderness: Duration,
    /// How long a range must have had nothing to count as idle. Larger lets a quiet range hold the watermark for longer; smaller makes
    /// what it then brings late.
    pub idle_after: Duration,
}

/// Where one feed range stands, as it is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The newest time in it, milliseconds since the UNIX epoch; 0 before the first.
    pub newest_ms: u64,
    /// Whether it counts as idle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

/// What an epoch has changed, as it is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// The watermark after the epoch, milliseconds since the UNIX epoch.
    pub watermark_ms: u64,
    /// The ranges that stand elsewhere than after the epoch before.
    pub ranges: BTreeMap<FeedRangeId, Mark>,
    /// The ranges that were split or merged since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<FeedRangeId>,
}

/// A range, and since when it has had nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    mark: Mark,
    quiet_since: Option<Duration>,
    changed: bool,
}

/// The watermark of a source, over all of its feed ranges.
#[derive(Debug)]
pub struct Watermarks {
    lateness: Lateness,
    ranges: BTreeMap<FeedRangeId, Range>,
    /// What was split or merged since the epoch before.
    gone: BTreeSet<FeedRangeId>,
    watermark_ms: u64,
}

impl Watermarks {
    /// The watermark of a source without ranges. It stands at 0.
    pub fn new(lateness: Lateness) -> Self {
        Watermarks {
            lateness,
            ranges: BTreeMap::new(),
            gone: BTreeSet::new(),
            watermark_ms: 0,
        }
    }

    /// Stands where a run before stood: with the marks of a commit, then with those of each sealed epoch, in order. `now` is as for
    /// [`read_nothing`](Self::read_nothing).
    pub fn take(&mut self, marks: &Marks, now: Duration) {
        self.watermark_ms = self.watermark_ms.max(marks.watermark_ms);
        self.ranges.retain(|id, _| !marks.gone.contains(id));
        for (id, mark) in &marks.ranges {
            let range = Range {
                mark: *mark,
                // It stays idle until it brings something.
                quiet_since: mark.idle.then_some(now),
                changed: false,
            };
            self.ranges.insert(id.clone(), range);
        }
    }

    /// A range is read from now on. One that is known stays where it is.
    pub fn begin(&mut self, id: &FeedRangeId) {
        self.ranges.entry(id.clone()).or_insert(Range {
            changed: true,
            ..Range::default()
        });
    }

    /// A range has brought a record of this time, milliseconds since the UNIX epoch. True if the record is late.
    pub fn read(&mut self, id: &FeedRangeId, time_ms: u64) -> bool {
        if let Some(range) = self.ranges.get_mut(id) {
            range.quiet_since = None;
            range.changed |= range.mark.idle || time_ms > range.mark.newest_ms;
            range.mark.idle = false;
            range.mark.newest_ms = range.mark.newest_ms.max(time_ms);
        }
        time_ms < self.watermark_ms
    }

    /// A range was asked and had nothing. `now` is monotonic time since any fixed moment.
    pub fn read_nothing(&mut self, id: &FeedRangeId, now: Duration) {
        if let Some(range) = self.ranges.get_mut(id) {
            range.quiet_since.get_or_insert(now);
        }
    }

    /// Nobody can say what a range has: its reader waits for room, or cannot reach it. It holds the watermark from now on.
    pub fn held_up(&mut self, id: &FeedRangeId) {
        if let Some(range) = self.ranges.get_mut(id) {
            range.quiet_since = None;
            range.changed |= std::mem::take(&mut range.mark.idle);
        }
    }

    /// Ranges were split or merged into others.
    pub fn replace(&mut self, old: &[FeedRangeId], new: &[FeedRangeId]) {
        let gone: Vec<Range> = old.iter().filter_map(|id| self.ranges.remove(id)).collect();
        self.gone.extend(old.iter().cloned());
        let newest = gone.iter().map(|range| range.mark.newest_ms).min();
        let mark = Mark {
            newest_ms: newest.unwrap_or_default(),
            idle: !gone.is_empty() && gone.iter().all(|range| range.mark.idle),
        };
        for id in new {
            let range = Range {
                mark,
                quiet_since: None,
                changed: true,
            };
            self.ranges.insert(id.clone(), range);
        }
    }

    /// Ends an epoch: decides what is idle, moves the watermark, and returns what is to be sealed.
    pub fn close(&mut self, now: Duration) -> Marks {
        let idle_after = self.lateness.idle_after;
        let mut changed = BTreeMap::new();
        for (id, range) in &mut self.ranges {
            let quiet = |since: Duration| now.saturating_sub(since) >= idle_after;
            if !range.mark.idle && range.quiet_since.is_some_and(quiet) {
                range.mark.idle = true;
                range.changed = true;
            }
            if std::mem::take(&mut range.changed) {
                changed.insert(id.clone(), range.mark);
            }
        }
        self.watermark_ms = self.watermark_ms.max(self.slowest_ms());
        Marks {
            watermark_ms: self.watermark_ms,
            ranges: changed,
            gone: std::mem::take(&mut self.gone),
        }
    }

    /// The watermark as of the last epoch, milliseconds since the UNIX epoch.
    pub fn watermark_ms(&self) -> u64 {
        self.watermark_ms
    }

    fn slowest_ms(&self) -> u64 {
        let behind = self.lateness.out_of_orderness.as_millis();
        let behind = u64::try_from(behind).unwrap_or(u64::MAX);
        let marks = || self.ranges.values().map(|range| range.mark);
        let active = marks().filter(|mark| !mark.idle);
        let newest = active.map(|mark| mark.newest_ms).min();
        let newest = newest.or_else(|| marks().map(|mark| mark.newest_ms).max());
        newest.unwrap_or_default().saturating_sub(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENESS: Lateness = Lateness {
        out_of_orderness: Duration::from_millis(10),
        idle_after: Duration::from_secs(5),
    };

    fn id(name: &str) -> FeedRangeId {
        FeedRangeId(name.to_owned())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn over(names: &[&str]) -> Watermarks {
        let mut watermarks = Watermarks::new(LATENESS);
        names.iter().for_each(|name| watermarks.begin(&id(name)));
        watermarks
    }

    #[test]
    fn the_slowest_range_holds_it_until_it_is_idle() {
        let mut watermarks = over(&["a", "b"]);
        assert!(!watermarks.read(&id("a"), 1_000));
        assert_eq!(
            watermarks.close(at(0)).watermark_ms,
            0,
            "b has brought nothing"
        );
        watermarks.read(&id("b"), 500);
        assert_eq!(watermarks.close(at(0)).watermark_ms, 490);
        watermarks.read_nothing(&id("b"), at(1));
        watermarks.read_nothing(&id("b"), at(5));
        assert_eq!(watermarks.close(at(5)).watermark_ms, 490);
        let marks = watermarks.close(at(6));
        assert_eq!(marks.watermark_ms, 990);
        let idle = Mark {
            newest_ms: 500,
            idle: true,
        };
        assert_eq!(marks.ranges, [(id("b"), idle)].into());
        // It wakes up behind the watermark, which never goes back.
        assert!(watermarks.read(&id("b"), 989));
        assert!(!watermarks.read(&id("b"), 990));
        assert_eq!(watermarks.close(at(7)).watermark_ms, 990);
        watermarks.read(&id("a"), 2_000);
        assert_eq!(watermarks.close(at(8)).watermark_ms, 990, "b counts again");
    }

    #[test]
    fn a_range_that_nobody_could_ask_is_not_idle() {
        let mut watermarks = over(&["a", "b"]);
        watermarks.read(&id("a"), 1_000);
        watermarks.read(&id("b"), 500);
        watermarks.read_nothing(&id("b"), at(1));
        watermarks.held_up(&id("b"));
        assert_eq!(watermarks.close(at(100)).watermark_ms, 490);
        watermarks.read_nothing(&id("b"), at(101));
        assert_eq!(
            watermarks.close(at(105)).watermark_ms,
            490,
            "since when it was asked"
        );
        assert_eq!(watermarks.close(at(106)).watermark_ms, 990);
    }

    #[test]
    fn where_all_are_idle_the_fastest_counts() {
        let mut watermarks = over(&["a", "b"]);
        watermarks.read(&id("a"), 1_000);
        watermarks.read(&id("b"), 500);
        for name in ["a", "b"] {
            watermarks.read_nothing(&id(name), at(1));
        }
        assert_eq!(watermarks.close(at(6)).watermark_ms, 990);
    }

    #[test]
    fn children_stand_where_their_parents_stood() {
        let mut watermarks = over(&["a", "b"]);
        watermarks.read(&id("a"), 1_000);
        watermarks.read(&id("b"), 500);
        watermarks.close(at(0));
        watermarks.replace(&[id("b")], &[id("b1"), id("b2")]);
        let marks = watermarks.close(at(1));
        assert_eq!(marks.watermark_ms, 490);
        assert_eq!(marks.ranges.len(), 2, "both are to be sealed: {marks:?}");
        watermarks.read(&id("b1"), 2_000);
        assert_eq!(
            watermarks.close(at(1)).watermark_ms,
            490,
            "b2 has not moved"
        );
        watermarks.replace(&[id("b1"), id("a")], &[id("ab")]);
        watermarks.read(&id("b2"), 3_000);
        assert_eq!(
            watermarks.close(at(2)).watermark_ms,
            990,
            "the slower of both"
        );
    }

    /// Whatever happens, the watermark never goes back, nothing that no range has brought moves it, and a run that takes what was
    /// sealed stands where the other does and goes on alike.
    #[test]
    fn any_history_is_monotone_and_can_be_taken_up_from_what_was_sealed() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let mut names: Vec<_> = (0..4).map(|number| id(&number.to_string())).collect();
            let mut watermarks = over(&[]);
            names.iter().for_each(|name| watermarks.begin(name));
            let mut sealed = Vec::new();
            let (mut before, mut newest) = (0, 0);
            for second in 0..60 {
                for _ in 0..random.u8(..6) {
                    let range = &names[random.usize(..names.len())];
                    match random.u8(..4) {
                        0 => watermarks.read_nothing(range, at(second)),
                        1 => watermarks.held_up(range),
                        _ => {
                            let time = second * 100 + random.u64(..300);
                            newest = newest.max(time);
                            let late = watermarks.read(range, time);
                            assert_eq!(late, time < before);
                        }
                    }
                }
                if random.u8(..10) == 0 {
                    let parent = names.swap_remove(random.usize(..names.len()));
                    let children = ["a", "b"].map(|side| id(&format!("{}{side}", parent.0)));
                    watermarks.replace(std::slice::from_ref(&parent), &children);
                    names.extend(children);
                } else if names.len() > 2 && random.u8(..10) == 0 {
                    let parents = names.split_off(names.len() - 2);
                    let child = id(&format!("({}+{})", parents[0].0, parents[1].0));
                    watermarks.replace(&parents, std::slice::from_ref(&child));
                    names.push(child);
                }
                let marks = watermarks.close(at(second));
                assert!(marks.watermark_ms >= before && marks.watermark_ms <= newest);
                before = marks.watermark_ms;
                let json = serde_json::to_string(&marks).expect("JSON");
                sealed.push(serde_json::from_str::<Marks>(&json).expect("the same"));
                if random.u8(..8) == 0 {
                    let mut resumed = over(&[]);
                    sealed
                        .iter()
                        .for_each(|marks| resumed.take(marks, at(second)));
                    assert_eq!(resumed.watermark_ms(), before);
                    let marks = |watermarks: &Watermarks| -> Vec<(FeedRangeId, Mark)> {
                        let ranges = watermarks.ranges.iter();
                        ranges.map(|(id, range)| (id.clone(), range.mark)).collect()
                    };
                    assert_eq!(marks(&resumed), marks(&watermarks));
                    watermarks = resumed;
                }
            }
        }
    }
}
