//! Values that are many and seldom looked at, with the smallest to be had.
//!
//! A log-structured list. What comes and goes is appended to a tail, without looking for what is there. A tail that has grown long is
//! sorted, and becomes a run; runs that are not much longer than what comes behind them are merged with it, so that each is at least
//! twice as long as the next. The smallest value is at the end of a run, and is popped.
//!
//! With `n` values, and amortised: a change takes part in `O(log n)` merges, a pop looks at the ends of `O(log n)` runs.
//!
//! What has come and gone may be in two runs until these are merged. All are merged when a quarter of what is held took something
//! away, so if each value is there once the runs hold at most twice as many as there are. A merge takes as much again while it lasts.

/// Changes of values, with how often each is there, perhaps less than never.
pub(super) struct Runs<V> {
    /// Each with the largest value first, and each value once.
    runs: Vec<Vec<(V, isize)>>,
    /// As they came.
    tail: Vec<(V, isize)>,
    /// How many changes took away since all runs were merged.
    gone: usize,
}

/// How long a tail may be, whatever the runs are.
const SHORT: usize = 64;
/// A tail is not longer: it is sorted in a processor's cache.
const LONG: usize = 1024;

impl<V> Default for Runs<V> {
    fn default() -> Self {
        Runs {
            runs: Vec::new(),
            tail: Vec::new(),
            gone: 0,
        }
    }
}

impl<V: Ord> Runs<V> {
    /// Whether nothing is held. What cancels may still be.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.tail.is_empty()
    }

    /// Adds a change.
    pub(super) fn push(&mut self, value: V, diff: isize) {
        self.tail.push((value, diff));
        self.gone += usize::from(diff < 0);
        let longest = self.runs.first().map_or(0, Vec::len);
        if self.tail.len() >= (longest / 4).clamp(SHORT, LONG) {
            self.sort_tail();
        }
    }

    /// Takes the smallest value, and how often it was there: that may be zero times.
    pub(super) fn pop(&mut self) -> Option<(V, isize)> {
        if !self.tail.is_empty() {
            self.sort_tail();
        }
        let ends = self.runs.iter_mut();
        let smallest = ends.min_by(|one, other| one.last().cmp(&other.last()))?;
        let (value, mut count) = smallest.pop()?;
        for run in &mut self.runs {
            if let Some((_, more)) = run.pop_if(|(next, _)| *next == value) {
                count += more;
            }
            fit(run);
        }
        self.runs.retain(|run| !run.is_empty());
        Some((value, count))
    }

    /// Makes the tail a run, with those before it that are not much longer.
    fn sort_tail(&mut self) {
        let all: usize = self.tail.len() + self.runs.iter().map(Vec::len).sum::<usize>();
        let merge_all = self.gone > all / 4;
        let mut tail = std::mem::take(&mut self.tail);
        tail.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        let (mut from, mut length) = (self.runs.len(), tail.len());
        while let Some(before) = from.checked_sub(1)
            && (merge_all || self.runs[before].len() < 2 * length)
        {
            from = before;
            length += self.runs[before].len();
        }
        if from == 0 {
            self.gone = 0;
        }
        let run = merged(self.runs.drain(from..).chain([tail]), length);
        if !run.is_empty() {
            self.runs.push(run);
        }
    }
}

/// What is in sorted parts of so many values in all.
fn merged<V: Ord>(
    mut parts: impl Iterator<Item = Vec<(V, isize)>>,
    length: usize,
) -> Vec<(V, isize)> {
    let mut run = parts.next().unwrap_or_default();
    run.reserve_exact(length - run.len());
    for part in parts {
        run.extend(part);
    }
    // The stable sort finds the parts, and merges them.
    run.sort_by(|(one, _), (other, _)| other.cmp(one));
    run.dedup_by(|(value, diff), (kept, count)| {
        let same = value == kept;
        if same {
            *count += *diff;
        }
        same
    });
    run.retain(|(_, count)| *count != 0);
    run.shrink_to_fit();
    run
}

/// Gives memory back when more than half of it is unused.
fn fit<T>(list: &mut Vec<T>) {
    if list.len() < list.capacity() / 2 {
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    impl<V> Runs<V> {
        fn held(&self) -> usize {
            let runs = self.runs.iter().map(Vec::capacity);
            runs.sum::<usize>() + self.tail.capacity()
        }
    }

    /// Changes and pops in any order give what a map gives.
    #[test]
    fn pops_give_the_smallest_of_what_is_left() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let values = [50, 5_000, 1_000_000][random.usize(..3)];
            let (mut runs, mut there) = (Runs::default(), BTreeMap::new());
            for _ in 0..random.usize(..20_000) {
                match random.u16(..1000) {
                    0 => (0..random.usize(..200)).for_each(|_| pop_of_both(&mut runs, &mut there)),
                    _ => {
                        let value = random.u32(..values);
                        let diff = random.isize(-1..2);
                        runs.push(value, diff);
                        *there.entry(value).or_default() += diff;
                    }
                }
            }
            while !runs.is_empty() {
                pop_of_both(&mut runs, &mut there);
            }
            there.retain(|_, count| *count != 0);
            assert!(there.is_empty(), "seed {seed}, round {round}");
            assert_eq!(runs.runs.capacity() * runs.tail.capacity(), 0);
        }
    }

    /// Takes the smallest value that has a count from both.
    fn pop_of_both(runs: &mut Runs<u32>, there: &mut BTreeMap<u32, isize>) {
        there.retain(|_, count| *count != 0);
        let popped = std::iter::from_fn(|| runs.pop()).find(|(_, count)| *count != 0);
        assert_eq!(popped, there.pop_first());
    }

    /// Values come, then each gives way to another, then most go.
    #[test]
    fn memory_is_for_what_is_there() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut runs, mut there) = (Runs::default(), Vec::new());
        for step in 0..150_000_u32 {
            let goes = match step {
                0..20_000 => 2,
                20_000..100_000 => 5,
                _ => 9,
            };
            if !there.is_empty() && random.u8(..10) < goes {
                let at = random.usize(..there.len());
                runs.push(there.swap_remove(at), -1);
            } else {
                let value = random.u64(..);
                there.push(value);
                runs.push(value, 1);
            }
            // What the tail takes away still counts, and it may have room for as much again.
            let tail = SHORT + there.len().min(LONG);
            let most = 2 * there.len() + 4 * tail;
            assert!(runs.held() <= most, "seed {seed}, step {step}");
        }
    }
}
