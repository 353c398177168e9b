//! Rebuilding the state that a run starts from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::frame::Framed;
use super::ledger::{Volume, covered_by, should_compact};
use super::names::{BUCKETS, ObjectName, bucket_of};
use super::objects::{
    BaseRef, BucketRef, CommitRecord, Fingerprint, SealKind, SealRun, StartRecord, Tokens,
};
use super::reader::{read_base, read_seals};
use super::records::{Heading, SealPart, encode};
use super::recovery::Span;
use super::store::CheckpointStore;
use crate::{Epoch, Error, Generation, Record, Result};

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
    /// What the job was made of in the run that the state describes; `None` when there was none, or it is not to count.
    pub before: Option<Fingerprint>,
    pub(super) start: StartRecord,
}

/// The state of a run at its start.
#[derive(Clone, Debug, Default)]
pub struct Rehydrated {
    /// The documents of each source as of the commit: one record per live key, no removals, in no particular order.
    pub collection: BTreeMap<String, Vec<Record>>,
    /// The sealed inputs beyond the commit, rising in epoch; the parts of all processes at an epoch together.
    pub replay: Vec<(Epoch, Vec<SealPart>)>,
    volume: Volume,
    whole: bool,
}

/// A compaction beside a running job: reads the state as of one commit back from the store and writes it as a base.
///
/// It holds the collection in memory a second time while it runs. Only one may run at a time: hand its base to
/// [`CommitWriter::set_base`](super::CommitWriter::set_base), or drop it, before the next one begins.
#[derive(Clone, Debug)]
pub struct Compaction {
    pub(super) store: CheckpointStore,
    pub(super) resume: Resume,
}

impl Compaction {
    /// Writes the base if it makes the next resume cheaper.
    ///
    /// # Errors
    /// `Checkpoint` if an object that the state consists of is damaged or missing, or if the store does not take the base.
    pub async fn run(self) -> Result<Option<BaseRef>> {
        let rehydrated = self.resume.rehydrate(&self.store).await?;
        self.resume.compact(&self.store, &rehydrated).await
    }
}

/// The newest value of every key, removals included until all is read.
type Latest = HashMap<Bytes, (Epoch, Option<Bytes>)>;

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

    /// Rebuilds the whole state.
    ///
    /// # Errors
    /// `Checkpoint` if an object that the state needs is damaged, missing or another one than was named.
    pub async fn rehydrate(&self, store: &CheckpointStore) -> Result<Rehydrated> {
        self.rehydrate_share(store, 0, 1).await
    }

    /// Rebuilds the part of the state that process `process` of `processes` holds: the keys whose bucket
    /// ([`bucket_of`]) leaves the remainder `process`. The shares of all processes are disjoint and make up the whole.
    ///
    /// # Errors
    /// As [`Resume::rehydrate`]; `Internal` if `process` is not below `processes`.
    pub async fn rehydrate_share(
        &self,
        store: &CheckpointStore,
        process: u32,
        processes: u32,
    ) -> Result<Rehydrated> {
        if process >= processes {
            return Err(Error::internal(format!(
                "process {process} of {processes} has no share"
            )));
        }
        let wanted = |bucket: u8| u32::from(bucket) % processes == process;
        let mut result = Rehydrated {
            whole: processes == 1,
            ..Rehydrated::default()
        };
        let mut latest: BTreeMap<String, Latest> = BTreeMap::new();
        if let Some(commit) = &self.commit {
            if let Some(base) = &commit.base {
                read_base(store, base, wanted, |parts| {
                    apply(&mut latest, base.epoch, parts, |_| true);
                })
                .await?;
            }
            for run in &commit.runs {
                read_seals(store, &Span::of(run), |epoch, parts| {
                    result.volume.seals += 1;
                    result.volume.seal_bytes += size_of(&parts);
                    apply(&mut latest, epoch, parts, |key| wanted(bucket_of(key)));
                })
                .await?;
            }
        }
        result.collection = live(latest);
        let records = result.collection.values().flatten();
        result.volume.live_bytes = records.map(|record| record.size_bytes() as u64).sum();
        result.replay = self.replay(store, wanted).await?;
        Ok(result)
    }

    async fn replay(
        &self,
        store: &CheckpointStore,
        wanted: impl Fn(u8) -> bool,
    ) -> Result<Vec<(Epoch, Vec<SealPart>)>> {
        let mut replay: BTreeMap<Epoch, Vec<SealPart>> = BTreeMap::new();
        for run in &self.start.runs {
            read_seals(store, &Span::of(run), |epoch, mut parts| {
                for part in &mut parts {
                    part.records.retain(|record| wanted(bucket_of(&record.key)));
                }
                replay.entry(epoch).or_default().append(&mut parts);
            })
            .await?;
        }
        Ok(replay.into_iter().collect())
    }

    /// Writes the collection as a new base if that makes the next resume cheaper, and returns what to hand to
    /// [`CommitWriter::set_base`](super::CommitWriter::set_base). Nothing refers to the base until a commit names it.
    ///
    /// # Errors
    /// `Internal` if `rehydrated` is a share and not the whole; `Checkpoint` if the store does not take the base.
    pub async fn compact(
        &self,
        store: &CheckpointStore,
        rehydrated: &Rehydrated,
    ) -> Result<Option<BaseRef>> {
        let Some(commit) = &self.commit else {
            return Ok(None);
        };
        if !rehydrated.whole {
            return Err(Error::internal("a base needs the whole collection"));
        }
        if !should_compact(&rehydrated.volume) {
            return Ok(None);
        }
        let mut buckets = Vec::with_capacity(usize::from(BUCKETS));
        for (bucket, parts) in (0..BUCKETS).zip(by_bucket(&rehydrated.collection)) {
            buckets.push(
                self.write_bucket(store, commit.epoch, bucket, parts)
                    .await?,
            );
        }
        Ok(Some(BaseRef {
            generation: self.generation,
            epoch: commit.epoch,
            buckets,
            covers: covered_by(commit),
        }))
    }

    async fn write_bucket(
        &self,
        store: &CheckpointStore,
        epoch: Epoch,
        bucket: u8,
        parts: Vec<SealPart>,
    ) -> Result<BucketRef> {
        let heading = Heading {
            kind: SealKind::Input,
            generation: self.generation,
            process: 0,
            sequence: u64::from(bucket),
            epoch,
            previous: Default::default(),
            parts: Vec::new(),
            raw_bytes: 0,
        };
        let name = ObjectName::Base {
            generation: self.generation,
            epoch,
            bucket,
        };
        let object = tokio::task::spawn_blocking(move || {
            encode(heading, &parts).map(|body| Framed::new(name, body))
        })
        .await
        .map_err(|error| Error::internal("packing a base failed").with_source(error))??;
        store.create(&object).await?;
        Ok(BucketRef {
            bucket,
            length: object.body.len() as u64,
            checksum: object.checksum,
        })
    }
}

fn apply(
    latest: &mut BTreeMap<String, Latest>,
    epoch: Epoch,
    parts: Vec<SealPart>,
    wanted: impl Fn(&[u8]) -> bool,
) {
    for part in parts {
        let keys = latest.entry(part.source).or_default();
        for record in part.records.into_iter().filter(|r| wanted(&r.key)) {
            // Runs of different processes are read one after the other, so an older epoch may come later.
            let newest = keys.get(&record.key).is_none_or(|(at, _)| *at <= epoch);
            if newest {
                keys.insert(record.key, (epoch, record.body));
            }
        }
    }
}

fn live(latest: BTreeMap<String, Latest>) -> BTreeMap<String, Vec<Record>> {
    let records = |keys: Latest| {
        keys.into_iter()
            .filter_map(|(key, (_, body))| {
                let body = Some(body?);
                Some(Record { key, body })
            })
            .collect()
    };
    latest
        .into_iter()
        .map(|(source, keys)| (source, records(keys)))
        .collect()
}

fn size_of(parts: &[SealPart]) -> u64 {
    let records = parts.iter().flat_map(|part| &part.records);
    records.map(|record| record.size_bytes() as u64).sum()
}

/// The collection in its buckets, by key: whoever writes a base of one commit twice writes the same objects.
fn by_bucket(collection: &BTreeMap<String, Vec<Record>>) -> Vec<Vec<SealPart>> {
    let mut buckets = vec![Vec::new(); usize::from(BUCKETS)];
    for (source, records) in collection {
        let mut sorted: Vec<&Record> = records.iter().collect();
        sorted.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for parts in &mut buckets {
            parts.push(SealPart {
                source: source.clone(),
                ranges: Vec::new(),
                records: Vec::new(),
            });
        }
        for record in sorted {
            let parts = &mut buckets[usize::from(bucket_of(&record.key))];
            let part = parts.last_mut().expect("pushed for every bucket above");
            part.records.push(record.clone());
        }
    }
    buckets
}
