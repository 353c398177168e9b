//! The state as of a commit, bucket by bucket: what a run rehydrates from, and what a compaction writes.
//!
//! 1. The *tail* is read: the seals since the base, newest first, so that of each key only the newest record is kept. Of a
//!    seal in sections (`records.rs`) only the heading is read.
//! 2. Then the buckets, one after the other: the bucket's object of the base and its sections of large seals are read, the
//!    newest record of each key wins, and what is not a removal is handed out, by key.
//!
//! So memory holds the tail and [`PREFETCH`] buckets more than the one that is looked at, and never the collection. The tail
//! copies what it keeps: a few records that stay the newest do not hold on to the seal they were in.
//!
//! Nothing is handed out before the chain of every run of seals is checked. A damaged or missing object is an error that
//! names it, and ends the stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::frame::Damage;
use super::ledger::Volume;
use super::names::{BUCKETS, ObjectName, bucket_of};
use super::objects::{BaseRef, CommitRecord, SealRun};
use super::reader::{Extent, IN_FLIGHT, blocking, load_seal, read_bucket, unpack};
use super::records::{Packed, SealPart, Section, empty};
use super::recovery::{Span, check_chain};
use super::store::CheckpointStore;
use crate::{Epoch, Error, Record, Result};

/// Buckets that are read while one is looked at. More hides more of a store's latency, for a 64th of the collection each.
const PREFETCH: usize = 2;
/// Merging a record costs about as much as unpacking so many bytes; a guess.
const MERGED_BYTES: u64 = 256;
/// Seals whose records are taken into the tail at once.
const SEALS_AT_ONCE: usize = 16;

/// The share of the keys that a process of a cluster holds: the buckets that leave the remainder `process`. The shares of
/// all processes are disjoint and make up the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    process: u32,
    processes: u32,
}

impl Share {
    /// Everything.
    pub const WHOLE: Share = Share {
        process: 0,
        processes: 1,
    };

    /// The share of process `process` of `processes`.
    ///
    /// # Errors
    /// `Internal` if there is no such process.
    pub fn new(process: u32, processes: u32) -> Result<Share> {
        if process < processes {
            return Ok(Share { process, processes });
        }
        Err(Error::internal(format!(
            "process {process} of {processes} has no share"
        )))
    }

    pub(super) fn contains(self, bucket: u8) -> bool {
        u32::from(bucket) % self.processes == self.process
    }
}

/// The live documents of one bucket, by source: one record per key, in the order of the keys, no removals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveBucket {
    /// Which bucket.
    pub bucket: u8,
    /// Its records, by source. Sources without any are left out.
    pub sources: BTreeMap<String, Vec<Record>>,
}

impl LiveBucket {
    /// Bytes of its keys and documents.
    pub fn size_bytes(&self) -> u64 {
        let records = self.sources.values().flatten();
        records.map(|record| record.size_bytes() as u64).sum()
    }
}

/// The state as of a commit, bucket by bucket; empty buckets may be left out.
pub struct Buckets {
    volume: Volume,
    stream: BoxStream<'static, Result<LiveBucket>>,
}

impl Buckets {
    /// Reads the tail of `commit` and prepares the rest.
    pub(super) async fn of(
        store: &CheckpointStore,
        commit: Option<&CommitRecord>,
        share: Share,
    ) -> Result<Buckets> {
        let Some(commit) = commit else {
            return Ok(Buckets {
                volume: Volume::default(),
                stream: stream::empty().boxed(),
            });
        };
        let mut tail = Tail::new(share);
        let mut runs: Vec<&SealRun> = commit.runs.iter().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.last_epoch));
        for run in runs {
            tail = tail.read(store, &Span::of(run)).await?;
        }
        tail.large
            .sort_by_key(|seal| std::cmp::Reverse(seal.version()));
        let base = commit.base.clone();
        Ok(Buckets {
            volume: tail.volume(base.as_ref()),
            stream: tail.merge(store.clone(), base),
        })
    }

    /// Sizes that tell whether a base is due.
    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// The next bucket, `None` after the last.
    ///
    /// # Errors
    /// `Checkpoint` if an object that the bucket needs is damaged, missing or another one than was named.
    pub async fn next(&mut self) -> Result<Option<LiveBucket>> {
        self.stream.try_next().await
    }
}

/// What is newer: of one process also by the number of the seal, because keyed state may have several at one epoch.
type Version = (Epoch, u64);

/// The newest record of every key of a source, removals included.
#[derive(Default)]
struct Newest(HashMap<Bytes, (Version, Option<Bytes>), Xxh3DefaultBuilder>);

impl Newest {
    /// Takes the record if there is no newer one of its key. Of the records of one seal the last must come first.
    fn add(&mut self, version: Version, record: Record, keep: impl FnOnce(Record) -> Record) {
        if self.0.get(&record.key).is_none_or(|(at, _)| *at < version) {
            let Record { key, body } = keep(record);
            self.0.insert(key, (version, body));
        }
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.0.contains_key(key)
    }

    fn live(self) -> impl Iterator<Item = Record> {
        let live = |(key, (_, body)): (Bytes, (Version, Option<Bytes>))| {
            body.map(|body| Record {
                key,
                body: Some(body),
            })
        };
        self.0.into_iter().filter_map(live)
    }
}

/// A record that keeps nothing alive but itself.
fn detached(record: Record) -> Record {
    let body = record.body.as_deref().unwrap_or_default();
    let key_bytes = record.key.len();
    let all = Bytes::from([record.key.as_ref(), body].concat());
    Record {
        key: all.slice(..key_bytes),
        body: record.body.is_some().then(|| all.slice(key_bytes..)),
    }
}

/// A seal in sections, of which only the heading was read.
struct LargeSeal {
    name: ObjectName,
    packed: Packed,
}

impl LargeSeal {
    fn version(&self) -> Version {
        (self.packed.heading.epoch, self.packed.heading.sequence)
    }

    /// Reads the section of a bucket.
    async fn read(&self, store: &CheckpointStore, bucket: u8) -> Result<Option<(Section, Bytes)>> {
        let Some((section, range)) = self.packed.range_of(bucket) else {
            return Ok(None);
        };
        let damaged = |damage| store.damaged(self.name, &damage);
        let bytes = match store.read_range(self.name, range).await? {
            Some((bytes, _)) => bytes,
            // It was there when its heading was read.
            None => return Err(damaged(Damage::Content(format!("bucket {bucket} is gone")))),
        };
        section.check(&bytes).map_err(damaged)?;
        Ok(Some((section.clone(), bytes)))
    }

    fn unpack(&self, section: &Section, bytes: &[u8]) -> Result<Vec<SealPart>, Damage> {
        let mut parts: Vec<SealPart> = self.packed.heading.parts.iter().map(empty).collect();
        section.unpack(bytes, &mut parts)?;
        Ok(parts)
    }
}

type Sources = BTreeMap<String, Newest>;

/// What was sealed since the base.
struct Tail {
    share: Share,
    /// The newest records of seals that are not in sections, by bucket.
    buckets: Vec<Sources>,
    large: Vec<LargeSeal>,
    /// Seals that a base would take the place of, and their bytes in the store.
    seals: u64,
    seal_bytes: u64,
    /// Bytes in the store of seals that take the place of a base.
    first_load_bytes: u64,
    /// Bytes of records in seals that are not in sections; of those that are kept; and of those, the live ones.
    read_bytes: u64,
}

impl Tail {
    fn new(share: Share) -> Tail {
        Tail {
            share,
            buckets: (0..BUCKETS).map(|_| Sources::new()).collect(),
            large: Vec::new(),
            seals: 0,
            seal_bytes: 0,
            first_load_bytes: 0,
            read_bytes: 0,
        }
    }

    /// Takes in a run of seals, newest first.
    async fn read(mut self, store: &CheckpointStore, span: &Span) -> Result<Tail> {
        let loads = stream::iter((span.first..=span.last).rev()).map(|sequence| async move {
            let name = span.name(sequence);
            let (link, mut packed) = load_seal(store, name, Extent::Heading).await?;
            let parts = if packed.in_sections() {
                packed.forget_records();
                None
            } else {
                Some(unpack(store, name, packed.clone()).await?)
            };
            Ok::<_, Error>((link, LargeSeal { name, packed }, parts))
        });
        let mut loads = loads.buffered(IN_FLIGHT).ready_chunks(SEALS_AT_ONCE);
        let mut links = Vec::new();
        while let Some(chunk) = loads.next().await {
            let (mut small, mut bytes) = (Vec::new(), 0);
            for seal in chunk {
                let (link, seal, parts) = seal?;
                links.push(link);
                self.count(&seal.packed, link.seal.bytes);
                bytes += seal.packed.heading.raw_bytes;
                match parts {
                    Some(parts) => small.push((seal.version(), parts)),
                    None => self.large.push(seal),
                }
            }
            self = blocking("sorting records", bytes, move || {
                small
                    .into_iter()
                    .for_each(|(version, parts)| self.add(version, parts));
                self
            })
            .await?;
        }
        links.reverse();
        check_chain(span, &links, None).map_err(|refusal| store.refused(refusal))?;
        Ok(self)
    }

    fn count(&mut self, packed: &Packed, bytes: u64) {
        if packed.in_sections() && packed.heading.loading {
            self.first_load_bytes += bytes;
        } else {
            self.seals += 1;
            self.seal_bytes += bytes;
            self.read_bytes += packed.heading.raw_bytes;
        }
    }

    fn add(&mut self, version: Version, parts: Vec<SealPart>) {
        for part in parts.into_iter().rev() {
            for record in part.records.into_iter().rev() {
                let bucket = bucket_of(&record.key);
                if !self.share.contains(bucket) {
                    continue;
                }
                let sources = &mut self.buckets[usize::from(bucket)];
                // Nearly always there: asked for first, so that no name is copied for each record.
                if let Some(newest) = sources.get_mut(&part.source) {
                    newest.add(version, record, detached);
                } else {
                    let newest = sources.entry(part.source.clone()).or_default();
                    newest.add(version, record, detached);
                }
            }
        }
    }

    fn volume(&self, base: Option<&BaseRef>) -> Volume {
        let base_buckets = base.map_or(&[][..], |base| &base.buckets);
        let base_bytes: u64 = base_buckets.iter().map(|bucket| bucket.length).sum();
        // What the tail holds takes about the share of its bytes in the store that is live.
        let newest = self.buckets.iter().flat_map(|sources| sources.values());
        let live: u64 = newest.map(live_bytes).sum();
        let share = live as f64 / self.read_bytes.max(1) as f64;
        let tail_bytes = (self.seal_bytes as f64 * share.min(1.0)) as u64;
        Volume {
            seals: self.seals,
            seal_bytes: self.seal_bytes,
            live_bytes: tail_bytes.max(base_bytes + self.first_load_bytes),
            buckets: self.filled(base).len() as u64,
        }
    }

    /// The buckets of the share that something is in.
    fn filled(&self, base: Option<&BaseRef>) -> BTreeSet<u8> {
        let sections = self
            .large
            .iter()
            .flat_map(|seal| &seal.packed.heading.sections);
        let in_sections = sections.map(|section| section.bucket);
        let in_base = base.map_or(&[][..], |base| &base.buckets);
        let in_base = in_base.iter().map(|bucket| bucket.bucket);
        let in_tail = (0..BUCKETS).filter(|at| !self.buckets[usize::from(*at)].is_empty());
        let filled = in_sections.chain(in_base).chain(in_tail);
        filled
            .filter(|bucket| self.share.contains(*bucket))
            .collect()
    }

    /// The buckets of the share, each as it is asked for.
    fn merge(
        self,
        store: CheckpointStore,
        base: Option<BaseRef>,
    ) -> BoxStream<'static, Result<LiveBucket>> {
        let filled = self.filled(base.as_ref());
        let (base, large) = (Arc::new(base), Arc::new(self.large));
        let buckets = (0..BUCKETS).zip(self.buckets);
        stream::iter(buckets.filter(move |(bucket, _)| filled.contains(bucket)))
            .map(move |(bucket, newest)| {
                merge_bucket(
                    store.clone(),
                    Arc::clone(&base),
                    Arc::clone(&large),
                    bucket,
                    newest,
                )
            })
            .buffered(1 + PREFETCH)
            .try_filter(|bucket| std::future::ready(!bucket.sources.is_empty()))
            .boxed()
    }
}

fn live_bytes(newest: &Newest) -> u64 {
    let size = |(key, (_, body)): (&Bytes, &(Version, Option<Bytes>))| {
        body.as_ref().map_or(0, |body| key.len() + body.len()) as u64
    };
    newest.0.iter().map(size).sum()
}

async fn merge_bucket(
    store: CheckpointStore,
    base: Arc<Option<BaseRef>>,
    large: Arc<Vec<LargeSeal>>,
    bucket: u8,
    mut newest: Sources,
) -> Result<LiveBucket> {
    // Newest first, and no more at once than are needed to keep the store busy.
    let reads = (0..large.len()).map(|at| {
        let (store, large) = (&store, &large);
        async move { Ok::<_, Error>((at, large[at].read(store, bucket).await?)) }
    });
    let mut reads = stream::iter(reads).buffered(IN_FLIGHT);
    while let Some((at, section)) = reads.try_next().await? {
        let Some((section, bytes)) = section else {
            continue;
        };
        let seals = Arc::clone(&large);
        let added = blocking("unpacking a section", section.raw_bytes, move || {
            let parts = seals[at].unpack(&section, &bytes)?;
            add_all(&mut newest, seals[at].version(), parts);
            Ok(newest)
        });
        newest = added
            .await?
            .map_err(|damage| store.damaged(large[at].name, &damage))?;
    }
    let base = match base.as_ref() {
        Some(base) => read_bucket(&store, base, bucket).await?,
        None => Vec::new(),
    };
    let records = base.iter().map(|part| part.records.len()).sum::<usize>();
    let records = records + newest.values().map(|newest| newest.0.len()).sum::<usize>();
    let bytes = records as u64 * MERGED_BYTES;
    let sources = blocking("merging a bucket", bytes, move || overlay(base, newest)).await?;
    Ok(LiveBucket { bucket, sources })
}

/// Adds a section's records, as they are: they live no longer than the bucket.
fn add_all(newest: &mut Sources, version: Version, parts: Vec<SealPart>) {
    for part in parts.into_iter().rev() {
        let keys = newest.entry(part.source).or_default();
        keys.0.reserve(part.records.len());
        for record in part.records.into_iter().rev() {
            keys.add(version, record, |record| record);
        }
    }
}

/// The base's records that nothing newer replaces, and the live ones of the newer, by key.
fn overlay(base: Vec<SealPart>, newest: Sources) -> BTreeMap<String, Vec<Record>> {
    let mut live: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for part in base {
        let mut records = Vec::from(part.records);
        if let Some(newer) = newest.get(&part.source) {
            records.retain(|record| !newer.contains(&record.key));
        }
        live.entry(part.source).or_default().append(&mut records);
    }
    for (source, newer) in newest {
        live.entry(source).or_default().extend(newer.live());
    }
    for records in live.values_mut() {
        // Stable, because that sort makes use of the base's order.
        records.sort_by(|a, b| a.key.cmp(&b.key));
    }
    live.retain(|_, records| !records.is_empty());
    live
}
