//! Which objects nobody can reach any more. Pure.

use std::collections::BTreeSet;

use super::names::ObjectName;
use super::objects::{CommitRecord, Series, StartRecord};
use super::recovery::position_in;
use crate::{Epoch, Generation};

/// What a collection of garbage has to respect.
#[derive(Clone, Debug)]
pub(super) struct Roots<'a> {
    /// The start record of the run that collects.
    pub(super) start: &'a StartRecord,
    /// The last commits of the chain, oldest first. Of them, those from before `start` are kept for people: no recovery
    /// goes back to them.
    pub(super) commits: &'a [CommitRecord],
}

/// The names in `listing` that can go, in an order in which a crash midway leaves no object that lacks what it names.
///
/// Nothing goes until the run has committed: before that, the old state is the only state. Objects that are younger
/// than the listing are not in it, so it may run beside seals and commits of its own run.
pub(super) fn unreachable(roots: &Roots<'_>, listing: &[ObjectName]) -> Vec<ObjectName> {
    let committed = |commit: &&CommitRecord| commit.generation == roots.start.generation;
    if !roots.commits.iter().any(|commit| committed(&commit)) {
        return Vec::new();
    }
    let kept: BTreeSet<(Generation, u64)> = roots
        .commits
        .iter()
        .map(|commit| (commit.generation, commit.number))
        .collect();
    let oldest_commit = roots.commits.iter().map(|c| c.number).min().unwrap_or(0);
    // Younger than what the roots know of.
    let own = |generation, number| generation == roots.start.generation && number > oldest_commit;
    let leases = listing.iter().filter_map(|name| match name {
        ObjectName::Lease(number) => Some(*number),
        _ => None,
    });
    let newest_lease = leases.max().unwrap_or(0);
    let generations = roots.commits.iter().map(|c| c.generation);
    let oldest_generation = generations.min().unwrap_or(roots.start.generation);
    let bases: BTreeSet<(Generation, Epoch)> = roots
        .commits
        .iter()
        .filter_map(|commit| commit.base.as_ref())
        .map(|base| (base.generation, base.epoch))
        .collect();
    let mut garbage: Vec<ObjectName> = listing
        .iter()
        .filter(|name| match **name {
            ObjectName::Lease(number) => number + KEPT_LEASES <= newest_lease,
            ObjectName::Commit { generation, number } => {
                !kept.contains(&(generation, number)) && !own(generation, number)
            }
            ObjectName::Start(g) | ObjectName::Generation(g) | ObjectName::Request(g) => {
                g < oldest_generation
            }
            ObjectName::Seal {
                kind,
                generation,
                process,
                sequence,
            } => {
                let series = Series {
                    kind,
                    generation,
                    process,
                };
                !seal_needed(roots, series, sequence)
            }
            ObjectName::Base {
                generation, epoch, ..
            } => !bases.contains(&(generation, epoch)) && !base_coming(roots, generation, epoch),
            // For people to deal with.
            ObjectName::Letter(_) => false,
        })
        .copied()
        .collect();
    // Commits name seals and bases, so they go first; oldest first, so that the chain never has a hole.
    garbage.sort_unstable_by_key(|name| (!matches!(name, ObjectName::Commit { .. }), *name));
    garbage
}

/// The newest lease records stay, so that the numbers only grow.
pub(super) const KEPT_LEASES: u64 = 3;

fn seal_needed(roots: &Roots<'_>, series: Series, sequence: u64) -> bool {
    let in_commit =
        |commit: &CommitRecord| commit.runs.iter().any(|run| run.contains(series, sequence));
    if roots.commits.iter().any(in_commit) {
        return true;
    }
    let pinned = roots
        .start
        .runs
        .iter()
        .find(|run| run.contains(series, sequence));
    if series.generation < roots.start.generation && pinned.is_none() {
        return false;
    }
    // Beyond the oldest commit that this run could fall back to, should later ones be lost.
    let lineage = |commit: &&CommitRecord| {
        let named = roots.start.commit.map(|commit| commit.name());
        commit.generation == roots.start.generation
            || named == Some((commit.generation, commit.number))
    };
    let start_of_series = pinned.map_or(0, |run| run.first - 1);
    let oldest_position = roots
        .commits
        .iter()
        .filter(lineage)
        .map(|commit| position_in(commit, series).map_or(start_of_series, |end| end.last))
        .min();
    oldest_position.is_none_or(|position| sequence > position)
}

/// Whether a base is one that the run is about to name in a commit.
fn base_coming(roots: &Roots<'_>, generation: Generation, epoch: Epoch) -> bool {
    let newest = roots.commits.last().and_then(|commit| commit.base.as_ref());
    generation >= roots.start.generation && newest.is_none_or(|base| epoch > base.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::frame::Checksum;
    use crate::checkpoint::objects::{BaseRef, CommitRef, SealKind, SealRun};
    use std::collections::BTreeMap;

    fn seal(generation: u64, process: u32, sequence: u64) -> ObjectName {
        ObjectName::Seal {
            kind: SealKind::Input,
            generation: Generation(generation),
            process,
            sequence,
        }
    }

    fn base(generation: u64, epoch: u64) -> ObjectName {
        ObjectName::Base {
            generation: Generation(generation),
            epoch: Epoch(epoch),
            bucket: 0,
        }
    }

    fn committed(generation: u64, number: u64) -> ObjectName {
        ObjectName::Commit {
            generation: Generation(generation),
            number,
        }
    }

    fn run(generation: u64, first: u64, last: u64) -> SealRun {
        SealRun {
            kind: SealKind::Input,
            generation: Generation(generation),
            process: 0,
            first,
            last,
            last_epoch: Epoch(0),
            last_checksum: Checksum(0),
        }
    }

    fn commit(
        number: u64,
        generation: u64,
        base: Option<(u64, u64, Vec<SealRun>)>,
        runs: Vec<SealRun>,
    ) -> CommitRecord {
        CommitRecord {
            number,
            previous: None,
            generation: Generation(generation),
            epoch: Epoch(number * 10),
            loading: false,
            tokens: BTreeMap::new(),
            base: base.map(|(generation, epoch, covers)| BaseRef {
                generation: Generation(generation),
                epoch: Epoch(epoch),
                buckets: Vec::new(),
                covers,
            }),
            runs,
            sinks: BTreeMap::new(),
            marks: BTreeMap::new(),
            written_at_ms: 0,
        }
    }

    fn start(generation: u64, commit: Option<u64>, runs: Vec<SealRun>) -> StartRecord {
        StartRecord {
            generation: Generation(generation),
            fresh: commit.is_none(),
            commit: commit.map(|number| CommitRef {
                generation: Generation(1),
                number,
                checksum: Checksum(0),
            }),
            first_commit: commit.unwrap_or(0) + 1,
            runs,
            rebuild: BTreeSet::new(),
        }
    }

    fn gone(
        start: &StartRecord,
        commits: &[CommitRecord],
        listing: &[ObjectName],
    ) -> Vec<ObjectName> {
        unreachable(&Roots { start, commits }, listing)
    }

    #[test]
    fn nothing_goes_before_the_run_has_committed() {
        let start = start(2, Some(3), vec![]);
        let old = [commit(3, 1, None, vec![run(1, 2, 2)])];
        let listing = [committed(1, 1), seal(1, 0, 1), base(1, 5)];
        assert_eq!(gone(&start, &old, &listing), []);
        assert_eq!(gone(&start, &[], &listing), []);
    }

    #[test]
    fn what_a_kept_commit_names_stays_and_the_rest_of_its_time_goes() {
        let start = start(1, None, vec![]);
        let commits = [
            commit(4, 1, None, vec![run(1, 1, 4)]),
            commit(5, 1, Some((1, 40, vec![run(1, 1, 4)])), vec![run(1, 5, 5)]),
        ];
        let listing = [
            committed(1, 3),
            committed(1, 4),
            seal(1, 0, 1),
            seal(1, 0, 9),
        ];
        // Seals 1..=4 are still what commit 4 consists of.
        assert_eq!(gone(&start, &commits, &listing), [committed(1, 3)]);
        let listing = [
            committed(1, 4),
            seal(1, 0, 4),
            seal(1, 0, 5),
            seal(1, 0, 6),
            seal(1, 1, 1),
            base(1, 20),
            base(1, 40),
            base(1, 50),
        ];
        // With commit 5 alone they go; seals not yet covered stay, of every process, and so does a base to come.
        assert_eq!(
            gone(&start, &commits[1..], &listing),
            [committed(1, 4), seal(1, 0, 4), base(1, 20)]
        );
    }

    #[test]
    fn pinned_seals_stay_until_every_kept_commit_is_past_them() {
        let start = start(2, Some(1), vec![run(1, 3, 5)]);
        let listing = [seal(1, 0, 2), seal(1, 0, 3), seal(1, 0, 5), seal(1, 0, 6)];
        let one = commit(1, 1, None, vec![run(1, 1, 2)]);
        let two = commit(2, 2, None, vec![run(1, 1, 3)]);
        // Seal 6 came after the start record: nobody will ever read it.
        assert_eq!(
            gone(&start, &[one.clone(), two.clone()], &listing),
            [seal(1, 0, 6)]
        );
        let past = commit(3, 2, Some((2, 30, vec![run(1, 1, 5)])), vec![]);
        assert_eq!(gone(&start, std::slice::from_ref(&past), &listing), listing);
        assert_eq!(
            gone(&start, &[two, past], &listing),
            [seal(1, 0, 6)],
            "commit 2 could still be fallen back to"
        );
    }

    #[test]
    fn after_a_fresh_start_the_old_state_goes_with_the_first_commit() {
        let mut start = start(3, None, vec![]);
        start.first_commit = 8;
        let listing = [
            ObjectName::Generation(Generation(2)),
            ObjectName::Generation(Generation(3)),
            ObjectName::Start(Generation(2)),
            ObjectName::Start(Generation(3)),
            committed(2, 6),
            committed(2, 7),
            committed(3, 8),
            seal(2, 0, 1),
            seal(3, 0, 1),
            base(2, 5),
        ];
        let new = commit(8, 3, None, vec![run(3, 1, 1)]);
        assert_eq!(
            gone(&start, &[new], &listing),
            [
                committed(2, 6),
                committed(2, 7),
                ObjectName::Generation(Generation(2)),
                ObjectName::Start(Generation(2)),
                seal(2, 0, 1),
                base(2, 5),
            ]
        );
    }

    #[test]
    fn commits_of_a_run_that_was_fenced_go_and_the_newest_leases_stay() {
        let start = start(2, Some(3), vec![]);
        let kept = [commit(3, 1, None, vec![]), commit(4, 2, None, vec![])];
        let listing = [
            ObjectName::Lease(6),
            ObjectName::Lease(7),
            ObjectName::Lease(8),
            ObjectName::Lease(9),
            committed(1, 3),
            committed(1, 4),
            committed(1, 5),
            committed(2, 4),
            committed(2, 5),
        ];
        assert_eq!(
            gone(&start, &kept, &listing),
            [committed(1, 4), committed(1, 5), ObjectName::Lease(6)],
            "commit 5 of generation 2 is younger than what the roots know of"
        );
    }
}
