//! What records have in common, and the last value of each slot.

use std::ops::Range;

use super::cut::{Slots, fixed};
use super::output::Output;
use super::word::{Text, WORD, Wanted, common, common_prefix, find, words};
use super::{MOST_PREFIX, MOST_REST};
use crate::RecordRef;

/// A shape that was written, with the last values.
pub(super) struct Shape<'a> {
    key: Pattern<'a>,
    body: Option<Pattern<'a>>,
    turn: Turn,
}

/// Which of two values of a slot is the last one. The next takes the other's place, and nothing has to be taken back if the
/// record turns out to have another shape.
#[derive(Clone, Copy, Default)]
struct Turn(bool);

impl Turn {
    fn other(self) -> Turn {
        Turn(!self.0)
    }
}

impl<'a> Shape<'a> {
    /// The shape of a record whose slots are known.
    pub(super) fn of(record: &RecordRef<'a>, slots: &Slots) -> Self {
        Shape {
            key: Pattern::of(record.key, &slots.key),
            body: record.body.map(|body| Pattern::of(body, &slots.body)),
            turn: Turn::default(),
        }
    }

    /// Writes the values of a record, if it has this shape. If not, `to` may have something of it.
    #[inline(always)]
    pub(super) fn write(&mut self, record: &RecordRef<'a>, to: &mut Output) -> bool {
        let text = |part: &'a [u8]| Text::within(record.with_what_follows(part), part.len());
        let wrote = match (&mut self.body, record.body) {
            (Some(pattern), Some(body)) => {
                self.key.write(text(record.key), self.turn, to)
                    && pattern.write(text(body), self.turn, to)
            }
            (None, None) => self.key.write(text(record.key), self.turn, to),
            _ => false,
        };
        if wrote {
            self.turn = self.turn.other();
        }
        wrote
    }

    /// Writes the values of a record whose slots are known to be those of this shape.
    pub(super) fn write_at(&mut self, record: &RecordRef<'a>, slots: &Slots, to: &mut Output) {
        self.key.write_at(record.key, &slots.key, self.turn, to);
        if let (Some(pattern), Some(body)) = (&mut self.body, record.body) {
            pattern.write_at(body, &slots.body, self.turn, to);
        }
        self.turn = self.turn.other();
    }
}

/// The fixed texts of a key or a body, and the slots between them.
struct Pattern<'a> {
    before: Fixed,
    slots: Vec<Slot<'a>>,
}

struct Slot<'a> {
    values: [Value<'a>; 2],
    after: Fixed,
    end: End,
}

/// What ends a value.
#[derive(Clone, Copy)]
enum End {
    /// This byte.
    At(Wanted),
    /// That only what is fixed follows.
    Rest,
}

/// A value of a slot.
#[derive(Clone, Copy, Default)]
struct Value<'a> {
    bytes: &'a [u8],
    /// How it begins, and what followed if it was shorter.
    words: [u64; 2],
}

/// Of longer values more than the first word is compared.
const LONGER: usize = WORD + 2;

impl<'a> Pattern<'a> {
    fn of(text: &[u8], slots: &[Range<usize>]) -> Self {
        let mut fixed = fixed(text, slots).map(Fixed::new);
        let before = fixed.next().unwrap_or_default();
        let count = slots.len();
        let slot = |(number, after): (usize, Fixed)| Slot {
            values: Default::default(),
            end: match after.text.first() {
                // A quote ends a string wherever it is; a number at the end is all that is left.
                Some(stop) if *stop == b'"' || number + 1 < count => End::At(Wanted::new(*stop)),
                _ => End::Rest,
            },
            after,
        };
        let slots = fixed.enumerate().map(slot).collect();
        Pattern { before, slots }
    }

    #[inline(always)]
    fn write(&mut self, text: Text<'a>, turn: Turn, to: &mut Output) -> bool {
        if !self.before.is_in(&text, 0) {
            return false;
        }
        let mut at = self.before.text.len();
        for slot in &mut self.slots {
            match slot.write(text, at, turn, to) {
                Some(next) => at = next,
                None => return false,
            }
        }
        at == text.len()
    }

    fn write_at(&mut self, text: &'a [u8], slots: &[Range<usize>], turn: Turn, to: &mut Output) {
        for (slot, value) in self.slots.iter_mut().zip(slots) {
            slot.write_far(&text[value.clone()], turn, to);
        }
    }
}

impl<'a> Slot<'a> {
    /// Writes the value at `at`, and says where the one after it is. `None` if there is none, or something else follows than is fixed.
    ///
    /// Any value will do that with what is fixed makes the text.
    #[inline(always)]
    fn write(&mut self, text: Text<'a>, at: usize, turn: Turn, to: &mut Output) -> Option<usize> {
        let words = text.words(at);
        let end = match self.end {
            End::At(stop) => match find(words[0], stop) {
                WORD => at + WORD + find(words[1], stop),
                found => at + found,
            },
            End::Rest => text.len().checked_sub(self.after.text.len())?,
        };
        let last = &self.values[usize::from(turn.0)];
        let mut prefix = common(words[0], last.words[0]);
        if (prefix == WORD) & (last.bytes.len() > LONGER) {
            prefix += common(words[1], last.words[1]);
        }
        let prefix = prefix.min(last.bytes.len()).min(MOST_PREFIX);
        let beyond = end == at + 2 * WORD;
        let escaped = text.byte(end.wrapping_sub(1)) == b'\\';
        // What it has of the last value may go beyond the end, if something is escaped there.
        let rest = end.wrapping_sub(at + prefix);
        if beyond || escaped || rest > MOST_REST {
            return self.find_and_write(text, at, turn, to);
        }
        if !self.after.is_in(&text, end) {
            return None;
        }
        to.short(prefix, rest, text.chunk(at + prefix));
        let bytes = text.bytes().get(at..end)?;
        self.values[usize::from(turn.other().0)] = Value { bytes, words };
        Some(end + self.after.text.len())
    }

    /// The same of a value that is longer, or has something that is escaped.
    #[inline(never)]
    fn find_and_write(
        &mut self,
        text: Text<'a>,
        at: usize,
        turn: Turn,
        to: &mut Output,
    ) -> Option<usize> {
        let end = match self.end {
            End::At(stop) => text.find_far(at, stop)?,
            End::Rest => text.len().checked_sub(self.after.text.len())?,
        };
        let value = text.bytes().get(at..end)?;
        if !self.after.is_in(&text, end) {
            return None;
        }
        self.write_far(value, turn, to);
        Some(end + self.after.text.len())
    }

    fn write_far(&mut self, bytes: &'a [u8], turn: Turn, to: &mut Output) {
        let prefix = common_prefix(bytes, self.values[usize::from(turn.0)].bytes);
        to.value(prefix, bytes);
        let words = words(bytes, 0);
        self.values[usize::from(turn.other().0)] = Value { bytes, words };
    }
}

/// A text that all records of a shape have.
#[derive(Default)]
struct Fixed {
    text: Box<[u8]>,
    /// Its beginning, and which bits of the words that is.
    words: [u64; 2],
    masks: [u64; 2],
}

impl Fixed {
    fn new(text: &[u8]) -> Self {
        let mask = |bytes: usize| match bytes {
            WORD.. => u64::MAX,
            _ => !(u64::MAX << (8 * bytes)),
        };
        Fixed {
            text: text.into(),
            words: words(text, 0),
            masks: [mask(text.len()), mask(text.len().saturating_sub(WORD))],
        }
    }

    /// Whether it is in a text at `at`.
    #[inline(always)]
    fn is_in(&self, text: &Text<'_>, at: usize) -> bool {
        let end = at + self.text.len();
        let [first, second] = text.words(at);
        let differ =
            (first & self.masks[0] ^ self.words[0]) | (second & self.masks[1] ^ self.words[1]);
        end <= text.len()
            && differ == 0
            && (self.text.len() <= 2 * WORD || text.bytes()[at..end] == *self.text)
    }
}
