//! The operator in which epochs end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::{CommitRecord, CommitRequest, SealRef, SinkState};
use crate::committer::CommitSender;
use crate::{ContinuationToken, Epoch, Error, ErrorKind, FeedRangeId, Ledger};

/// What sources and sinks tell the committer about an epoch, at that epoch's time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// A seal that holds the epoch's inputs of one process.
    Seal(SealRef),
    /// Positions that the seal made durable, of one source's feed ranges on one worker.
    Tokens {
        /// The source.
        source: String,
        /// Its ranges and the positions after the epoch.
        ranges: Vec<(FeedRangeId, ContinuationToken)>,
    },
    /// How one worker's share of a view changed in the epoch.
    View {
        /// The sink.
        sink: String,
        /// Rows that came minus rows that went.
        rows: i64,
        /// Sum of the hashes of rows that came minus those that went, modulo 2^128: the same for any order (I8).
        hash: u128,
    },
}

/// What is known of a job's inputs and views as of some epoch.
#[derive(Debug, Default)]
struct AsOf {
    tokens: BTreeMap<String, BTreeMap<FeedRangeId, ContinuationToken>>,
    views: BTreeMap<String, (i64, u128)>,
    seals: Vec<SealRef>,
    changed: bool,
}

impl AsOf {
    fn apply(&mut self, report: Report) {
        self.changed = true;
        match report {
            Report::Seal(seal) => self.seals.push(seal),
            Report::Tokens { source, ranges } => {
                self.tokens.entry(source).or_default().extend(ranges)
            }
            Report::View { sink, rows, hash } => {
                let view = self.views.entry(sink).or_default();
                view.0 += rows;
                view.1 = view.1.wrapping_add(hash);
            }
        }
    }

    fn sinks(&self) -> BTreeMap<String, SinkState> {
        let state = |(rows, hash): &(i64, u128)| SinkState {
            rows: u64::try_from(*rows).unwrap_or(0),
            hash: *hash,
        };
        self.views
            .iter()
            .map(|(sink, view)| (sink.clone(), state(view)))
            .collect()
    }

    /// Compares the rehydrated views with those of the commit (I8).
    fn check(&self, commit: &CommitRecord) -> Result<(), Error> {
        let ours = self.sinks();
        for (sink, recorded) in &commit.sinks {
            let found = ours
                .get(sink)
                .copied()
                .unwrap_or(SinkState { rows: 0, hash: 0 });
            if found != *recorded {
                return Err(Error::new(
                    ErrorKind::Checkpoint,
                    format!(
                        "view {sink} as rebuilt from the checkpoint differs from commit {} ({} rows against {}): the job's \
                         code or its tables changed, or it is not deterministic; nothing was written; run the version \
                         that wrote the commit, or start over with --fresh",
                        commit.number, found.rows, recorded.rows
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// What a run resumes from, as far as committing is concerned. The default is a fresh start.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// The commit whose views are rebuilt before anything is written.
    pub commit: Option<CommitRecord>,
    /// The newest sealed positions, by source.
    pub tokens: BTreeMap<String, BTreeMap<FeedRangeId, ContinuationToken>>,
    /// The newest epoch that is replayed from seals. A commit before that would have to say which part of the replay it
    /// covers, so none is requested until all of it is through.
    pub replayed_through: Epoch,
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
    let mut stash: BTreeMap<u64, Vec<Report>> = BTreeMap::new();
    let Resumed {
        commit: mut unverified,
        tokens,
        replayed_through,
    } = resumed;
    let mut as_of = AsOf {
        tokens,
        ..AsOf::default()
    };
    let worker = reports.scope().index();
    reports.sink(
        Exchange::new(|_: &Report| 0),
        "Commit",
        move |(input, frontier)| {
            if worker != 0 {
                return;
            }
            // 1. Drain: reports wait for the frontier to pass their epoch.
            input.for_each(|cap, reports| stash.entry(*cap.time()).or_default().append(reports));
            let bound = frontier.frontier().as_option().copied();
            let passed = |epoch: u64| bound.is_none_or(|bound| epoch < bound);
            // 2. The views as of the resumed commit.
            if let Some(commit) = unverified.take_if(|commit| passed(commit.epoch.0)) {
                apply_through(&mut stash, &mut as_of, commit.epoch.0);
                match as_of.check(&commit) {
                    Ok(()) => ledger.verify(),
                    Err(error) => return ledger.fail(error),
                }
                as_of.changed = false;
            }
            // 3. The views as of the newest epoch that every sink has acknowledged.
            if unverified.is_some() {
                return;
            }
            let minted = ledger.acknowledged(bound);
            let replayed = passed(replayed_through.0).then_some(replayed_through);
            let Some(epoch) = minted
                .or(replayed)
                .filter(|epoch| *epoch >= replayed_through && epoch.0 > 0)
            else {
                return;
            };
            apply_through(&mut stash, &mut as_of, epoch.0);
            if !as_of.changed {
                return ledger.forget(epoch);
            }
            as_of.changed = false;
            let request = CommitRequest {
                epoch,
                tokens: as_of.tokens.clone(),
                seals: std::mem::take(&mut as_of.seals),
                sinks: as_of.sinks(),
            };
            // 4. The committer is gone only when the run has failed, and then its failure is already known.
            let _ = requests.send(request);
        },
    );
}

/// Moves the reports of epochs through `epoch` from the stash into the state, in epoch order.
fn apply_through(stash: &mut BTreeMap<u64, Vec<Report>>, as_of: &mut AsOf, epoch: u64) {
    let later = stash.split_off(&(epoch + 1));
    for reports in std::mem::replace(stash, later).into_values() {
        reports.into_iter().for_each(|report| as_of.apply(report));
    }
}
