//! What is written.

use super::AS_IT_IS;
use super::word::{WORD, write_number};
use crate::RecordRef;

/// Bytes with room behind them, so that the rest of a short value is written as a word.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    end: usize,
}

impl Output {
    /// After what is there.
    pub(super) fn after(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Output { bytes, end }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes
    }

    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Takes back what was written after `end`.
    pub(super) fn back_to(&mut self, end: usize) {
        self.end = end;
    }

    /// Makes room for so many bytes.
    #[inline(always)]
    fn reserve(&mut self, more: usize) {
        if self.bytes.len() < self.end + more {
            self.grow(more);
        }
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let length = (self.end + more).max(self.bytes.capacity());
        self.bytes.resize(length.next_multiple_of(4096), 0);
    }

    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.reserve(1);
        self.bytes[self.end] = byte;
        self.end += 1;
    }

    pub(super) fn number(&mut self, number: usize) {
        let mut bytes = Vec::with_capacity(WORD);
        write_number(&mut bytes, number);
        self.text(&bytes);
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.reserve(text.len());
        self.bytes[self.end..self.end + text.len()].copy_from_slice(text);
        self.end += text.len();
    }

    /// Writes a short value: how many bytes it has of the last one, and the first `rest` bytes of a word.
    #[inline(always)]
    pub(super) fn short(&mut self, prefix: usize, rest: usize, word: u128) {
        loop {
            let room = self.bytes.get_mut(self.end..);
            if let Some(room) = room.and_then(<[u8]>::first_chunk_mut::<{ 1 + WORD }>) {
                room[0] = (prefix << 4 | rest) as u8;
                room[1..].copy_from_slice(&word.to_le_bytes());
                self.end += 1 + rest;
                return;
            }
            self.grow(1 + WORD);
        }
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
