//! Writing the chain of commits, and collecting what the chain has left behind.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use super::chain::read_back;
use super::compaction::Compaction;
use super::garbage::{Roots, unreachable};
use super::ledger::Ledger;
use super::lock::HeldLock;
use super::names::ObjectName;
use super::objects::{BaseRef, CommitRecord, CommitRef, SealRef, SinkState, StartRecord, Tokens};
use super::store::CheckpointStore;
use crate::feed_range::first_overlap;
use crate::watermarks::Watermarks;
use crate::{Epoch, Error, Generation, Result};

/// What the next commit records. Only the runtime may ask for it, when every sink write and state write of the epochs
/// up to `epoch` is acknowledged (I4).
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Everything up to this epoch, inclusive, is in the sinks.
    pub epoch: Epoch,
    /// Whether the sources had not caught up for the first time by then.
    pub loading: bool,
    /// Where each feed range stands as of the epoch.
    pub tokens: Tokens,
    /// The seals of this generation, of every process, with epochs above the last commit's and up to `epoch`. The
    /// replayed seals of earlier generations are taken in without being named here.
    pub seals: Vec<SealRef>,
    /// What each sink's view holds as of the epoch (I8).
    pub sinks: BTreeMap<String, SinkState>,
    /// How far the event times of each source have come as of the epoch.
    pub marks: BTreeMap<String, Watermarks>,
}

/// What a collection of garbage did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageReport {
    /// Objects looked at.
    pub listed: u64,
    /// Objects deleted.
    pub deleted: u64,
}

/// Appends to the chain of commits. Worker 0 of process 0 has the only one.
///
/// After a failed or abandoned commit the writer refuses to go on: whether that commit exists is unknown, and only a new
/// generation finds out.
#[derive(Debug)]
pub struct CommitWriter {
    store: CheckpointStore,
    start: StartRecord,
    retain: usize,
    ledger: Ledger,
    last: Option<CommitRef>,
    next_number: u64,
    /// The base that the last commit names.
    named: Option<(Generation, Epoch)>,
    /// The last commits of this run, for the collection of garbage.
    recent: VecDeque<CommitRecord>,
    broken: bool,
    _lock: Option<HeldLock>,
}

impl CommitWriter {
    pub(super) fn new(
        store: CheckpointStore,
        start: StartRecord,
        ledger: Ledger,
        retain: usize,
        lock: Option<HeldLock>,
    ) -> CommitWriter {
        CommitWriter {
            store,
            retain: retain.max(1),
            named: named(&ledger),
            ledger,
            last: start.commit,
            next_number: start.first_commit,
            recent: VecDeque::new(),
            broken: false,
            start,
            _lock: lock,
        }
    }

    /// Writes the next commit; durable when it returns.
    ///
    /// # Errors
    /// - `Internal` if the request does not follow the last commit: an epoch that is not above it, seals that leave one
    ///   out, feed ranges that overlap; or if a commit failed before;
    /// - `Fenced` if another run has written this commit;
    /// - `Checkpoint` if the store does not take it. The commit may or may not exist then.
    pub async fn commit(&mut self, request: CommitRequest) -> Result<CommitRecord> {
        if self.broken {
            return Err(Error::internal(
                "a commit was not written to its end: nothing more can be committed in this run",
            ));
        }
        check_ranges(&request.tokens)?;
        let mut ledger = self.ledger.clone();
        ledger.advance(request.epoch, request.seals)?;
        let record = CommitRecord {
            number: self.next_number,
            previous: self.last,
            generation: self.start.generation,
            epoch: request.epoch,
            loading: request.loading,
            tokens: request.tokens,
            base: ledger.base().cloned(),
            runs: ledger.runs(),
            sinks: request.sinks,
            marks: request.marks,
            written_at_ms: now_ms(),
        };
        // Stays set if the write fails or the future is dropped midway.
        self.broken = true;
        let name = ObjectName::Commit {
            generation: record.generation,
            number: record.number,
        };
        let checksum = self.store.create_json(name, &record).await?;
        let named = named(&ledger);
        if std::mem::replace(&mut self.named, named) != named {
            self.store.based();
        }
        self.ledger = ledger;
        self.last = Some(CommitRef {
            generation: record.generation,
            number: record.number,
            checksum,
        });
        self.next_number += 1;
        self.recent.push_back(record.clone());
        if self.recent.len() > self.retain {
            self.recent.pop_front();
        }
        self.broken = false;
        Ok(record)
    }

    /// Names `base` in the next commit, in place of what it contains.
    ///
    /// # Errors
    /// `Internal` if the base is not one of a commit of this chain that is newer than the base so far.
    pub fn set_base(&mut self, base: BaseRef) -> Result<()> {
        self.ledger.rebase(base)
    }

    /// Seals since the base, up to the last commit, and the base's bytes.
    pub(crate) fn since_base(&self) -> (u64, u64) {
        let runs = self.ledger.runs();
        let seals = runs.iter().map(|run| run.last - run.first + 1).sum();
        let buckets = self.ledger.base().map_or(&[][..], |base| &base.buckets);
        (seals, buckets.iter().map(|bucket| bucket.length).sum())
    }

    /// A compaction of the state as of the last commit of this run, to be run beside it; `None` before the first commit.
    pub fn compaction(&self) -> Option<Compaction> {
        let mut commit = self.recent.back()?.clone();
        // With a base that waits to be named: the next commit drops the runs in it, and garbage collection then may
        // take them while this compaction still reads.
        commit.base = self.ledger.base().cloned();
        commit.runs = self.ledger.runs();
        Some(Compaction {
            store: self.store.clone(),
            generation: self.start.generation,
            commit,
        })
    }

    /// A collection of garbage, to be run beside this run; `None` before its first commit. What is garbage as of now stays
    /// garbage, whatever is sealed and committed meanwhile. Only one may run at a time.
    pub fn collection(&self) -> Option<Collection> {
        (!self.recent.is_empty()).then(|| {
            let (store, start) = (self.store.clone(), self.start.clone());
            Collection::new(store, start, self.retain, self.recent.clone())
        })
    }

    /// Collects garbage at once.
    ///
    /// # Errors
    /// As [`Collection::run`].
    pub async fn collect_garbage(&self) -> Result<GarbageReport> {
        match self.collection() {
            Some(collection) => collection.run().await,
            None => Ok(GarbageReport::default()),
        }
    }
}

/// A collection of garbage beside a running job.
#[derive(Clone, Debug)]
pub struct Collection {
    store: CheckpointStore,
    start: StartRecord,
    retain: usize,
    recent: VecDeque<CommitRecord>,
}

impl Collection {
    /// `recent` are the newest commits of the chain, oldest first.
    pub(super) fn new(
        store: CheckpointStore,
        start: StartRecord,
        retain: usize,
        recent: VecDeque<CommitRecord>,
    ) -> Self {
        Collection {
            store,
            start,
            retain,
            recent,
        }
    }

    /// Deletes the objects that no kept commit, no start record in force and no seal to come can reach.
    ///
    /// # Errors
    /// `Checkpoint` if the store cannot be listed, a kept commit cannot be read, or an object cannot be deleted. What was
    /// deleted by then was garbage.
    pub async fn run(self) -> Result<GarbageReport> {
        let listing = self.store.list().await?;
        let commits = self.kept_commits(&listing).await?;
        let roots = Roots {
            start: &self.start,
            commits: &commits,
        };
        let garbage = unreachable(&roots, &listing);
        for name in &garbage {
            self.store.delete(*name).await?;
        }
        Ok(GarbageReport {
            listed: listing.len() as u64,
            deleted: garbage.len() as u64,
        })
    }

    /// The last commits, oldest first, back to where the chain begins: what was before a start from nothing does not
    /// count, and may be what was damaged.
    async fn kept_commits(&self, listing: &[ObjectName]) -> Result<Vec<CommitRecord>> {
        let oldest = self.recent.front();
        let there = |(generation, number)| {
            let name = ObjectName::Commit { generation, number };
            listing.binary_search(&name).is_ok()
        };
        let most = self.retain.saturating_sub(self.recent.len());
        let from = oldest.and_then(|commit| commit.previous);
        let before = read_back(&self.store, from, there, most).await?;
        let older = before.into_iter().rev().map(|(_, commit)| commit);
        Ok(older.chain(self.recent.iter().cloned()).collect())
    }
}

/// The base that a commit of this ledger names.
fn named(ledger: &Ledger) -> Option<(Generation, Epoch)> {
    ledger.base().map(|base| (base.generation, base.epoch))
}

fn check_ranges(tokens: &Tokens) -> Result<()> {
    for (source, ranges) in tokens {
        if let Some((a, b)) = first_overlap(ranges.keys()) {
            return Err(Error::internal(format!(
                "the feed ranges {a} and {b} of source {source} overlap in a commit"
            )));
        }
    }
    Ok(())
}

/// The wall clock, for people who read the records; nothing is decided by it.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
