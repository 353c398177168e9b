//! What is written.

use super::word::{WORD, chunk, write_number};
use super::{AS_IT_IS, LONG, MOST_PREFIX, MOST_REST};
use crate::RecordRef;

/// What is written of a short value at first, whatever of it counts.
const CHUNK: usize = 2 * WORD;

/// Bytes, one behind the other.
#[derive(Default)]
pub(super) struct Output(Vec<u8>);

impl Output {
    /// After what is there.
    pub(super) fn after(bytes: Vec<u8>) -> Self {
        Output(bytes)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn end(&self) -> usize {
        self.0.len()
    }

    /// Takes back what was written after `end`.
    pub(super) fn back_to(&mut self, end: usize) {
        self.0.truncate(end);
    }

    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: usize) {
        write_number(number, |byte| self.byte(byte));
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
    }

    /// Writes a short value: how many bytes it has of the last one, and the first `rest` bytes of a chunk. All of that is written, which
    /// takes less time than to write some of it.
    #[inline(always)]
    pub(super) fn short(&mut self, prefix: usize, rest: usize, chunk: [u8; CHUNK]) {
        self.byte((prefix << 4 | rest) as u8);
        let end = self.0.len() + rest;
        self.0.extend_from_slice(&chunk);
        self.0.truncate(end);
    }

    /// Writes a value that begins with `prefix` bytes of the last one.
    pub(super) fn value(&mut self, prefix: usize, value: &[u8]) {
        let short = prefix.min(MOST_PREFIX);
        if value.len() - short <= MOST_REST {
            return self.short(short, value.len() - short, chunk(value, short));
        }
        self.byte(LONG);
        self.number(prefix);
        self.number(value.len() - prefix);
        self.text(&value[prefix..]);
    }

    /// Writes a record without a shape.
    pub(super) fn as_it_is(&mut self, record: &RecordRef<'_>) {
        self.byte(AS_IT_IS);
        self.number(record.key.len());
        self.number(record.body.map_or(0, |body| body.len() + 1));
        self.text(record.key);
        self.text(record.body.unwrap_or_default());
    }
}
