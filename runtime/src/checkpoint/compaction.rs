//! Writing the collection as of a commit as a base, beside the dataflow.

use super::buckets::{Buckets, LiveBucket, Share};
use super::ledger::{covered_by, should_compact};
use super::names::ObjectName;
use super::objects::{BaseRef, BucketRef, CommitRecord, SealKind};
use super::reader::blocking;
use super::records::{Compress, Heading, SealPart, pack};
use super::store::CheckpointStore;
use crate::{Epoch, Generation, Record, Result};

/// A compaction beside a running job: reads the state as of one commit back from the store and writes it as a base, one
/// bucket after the other. It holds the tail of the seals and a few buckets in memory, never the collection.
///
/// Packing runs on tokio's threads for blocking work, a bucket at a time, so it competes with the dataflow for processors
/// and for nothing else.
///
/// Only one may run at a time: hand its base to [`CommitWriter::set_base`](super::CommitWriter::set_base), or drop it,
/// before the next one begins.
#[derive(Clone, Debug)]
pub struct Compaction {
    pub(super) store: CheckpointStore,
    pub(super) generation: Generation,
    pub(super) commit: CommitRecord,
}

impl Compaction {
    /// Writes the base if it makes the next resume cheaper. Nothing refers to the base until a commit names it.
    ///
    /// # Errors
    /// `Checkpoint` if an object that the state consists of is damaged or missing, or if the store does not take the base.
    pub async fn run(self) -> Result<Option<BaseRef>> {
        let mut buckets = Buckets::of(&self.store, Some(&self.commit), Share::WHOLE).await?;
        if !should_compact(&buckets.volume()) {
            return Ok(None);
        }
        let mut written = Vec::new();
        while let Some(bucket) = buckets.next().await? {
            written.push(self.write(bucket).await?);
        }
        Ok(Some(BaseRef {
            generation: self.generation,
            epoch: self.commit.epoch,
            buckets: written,
            covers: covered_by(&self.commit),
        }))
    }

    /// Writes one bucket. Its records are in order, so whoever writes it twice writes the same object.
    async fn write(&self, live: LiveBucket) -> Result<BucketRef> {
        let bucket = live.bucket;
        let name = ObjectName::Base {
            generation: self.generation,
            epoch: self.commit.epoch,
            bucket,
        };
        let heading = heading(self.generation, self.commit.epoch, bucket);
        let object = blocking("packing a base", live.size_bytes(), move || {
            let part = |(source, records): (String, Vec<Record>)| SealPart {
                source,
                ranges: Vec::new(),
                records: records.into(),
                marks: Default::default(),
            };
            let parts: Vec<SealPart> = live.sources.into_iter().map(part).collect();
            pack(name, heading, &parts, Compress::Always)
        })
        .await??;
        self.store.create(&object).await?;
        Ok(BucketRef {
            bucket,
            length: object.body.len() as u64,
            checksum: object.checksum,
        })
    }
}

fn heading(generation: Generation, epoch: Epoch, bucket: u8) -> Heading {
    Heading {
        kind: SealKind::Input,
        generation,
        process: 0,
        sequence: u64::from(bucket),
        epoch,
        previous: Default::default(),
        parts: Vec::new(),
        raw_bytes: 0,
        loading: false,
        sections: Vec::new(),
    }
}
