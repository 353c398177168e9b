//! The body of a page under construction: documents, rows or changes between a head and a count.

use crate::json::write_number;

/// Bytes after which a page ends.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The body of a page.
pub struct PageBody {
    bytes: Vec<u8>,
    items: usize,
}

impl PageBody {
    /// A page of the container with a resource id.
    pub fn new(container_rid: &str) -> Self {
        Self {
            bytes: format!("{{\"_rid\":\"{container_rid}\",\"Documents\":[").into_bytes(),
            items: 0,
        }
    }

    /// Items so far.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the page has `most` items, or as many bytes as a page may have.
    pub fn is_full(&self, most: usize) -> bool {
        self.items >= most || self.bytes.len() >= PAGE_BYTES
    }

    /// Begins an item, whose text is to be appended.
    pub fn next(&mut self) -> &mut Vec<u8> {
        if self.items > 0 {
            self.bytes.push(b',');
        }
        self.items += 1;
        &mut self.bytes
    }

    /// The text so far, to append more of the item that was begun last.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The finished body.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"],\"_count\":");
        write_number(&mut self.bytes, self.items);
        self.bytes.push(b'}');
        self.bytes
    }
}
