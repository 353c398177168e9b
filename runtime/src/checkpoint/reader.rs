//! Reading seals and buckets of bases, several objects at a time, checked against what pins them.

use futures::{StreamExt, TryStreamExt, stream};

use super::frame::Damage;
use super::lease::LeaseRecord;
use super::names::ObjectName;
use super::objects::{BaseRef, CommitRecord, GenerationRecord, SealRef, StartRecord};
use super::records::{Packed, PartHeading, SealPart};
use super::recovery::{Link, Refusal, Span, check_chain};
use super::request::Shape;
use super::store::CheckpointStore;
use crate::{Epoch, Error, Result};

/// Objects in flight: hides the latency of a remote store and keeps two cores busy unpacking (guess).
pub(super) const IN_FLIGHT: usize = 8;
/// What is asked for of a seal whose size is not known. Enough for all of most, and for the heading of a large one; a guess.
const FIRST_READ_BYTES: u64 = 512 * 1024;

/// Tokens that a seal brings, without its records.
#[derive(Clone, Debug)]
pub(super) struct SealedTokens {
    pub(super) seal: SealRef,
    pub(super) parts: Vec<PartHeading>,
}

impl CheckpointStore {
    /// The error for a state that cannot be used.
    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Missing(name) => self.missing(name),
            Refusal::Damaged(name, damage) => self.damaged(name, &damage),
        }
    }
}

/// How much of a seal to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// All of it, or of one in sections its heading.
    Heading,
}

/// A seal whose frame and heading are checked; its records are still packed.
pub(super) async fn load_seal(
    store: &CheckpointStore,
    name: ObjectName,
    extent: Extent,
) -> Result<(Link, Packed)> {
    let object = match extent {
        Extent::Whole => store.load(name).await?,
        Extent::Heading => store.load_start(name, FIRST_READ_BYTES).await?,
    };
    let packed = Packed::of(&object).map_err(|damage| store.damaged(name, &damage))?;
    let heading = &packed.heading;
    let seal = SealRef {
        kind: heading.kind,
        generation: heading.generation,
        process: heading.process,
        sequence: heading.sequence,
        epoch: heading.epoch,
        checksum: object.checksum,
        bytes: object.body_bytes,
    };
    let previous = heading.previous;
    Ok((Link { seal, previous }, packed))
}

/// Reads the tokens of a span of seals, and checks all of it, records included.
pub(super) async fn read_tokens(
    store: &CheckpointStore,
    span: &Span,
    floor: Option<Epoch>,
) -> Result<Vec<SealedTokens>> {
    let loads = stream::iter(span.first..=span.last).map(|sequence| async move {
        let (link, packed) = load_seal(store, span.name(sequence), Extent::Whole).await?;
        let tokens = SealedTokens {
            seal: link.seal,
            parts: packed.heading.parts,
        };
        Ok::<_, Error>((link, tokens))
    });
    let read: Vec<(Link, SealedTokens)> = loads.buffered(IN_FLIGHT).try_collect().await?;
    let (links, tokens): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    check_chain(span, &links, floor).map_err(|refusal| store.refused(refusal))?;
    Ok(tokens)
}

/// Reads the bucket of `base`, if it has any.
pub(super) async fn read_bucket(
    store: &CheckpointStore,
    base: &BaseRef,
    bucket: u8,
) -> Result<Vec<SealPart>> {
    let named = base.buckets.iter().find(|named| named.bucket == bucket);
    let Some(named) = named else {
        return Ok(Vec::new());
    };
    let name = ObjectName::Base {
        generation: base.generation,
        epoch: base.epoch,
        bucket,
    };
    let object = store.load(name).await?;
    if named.checksum != object.checksum {
        let what = "it is not the object that the commit names";
        return Err(store.damaged(name, &Damage::Content(what.to_owned())));
    }
    let packed = Packed::of(&object).map_err(|damage| store.damaged(name, &damage))?;
    unpack(store, name, packed).await
}

/// Reads one object and checks all of it by itself. Returns the size of its body.
pub(super) async fn check_object(store: &CheckpointStore, name: ObjectName) -> Result<u64> {
    let object = store.load(name).await?;
    match name {
        ObjectName::Seal { .. } | ObjectName::Base { .. } => {
            let packed = Packed::of(&object).map_err(|damage| store.damaged(name, &damage))?;
            unpack(store, name, packed).await?;
        }
        ObjectName::Lease(_) => drop(store.load_json::<LeaseRecord>(name).await?),
        ObjectName::Generation(_) => drop(store.load_json::<GenerationRecord>(name).await?),
        ObjectName::Start(_) => drop(store.load_json::<StartRecord>(name).await?),
        ObjectName::Commit { .. } => drop(store.load_json::<CommitRecord>(name).await?),
        ObjectName::Request(_) => drop(store.load_json::<Shape>(name).await?),
        // What is inside is not the protocol's to know.
        ObjectName::Letter(_) => {}
    }
    Ok(object.body_bytes)
}

/// Reads the whole of `base` and checks that it is what the commit names.
pub(super) async fn check_base(store: &CheckpointStore, base: &BaseRef) -> Result<()> {
    for bucket in &base.buckets {
        read_bucket(store, base, bucket.bucket).await?;
    }
    Ok(())
}

/// Unpacks records where it holds up nobody.
pub(super) async fn unpack(
    store: &CheckpointStore,
    name: ObjectName,
    packed: Packed,
) -> Result<Vec<SealPart>> {
    blocking("unpacking records", packed.heading.raw_bytes, move || {
        packed.unpack()
    })
    .await?
    .map_err(|damage| store.damaged(name, &damage))
}

/// Records that are worth another thread: handing over costs some ten microseconds, about what unpacking as much does; a
/// guess.
const HAND_OVER_BYTES: u64 = 32 * 1024;

/// Runs what burns processor time for so many bytes of records beside the threads that serve requests; a little is done here.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes < HAND_OVER_BYTES {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("{what} failed")).with_source(error))
}
