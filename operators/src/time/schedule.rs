//! The changes that time will bring to a collection, in order of time: what a temporal filter remembers.
//!
//! Each update of the collection is looked at by itself, since a filter is linear: of `(row, time, diff)` the filter shows `diff` of
//! the row from the later of `time` and the row's first moment until its last. What is left of that is kept in one of two lists:
//! rows that will come, with their first moment, and rows that will go, with their last. An update and its retraction cancel
//! there, so the lists hold only rows of the collection, each at most once, and none without a change ahead of it.
//!
//! Costs: a row in memory for each that will change, and a logarithmic number of comparisons for each update.

use std::collections::BTreeMap;
use std::ops::Range;

/// When rows come and go, of one worker.
#[derive(Debug)]
pub struct Schedule<R> {
    /// By first moment.
    coming: BTreeMap<(u64, R), isize>,
    /// By last moment, which is not [`NEVER`].
    going: BTreeMap<(u64, R), isize>,
}

/// The end of a row that does not go by itself.
pub const NEVER: u64 = u64::MAX;

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// There is more that falls due.
    More,
    /// Everything that falls due has come.
    All,
}

impl<R> Default for Schedule<R> {
    fn default() -> Self {
        Schedule {
            coming: BTreeMap::new(),
            going: BTreeMap::new(),
        }
    }
}

impl<R: Ord + Clone> Schedule<R> {
    /// Takes an update at a time, and returns what of it shows at once. Every epoch through `time` may or may not have
    /// [passed](Self::pass).
    pub fn add(
        &mut self,
        (row, time, diff): (R, u64, isize),
        valid: Range<u64>,
    ) -> Option<(R, u64, isize)> {
        if valid.end <= time.max(valid.start) {
            return None;
        }
        if time < valid.start {
            note(&mut self.coming, valid.start, row, diff);
            return None;
        }
        if valid.end != NEVER {
            note(&mut self.going, valid.end, row.clone(), diff);
        }
        Some((row, time, diff))
    }

    /// Whether anything falls due by `epoch`.
    pub fn is_due(&self, epoch: u64) -> bool {
        let first = |list: &BTreeMap<(u64, R), isize>| {
            list.first_key_value()
                .is_some_and(|((at, _), _)| *at <= epoch)
        };
        first(&self.coming) || first(&self.going)
    }

    /// Gives what falls due by `epoch`, at most about `limit` rows at once. To be repeated until all has come, and with rising epochs.
    pub fn pass(
        &mut self,
        epoch: u64,
        limit: usize,
        valid: impl Fn(&R) -> Range<u64>,
        mut give: impl FnMut(R, isize),
    ) -> Passed {
        for _ in 0..limit {
            if let Some((row, diff)) = take_due(&mut self.coming, epoch) {
                let end = valid(&row).end;
                if epoch < end {
                    if end != NEVER {
                        note(&mut self.going, end, row.clone(), diff);
                    }
                    give(row, diff);
                }
            } else if let Some((row, diff)) = take_due(&mut self.going, epoch) {
                give(row, -diff);
            } else {
                return Passed::All;
            }
        }
        Passed::More
    }

    /// Rows that will come and rows that will go.
    pub fn len(&self) -> usize {
        self.coming.len() + self.going.len()
    }

    /// Whether time changes nothing any more.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn note<R: Ord>(list: &mut BTreeMap<(u64, R), isize>, at: u64, row: R, diff: isize) {
    use std::collections::btree_map::Entry;
    match list.entry((at, row)) {
        Entry::Vacant(vacant) => {
            vacant.insert(diff);
        }
        Entry::Occupied(mut occupied) => {
            *occupied.get_mut() += diff;
            if *occupied.get() == 0 {
                occupied.remove();
            }
        }
    }
}

fn take_due<R: Ord>(list: &mut BTreeMap<(u64, R), isize>, epoch: u64) -> Option<(R, isize)> {
    let first = list.first_entry()?;
    if first.key().0 > epoch {
        return None;
    }
    let ((_, row), diff) = first.remove_entry();
    Some((row, diff))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, u64, u64);

    fn valid(row: &Row) -> Range<u64> {
        row.1..row.2
    }

    fn add(schedule: &mut Schedule<Row>, row: Row, time: u64, diff: isize) -> Option<isize> {
        let shown = schedule.add((row, time, diff), valid(&row));
        shown.map(|(.., diff)| diff)
    }

    fn pass(schedule: &mut Schedule<Row>, epoch: u64) -> Vec<(&'static str, isize)> {
        let mut found = Vec::new();
        while schedule.pass(epoch, 1, valid, |row, diff| found.push((row.0, diff))) == Passed::More
        {
        }
        found
    }

    #[test]
    fn a_row_is_there_from_its_first_moment_until_before_its_last() {
        let mut schedule = Schedule::default();
        assert_eq!(add(&mut schedule, ("future", 5, 9), 2, 1), None);
        assert_eq!(add(&mut schedule, ("present", 2, 5), 2, 1), Some(1));
        assert_eq!(add(&mut schedule, ("past", 0, 2), 2, 1), None);
        assert_eq!(add(&mut schedule, ("never", 9, 3), 2, 1), None);
        assert_eq!(add(&mut schedule, ("always", 0, NEVER), 2, 1), Some(1));
        assert_eq!(schedule.len(), 2);
        assert!(!schedule.is_due(4) && schedule.is_due(5));
        assert_eq!(pass(&mut schedule, 4), []);
        assert_eq!(pass(&mut schedule, 5), [("future", 1), ("present", -1)]);
        assert_eq!(pass(&mut schedule, 8), []);
        assert_eq!(pass(&mut schedule, 9), [("future", -1)]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_row_that_comes_and_goes_between_two_epochs_never_shows() {
        let mut schedule = Schedule::default();
        add(&mut schedule, ("short", 5, 9), 2, 1);
        assert_eq!(pass(&mut schedule, 9), []);
        assert!(schedule.is_empty());
    }

    #[test]
    fn what_is_retracted_is_forgotten() {
        let mut schedule = Schedule::default();
        for (row, shown) in [(("future", 5, 9), None), (("present", 1, 9), Some(1))] {
            assert_eq!(add(&mut schedule, row, 2, 1), shown);
            assert_eq!(add(&mut schedule, row, 3, -1), shown.map(|shown| -shown));
        }
        assert!(schedule.is_empty());
        // A retraction may come first.
        add(&mut schedule, ("twice", 5, 9), 2, -1);
        add(&mut schedule, ("twice", 5, 9), 2, 2);
        assert_eq!(pass(&mut schedule, 6), [("twice", 1)]);
        assert_eq!(add(&mut schedule, ("twice", 5, 9), 7, -1), Some(-1));
        assert!(schedule.is_empty());
    }
}
