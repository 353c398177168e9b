//! Tests of the whole store: every one runs on a local directory and in memory.

mod crash;
mod damage;
mod figures;
mod model;
mod protocol;
mod simulation;
#[cfg(feature = "cloud")]
mod stores;
pub(super) mod vanishing;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tempfile::TempDir;

use super::names::ObjectName;
use super::*;
use crate::{ContinuationToken, Epoch, FeedRangeId, Record};

/// A store and what keeps it alive.
pub(super) struct Place {
    pub(super) store: CheckpointStore,
    /// A second handle on the same objects, as the next process would make it.
    folder: Option<TempDir>,
}

impl Place {
    pub(super) fn memory() -> Place {
        Place {
            store: CheckpointStore::in_memory("job"),
            folder: None,
        }
    }

    fn local() -> Place {
        let folder = TempDir::new().unwrap();
        Place {
            store: CheckpointStore::local(folder.path(), "job").unwrap(),
            folder: Some(folder),
        }
    }

    pub(super) fn both() -> [Place; 2] {
        [Place::memory(), Place::local()]
    }

    /// Puts other bytes in the place of an object.
    pub(super) async fn overwrite(&self, name: ObjectName, bytes: &'static [u8]) {
        let path = Path::from(self.store.full_name(name));
        let payload = PutPayload::from_static(bytes);
        self.store.objects().put(&path, payload).await.unwrap();
    }

    /// The store as the next process sees it.
    pub(super) fn reopened(&self) -> CheckpointStore {
        match &self.folder {
            Some(folder) => CheckpointStore::local(folder.path(), "job").unwrap(),
            None => self.store.clone(),
        }
    }
}

/// The number in an environment variable.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number in the environment"))
}

pub(super) fn identity() -> RunIdentity {
    RunIdentity {
        job: "job".into(),
        fingerprint: Fingerprint {
            sources: BTreeMap::from([("flights".into(), "db/flights".into())]),
            sinks: BTreeMap::from([("board".into(), "v1".into())]),
            tables: BTreeMap::new(),
        },
        processes: 3,
        workers_per_process: 2,
    }
}

/// A cluster's lease is waited out, also where a lock is free, so these tests have a clock that does not wait; and it lasts as
/// long as a slow machine takes, because nobody renews it.
pub(super) fn options() -> Options {
    Options {
        lease: LeaseConfig {
            duration: Duration::from_secs(3600),
            ..LeaseConfig::default()
        },
        ..Options::default()
    }
}

pub(super) fn record(key: &str, body: Option<&str>) -> Record {
    Record {
        key: Bytes::copy_from_slice(key.as_bytes()),
        body: body.map(|body| Bytes::copy_from_slice(body.as_bytes())),
    }
}

pub(super) fn part(source: &str, range: &str, token: &str, records: Vec<Record>) -> SealPart {
    SealPart {
        source: source.into(),
        ranges: vec![(FeedRangeId(range.into()), ContinuationToken(token.into()))],
        records: records.into(),
        marks: Default::default(),
    }
}

pub(super) fn commit_of(epoch: u64, seals: &[SealRef]) -> CommitRequest {
    CommitRequest {
        epoch: Epoch(epoch),
        loading: false,
        tokens: Tokens::new(),
        seals: seals.to_vec(),
        marks: Default::default(),
        sinks: BTreeMap::from([(
            "board".into(),
            SinkState {
                rows: epoch,
                hash: 7,
                ..SinkState::default()
            },
        )]),
    }
}

/// What the store must give back, kept in plain collections: every durable seal, and the epoch of the last commit.
#[derive(Clone, Debug, Default)]
struct Model {
    seals: Vec<(Epoch, Vec<SealPart>)>,
    commit: Option<Epoch>,
}

impl Model {
    fn collection(&self) -> BTreeMap<String, BTreeMap<Bytes, Bytes>> {
        let mut collection: BTreeMap<String, BTreeMap<Bytes, Bytes>> = BTreeMap::new();
        let mut seals: Vec<_> = self.seals.iter().collect();
        seals.sort_by_key(|(epoch, _)| *epoch);
        let covered = seals
            .into_iter()
            .filter(|(epoch, _)| Some(*epoch) <= self.commit);
        for part in covered.flat_map(|(_, parts)| parts) {
            let keys = collection.entry(part.source.clone()).or_default();
            for record in Vec::from(part.records.clone()) {
                match record.body {
                    Some(body) => keys.insert(record.key, body),
                    None => keys.remove(&record.key),
                };
            }
        }
        collection.retain(|_, keys| !keys.is_empty());
        collection
    }

    fn replay(&self) -> BTreeMap<Epoch, Vec<SealPart>> {
        let mut replay: BTreeMap<Epoch, Vec<SealPart>> = BTreeMap::new();
        for (epoch, parts) in &self.seals {
            if Some(*epoch) > self.commit {
                replay
                    .entry(*epoch)
                    .or_default()
                    .extend(parts.iter().cloned());
            }
        }
        replay.values_mut().for_each(|parts| sort(parts));
        replay
    }

    /// Only for tests whose ranges never split.
    fn tokens(&self) -> Tokens {
        let mut tokens = Tokens::new();
        let mut seals: Vec<_> = self.seals.iter().collect();
        seals.sort_by_key(|(epoch, _)| *epoch);
        for part in seals.into_iter().flat_map(|(_, parts)| parts) {
            let ranges = tokens.entry(part.source.clone()).or_default();
            ranges.extend(part.ranges.iter().cloned());
        }
        tokens
    }

    fn last_sealed(&self) -> Option<Epoch> {
        self.seals
            .iter()
            .map(|(epoch, _)| *epoch)
            .max()
            .max(self.commit)
    }

    async fn check(&self, store: &CheckpointStore, resume: &Resume) {
        assert_eq!(
            resume.commit.as_ref().map(|commit| commit.epoch),
            self.commit
        );
        assert_eq!(resume.last_sealed, self.last_sealed());
        let (collection, replay) = rehydrate(store, resume, Share::WHOLE).await.unwrap();
        assert_eq!(collection, self.collection());
        assert_eq!(replay, self.replay());
    }
}

type Documents = BTreeMap<String, BTreeMap<Bytes, Bytes>>;

/// Everything that a run would load, in maps.
async fn rehydrate(
    store: &CheckpointStore,
    resume: &Resume,
    share: Share,
) -> crate::Result<(Documents, BTreeMap<Epoch, Vec<SealPart>>)> {
    let mut collection = Documents::new();
    let mut buckets = resume.buckets(store, share).await?;
    while let Some(LiveBucket { bucket, sources }) = buckets.next().await? {
        for (source, records) in sources {
            assert!(
                records.is_sorted_by(|a, b| a.key < b.key),
                "a key came twice"
            );
            let keys = collection.entry(source).or_default();
            for Record { key, body } in records {
                assert_eq!(bucket_of(&key), bucket);
                keys.insert(key, body.expect("live"));
            }
        }
    }
    let (mut replay, mut sealed) = (BTreeMap::new(), resume.replay(store, share));
    let mut last = None;
    while let Some((epoch, mut parts)) = sealed.next().await? {
        assert!(last < Some(epoch), "epochs rise");
        last = Some(epoch);
        sort(&mut parts);
        replay.insert(epoch, parts);
    }
    Ok((collection, replay))
}

/// Large seals keep their records by bucket: only the order within a key counts.
fn sort(parts: &mut [SealPart]) {
    parts.sort_by(|a, b| (&a.source, &a.ranges).cmp(&(&b.source, &b.ranges)));
    for part in parts {
        let mut records = Vec::from(std::mem::take(&mut part.records));
        records.sort_by(|a, b| a.key.cmp(&b.key));
        part.records = records.into();
    }
}
