//! Reading spans of seals and buckets of bases, several objects at a time, checked against what pins them.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::frame::{Checksum, Damage};
use super::lease::LeaseRecord;
use super::names::ObjectName;
use super::objects::{BaseRef, BucketRef, CommitRecord, GenerationRecord, SealRef, StartRecord};
use super::records::{Heading, PartHeading, SealPart, decode_heading, decode_parts};
use super::recovery::{Link, Refusal, Span, check_chain};
use super::store::CheckpointStore;
use crate::{Epoch, Error, Result};

/// Objects in flight: hides the latency of a remote store and keeps two cores busy unpacking (guess).
const IN_FLIGHT: usize = 8;

/// A seal whose frame, chain and heading are checked; its records are still packed.
#[derive(Clone, Debug)]
pub(super) struct PackedSeal {
    pub(super) seal: SealRef,
    pub(super) heading: Heading,
    packed: Bytes,
}

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

async fn load_seal(store: &CheckpointStore, name: ObjectName) -> Result<(Link, PackedSeal)> {
    let (checksum, body) = store.load(name).await?;
    let (heading, packed) = decode_heading(&body).map_err(|damage| store.damaged(name, &damage))?;
    let seal = SealRef {
        kind: heading.kind,
        generation: heading.generation,
        process: heading.process,
        sequence: heading.sequence,
        epoch: heading.epoch,
        checksum,
        bytes: body.len() as u64,
    };
    let previous = heading.previous;
    let packed = PackedSeal {
        seal,
        heading,
        packed,
    };
    Ok((Link { seal, previous }, packed))
}

/// Reads the tokens of a span of seals, and checks all of it, records included.
pub(super) async fn read_tokens(
    store: &CheckpointStore,
    span: &Span,
    floor: Option<Epoch>,
) -> Result<Vec<SealedTokens>> {
    let loads = stream::iter(span.first..=span.last).map(|sequence| async move {
        let (link, packed) = load_seal(store, span.name(sequence)).await?;
        let tokens = SealedTokens {
            seal: packed.seal,
            parts: packed.heading.parts,
        };
        Ok::<_, Error>((link, tokens))
    });
    let read: Vec<(Link, SealedTokens)> = loads.buffered(IN_FLIGHT).try_collect().await?;
    let (links, tokens): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    check_chain(span, &links, floor).map_err(|refusal| store.refused(refusal))?;
    Ok(tokens)
}

/// Reads a span of seals with their records and hands each to `take`, in order. The chain is checked when all are
/// read, so what was taken counts only if this succeeds.
pub(super) async fn read_seals(
    store: &CheckpointStore,
    span: &Span,
    mut take: impl FnMut(Epoch, Vec<SealPart>),
) -> Result<()> {
    let loads = stream::iter(span.first..=span.last).map(|sequence| async move {
        let name = span.name(sequence);
        let (link, packed) = load_seal(store, name).await?;
        let parts = unpack(store, name, packed.heading, packed.packed).await?;
        Ok::<_, Error>((link, parts))
    });
    let mut loads = loads.buffered(IN_FLIGHT);
    let mut links = Vec::new();
    while let Some((link, parts)) = loads.try_next().await? {
        take(link.seal.epoch, parts);
        links.push(link);
    }
    check_chain(span, &links, None).map_err(|refusal| store.refused(refusal))
}

/// Reads the buckets of `base` that `wanted` selects and hands each to `take`.
pub(super) async fn read_base(
    store: &CheckpointStore,
    base: &BaseRef,
    wanted: impl Fn(u8) -> bool,
    mut take: impl FnMut(Vec<SealPart>),
) -> Result<()> {
    let wanted = |bucket: &BucketRef| wanted(bucket.bucket);
    let buckets: Vec<BucketRef> = base.buckets.iter().copied().filter(wanted).collect();
    let loads = stream::iter(buckets).map(|bucket| async move {
        let name = ObjectName::Base {
            generation: base.generation,
            epoch: base.epoch,
            bucket: bucket.bucket,
        };
        let (checksum, body) = store.load(name).await?;
        check_bucket(&bucket, checksum).map_err(|damage| store.damaged(name, &damage))?;
        let (heading, packed) =
            decode_heading(&body).map_err(|damage| store.damaged(name, &damage))?;
        unpack(store, name, heading, packed).await
    });
    let mut loads = loads.buffered(IN_FLIGHT);
    while let Some(parts) = loads.try_next().await? {
        take(parts);
    }
    Ok(())
}

/// Reads one object and checks all of it by itself. Returns the size of its body.
pub(super) async fn check_object(store: &CheckpointStore, name: ObjectName) -> Result<u64> {
    let (_, body) = store.load(name).await?;
    let size = body.len() as u64;
    match name {
        ObjectName::Seal { .. } | ObjectName::Base { .. } => {
            let (heading, packed) =
                decode_heading(&body).map_err(|damage| store.damaged(name, &damage))?;
            unpack(store, name, heading, packed).await?;
        }
        ObjectName::Lease(_) => drop(store.load_json::<LeaseRecord>(name).await?),
        ObjectName::Generation(_) => drop(store.load_json::<GenerationRecord>(name).await?),
        ObjectName::Start(_) => drop(store.load_json::<StartRecord>(name).await?),
        ObjectName::Commit { .. } => drop(store.load_json::<CommitRecord>(name).await?),
    }
    Ok(size)
}

/// Reads the whole of `base` and checks that it is what the commit names.
pub(super) async fn check_base(store: &CheckpointStore, base: &BaseRef) -> Result<()> {
    read_base(store, base, |_| true, drop).await
}

fn check_bucket(named: &BucketRef, checksum: Checksum) -> Result<(), Damage> {
    if named.checksum == checksum {
        return Ok(());
    }
    let what = "it is not the object that the commit names";
    Err(Damage::Content(what.to_owned()))
}

async fn unpack(
    store: &CheckpointStore,
    name: ObjectName,
    heading: Heading,
    packed: Bytes,
) -> Result<Vec<SealPart>> {
    let unpacked = tokio::task::spawn_blocking(move || decode_parts(heading, &packed)).await;
    unpacked
        .map_err(|error| Error::internal("unpacking records failed").with_source(error))?
        .map_err(|damage| store.damaged(name, &damage))
}
