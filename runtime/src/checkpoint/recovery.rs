//! The decisions of recovery, as pure functions over what was observed: names in a listing, and the records read.
//!
//! Recovery reads in stages, each decided from what the stages before it showed: the listing names the newest start
//! record ([`Survey::newest_start`]), that and the listing name the commit ([`Survey::commit_for`]), and both name the
//! spans of seals beyond the commit ([`beyond`]). Nothing here trusts a listing where a start record speaks (I3).

use std::collections::{BTreeMap, BTreeSet};

use super::frame::{Checksum, Damage};
use super::names::{CommitName, ObjectName};
use super::objects::{CommitRecord, SealKind, SealRef, SealRun, Series, StartRecord};
use crate::{Epoch, Generation};

/// Why the state cannot be used; the store turns it into an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Missing(ObjectName),
    Damaged(ObjectName, Damage),
}

/// A listing, sorted out.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// The highest generation that any name mentions.
    highest: Generation,
    starts: BTreeSet<Generation>,
    commits: BTreeSet<CommitName>,
    seals: BTreeMap<Series, BTreeSet<u64>>,
    last_lease: u64,
}

impl Survey {
    pub(super) fn of(names: &[ObjectName]) -> Survey {
        let mut survey = Survey::default();
        for name in names {
            let generation = match *name {
                ObjectName::Generation(generation) | ObjectName::Base { generation, .. } => {
                    generation
                }
                ObjectName::Letter(_) | ObjectName::Request(_) => continue,
                ObjectName::Lease(number) => {
                    survey.last_lease = survey.last_lease.max(number);
                    continue;
                }
                ObjectName::Start(generation) => {
                    survey.starts.insert(generation);
                    generation
                }
                ObjectName::Commit { generation, number } => {
                    survey.commits.insert((generation, number));
                    generation
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
                    survey.seals.entry(series).or_default().insert(sequence);
                    generation
                }
            };
            survey.highest = survey.highest.max(generation);
        }
        survey
    }

    /// The number of the run that is about to start.
    pub(super) fn next_generation(&self) -> Generation {
        Generation(self.highest.0 + 1)
    }

    /// The number of the newest lease record, 0 if there is none.
    pub(super) fn last_lease(&self) -> u64 {
        self.last_lease
    }

    pub(super) fn has_commit(&self, name: CommitName) -> bool {
        self.commits.contains(&name)
    }

    /// The highest number of a commit, 0 if there is none.
    pub(super) fn last_commit(&self) -> u64 {
        let numbers = self.commits.iter().map(|(_, number)| *number);
        numbers.max().unwrap_or(0)
    }

    /// The generation whose start record describes the state; `None` if no run ever got so far as to seal.
    ///
    /// A generation without a start record died before it read anything. One without a start record that has sealed or
    /// committed cannot be: its start record was lost.
    pub(super) fn newest_start(&self) -> Result<Option<Generation>, Refusal> {
        let newest = self.starts.last().copied();
        let sealed = self.seals.keys().map(|series| series.generation);
        let committed = self.commits.iter().map(|(generation, _)| *generation);
        match sealed.chain(committed).max() {
            Some(generation) if Some(generation) > newest => {
                Err(Refusal::Missing(ObjectName::Start(generation)))
            }
            _ => Ok(newest),
        }
    }

    /// The name of the commit that the state stands at: the last one of the generation of `start`, else the one that it
    /// started from. What an older generation commits after a newer one has started is never looked at.
    pub(super) fn commit_for(&self, start: &StartRecord) -> Result<Option<CommitName>, Refusal> {
        let generation = start.generation;
        let mut own = self.commits.range((generation, 0)..=(generation, u64::MAX));
        let Some((_, first)) = own.next().copied() else {
            return Ok(start
                .commit
                .map(|commit| (commit.generation, commit.number)));
        };
        let mut last = first;
        for (_, number) in own.copied() {
            if number != last + 1 {
                return Err(Refusal::Missing(ObjectName::Commit {
                    generation,
                    number: last + 1,
                }));
            }
            last = number;
        }
        Ok(Some((generation, last)))
    }
}

/// Seals to read, `first..=last` of one process, with what is known about them beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) series: Series,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Checksum that the first seal must name as its predecessor's, if it is known.
    pub(super) after: Option<Checksum>,
    /// Checksum that the last seal must have, if it is pinned.
    pub(super) pinned: Option<Checksum>,
}

impl Span {
    pub(super) fn of(run: &SealRun) -> Span {
        Span {
            series: run.series(),
            first: run.first,
            last: run.last,
            after: (run.first == 1).then(Checksum::default),
            pinned: Some(run.last_checksum),
        }
    }

    pub(super) fn name(&self, sequence: u64) -> ObjectName {
        self.series.name(sequence)
    }
}

/// The seals beyond the commit: what `start` pinned and the commit does not contain yet, then what the generation of
/// `start` sealed itself.
///
/// `commit` is what [`Survey::commit_for`] chose. Only inputs count: keyed state is computed anew by the replay. A gap in the generation's own seals refuses: seals are written one
/// after the other, so a hole is a seal that was lost after it may have been visible, and one beyond it must never
/// cover what the lost one held.
pub(super) fn beyond(
    survey: &Survey,
    start: &StartRecord,
    commit: Option<&CommitRecord>,
) -> Result<Vec<Span>, Refusal> {
    // A commit that the start record names contains nothing of what the same record pins beyond it.
    let own_commit = commit.filter(|commit| commit.generation == start.generation);
    let position = |series: Series| own_commit.and_then(|commit| position_in(commit, series));
    let mut spans = Vec::new();
    for run in &start.runs {
        let mut span = Span::of(run);
        if let Some(end) = position(run.series())
            && end.last >= run.first
        {
            span.first = end.last + 1;
            span.after = Some(end.last_checksum);
        }
        if span.first <= span.last {
            spans.push(span);
        }
    }
    let own =
        |series: &&Series| series.kind == SealKind::Input && series.generation == start.generation;
    for series in survey.seals.keys().filter(own) {
        let sequences = &survey.seals[series];
        let end = position(*series);
        let first = end.map_or(1, |end| end.last + 1);
        let mut last = first - 1;
        for sequence in sequences.range(first..) {
            if *sequence != last + 1 {
                return Err(Refusal::Missing(series.name(last + 1)));
            }
            last = *sequence;
        }
        if last >= first {
            spans.push(Span {
                series: *series,
                first,
                last,
                after: Some(end.map_or(Checksum::default(), |end| end.last_checksum)),
                pinned: None,
            });
        }
    }
    Ok(spans)
}

/// The sinks that the generation of `start` was to rebuild and has not, as far as `commit`, the one chosen, shows.
pub(super) fn pending_rebuilds(
    start: &StartRecord,
    commit: Option<&CommitRecord>,
) -> BTreeSet<String> {
    let Some(commit) = commit else {
        return start.rebuild.clone();
    };
    let rebuilding = |sink: &str| commit.sinks.get(sink).is_some_and(|s| s.rebuilding);
    let own = commit.generation == start.generation;
    let done = |sink: &str| own && commit.sinks.contains_key(sink) && !rebuilding(sink);
    let named = commit.sinks.keys().filter(|sink| rebuilding(sink));
    let pending = start.rebuild.iter().filter(|sink| !done(sink));
    pending.chain(named).cloned().collect()
}

/// The last seal of `series` that `commit` contains, if it says so.
pub(super) fn position_in(commit: &CommitRecord, series: Series) -> Option<SealRun> {
    let covered = commit.base.iter().flat_map(|base| &base.covers);
    let of_series = |run: &&SealRun| run.series() == series;
    commit
        .runs
        .iter()
        .chain(covered)
        .filter(of_series)
        .max_by_key(|run| run.last)
        .copied()
}

/// What a read seal says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) seal: SealRef,
    pub(super) previous: Checksum,
}

/// Checks that `links` are the seals of `span`: chained, rising in epoch above `floor`, ending in what is pinned. Several
/// changes of keyed state may belong to one epoch.
pub(super) fn check_chain(
    span: &Span,
    links: &[Link],
    floor: Option<Epoch>,
) -> Result<(), Refusal> {
    let refuse = |sequence: u64, what: &str| {
        let damage = Damage::Content(what.to_owned());
        Err(Refusal::Damaged(span.name(sequence), damage))
    };
    let mut after = span.after;
    let mut floor = floor;
    for (sequence, link) in (span.first..=span.last).zip(links) {
        if link.seal.series() != span.series || link.seal.sequence != sequence {
            return refuse(sequence, "its heading names another seal");
        }
        if after.is_some_and(|checksum| checksum != link.previous) {
            return refuse(sequence, "it does not follow the seal before it");
        }
        let follows = |before| span.series.kind.may_follow(link.seal.epoch, before);
        if floor.is_some_and(|before| !follows(before)) {
            return refuse(sequence, "its epoch is not above those before it");
        }
        after = Some(link.seal.checksum);
        floor = Some(link.seal.epoch);
    }
    if links.len() as u64 != span.last - span.first + 1 {
        return Err(Refusal::Missing(span.name(span.first + links.len() as u64)));
    }
    if span.pinned.is_some_and(|checksum| Some(checksum) != after) {
        return refuse(span.last, "it is not the seal that was pinned");
    }
    Ok(())
}

/// Groups seals into the runs that a start record or a commit names. The seals of each process must be in order.
pub(super) fn runs_of(seals: &[SealRef]) -> Vec<SealRun> {
    let mut runs: BTreeMap<Series, SealRun> = BTreeMap::new();
    for seal in seals {
        let run = runs.entry(seal.series()).or_insert_with(|| run_of(seal));
        run.last = seal.sequence;
        run.last_epoch = seal.epoch;
        run.last_checksum = seal.checksum;
    }
    runs.into_values().collect()
}

/// The run that consists of one seal.
pub(super) fn run_of(seal: &SealRef) -> SealRun {
    SealRun {
        kind: seal.kind,
        generation: seal.generation,
        process: seal.process,
        first: seal.sequence,
        last: seal.sequence,
        last_epoch: seal.epoch,
        last_checksum: seal.checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::objects::{CommitRef, SinkState};

    fn seal(generation: u64, process: u32, sequence: u64) -> ObjectName {
        ObjectName::Seal {
            kind: SealKind::Input,
            generation: Generation(generation),
            process,
            sequence,
        }
    }

    fn committed(generation: u64, number: u64) -> ObjectName {
        ObjectName::Commit {
            generation: Generation(generation),
            number,
        }
    }

    fn survey(names: &[ObjectName]) -> Survey {
        Survey::of(names)
    }

    fn start(generation: u64, commit: Option<u64>, runs: Vec<SealRun>) -> StartRecord {
        StartRecord {
            generation: Generation(generation),
            fresh: false,
            commit: commit.map(|number| CommitRef {
                generation: Generation(generation - 1),
                number,
                checksum: Checksum(u128::from(number)),
            }),
            first_commit: commit.unwrap_or(0) + 1,
            runs,
            rebuild: BTreeSet::new(),
        }
    }

    fn run(generation: u64, process: u32, first: u64, last: u64) -> SealRun {
        SealRun {
            kind: SealKind::Input,
            generation: Generation(generation),
            process,
            first,
            last,
            last_epoch: Epoch(last * 10),
            last_checksum: Checksum(u128::from(last)),
        }
    }

    fn commit(number: u64, generation: u64, runs: Vec<SealRun>) -> CommitRecord {
        CommitRecord {
            number,
            previous: None,
            generation: Generation(generation),
            epoch: Epoch(100),
            loading: false,
            tokens: BTreeMap::new(),
            base: None,
            runs,
            sinks: BTreeMap::new(),
            marks: BTreeMap::new(),
            written_at_ms: 0,
        }
    }

    /// Spans as (generation, process, first, last).
    fn chosen(
        names: &[ObjectName],
        start: &StartRecord,
        commit: Option<&CommitRecord>,
    ) -> Result<Vec<(u64, u32, u64, u64)>, Refusal> {
        let spans = beyond(&survey(names), start, commit)?;
        let short = |span: &Span| {
            let Series {
                generation,
                process,
                ..
            } = span.series;
            (generation.0, process, span.first, span.last)
        };
        Ok(spans.iter().map(short).collect())
    }

    #[test]
    fn nothing_at_all_starts_from_nothing() {
        let empty = survey(&[]);
        assert_eq!(empty.newest_start(), Ok(None));
        assert_eq!(empty.next_generation(), Generation(1));
        // A run that died between its generation record and its start record.
        let died = survey(&[ObjectName::Generation(Generation(1))]);
        assert_eq!(died.newest_start(), Ok(None));
        assert_eq!(died.next_generation(), Generation(2));
    }

    #[test]
    fn the_newest_start_record_counts_and_must_be_there() {
        let start = |g| ObjectName::Start(Generation(g));
        let names = [start(1), start(2), seal(1, 0, 1), seal(2, 0, 1)];
        assert_eq!(survey(&names).newest_start(), Ok(Some(Generation(2))));
        let lost = [start(1), seal(1, 0, 1), seal(2, 0, 1)];
        assert_eq!(
            survey(&lost).newest_start(),
            Err(Refusal::Missing(start(2)))
        );
        let no_start = [ObjectName::Generation(Generation(1)), committed(1, 1)];
        assert_eq!(
            survey(&no_start).newest_start(),
            Err(Refusal::Missing(start(1)))
        );
    }

    #[test]
    fn the_commit_is_the_last_one_since_the_start() {
        let commits = |names: &[(u64, u64)]| {
            let name = |(generation, number): &(u64, u64)| committed(*generation, *number);
            survey(&names.iter().map(name).collect::<Vec<_>>())
        };
        let chosen = |generation, number| Ok(Some((Generation(generation), number)));
        let none: StartRecord = start(1, None, vec![]);
        assert_eq!(commits(&[]).commit_for(&none), Ok(None));
        let three = [(1, 1), (1, 2), (1, 3)];
        assert_eq!(commits(&three).commit_for(&none), chosen(1, 3));
        // Garbage collection took the oldest.
        let collected = commits(&[(1, 3), (1, 4)]);
        assert_eq!(collected.commit_for(&none), chosen(1, 4));
        // No commit of its own yet: the pinned one, also when a run that was fenced has written another one since.
        let second = start(2, Some(3), vec![]);
        let late = commits(&[(1, 2), (1, 3), (1, 4)]);
        assert_eq!(late.commit_for(&second), chosen(1, 3));
        let own = commits(&[(1, 3), (1, 4), (2, 4), (2, 5)]);
        assert_eq!(own.commit_for(&second), chosen(2, 5));
        assert_eq!(
            commits(&[(1, 3), (1, 5)]).commit_for(&none),
            Err(Refusal::Missing(committed(1, 4)))
        );
        // Started over after commit 3: what is before does not exist for it.
        let fresh = start(2, None, vec![]);
        assert_eq!(commits(&three).commit_for(&fresh), Ok(None));
        assert_eq!(commits(&[(1, 3), (2, 4)]).commit_for(&fresh), chosen(2, 4));
    }

    #[test]
    fn a_sink_is_to_be_rebuilt_until_a_commit_says_that_it_is() {
        let names = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let mut second = start(2, Some(1), vec![]);
        second.rebuild = names(&["a", "b", "c"]);
        assert_eq!(pending_rebuilds(&second, None), second.rebuild);
        let state = |rebuilding| SinkState {
            rebuilding,
            ..SinkState::default()
        };
        let sinks = [("a", false), ("b", true), ("d", true), ("e", false)];
        let sinks = sinks.map(|(sink, rebuilding)| (sink.to_owned(), state(rebuilding)));
        // Of the run before: what it says of a, b and c is from before they were to be rebuilt.
        let mut of = commit(1, 1, vec![]);
        of.sinks = sinks.into();
        let all = names(&["a", "b", "c", "d"]);
        assert_eq!(pending_rebuilds(&second, Some(&of)), all);
        of.generation = Generation(2);
        let left = names(&["b", "c", "d"]);
        assert_eq!(pending_rebuilds(&second, Some(&of)), left);
    }

    #[test]
    fn without_a_commit_every_own_seal_is_beyond() {
        let names = [seal(1, 0, 1), seal(1, 0, 2), seal(1, 1, 1)];
        assert_eq!(
            chosen(&names, &start(1, None, vec![]), None),
            Ok(vec![(1, 0, 1, 2), (1, 1, 1, 1)])
        );
    }

    #[test]
    fn own_seals_go_on_after_those_of_the_commit() {
        let names = [seal(1, 0, 1), seal(1, 0, 2), seal(1, 0, 3), seal(1, 1, 1)];
        let commit = commit(1, 1, vec![run(1, 0, 1, 2), run(1, 1, 1, 1)]);
        let start = start(1, None, vec![]);
        assert_eq!(
            chosen(&names, &start, Some(&commit)),
            Ok(vec![(1, 0, 3, 3)])
        );
        // The same when garbage collection took the first ones, because a base contains them.
        assert_eq!(
            chosen(&names[2..], &start, Some(&commit)),
            Ok(vec![(1, 0, 3, 3)])
        );
    }

    #[test]
    fn several_generations_after_one_commit_are_all_replayed() {
        // Generation 1 committed its seal 1 and sealed 2 and 3; 2 started from that and sealed 1; 3 started from both.
        let one = commit(1, 1, vec![run(1, 0, 1, 1)]);
        let third = start(3, Some(1), vec![run(1, 0, 2, 3), run(2, 0, 1, 1)]);
        let names = [
            seal(1, 0, 1),
            seal(1, 0, 2),
            seal(1, 0, 3),
            seal(2, 0, 1),
            seal(3, 0, 1),
        ];
        assert_eq!(
            chosen(&names, &third, Some(&one)),
            Ok(vec![(1, 0, 2, 3), (2, 0, 1, 1), (3, 0, 1, 1)])
        );
        // Once 3 has committed part of them, only the rest.
        let two = commit(2, 3, vec![run(1, 0, 1, 2)]);
        assert_eq!(
            chosen(&names, &third, Some(&two)),
            Ok(vec![(1, 0, 3, 3), (2, 0, 1, 1), (3, 0, 1, 1)])
        );
        let all = commit(
            3,
            3,
            vec![run(1, 0, 1, 3), run(2, 0, 1, 1), run(3, 0, 1, 1)],
        );
        assert_eq!(chosen(&names, &third, Some(&all)), Ok(vec![]));
    }

    #[test]
    fn a_seal_that_an_older_run_wrote_after_the_start_is_never_used() {
        let second = start(2, None, vec![run(1, 0, 1, 2)]);
        let names = [
            seal(1, 0, 1),
            seal(1, 0, 2),
            seal(1, 0, 3),
            seal(1, 1, 1),
            seal(2, 0, 1),
        ];
        assert_eq!(
            chosen(&names, &second, None),
            Ok(vec![(1, 0, 1, 2), (2, 0, 1, 1)])
        );
    }

    #[test]
    fn a_gap_refuses_and_names_the_lost_seal() {
        let own = start(1, None, vec![]);
        for (there, lost) in [(&[2u64, 3][..], 1), (&[1, 3], 2), (&[1, 2, 5], 3)] {
            let names: Vec<ObjectName> = there.iter().map(|s| seal(1, 0, *s)).collect();
            assert_eq!(
                chosen(&names, &own, None),
                Err(Refusal::Missing(seal(1, 0, lost)))
            );
        }
        let commit = commit(1, 1, vec![run(1, 0, 1, 2)]);
        assert_eq!(
            chosen(&[seal(1, 0, 4)], &own, Some(&commit)),
            Err(Refusal::Missing(seal(1, 0, 3)))
        );
    }

    #[test]
    fn a_fresh_start_looks_at_nothing_before_it() {
        let mut fresh = start(3, None, vec![]);
        fresh.fresh = true;
        fresh.first_commit = 10;
        let names = [committed(2, 9), seal(1, 0, 1), seal(2, 0, 2), seal(3, 0, 1)];
        assert_eq!(chosen(&names, &fresh, None), Ok(vec![(3, 0, 1, 1)]));
    }

    #[test]
    fn a_chain_is_followed_link_by_link() {
        let link = |sequence: u64, epoch: u64, previous: u128| Link {
            seal: SealRef {
                kind: SealKind::Input,
                generation: Generation(1),
                process: 0,
                sequence,
                epoch: Epoch(epoch),
                checksum: Checksum(u128::from(sequence)),
                bytes: 1,
            },
            previous: Checksum(previous),
        };
        let span = Span::of(&run(1, 0, 1, 3));
        let good = [link(1, 5, 0), link(2, 6, 1), link(3, 9, 2)];
        assert_eq!(check_chain(&span, &good, Some(Epoch(4))), Ok(()));
        assert!(check_chain(&span, &good, Some(Epoch(5))).is_err());
        assert!(check_chain(&span, &good[..2], None).is_err());
        let mut bad = good;
        bad[2].previous = Checksum(7);
        assert!(check_chain(&span, &bad, None).is_err());
        bad = good;
        bad[1].seal.epoch = Epoch(5);
        assert!(check_chain(&span, &bad, None).is_err());
        bad = good;
        bad[0].previous = Checksum(1);
        assert!(check_chain(&span, &bad, None).is_err());
        bad = good;
        bad[2].seal.checksum = Checksum(8);
        assert!(check_chain(&span, &bad, None).is_err());
    }
}
