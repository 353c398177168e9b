//! The operator in which epochs end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::{CommitRecord, CommitRequest, SealRef, SinkState};
use crate::committer::CommitSender;
use crate::states::is_state;
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
    /// How one worker's share of a view changed in the epoch, or of what keyed state is made from.
    View {
        /// The sink, or `state:NAME`.
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

    /// The state of every sink of the job, by its fingerprint.
    fn sinks(&self, fingerprints: &BTreeMap<String, String>) -> BTreeMap<String, SinkState> {
        let state = |(sink, fingerprint): (&String, &String)| {
            let (rows, hash) = self.views.get(sink).copied().unwrap_or_default();
            let state = SinkState {
                rows: u64::try_from(rows).unwrap_or(0),
                hash,
                fingerprint: fingerprint.clone(),
                rebuilding: false,
            };
            (sink.clone(), state)
        };
        fingerprints.iter().map(state).collect()
    }

    /// Compares the rehydrated views with those of the commit (I8). A view that is absent on either side is empty there. Keyed
    /// state that the job no longer has is left alone.
    fn check(
        &self,
        commit: &CommitRecord,
        fingerprints: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let ours = |sink: &String| self.views.get(sink).copied().unwrap_or_default();
        let theirs = |sink: &String| {
            let state = commit.sinks.get(sink);
            state.map_or((0, 0), |state| (state.rows as i64, state.hash))
        };
        let sinks = self.views.keys().chain(commit.sinks.keys());
        let mut sinks = sinks.filter(|sink| !is_state(sink) || fingerprints.contains_key(*sink));
        let Some(sink) = sinks.find(|sink| ours(sink) != theirs(sink)) else {
            return Ok(());
        };
        if is_state(sink) {
            return Err(Error::new(
                ErrorKind::Checkpoint,
                format!(
                    "the input of {sink} as rebuilt from the checkpoint differs from commit {} ({} rows against {}): what \
                     it is computed from changed, or is not deterministic; nothing was written; run the version that wrote \
                     the commit, or give the state another name, under which it begins anew",
                    commit.number,
                    ours(sink).0,
                    theirs(sink).0
                ),
            ));
        }
        Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "view {sink} as rebuilt from the checkpoint differs from commit {} ({} rows against {}): the job's code or \
                 its tables changed, or it is not deterministic; nothing was written; run the version that wrote the \
                 commit, or start over with --fresh",
                commit.number,
                ours(sink).0,
                theirs(sink).0
            ),
        ))
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
    /// The state was compacted at the start of this run: the next commit is due even if nothing else changes, because only a
    /// commit makes the new base count.
    pub base_pending: bool,
    /// The sinks of the job, each with its fingerprint ([`Fingerprint::sinks`](crate::checkpoint::Fingerprint::sinks)), and
    /// its keyed state as `state:NAME`.
    pub sinks: BTreeMap<String, String>,
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
    let mut progress = Progress::new(resumed);
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
    base_pending: bool,
    sinks: BTreeMap<String, String>,
    /// The epoch of the last commit, written or requested.
    requested: Epoch,
}

impl Progress {
    fn new(resumed: Resumed) -> Self {
        Progress {
            stash: BTreeMap::new(),
            as_of: AsOf {
                tokens: resumed.tokens,
                ..AsOf::default()
            },
            requested: resumed
                .commit
                .as_ref()
                .map_or(Epoch(0), |commit| commit.epoch),
            unverified: resumed.commit,
            replayed_through: resumed.replayed_through,
            base_pending: resumed.base_pending,
            sinks: resumed.sinks,
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
            self.as_of.check(&commit, &self.sinks)?;
            self.as_of.changed = self.base_pending;
            ledger.verify();
        }
        if self.unverified.is_some() {
            return Ok(None);
        }
        // The views as of the newest epoch that every sink has acknowledged.
        let minted = ledger.acknowledged(bound);
        let replayed = Some(self.replayed_through).filter(|epoch| passed(*epoch));
        let due = |epoch: &Epoch| *epoch >= self.replayed_through && *epoch > self.requested;
        let Some(epoch) = minted.or(replayed).filter(due) else {
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
            sinks: self.as_of.sinks(&self.sinks),
        }))
    }

    /// Moves the reports of epochs through `epoch` from the stash into the state, in epoch order.
    fn apply_through(&mut self, epoch: Epoch) {
        let later = self.stash.split_off(&(epoch.0 + 1));
        for reports in std::mem::replace(&mut self.stash, later).into_values() {
            reports
                .into_iter()
                .for_each(|report| self.as_of.apply(report));
        }
    }
}
