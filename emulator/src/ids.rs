//! Resource ids, entity tags and activity ids.
//!
//! A resource id is base64 (with `-` for `/`) of its path of numbers: 4 bytes of database, 4 of container with the top
//! bit of the first set, 8 of document, little-endian. Clients take the document part apart to break ties in sorted
//! queries, so its layout is part of the wire.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";

/// Length of a document's resource id as text.
pub const DOCUMENT_RID_LENGTH: usize = 24;

/// Length of an entity tag without its quotes.
pub const ETAG_LENGTH: usize = 36;

/// The id of a database.
pub fn database_rid(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// The id of a container in a database.
pub fn container_rid(database: [u8; 4], number: u32) -> [u8; 8] {
    let mut rid = [0; 8];
    rid[..4].copy_from_slice(&database);
    rid[4..].copy_from_slice(&(number | 0x8000_0000).to_be_bytes());
    rid
}

/// The text of a document's id.
pub fn document_rid(container: [u8; 8], number: u64) -> [u8; DOCUMENT_RID_LENGTH] {
    let mut bytes = [0; 18];
    bytes[..8].copy_from_slice(&container);
    bytes[8..16].copy_from_slice(&(number & 0x0FFF_FFFF_FFFF_FFFF).to_le_bytes());
    let mut text = [b'='; DOCUMENT_RID_LENGTH];
    for (chunk, out) in bytes.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
        let bits = u32::from(chunk[0]) << 16 | u32::from(chunk[1]) << 8 | u32::from(chunk[2]);
        for (index, letter) in out.iter_mut().enumerate() {
            *letter = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
        }
    }
    // 16 bytes are five groups and one byte: the last two letters are padding.
    text[22..].copy_from_slice(b"==");
    text
}

/// The text of any id.
pub fn rid_text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .encode(bytes)
        .replace('/', "-")
}

/// A number as a GUID-shaped tag; `salt` tells runs of the server apart.
pub fn etag(salt: u32, number: u64) -> [u8; ETAG_LENGTH] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // Where each byte's two digits go.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bytes = (u128::from(salt) << 96 | u128::from(number)).to_be_bytes();
    let mut text = [b'-'; ETAG_LENGTH];
    for (place, byte) in PLACES.into_iter().zip(bytes) {
        text[place] = HEX[usize::from(byte >> 4)];
        text[place + 1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// The number behind a tag, with its quotes or without.
pub fn etag_number(tag: &str) -> Option<u64> {
    let digits = tag.trim_matches('"').replace('-', "");
    let low = digits.get(16..).filter(|low| low.len() == 16)?;
    u64::from_str_radix(low, 16).ok()
}

/// A number that differs between runs of the process.
pub fn salt() -> u32 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (elapsed.as_nanos() as u64 ^ u64::from(std::process::id()))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(32) as u32
}

/// Numbers that only grow, starting at 1.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The last number given.
    pub fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes the next number larger than `number`.
    pub fn reach(&self, number: u64) {
        self.0.fetch_max(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_ids_are_base64_of_their_path() {
        let container = container_rid(database_rid(7), 9);
        for number in [1, 63, 64, 255, 1 << 40, u64::MAX] {
            let mut bytes = container.to_vec();
            bytes.extend_from_slice(&(number & 0x0FFF_FFFF_FFFF_FFFF).to_le_bytes());
            assert_eq!(
                std::str::from_utf8(&document_rid(container, number)).unwrap(),
                rid_text(&bytes)
            );
        }
    }

    #[test]
    fn tags_are_guids_and_differ() {
        let tag = etag(0xDEAD_BEEF, 255);
        assert_eq!(
            std::str::from_utf8(&tag).unwrap(),
            "deadbeef-0000-0000-0000-0000000000ff"
        );
        assert_ne!(etag(1, 1), etag(1, 2));
        for number in [0, 1, u64::MAX] {
            let tag = String::from_utf8(etag(u32::MAX, number).to_vec()).unwrap();
            assert_eq!(etag_number(&format!("\"{tag}\"")), Some(number));
        }
        assert_eq!(etag_number("\"17\""), None);
    }
}
