//! Writing the seals of one process.

use super::frame::{Checksum, Framed};
use super::lock::HeldLock;
use super::objects::{SealRef, Series};
use super::reader::blocking;
use super::records::{Heading, SealPart, pack_seal, raw_bytes};
use super::store::CheckpointStore;
use crate::{Epoch, Error, Records, Result};

/// Writes the seals of one process, one after the other.
///
/// A seal is written only when the one before it is durable, so the numbers on disk have no gap. After a failed or
/// abandoned write the writer refuses to go on: whether that seal exists is unknown, and only a new generation finds out.
///
/// Packing burns processor time and writing waits for a disk, so its two halves can work at once, on two seals: see
/// [`SealWriter::split`].
#[derive(Debug)]
pub struct SealWriter {
    packer: SealPacker,
    putter: SealPutter,
}

impl SealWriter {
    pub(super) fn new(
        store: CheckpointStore,
        series: Series,
        floor: Option<Epoch>,
        lock: Option<HeldLock>,
    ) -> SealWriter {
        SealWriter {
            packer: SealPacker {
                series,
                sequence: 0,
                previous: Checksum::default(),
                floor,
                broken: false,
                loading: false,
                keeps_records: store.keeps_records(),
            },
            putter: SealPutter {
                store,
                durable: 0,
                broken: false,
                _lock: lock,
            },
        }
    }

    /// Makes the inputs of `epoch` durable: when this returns, they survive a crash of the machine.
    ///
    /// # Errors
    /// Those of [`SealPacker::pack`] and [`SealPutter::put`].
    pub async fn write(&mut self, epoch: Epoch, parts: Vec<SealPart>) -> Result<SealRef> {
        self.putter.check()?;
        let packed = self.packer.pack(epoch, parts).await?;
        self.putter.put(packed).await
    }

    /// Its halves: while one seal is being written, the next can be packed.
    pub fn split(self) -> (SealPacker, SealPutter) {
        (self.packer, self.putter)
    }
}

/// A seal that is ready to be written: it has its number and names the seal before.
#[derive(Debug)]
pub struct PackedSeal {
    seal: SealRef,
    object: Framed,
}

impl PackedSeal {
    /// The epoch whose inputs it holds.
    pub fn epoch(&self) -> Epoch {
        self.seal.epoch
    }
}

/// Packs and numbers the seals of one process, and chains each to the one before.
#[derive(Debug)]
pub struct SealPacker {
    series: Series,
    /// Of the last seal that was packed.
    sequence: u64,
    previous: Checksum,
    floor: Option<Epoch>,
    broken: bool,
    loading: bool,
    keeps_records: bool,
}

impl SealPacker {
    /// Whether the first load is under way. Its large seals take the place of a base, so compaction does not count them.
    pub fn set_loading(&mut self, loading: bool) {
        self.loading = loading;
    }

    /// Packs the inputs of `epoch`. Nothing is durable yet.
    ///
    /// # Errors
    /// - `Internal` if `epoch` is not above every epoch sealed before, in this run or in one that it resumed (of keyed state
    ///   several objects may belong to one epoch), or if packing failed before;
    /// - `Data` if a document is larger than 4 GiB.
    pub async fn pack(&mut self, epoch: Epoch, mut parts: Vec<SealPart>) -> Result<PackedSeal> {
        not_broken(self.broken)?;
        if !self.keeps_records {
            for part in &mut parts {
                part.records = Records::new();
            }
        }
        let follows = |floor: &Epoch| self.series.kind.may_follow(epoch, *floor);
        if let Some(floor) = self.floor.filter(|floor| !follows(floor)) {
            return Err(Error::internal(format!(
                "epoch {epoch} is sealed after epoch {floor}"
            )));
        }
        // Stays set if packing fails or the future is dropped midway.
        self.broken = true;
        let packed = self.packed(epoch, parts).await?;
        self.sequence = packed.seal.sequence;
        self.previous = packed.seal.checksum;
        self.floor = Some(epoch);
        self.broken = false;
        Ok(packed)
    }

    async fn packed(&self, epoch: Epoch, parts: Vec<SealPart>) -> Result<PackedSeal> {
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
        seal.checksum = object.checksum;
        seal.bytes = object.body.len() as u64;
        Ok(PackedSeal { seal, object })
    }
}

/// Makes packed seals durable, in the order of their numbers.
#[derive(Debug)]
pub struct SealPutter {
    store: CheckpointStore,
    /// The number of the last seal that is durable.
    durable: u64,
    broken: bool,
    _lock: Option<HeldLock>,
}

impl SealPutter {
    /// Makes a seal durable: when this returns, the inputs of its epoch survive a crash of the machine.
    ///
    /// # Errors
    /// - `Internal` if it is not the one that follows the last, or if a write failed before;
    /// - `Fenced` if another run has written this seal;
    /// - `Checkpoint` if the store does not take it. The seal may or may not exist then.
    pub async fn put(&mut self, packed: PackedSeal) -> Result<SealRef> {
        self.check()?;
        let PackedSeal { seal, object } = packed;
        if seal.sequence != self.durable + 1 {
            return Err(Error::internal(format!(
                "seal {} is written after seal {}",
                seal.sequence, self.durable
            )));
        }
        // Stays set if the write fails or the future is dropped midway.
        self.broken = true;
        self.store.create(&object).await?;
        self.durable = seal.sequence;
        self.broken = false;
        Ok(seal)
    }

    fn check(&self) -> Result<()> {
        not_broken(self.broken)
    }
}

fn not_broken(broken: bool) -> Result<()> {
    match broken {
        false => Ok(()),
        true => Err(Error::internal(
            "a seal was not written to its end: nothing more can be sealed in this run",
        )),
    }
}
