//! What a run starts from, and the sealed epochs that it replays.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use super::buckets::{Buckets, Share};
use super::compaction::Compaction;
use super::names::bucket_of;
use super::objects::{CommitRecord, Fingerprint, SealRun, StartRecord, Tokens};
use super::reader::{Extent, load_seal, unpack};
use super::records::SealPart;
use super::recovery::{Span, check_chain};
use super::store::CheckpointStore;
use crate::watermarks::MarkHistory;
use crate::{Epoch, Error, Generation, Result};

/// What a run starts from: a commit, the seals beyond it, and where the feeds go on.
#[derive(Clone, Debug)]
pub struct Resume {
    /// This run.
    pub generation: Generation,
    /// The commit that the collection is rebuilt as of; `None` starts from nothing.
    pub commit: Option<CommitRecord>,
    /// The newest epoch sealed or committed before this run. The first epoch of this run must be above it.
    pub last_sealed: Option<Epoch>,
    /// Where each feed range goes on. A range that nobody had sealed is not in it: it starts where its source starts.
    pub tokens: Tokens,
    /// How far the event times of each source had come, of those whose were read.
    pub marks: BTreeMap<String, MarkHistory>,
    /// What the job was made of in the run that the state describes; `None` when there was none, or it is not to count.
    pub before: Option<Fingerprint>,
    pub(super) start: StartRecord,
}

impl Resume {
    /// The sinks whose containers may hold something else than their view.
    pub fn rebuild(&self) -> &BTreeSet<String> {
        &self.start.rebuild
    }

    /// Seals of inputs beyond the commit, of all processes.
    pub fn seals_to_replay(&self) -> u64 {
        let length = |run: &SealRun| run.last - run.first + 1;
        self.start.runs.iter().map(length).sum()
    }

    /// The collection as of the commit, bucket by bucket; `share` is what this process holds of it. Reads the seals since
    /// the base before it returns.
    ///
    /// # Errors
    /// `Checkpoint` if an object that the state needs is damaged, missing or another one than was named.
    pub async fn buckets(&self, store: &CheckpointStore, share: Share) -> Result<Buckets> {
        Buckets::of(store, self.commit.as_ref(), share).await
    }

    /// The sealed inputs beyond the commit, one epoch after the other.
    pub fn replay(&self, store: &CheckpointStore, share: Share) -> Replay {
        let runs = self.start.runs.iter();
        Replay {
            share,
            runs: runs
                .map(|run| (None, read_run(store.clone(), Span::of(run))))
                .collect(),
        }
    }

    /// A compaction of the state as of the commit; `None` without a commit.
    pub fn compaction(&self, store: &CheckpointStore) -> Option<Compaction> {
        Some(Compaction {
            store: store.clone(),
            generation: self.generation,
            commit: self.commit.clone()?,
        })
    }
}

type Sealed = (Epoch, Vec<SealPart>);

/// The sealed epochs beyond a commit, rising; the parts of all processes at an epoch together. Of each process it holds one
/// epoch and reads [`AHEAD`] more.
pub struct Replay {
    share: Share,
    runs: Vec<(Option<Sealed>, BoxStream<'static, Result<Sealed>>)>,
}

/// Seals of a process that are read while one is replayed; a guess.
const AHEAD: usize = 2;

impl Replay {
    /// The next epoch, `None` after the last.
    ///
    /// # Errors
    /// `Checkpoint` if a seal is damaged, missing, or not the one that the start record pins.
    pub async fn next(&mut self) -> Result<Option<Sealed>> {
        for (next, run) in &mut self.runs {
            if next.is_none() {
                *next = run.try_next().await?;
            }
        }
        let epochs = self.runs.iter().filter_map(|(next, _)| next.as_ref());
        let Some(epoch) = epochs.map(|(epoch, _)| *epoch).min() else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for (next, _) in &mut self.runs {
            if let Some((_, sealed)) = next.take_if(|(at, _)| *at == epoch) {
                parts.extend(sealed);
            }
        }
        for part in &mut parts {
            let share = self.share;
            let records = std::mem::take(&mut part.records).into_iter();
            part.records = records
                .filter(|record| share.contains(bucket_of(&record.key)))
                .collect();
        }
        Ok(Some((epoch, parts)))
    }
}

/// The seals of one process, in order. Opening has checked the whole run, and each is checked again as it comes: that it
/// follows the one before, and the last that it is the pinned one.
fn read_run(store: CheckpointStore, span: Span) -> BoxStream<'static, Result<Sealed>> {
    let shared = store.clone();
    let loads = stream::iter(span.first..=span.last).map(move |sequence| {
        let store = store.clone();
        async move {
            let name = span.name(sequence);
            let (link, packed) = load_seal(&store, name, Extent::Whole).await?;
            let parts = unpack(&store, name, packed).await?;
            Ok::<_, Error>((link, parts))
        }
    });
    let mut after = span.after;
    let mut floor = None;
    let numbered = loads.buffered(1 + AHEAD).zip(stream::iter(span.first..));
    let checked = numbered.map(move |(read, sequence)| {
        let (link, parts) = read?;
        let one = Span {
            first: sequence,
            last: sequence,
            after,
            pinned: span.pinned.filter(|_| sequence == span.last),
            ..span
        };
        check_chain(&one, &[link], floor).map_err(|refusal| shared.refused(refusal))?;
        (after, floor) = (Some(link.seal.checksum), Some(link.seal.epoch));
        Ok((link.seal.epoch, parts))
    });
    checked.boxed()
}
