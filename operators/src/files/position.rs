//! Where the reading of files has come to, as a token; and what it was that was read.
//!
//! A token names a file, how far its contents were read, and a checksum of what was read: of its first and its last
//! [`CHECKED_BYTES`]. Reading goes on only in a file that begins with that, so one that was replaced or cut off is found.

use serde::{Deserialize, Serialize};
use tidefeed_runtime::ContinuationToken;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes at the beginning of what was read, and before its end, that the checksum is of. What is replaced by another file of the
/// same kind differs in one of the two, if it has ids or times in it.
pub(super) const CHECKED_BYTES: usize = 4096;

/// A place between two records of the files of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The path; empty before the first file.
    pub(super) file: String,
    /// Bytes of its contents, after decompression, that were read.
    pub(super) offset: u64,
    /// Line breaks among them.
    pub(super) lines: u64,
    /// [`Seen::checksum`].
    pub(super) seen: u64,
    /// Whether that was all there was, so that it may be gone by now.
    pub(super) ended: bool,
}

impl Position {
    pub(super) fn token(&self) -> ContinuationToken {
        let text = serde_json::to_string(self);
        ContinuationToken(text.expect("texts and numbers have a JSON form"))
    }

    /// # Errors
    /// When the token is not one of files.
    pub(super) fn parse(token: &ContinuationToken) -> serde_json::Result<Self> {
        serde_json::from_str(&token.0)
    }
}

/// What was read of a file, as far as its checksum needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    first: Vec<u8>,
    /// At least the last bytes, and at most twice as many.
    last: Vec<u8>,
}

impl Seen {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = CHECKED_BYTES - self.first.len();
        self.first
            .extend_from_slice(&bytes[..room.min(bytes.len())]);
        let kept = &bytes[bytes.len().saturating_sub(CHECKED_BYTES)..];
        if self.last.len() + kept.len() > 2 * CHECKED_BYTES {
            let keep = CHECKED_BYTES - kept.len();
            self.last.drain(..self.last.len() - keep);
        }
        self.last.extend_from_slice(kept);
    }

    pub(super) fn checksum(&self) -> u64 {
        let last = &self.last[self.last.len().saturating_sub(CHECKED_BYTES)..];
        xxh3_64(&[&self.first, last].concat())
    }

    /// The last byte, if any was read.
    pub(super) fn last_byte(&self) -> Option<u8> {
        self.last.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_of_the_bytes_and_not_of_how_they_came() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let length = random.usize(0..5 * CHECKED_BYTES);
            let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let mut seen = Seen::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let piece = random.usize(1..=rest.len());
                seen.push(&rest[..piece]);
                rest = &rest[piece..];
            }
            let head = &bytes[..length.min(CHECKED_BYTES)];
            let tail = &bytes[length.saturating_sub(CHECKED_BYTES)..];
            assert_eq!(seen.checksum(), xxh3_64(&[head, tail].concat()));
            assert_eq!(seen.last_byte(), bytes.last().copied());
            // The middle may be left out.
            let mut skipped = Seen::default();
            skipped.push(head);
            skipped.push(&bytes[head.len().max(length.saturating_sub(CHECKED_BYTES))..]);
            assert_eq!(skipped.checksum(), seen.checksum());
        }
    }

    #[test]
    fn a_position_comes_back_from_its_token() {
        let position = Position {
            file: "orders/ä b.jsonl".to_owned(),
            offset: 7,
            lines: 2,
            seen: u64::MAX,
            ended: true,
        };
        assert_eq!(
            Position::parse(&position.token()).expect("a token"),
            position
        );
        assert!(Position::parse(&ContinuationToken("10-20@abc".to_owned())).is_err());
    }
}
