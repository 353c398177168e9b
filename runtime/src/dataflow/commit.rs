//! The operator in which epochs end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::{CommitRecord, CommitRequest, SealRef, SinkState};
use crate::committer::CommitSender;
use crate::feed_range::advance;
use crate::states::is_state;
use crate::watermarks::{MarkHistory, Marks, Watermarks};
use crate::{ContinuationToken, Epoch, Error, ErrorKind, FeedRangeId, Ledger};

/// What sources and sinks tell the committer about an epoch, at that epoch's time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// A seal that holds the epoch's inputs of one process, or how its keyed state changed.
    Seal(SealRef),
    /// Positions that the seal made durable, of one source's feed ranges on one worker.
    Tokens {
        /// The source.
        source: String,
        /// Its ranges and the positions after the epoch.
        ranges: Vec<(FeedRangeId, ContinuationToken)>,
    },
    /// How far one worker's readers have come in event time.
    Marks {
        /// The source.
        source: String,
        /// What they have found in the epoch.
        marks: Marks,
    },
    /// How one worker's share of a view changed in the epoch, or of what keyed state is made from.
    View {
        /// The sink, or `state:NAME`.
        sink: String,
        /// Rows that came minus rows that went.
        rows: i64,
        /// Sum of the hashes of rows that came minus those that went, modulo 2^128: the same for any order (I8).
        hash: u128,
    },
    /// One worker's share of the container of a sink that is rebuilt is in line with the view, from this epoch on.
    Rebuilt {
        /// The sink.
        sink: String,
    },
}

/// How a run starts with a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStart {
    /// What the view is computed by, as far as it shows.
    pub fingerprint: String,
    /// Whether the container is to be brought in line with the view.
    pub rebuilding: bool,
    /// Whether the view must be what the commit says it was. Not when a sink is rebuilt because it may differ.
    pub checked: bool,
}

/// What is known of a job's inputs and views as of some epoch.
#[derive(Debug, Default)]
struct AsOf {
    tokens: BTreeMap<String, BTreeMap<FeedRangeId, ContinuationToken>>,
    views: BTreeMap<String, (i64, u128)>,
    starts: BTreeMap<String, SinkStart>,
    /// Sinks that are rebuilt, with the workers whose share of the container is not in line yet.
    rebuilding: BTreeMap<String, usize>,
    seals: Vec<SealRef>,
    marks: BTreeMap<String, Watermarks>,
    /// Found in the epoch that is being applied, by source.
    found: BTreeMap<String, Vec<Marks>>,
    changed: bool,
}

impl AsOf {
    fn new(
        tokens: BTreeMap<String, BTreeMap<FeedRangeId, ContinuationToken>>,
        starts: BTreeMap<String, SinkStart>,
        workers: usize,
    ) -> Self {
        AsOf {
            tokens,
            rebuilding: starts
                .iter()
                .filter(|(_, start)| start.rebuilding)
                .map(|(sink, _)| (sink.clone(), workers))
                .collect(),
            starts,
            ..AsOf::default()
        }
    }

    /// Applies all reports of an epoch: marks of several workers make one step.
    fn apply_all(&mut self, reports: Vec<Report>) {
        reports.into_iter().for_each(|report| self.apply(report));
        for (source, found) in std::mem::take(&mut self.found) {
            self.marks.entry(source).or_default().apply(&found);
        }
    }

    fn apply(&mut self, report: Report) {
        self.changed = true;
        match report {
            Report::Marks { source, marks } => self.found.entry(source).or_default().push(marks),
            Report::Seal(seal) => self.seals.push(seal),
            Report::Tokens { source, ranges } => {
                advance(self.tokens.entry(source).or_default(), ranges)
            }
            Report::View { sink, rows, hash } => {
                let view = self.views.entry(sink).or_default();
                view.0 += rows;
                view.1 = view.1.wrapping_add(hash);
            }
            Report::Rebuilt { sink } => {
                if let Some(workers) = self.rebuilding.get_mut(&sink) {
                    *workers = workers.saturating_sub(1);
                    if *workers == 0 {
                        self.rebuilding.remove(&sink);
                        tracing::info!(
                            event = "rebuilt",
                            sink,
                            "the container is in line with the view"
                        );
                    }
                }
            }
        }
    }

    /// Every sink of the job, also one whose view is empty.
    fn sinks(&self) -> BTreeMap<String, SinkState> {
        let state = |(sink, start): (&String, &SinkStart)| {
            let (rows, hash) = self.views.get(sink).copied().unwrap_or_default();
            let state = SinkState {
                rows: u64::try_from(rows).unwrap_or(0),
                hash,
                fingerprint: start.fingerprint.clone(),
                rebuilding: self.rebuilding.contains_key(sink),
            };
            (sink.clone(), state)
        };
        self.starts.iter().map(state).collect()
    }

    /// Compares the rehydrated views with those of the commit (I8), as far as they are to be the same.
    fn check(&self, commit: &CommitRecord) -> Result<(), Error> {
        let ours = self.sinks();
        let differing: Vec<_> = ours
            .iter()
            .filter(|(sink, _)| self.starts.get(*sink).is_some_and(|start| start.checked))
            .filter_map(|(sink, now)| Some((sink, now, commit.sinks.get(sink)?)))
            .filter(|(_, now, then)| now.fingerprint == then.fingerprint)
            .filter(|(_, now, then)| (now.rows, now.hash) != (then.rows, then.hash))
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        if let Some((state, now, then)) = differing.iter().find(|(name, ..)| is_state(name)) {
            return Err(Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "the input of {state} ({} rows now, {} then) as rebuilt from the checkpoint is not what commit {} says: \
                     what it is computed from has changed, or is not deterministic; nothing was written; run the version \
                     that wrote the commit, or give the state another name, under which it begins anew",
                    now.rows, then.rows, commit.number,
                ),
            ));
        }
        let views: Vec<_> = differing
            .iter()
            .map(|(sink, now, then)| {
                format!("view {sink} ({} rows now, {} then)", now.rows, then.rows)
            })
            .collect();
        let flags: Vec<_> = differing
            .iter()
            .map(|(sink, ..)| format!("--rebuild {sink}"))
            .collect();
        Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "{} as rebuilt from the checkpoint is not what commit {} says: the job's code has changed, or it is not \
                 deterministic; nothing was written; if the new rows are right start with {}, else run the version that \
                 wrote the commit",
                views.join(", "),
                commit.number,
                flags.join(" "),
            ),
        ))
    }
}

/// What a run resumes from, as far as committing is concerned. The default is a fresh start without sinks.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// The commit whose views are rebuilt before anything is written.
    pub commit: Option<CommitRecord>,
    /// The newest sealed positions, by source.
    pub tokens: BTreeMap<String, BTreeMap<FeedRangeId, ContinuationToken>>,
    /// How far the event times of each source had come, by the epochs up to that position.
    pub marks: BTreeMap<String, MarkHistory>,
    /// The newest epoch that is replayed from seals. A commit before that would have to say which part of the replay it
    /// covers, so none is requested until all of it is through.
    pub replayed_through: Epoch,
    /// Every sink of the job, and its keyed state as `state:NAME`.
    pub sinks: BTreeMap<String, SinkStart>,
}

/// Follows the frontier behind all sources and sinks. `reports` carries the reports of all workers; worker 0 collects them.
///
/// When the frontier has passed the commit that the run resumed from, the views are compared with it, and only then may
/// sinks write. Whenever it has passed further epochs and something changed, a commit is requested (I4).
pub fn commit<'scope>(
    reports: StreamVec<'scope, u64, Report>,
    resumed: Resumed,
    ledger: Ledger,
    requests: CommitSender,
) {
    let worker = reports.scope().index();
    let mut progress = Progress::new(resumed, reports.scope().peers());
    reports.sink(
        Exchange::new(|_: &Report| 0),
        "Commit",
        move |(input, frontier)| {
            // A run that has failed commits nothing more: what failed may have let go of its epoch.
            if worker != 0 || ledger.stopped() {
                return;
            }
            // 1. Drain: reports wait for the frontier to pass their epoch.
            input.for_each(|cap, reports| {
                progress
                    .stash
                    .entry(*cap.time())
                    .or_default()
                    .append(reports);
            });
            // 2. See what the frontier has passed.
            let bound = frontier.frontier().as_option().copied();
            match progress.advance(bound, &ledger) {
                // The committer is gone only when the run has failed, and then its failure is already known.
                Ok(request) => request.into_iter().for_each(|request| {
                    let _ = requests.send(request);
                }),
                Err(error) => ledger.fail(error),
            }
        },
    );
}

/// How far the frontier has come, and what is known as of there.
struct Progress {
    stash: BTreeMap<u64, Vec<Report>>,
    as_of: AsOf,
    /// The commit that the run resumed from, until its views are compared.
    unverified: Option<CommitRecord>,
    replayed_through: Epoch,
    /// The epoch of the last commit, written or requested.
    requested: Epoch,
}

impl Progress {
    fn new(resumed: Resumed, workers: usize) -> Self {
        Progress {
            stash: BTreeMap::new(),
            as_of: AsOf {
                marks: newest(&resumed.marks),
                ..AsOf::new(resumed.tokens, resumed.sinks, workers)
            },
            requested: resumed
                .commit
                .as_ref()
                .map_or(Epoch(0), |commit| commit.epoch),
            unverified: resumed.commit,
            replayed_through: resumed.replayed_through,
        }
    }

    /// Takes note of a frontier. Returns the commit that has become due, if any.
    fn advance(
        &mut self,
        bound: Option<u64>,
        ledger: &Ledger,
    ) -> Result<Option<CommitRequest>, Error> {
        let passed = |epoch: Epoch| bound.is_none_or(|bound| epoch.0 < bound);
        // The views as of the resumed commit.
        if let Some(commit) = self.unverified.take_if(|commit| passed(commit.epoch)) {
            self.apply_through(commit.epoch);
            self.as_of.check(&commit)?;
            self.as_of.changed = false;
            ledger.verify();
        }
        if self.unverified.is_some() {
            return Ok(None);
        }
        // The views as of the newest epoch that every sink has acknowledged.
        let minted = ledger.acknowledged(bound);
        let replayed = Some(self.replayed_through).filter(|epoch| passed(*epoch));
        // A rebuild may end after the last epoch.
        let ended = self.stash.keys().next_back().map(|epoch| Epoch(*epoch));
        let ended = ended.filter(|_| bound.is_none());
        let due = |epoch: &Epoch| *epoch >= self.replayed_through && *epoch > self.requested;
        let Some(epoch) = minted.or(replayed).max(ended).filter(due) else {
            return Ok(None);
        };
        self.apply_through(epoch);
        if !std::mem::take(&mut self.as_of.changed) {
            ledger.forget(self.requested, epoch);
            return Ok(None);
        }
        self.requested = epoch;
        Ok(Some(CommitRequest {
            epoch,
            loading: !ledger.loaded_by(epoch),
            tokens: self.as_of.tokens.clone(),
            seals: std::mem::take(&mut self.as_of.seals),
            sinks: self.as_of.sinks(),
            marks: self.as_of.marks.clone(),
        }))
    }

    /// Moves the reports of epochs through `epoch` from the stash into the state, in epoch order.
    fn apply_through(&mut self, epoch: Epoch) {
        let later = self.stash.split_off(&(epoch.0 + 1));
        for reports in std::mem::replace(&mut self.stash, later).into_values() {
            self.as_of.apply_all(reports);
        }
    }
}

/// Where each source stands.
fn newest(histories: &BTreeMap<String, MarkHistory>) -> BTreeMap<String, Watermarks> {
    let newest = |(source, history): (&String, &MarkHistory)| (source.clone(), history.newest());
    histories.iter().map(newest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generation;

    fn start(fingerprint: &str, rebuilding: bool, checked: bool) -> SinkStart {
        SinkStart {
            fingerprint: fingerprint.to_owned(),
            rebuilding,
            checked,
        }
    }

    fn as_of(starts: &[(&str, SinkStart)], workers: usize) -> AsOf {
        let starts = starts
            .iter()
            .map(|(sink, start)| ((*sink).to_owned(), start.clone()));
        AsOf::new(BTreeMap::new(), starts.collect(), workers)
    }

    fn view(sink: &str, rows: i64, hash: u128) -> Report {
        Report::View {
            sink: sink.to_owned(),
            rows,
            hash,
        }
    }

    fn commit(sinks: BTreeMap<String, SinkState>) -> CommitRecord {
        CommitRecord {
            number: 7,
            previous: None,
            generation: Generation(1),
            epoch: Epoch(5),
            loading: false,
            tokens: BTreeMap::new(),
            base: None,
            runs: Vec::new(),
            sinks,
            marks: BTreeMap::new(),
            written_at_ms: 0,
        }
    }

    #[test]
    fn every_view_that_differs_is_named_with_what_to_type() {
        let mut now = as_of(
            &[
                ("a", start("1", false, true)),
                ("b", start("1", false, true)),
                ("c", start("1", false, true)),
                ("empty", start("1", false, true)),
                ("changed", start("2", true, true)),
                ("asked", start("1", true, false)),
            ],
            1,
        );
        let mut then = as_of(&[], 1);
        then.starts = now.starts.clone();
        for sink in ["a", "b", "c", "changed", "asked"] {
            then.apply(view(sink, 3, 30));
        }
        let mut commit = commit(then.sinks());
        commit.sinks.get_mut("changed").expect("there").fingerprint = "1".to_owned();
        now.apply(view("a", 2, 30));
        now.apply(view("b", 3, 30));
        now.apply(view("c", 3, 31));
        now.apply(view("empty", 1, 1));
        let report = now.check(&commit).expect_err("differs").report();
        for part in [
            "view a (2 rows now, 3 then)",
            "view c (3 rows now, 3 then)",
            "view empty (1 rows now, 0 then)",
            "--rebuild a --rebuild c --rebuild empty,",
        ] {
            assert!(report.contains(part), "{report}");
        }
        for sink in ["view b", "view changed", "view asked"] {
            assert!(!report.contains(sink), "{report}");
        }
    }

    #[test]
    fn a_sink_is_rebuilt_when_every_worker_says_so() {
        let mut as_of = as_of(&[("a", start("1", true, true))], 2);
        for still in [true, false] {
            assert!(as_of.sinks()["a"].rebuilding);
            as_of.apply(Report::Rebuilt {
                sink: "a".to_owned(),
            });
            assert_eq!(as_of.sinks()["a"].rebuilding, still);
        }
    }

    /// A bounded run would end with a commit that says that the sink is still rebuilt.
    #[test]
    fn a_rebuild_that_ends_after_the_last_epoch_is_committed() {
        let resumed = Resumed {
            sinks: [("a".to_owned(), start("1", true, true))].into(),
            ..Resumed::default()
        };
        let mut progress = Progress::new(resumed, 1);
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        ledger.minted(Epoch(4), std::time::Instant::now());
        progress.stash.insert(4, vec![view("a", 1, 9)]);
        let first = progress
            .advance(Some(5), &ledger)
            .expect("well")
            .expect("due");
        assert!(first.epoch == Epoch(4) && first.sinks["a"].rebuilding);
        let rebuilt = Report::Rebuilt {
            sink: "a".to_owned(),
        };
        progress.stash.insert(5, vec![rebuilt]);
        assert!(progress.advance(Some(5), &ledger).expect("well").is_none());
        let last = progress.advance(None, &ledger).expect("well").expect("due");
        assert!(last.epoch == Epoch(5) && !last.sinks["a"].rebuilding);
        assert!(progress.advance(None, &ledger).expect("well").is_none());
    }
}
