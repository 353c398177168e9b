//! Which worker reads which feed range, and which ranges are to be divided. Pure.

use std::collections::BTreeMap;

use tidefeed_runtime::FeedRangeId;

/// Who reads what, as far as has been said.
#[derive(Debug)]
pub struct Assignment {
    readers: BTreeMap<FeedRangeId, usize>,
    /// Ranges of each worker.
    loads: Vec<usize>,
    /// Where to begin among workers with equally many.
    first: usize,
    /// Ranges that are told to end, and how many take the place of each.
    dividing: BTreeMap<FeedRangeId, usize>,
}

/// A range that is to be handed over as several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// The worker that reads it.
    pub worker: usize,
    /// The range.
    pub range: FeedRangeId,
    /// What tiles it.
    pub parts: Vec<FeedRangeId>,
}

impl Assignment {
    /// No range on any worker. Of workers with equally many ranges the next from `first` on has the next.
    pub fn new(workers: usize, first: usize) -> Self {
        Assignment {
            readers: BTreeMap::new(),
            loads: vec![0; workers.max(1)],
            first,
            dividing: BTreeMap::new(),
        }
    }

    /// Gives a range to the worker with the fewest, and returns it.
    pub fn place(&mut self, range: FeedRangeId) -> usize {
        let workers = self.loads.len();
        let order = (0..workers).map(|at| (self.first + at) % workers);
        let worker = order.min_by_key(|worker| self.loads[*worker]).unwrap_or(0);
        self.loads[worker] += 1;
        self.readers.insert(range, worker);
        worker
    }

    /// Takes a range off its worker: it has been handed over.
    pub fn release(&mut self, range: &FeedRangeId) {
        self.dividing.remove(range);
        if let Some(worker) = self.readers.remove(range) {
            self.loads[worker] -= 1;
        }
    }

    /// Those of `live` that nobody reads.
    pub fn unread<'a>(&self, live: &'a [FeedRangeId]) -> impl Iterator<Item = &'a FeedRangeId> {
        live.iter()
            .filter(|range| !self.readers.contains_key(range))
    }

    /// The ranges that are to be divided, now that the container has the partitions `live`, so that none is read over the
    /// bounds of a partition, and at least `least` ranges are read where `divide` can make so many. Each is told once.
    ///
    /// Ranges that lie side by side in one partition, as after a merge, stay as they are: each has a position of its own.
    pub fn divisions(
        &mut self,
        live: &[FeedRangeId],
        least: usize,
        divide: impl Fn(&FeedRangeId, usize) -> Vec<FeedRangeId>,
    ) -> Vec<Division> {
        let steady = |range: &&FeedRangeId| !self.dividing.contains_key(*range);
        let ranges: Vec<_> = self.readers.keys().filter(steady).cloned().collect();
        let pending: usize = self.dividing.values().sum();
        let divided = finer(&ranges, live, least.saturating_sub(pending), divide);
        let mut divisions = Vec::new();
        for (range, parts) in divided.into_iter().filter(|(_, parts)| parts.len() > 1) {
            let Some(&worker) = self.readers.get(&range) else {
                continue;
            };
            self.dividing.insert(range.clone(), parts.len());
            divisions.push(Division {
                worker,
                range,
                parts,
            });
        }
        divisions
    }
}

/// Each range with its parts: cut at the bounds of partitions, then into so many that there are `least` of all together.
pub fn finer(
    ranges: &[FeedRangeId],
    live: &[FeedRangeId],
    least: usize,
    divide: impl Fn(&FeedRangeId, usize) -> Vec<FeedRangeId>,
) -> Vec<(FeedRangeId, Vec<FeedRangeId>)> {
    let cut: Vec<_> = ranges.iter().map(|range| range.cut_at(live)).collect();
    let count: usize = cut.iter().map(Vec::len).sum();
    // Partitions are of about one size, so equally many parts of each; the first have one more.
    let share = |at: usize| (least / count.max(1) + usize::from(at < least % count.max(1))).max(1);
    let mut at = 0;
    let mut parts_of = |range: &FeedRangeId| {
        at += 1;
        match share(at - 1) {
            1 => vec![range.clone()],
            parts => divide(range, parts),
        }
    };
    let finer = cut
        .iter()
        .map(|cut| cut.iter().flat_map(&mut parts_of).collect());
    ranges
        .iter()
        .cloned()
        .zip(finer.collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 0x40 << 56;

    fn ids(names: &[&str]) -> Vec<FeedRangeId> {
        names
            .iter()
            .map(|name| FeedRangeId((*name).to_owned()))
            .collect()
    }

    fn divide(range: &FeedRangeId, parts: usize) -> Vec<FeedRangeId> {
        range.divide(parts, END)
    }

    fn placed(workers: usize, ranges: &[&str]) -> Assignment {
        let mut assignment = Assignment::new(workers, 0);
        for range in ids(ranges) {
            assignment.place(range);
        }
        assignment
    }

    #[test]
    fn ranges_are_spread_evenly_and_begin_where_they_are_told() {
        let mut assignment = Assignment::new(3, 2);
        let workers: Vec<_> = ids(&["-10", "10-20", "20-30", "30-FF"])
            .into_iter()
            .map(|range| assignment.place(range))
            .collect();
        assert_eq!(workers, [2, 0, 1, 2]);
        assignment.release(&FeedRangeId("10-20".into()));
        assert_eq!(assignment.place(FeedRangeId("10-20".into())), 0);
    }

    #[test]
    fn a_range_over_a_split_is_divided_once() {
        let mut assignment = placed(2, &["-20", "20-FF"]);
        let live = ids(&["-10", "10-20", "20-FF"]);
        let told = assignment.divisions(&live, 2, divide);
        let division = Division {
            worker: 0,
            range: FeedRangeId("-20".into()),
            parts: ids(&["-10", "10-20"]),
        };
        assert_eq!(told, [division]);
        assert_eq!(assignment.divisions(&live, 2, divide), []);
        assignment.release(&FeedRangeId("-20".into()));
        let workers = ["-10", "10-20"].map(|part| assignment.place(FeedRangeId(part.into())));
        assert_eq!(workers, [0, 0], "worker 1 has one already");
        assert_eq!(assignment.divisions(&live, 2, divide), []);
    }

    #[test]
    fn a_split_that_splits_again_is_cut_at_every_bound() {
        let mut assignment = placed(1, &["-FF"]);
        let told = assignment.divisions(&ids(&["-10", "10-18", "18-20", "20-FF"]), 1, divide);
        assert_eq!(told[0].parts, ids(&["-10", "10-18", "18-20", "20-FF"]));
    }

    #[test]
    fn merged_partitions_leave_their_ranges_alone() {
        let mut assignment = placed(2, &["-10", "10-20", "20-FF"]);
        assert_eq!(assignment.divisions(&ids(&["-20", "20-FF"]), 2, divide), []);
    }

    #[test]
    fn there_are_as_many_ranges_as_asked_for() {
        let mut assignment = placed(4, &["-20", "20-FF"]);
        let live = ids(&["-20", "20-FF"]);
        let told = assignment.divisions(&live, 5, divide);
        let parts: usize = told.iter().map(|division| division.parts.len()).sum();
        assert_eq!(parts, 5);
        assert_eq!(
            assignment.divisions(&live, 5, divide),
            [],
            "they are on their way"
        );
        // What cannot be divided stays.
        let mut files = placed(4, &["orders"]);
        assert_eq!(files.divisions(&ids(&["orders"]), 4, divide), []);
    }

    /// Whatever splits and merges come in whatever order: what is read tiles the key space, no range lies over the bound of
    /// two partitions when all is done, and no worker has two ranges more than another had when it got its last.
    #[test]
    fn random_splits_and_merges_leave_every_key_with_one_reader() {
        for seed in 0..200u64 {
            let mut random = SplitMix(seed);
            let mut live = ids(&["-FF"]);
            let workers = 1 + random.below(4);
            let least = random.below(6);
            let mut assignment = Assignment::new(workers, random.below(4));
            for (_, parts) in finer(&live.clone(), &live, least, divide) {
                parts.into_iter().for_each(|part| {
                    assignment.place(part);
                });
            }
            let mut on_their_way: Vec<Division> = Vec::new();
            for _ in 0..30 {
                change(&mut live, &mut random);
                on_their_way.extend(assignment.divisions(&live, least, divide));
                if random.below(2) == 0 && !on_their_way.is_empty() {
                    hand_over(&mut assignment, on_their_way.remove(0));
                }
                tiles(&assignment, seed);
            }
            loop {
                on_their_way.extend(assignment.divisions(&live, least, divide));
                match on_their_way.pop() {
                    Some(division) => hand_over(&mut assignment, division),
                    None => break,
                }
            }
            tiles(&assignment, seed);
            for range in assignment.readers.keys() {
                let over = live.iter().filter(|live| live.overlaps(range)).count();
                assert_eq!(over, 1, "seed {seed}: {range} of {live:?}");
            }
            assert!(
                assignment.readers.len() >= least.max(live.len().min(least)),
                "seed {seed}"
            );
        }
    }

    fn change(live: &mut Vec<FeedRangeId>, random: &mut SplitMix) {
        let at = random.below(live.len());
        if random.below(3) > 0 || live.len() == 1 {
            let parts = live[at].divide(2, END);
            live.splice(at..=at, parts);
        } else {
            let at = at.min(live.len() - 2);
            let (min, max) = (live[at].0.split_once('-'), live[at + 1].0.split_once('-'));
            let (min, max) = (min.expect("bounds").0, max.expect("bounds").1);
            let merged = FeedRangeId::of(min, max);
            live.splice(at..=at + 1, [merged]);
        }
    }

    fn hand_over(assignment: &mut Assignment, division: Division) {
        assignment.release(&division.range);
        division.parts.into_iter().for_each(|part| {
            assignment.place(part);
        });
    }

    fn tiles(assignment: &Assignment, seed: u64) {
        let mut bounds: Vec<_> = assignment
            .readers
            .keys()
            .map(|range| range.bounds().expect("bounds"))
            .collect();
        bounds.sort_unstable();
        assert_eq!(
            (bounds[0].0.as_str(), bounds[bounds.len() - 1].1.as_str()),
            ("", "FF")
        );
        assert!(
            bounds.windows(2).all(|pair| pair[0].1 == pair[1].0),
            "seed {seed}: {bounds:?}"
        );
        let loads: usize = assignment.loads.iter().sum();
        assert_eq!(loads, assignment.readers.len());
        let mut dividing = assignment.dividing.keys();
        assert!(dividing.all(|range| assignment.readers.contains_key(range)));
    }

    struct SplitMix(u64);

    impl SplitMix {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed ^ (mixed >> 31)) % bound as u64) as usize
        }
    }
}
