//! Writing the seals of one process.

use super::frame::Checksum;
use super::lock::HeldLock;
use super::objects::{SealRef, Series};
use super::reader::blocking;
use super::records::{Heading, SealPart, pack_seal, raw_bytes};
use super::store::CheckpointStore;
use crate::{Epoch, Error, Result};

/// Writes the seals of one process, one after the other.
///
/// A seal is written only when the one before it is durable, so the numbers on disk have no gap. After a failed or
/// abandoned write the writer refuses to go on: whether that seal exists is unknown, and only a new generation finds out.
#[derive(Debug)]
pub struct SealWriter {
    store: CheckpointStore,
    series: Series,
    sequence: u64,
    previous: Checksum,
    floor: Option<Epoch>,
    broken: bool,
    loading: bool,
    _lock: Option<HeldLock>,
}

impl SealWriter {
    pub(super) fn new(
        store: CheckpointStore,
        series: Series,
        floor: Option<Epoch>,
        lock: Option<HeldLock>,
    ) -> SealWriter {
        SealWriter {
            store,
            series,
            sequence: 0,
            previous: Checksum::default(),
            floor,
            broken: false,
            loading: false,
            _lock: lock,
        }
    }

    /// Whether the first load is under way. Its large seals take the place of a base, so compaction does not count them.
    pub fn set_loading(&mut self, loading: bool) {
        self.loading = loading;
    }

    /// Makes the inputs of `epoch` durable: when this returns, they survive a crash of the machine.
    ///
    /// # Errors
    /// - `Internal` if `epoch` is not above every epoch sealed before, in this run or in one that it resumed (of keyed state
    ///   several objects may belong to one epoch), or if a write failed before;
    /// - `Data` if a document is larger than 4 GiB;
    /// - `Fenced` if another run has written this seal;
    /// - `Checkpoint` if the store does not take it. The seal may or may not exist then.
    pub async fn write(&mut self, epoch: Epoch, parts: Vec<SealPart>) -> Result<SealRef> {
        if self.broken {
            return Err(Error::internal(
                "a seal was not written to its end: nothing more can be sealed in this run",
            ));
        }
        let follows = |floor: &Epoch| self.series.kind.may_follow(epoch, *floor);
        if let Some(floor) = self.floor.filter(|floor| !follows(floor)) {
            return Err(Error::internal(format!(
                "epoch {epoch} is sealed after epoch {floor}"
            )));
        }
        // Stays set if the write fails or the future is dropped midway.
        self.broken = true;
        let seal = self.put(epoch, parts).await?;
        self.sequence = seal.sequence;
        self.previous = seal.checksum;
        self.floor = Some(epoch);
        self.broken = false;
        Ok(seal)
    }

    async fn put(&self, epoch: Epoch, parts: Vec<SealPart>) -> Result<SealRef> {
        let heading = Heading {
            kind: self.series.kind,
            generation: self.series.generation,
            process: self.series.process,
            sequence: self.sequence + 1,
            epoch,
            previous: self.previous,
            parts: Vec::new(),
            raw_bytes: 0,
            loading: self.loading,
            sections: Vec::new(),
        };
        let mut seal = SealRef {
            kind: self.series.kind,
            generation: self.series.generation,
            process: self.series.process,
            sequence: heading.sequence,
            epoch,
            checksum: Checksum::default(),
            bytes: 0,
        };
        let name = seal.name();
        let object = blocking("packing a seal", raw_bytes(&parts) as u64, move || {
            pack_seal(name, heading, &parts)
        })
        .await??;
        self.store.create(&object).await?;
        seal.checksum = object.checksum;
        seal.bytes = object.body.len() as u64;
        Ok(seal)
    }
}
