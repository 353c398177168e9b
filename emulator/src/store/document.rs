//! One stored document: the client's text, and the numbers from which its system properties are written.

use std::sync::Arc;

use crate::epk::Epk;
use crate::ids;
use crate::json::write_number;

/// One version of a document: what a write leaves behind.
#[derive(Clone, Debug)]
pub struct Version {
    /// The client's members, from `{` up to but without the closing `}`, and without system properties. Shared between
    /// the document and the history of its changes.
    pub text: Arc<[u8]>,
    /// Number behind `_rid`; the same for all versions of a document, another one if it is deleted and created again.
    pub rid: u64,
    /// Number behind `_etag`.
    pub etag: u64,
    /// Change that wrote it.
    pub lsn: u64,
    /// `_ts`, seconds since 1970.
    pub ts: u32,
}

/// A document as it is kept.
#[derive(Debug)]
pub struct Document {
    /// The `id` property.
    pub id: Box<str>,
    /// Where it lives.
    pub epk: Epk,
    /// What was written last.
    pub version: Version,
    /// When it expires, seconds since 1970; [`NEVER`] if it does not.
    pub(super) expiry: u32,
    /// Its entry in the change log.
    pub(super) log_position: u32,
}

/// The expiry of a document that does not expire.
pub const NEVER: u32 = u32::MAX;

/// What all documents of a container share on output.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// Resource id of the container.
    pub container_rid: [u8; 8],
    /// `dbs/{rid}/colls/{rid}/docs/`.
    pub self_prefix: Box<str>,
    /// Tells the tags of this run from those of another.
    pub salt: u32,
}

impl Version {
    /// Bytes of the document as a client sees it, about.
    pub fn size(&self) -> usize {
        self.text.len() + 1
    }

    /// The entity tag without quotes.
    pub fn etag(&self, rendering: &Rendering) -> [u8; ids::ETAG_LENGTH] {
        ids::etag(rendering.salt, self.etag)
    }

    /// Appends the document with its system properties; `with_lsn` adds `_lsn`, as the change feed does.
    pub fn render(&self, rendering: &Rendering, with_lsn: bool, out: &mut Vec<u8>) {
        let rid = ids::document_rid(rendering.container_rid, self.rid);
        out.extend_from_slice(&self.text);
        // The text is `{` alone if the client sent nothing but system properties.
        out.extend_from_slice(if self.text.len() > 1 {
            b",\"_rid\":\""
        } else {
            b"\"_rid\":\""
        });
        out.extend_from_slice(&rid);
        out.extend_from_slice(b"\",\"_self\":\"");
        out.extend_from_slice(rendering.self_prefix.as_bytes());
        out.extend_from_slice(&rid);
        out.extend_from_slice(b"/\",\"_etag\":\"\\\"");
        out.extend_from_slice(&self.etag(rendering));
        out.extend_from_slice(b"\\\"\",\"_attachments\":\"attachments/\",\"_ts\":");
        write_number(out, self.ts);
        if with_lsn {
            out.extend_from_slice(b",\"_lsn\":");
            write_number(out, self.lsn);
        }
        out.push(b'}');
    }

    /// The client's members as complete JSON text.
    pub fn to_json_text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.text.len() + 1);
        text.extend_from_slice(&self.text);
        text.push(b'}');
        text
    }
}

impl Document {
    /// Heap and inline bytes of the document itself, without indexes.
    pub fn footprint(&self) -> usize {
        // The text is behind two counters.
        std::mem::size_of::<Self>()
            + self.version.text.len()
            + 16
            + self.id.len()
            + self.epk.heap_bytes()
    }
}
