//! The payloads of a journal's records.
//!
//! The first byte tells the kind: `E` events as JSON, `W` writes, `D` documents and `H` changes of a snapshot. Numbers
//! are little-endian; keys and ids are preceded by their length.

use std::io;
use std::sync::Arc;

use super::Event;
use crate::epk::Epk;
use crate::store::document::{Document, Version};
use crate::store::history::{Change, ChangeKind};
use crate::store::shard::Stamp;
use crate::store::transaction::Mutation;

/// A record, read back.
pub enum Record {
    /// Anything but documents: what one request changed.
    Events(Vec<Event>),
    /// Writes of one request.
    Writes(Target, Vec<Written>),
    /// Documents of a snapshot, in LSN order.
    Documents(Target, Vec<Written>),
    /// Changes of a snapshot, in LSN order.
    Changes(Target, Vec<Change>),
}

/// Whose documents a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Number of the container.
    pub container: u32,
    /// Partition key range id.
    pub partition: u32,
}

/// A write, read back: what follows from the document's text is worked out again.
#[derive(Debug)]
pub struct Written {
    /// Where it lives.
    pub epk: Epk,
    /// Its `id`.
    pub id: Box<str>,
    /// What was written, or how the document ended.
    pub outcome: Result<Version, (ChangeKind, Stamp)>,
}

/// Appends events.
pub fn encode_events(out: &mut Vec<u8>, events: &[Event]) -> io::Result<()> {
    out.push(b'E');
    serde_json::to_writer(&mut *out, events).map_err(io::Error::other)
}

/// Appends the writes of one request.
pub fn encode_writes(out: &mut Vec<u8>, container: u32, partition: u32, mutations: &[Mutation]) {
    let target = Target {
        container,
        partition,
    };
    header(out, b'W', target, mutations.len());
    for mutation in mutations {
        let (epk, id) = mutation.key();
        match mutation {
            Mutation::Put { version, .. } => {
                out.push(0);
                key(out, epk, id);
                put_version(out, version);
            }
            Mutation::Remove { kind, stamp, .. } => {
                out.push(tag(*kind));
                key(out, epk, id);
                put_stamp(out, *stamp);
            }
        }
    }
}

/// Appends documents of a snapshot.
pub fn encode_documents(out: &mut Vec<u8>, target: Target, documents: &[&Document]) {
    header(out, b'D', target, documents.len());
    for document in documents {
        out.push(0);
        key(out, &document.epk, &document.id);
        put_version(out, &document.version);
    }
}

/// Appends changes of a snapshot.
pub fn encode_changes(out: &mut Vec<u8>, target: Target, changes: &[&Change]) {
    header(out, b'H', target, changes.len());
    for change in changes {
        out.push(tag(change.kind));
        key(out, &change.epk, &change.id);
        put_stamp(out, change.stamp);
        for version in [&change.current, &change.previous] {
            out.push(u8::from(version.is_some()));
            if let Some(version) = version {
                put_version(out, version);
            }
        }
    }
}

fn header(out: &mut Vec<u8>, kind: u8, target: Target, count: usize) {
    out.push(kind);
    for number in [target.container, target.partition, count as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn tag(kind: ChangeKind) -> u8 {
    match kind {
        ChangeKind::Delete => 1,
        ChangeKind::Expire => 2,
        ChangeKind::Create => 3,
        ChangeKind::Replace => 4,
    }
}

fn key(out: &mut Vec<u8>, epk: &Epk, id: &str) {
    for bytes in [&*epk.to_bytes(), id.as_bytes()] {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(&stamp.lsn.to_le_bytes());
    out.extend_from_slice(&stamp.ts.to_le_bytes());
}

fn put_version(out: &mut Vec<u8>, version: &Version) {
    for number in [version.rid, version.etag, version.lsn] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&version.ts.to_le_bytes());
    out.extend_from_slice(&(version.text.len() as u32).to_le_bytes());
    out.extend_from_slice(&version.text);
}

/// Reads a payload; `None` if it is none.
pub fn decode(payload: &[u8]) -> Option<Record> {
    let (kind, rest) = payload.split_first()?;
    if *kind == b'E' {
        return serde_json::from_slice(rest).ok().map(Record::Events);
    }
    let mut input = Input(rest);
    let target = Target {
        container: input.u32()?,
        partition: input.u32()?,
    };
    let count = input.u32()?;
    let record = match kind {
        b'W' => Record::Writes(
            target,
            (0..count).map(|_| input.written()).collect::<Option<_>>()?,
        ),
        b'D' => Record::Documents(
            target,
            (0..count).map(|_| input.written()).collect::<Option<_>>()?,
        ),
        b'H' => Record::Changes(
            target,
            (0..count).map(|_| input.change()).collect::<Option<_>>()?,
        ),
        _ => return None,
    };
    input.0.is_empty().then_some(record)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    fn key(&mut self) -> Option<(Epk, Box<str>)> {
        let epk = Epk::from_hashes(self.text()?);
        Some((epk, std::str::from_utf8(self.text()?).ok()?.into()))
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp {
            lsn: self.u64()?,
            ts: self.u32()?,
        })
    }

    fn version(&mut self) -> Option<Version> {
        Some(Version {
            rid: self.u64()?,
            etag: self.u64()?,
            lsn: self.u64()?,
            ts: self.u32()?,
            text: Arc::from(self.text()?),
        })
    }

    fn kind(&mut self) -> Option<Option<ChangeKind>> {
        Some(match self.u8()? {
            0 => None,
            1 => Some(ChangeKind::Delete),
            2 => Some(ChangeKind::Expire),
            3 => Some(ChangeKind::Create),
            4 => Some(ChangeKind::Replace),
            _ => return None,
        })
    }

    fn written(&mut self) -> Option<Written> {
        let kind = self.kind()?;
        let (epk, id) = self.key()?;
        let outcome = match kind {
            None => Ok(self.version()?),
            Some(kind) => Err((kind, self.stamp()?)),
        };
        Some(Written { epk, id, outcome })
    }

    fn change(&mut self) -> Option<Change> {
        let kind = self.kind()??;
        let (epk, id) = self.key()?;
        let stamp = self.stamp()?;
        let mut version = || match self.u8()? {
            0 => Some(None),
            1 => self.version().map(Some),
            _ => None,
        };
        Some(Change {
            kind,
            id,
            epk,
            current: version()?,
            previous: version()?,
            stamp,
        })
    }
}

#[cfg(test)]
mod tests;
