//! What records have in common, and the last value of each slot.

use std::ops::Range;

use super::cut::{Slots, fixed};
use super::output::Output;
use super::word::{Text, WORD, common, common_prefix, find, load};
use super::{LONG, MOST_PREFIX, MOST_REST};
use crate::RecordRef;

/// A shape that was written, with the last values.
pub(super) struct Shape<'a> {
    key: Pattern<'a>,
    body: Option<Pattern<'a>>,
}

impl<'a> Shape<'a> {
    /// The shape of a record whose slots are known.
    pub(super) fn of(record: &RecordRef<'a>, slots: &Slots) -> Self {
        Shape {
            key: Pattern::of(record.key, &slots.key),
            body: record.body.map(|body| Pattern::of(body, &slots.body)),
        }
    }

    /// Writes the values of a record, if it has this shape. If not, `to` may have something of it.
    #[inline(always)]
    pub(super) fn write(&mut self, record: &RecordRef<'a>, to: &mut Output) -> bool {
        let text = |part: &'a [u8]| Text::within(record.with_what_follows(part), part.len());
        if record.body.is_some() != self.body.is_some() || !self.key.write(text(record.key), to) {
            return false;
        }
        let (Some(pattern), Some(body)) = (&mut self.body, record.body) else {
            return true;
        };
        let wrote = pattern.write(text(body), to);
        if !wrote {
            self.key.undo(usize::MAX);
        }
        wrote
    }

    /// Writes the values of a record whose slots are known to be those of this shape.
    pub(super) fn write_at(&mut self, record: &RecordRef<'a>, slots: &Slots, to: &mut Output) {
        self.key.write_at(record.key, &slots.key, to);
        if let (Some(pattern), Some(body)) = (&mut self.body, record.body) {
            pattern.write_at(body, &slots.body, to);
        }
    }
}

/// The fixed texts of a key or a body, and the slots between them.
struct Pattern<'a> {
    before: Fixed,
    slots: Vec<Slot<'a>>,
}

struct Slot<'a> {
    last: Last<'a>,
    /// The value before, in case that the record turns out to have another shape.
    saved: Last<'a>,
    after: Fixed,
    end: End,
}

/// What ends a value.
#[derive(Clone, Copy)]
enum End {
    /// This byte.
    At(u8),
    /// That only what is fixed follows.
    Rest,
}

/// The last value of a slot.
#[derive(Clone, Copy, Default)]
struct Last<'a> {
    value: &'a [u8],
    /// Its beginning, and what followed if it was shorter.
    word: u128,
}

impl<'a> Pattern<'a> {
    fn of(text: &[u8], slots: &[Range<usize>]) -> Self {
        let mut fixed = fixed(text, slots).map(Fixed::new);
        let before = fixed.next().unwrap_or_default();
        let count = slots.len();
        let slot = |(number, after): (usize, Fixed)| Slot {
            last: Last::default(),
            saved: Last::default(),
            end: match after.text.first() {
                // A quote ends a string wherever it is; a number at the end is all that is left.
                Some(stop) if *stop == b'"' || number + 1 < count => End::At(*stop),
                _ => End::Rest,
            },
            after,
        };
        let slots = fixed.enumerate().map(slot).collect();
        Pattern { before, slots }
    }

    #[inline(always)]
    fn write(&mut self, text: Text<'a>, to: &mut Output) -> bool {
        if !self.before.is_in(&text, 0) {
            return false;
        }
        let mut at = self.before.text.len();
        let mut wrote = 0;
        for slot in &mut self.slots {
            match slot.write(text, at, to) {
                Some(next) => at = next,
                None => {
                    self.undo(wrote);
                    return false;
                }
            }
            wrote += 1;
        }
        let whole = at == text.len();
        if !whole {
            self.undo(wrote);
        }
        whole
    }

    /// Takes back the last values of the first slots.
    #[cold]
    fn undo(&mut self, slots: usize) {
        for slot in self.slots.iter_mut().take(slots) {
            slot.last = slot.saved;
        }
    }

    fn write_at(&mut self, text: &'a [u8], slots: &[Range<usize>], to: &mut Output) {
        for (slot, value) in self.slots.iter_mut().zip(slots) {
            slot.write_far(&text[value.clone()], to);
        }
    }
}

impl<'a> Slot<'a> {
    /// Writes the value at `at`, and says where the one after it is. `None` if there is none, or something else follows than is fixed.
    ///
    /// Any value will do that with what is fixed makes the text.
    #[inline(always)]
    fn write(&mut self, text: Text<'a>, at: usize, to: &mut Output) -> Option<usize> {
        let word = text.word(at);
        let prefix = common(word, self.last.word)
            .min(self.last.value.len())
            .min(MOST_PREFIX);
        let end = match self.end {
            End::At(stop) => match find(word, stop) {
                WORD => at + prefix + find(text.word(at + prefix), stop),
                found => at + found,
            },
            End::Rest => text.len().checked_sub(self.after.text.len())?,
        };
        // The end may be within what it has of the last value, if something is escaped there.
        let rest = end.wrapping_sub(at + prefix);
        let escaped = text.byte(end.wrapping_sub(1)) == b'\\';
        if rest > MOST_REST || escaped {
            return self.find_and_write(text, at, to);
        }
        if !self.after.is_in(&text, end) {
            return None;
        }
        to.short(prefix, rest, text.word(at + prefix));
        let value = text.bytes().get(at..end)?;
        self.saved = std::mem::replace(&mut self.last, Last { value, word });
        Some(end + self.after.text.len())
    }

    /// The same of a value that is longer, or has something that is escaped.
    #[cold]
    fn find_and_write(&mut self, text: Text<'a>, at: usize, to: &mut Output) -> Option<usize> {
        let end = match self.end {
            End::At(stop) => text.find_far(at, stop)?,
            End::Rest => text.len().checked_sub(self.after.text.len())?,
        };
        let value = text.bytes().get(at..end)?;
        if !self.after.is_in(&text, end) {
            return None;
        }
        self.write_far(value, to);
        Some(end + self.after.text.len())
    }

    fn write_far(&mut self, value: &'a [u8], to: &mut Output) {
        let prefix = common_prefix(value, self.last.value);
        let rest = &value[prefix..];
        if prefix <= MOST_PREFIX && rest.len() <= MOST_REST {
            to.short(prefix, rest.len(), load(rest, 0));
        } else {
            to.byte(LONG);
            to.number(prefix);
            to.number(rest.len());
            to.text(rest);
        }
        let word = load(value, 0);
        self.saved = std::mem::replace(&mut self.last, Last { value, word });
    }
}

/// A text that all records of a shape have.
#[derive(Default)]
struct Fixed {
    text: Box<[u8]>,
    /// Its beginning, and which bits of a word that is.
    word: u128,
    mask: u128,
}

impl Fixed {
    fn new(text: &[u8]) -> Self {
        let bits = 8 * text.len().min(WORD) as u32;
        Fixed {
            text: text.into(),
            word: load(text, 0),
            mask: u128::MAX.checked_shr(128 - bits).unwrap_or(0),
        }
    }

    /// Whether it is in a text at `at`.
    #[inline(always)]
    fn is_in(&self, text: &Text<'_>, at: usize) -> bool {
        let end = at + self.text.len();
        end <= text.len()
            && text.word(at) & self.mask == self.word
            && (self.text.len() <= WORD || text.bytes()[at..end] == *self.text)
    }
}
