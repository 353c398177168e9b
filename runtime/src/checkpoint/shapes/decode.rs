//! Reading.

use std::ops::Range;

use super::super::records::REMOVAL;
use super::{AS_IT_IS, FIRST_SHAPE, LONG, MOST_SHAPES, MOST_SLOTS, NEW_SHAPE};

/// Reads what an encoder wrote, into rows of two lengths, a key and a body, as [`records`](super::super::records) has them. `None`
/// if it is nothing that an encoder writes, or more than `most` bytes.
pub(in crate::checkpoint) fn decode(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut decoder = Decoder {
        packed: Input { rest: packed },
        shapes: Vec::new(),
        rows: Rows {
            bytes: Vec::with_capacity(most),
            most,
        },
    };
    while !decoder.packed.rest.is_empty() {
        decoder.record()?;
    }
    Some(decoder.rows.bytes)
}

struct Decoder<'p> {
    packed: Input<'p>,
    shapes: Vec<Shape<'p>>,
    rows: Rows,
}

struct Shape<'p> {
    key: Pattern<'p>,
    body: Option<Pattern<'p>>,
}

struct Pattern<'p> {
    before: &'p [u8],
    slots: Vec<Slot<'p>>,
}

struct Slot<'p> {
    /// Where its last value is among the rows.
    last: Range<usize>,
    /// What follows it.
    after: &'p [u8],
}

impl<'p> Decoder<'p> {
    fn record(&mut self) -> Option<()> {
        let number = match self.packed.byte()? {
            AS_IT_IS => return self.as_it_is(),
            NEW_SHAPE if self.shapes.len() == MOST_SHAPES => return None,
            NEW_SHAPE => {
                let shape = self.packed.shape()?;
                self.shapes.push(shape);
                self.shapes.len() - 1
            }
            number => usize::from(number - FIRST_SHAPE),
        };
        let shape = self.shapes.get_mut(number)?;
        let row = self.rows.begin()?;
        self.rows.fill(&mut shape.key, &mut self.packed)?;
        let middle = self.rows.bytes.len();
        if let Some(body) = &mut shape.body {
            self.rows.fill(body, &mut self.packed)?;
        }
        self.rows.end(row, middle, shape.body.is_some())
    }

    fn as_it_is(&mut self) -> Option<()> {
        let key = self.packed.number()?;
        let body = self.packed.number()?.checked_sub(1);
        let row = self.rows.begin()?;
        self.rows.push(self.packed.bytes(key)?)?;
        let middle = self.rows.bytes.len();
        self.rows.push(self.packed.bytes(body.unwrap_or(0))?)?;
        self.rows.end(row, middle, body.is_some())
    }
}

/// What is left to read.
struct Input<'p> {
    rest: &'p [u8],
}

impl<'p> Input<'p> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline(always)]
    fn bytes(&mut self, length: usize) -> Option<&'p [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f).checked_mul(1 << shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn shape(&mut self) -> Option<Shape<'p>> {
        let key_slots = self.number()?;
        let body_slots = self.number()?.checked_sub(1);
        let key = self.pattern(key_slots)?;
        let body = match body_slots {
            Some(slots) => Some(self.pattern(slots)?),
            None => None,
        };
        Some(Shape { key, body })
    }

    fn pattern(&mut self, slots: usize) -> Option<Pattern<'p>> {
        if slots > MOST_SLOTS {
            return None;
        }
        let before = self.text()?;
        let slot = |_| {
            let last = Range::default();
            let after = self.text()?;
            Some(Slot { last, after })
        };
        let slots = (0..slots).map(slot).collect::<Option<_>>()?;
        Some(Pattern { before, slots })
    }

    fn text(&mut self) -> Option<&'p [u8]> {
        let length = self.number()?;
        self.bytes(length)
    }

    /// How many bytes a value has of the one before, and what follows them.
    #[inline(always)]
    fn value(&mut self) -> Option<(usize, &'p [u8])> {
        match self.byte()? {
            LONG => Some((self.number()?, self.text()?)),
            lengths => {
                let rest = self.bytes(usize::from(lengths & 15))?;
                Some((usize::from(lengths >> 4), rest))
            }
        }
    }
}

/// What was read.
struct Rows {
    bytes: Vec<u8>,
    most: usize,
}

impl Rows {
    fn begin(&mut self) -> Option<usize> {
        let row = self.bytes.len();
        self.push(&[0; 8])?;
        Some(row)
    }

    /// Writes the lengths of the row whose key ends at `middle`.
    fn end(&mut self, row: usize, middle: usize, has_body: bool) -> Option<()> {
        let key = u32::try_from(middle - (row + 8)).ok()?;
        let body = match has_body {
            true => u32::try_from(self.bytes.len() - middle).ok()?,
            false => REMOVAL,
        };
        let lengths = self.bytes.get_mut(row..row + 8)?;
        lengths[..4].copy_from_slice(&key.to_le_bytes());
        lengths[4..].copy_from_slice(&body.to_le_bytes());
        Some(())
    }

    #[inline(always)]
    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        if self.most - self.bytes.len() < bytes.len() {
            return None;
        }
        self.bytes.extend_from_slice(bytes);
        Some(())
    }

    fn fill(&mut self, pattern: &mut Pattern<'_>, values: &mut Input<'_>) -> Option<()> {
        self.push(pattern.before)?;
        for slot in &mut pattern.slots {
            let (prefix, rest) = values.value()?;
            let from = self.bytes.len();
            if prefix > slot.last.len() || prefix > self.most - from {
                return None;
            }
            let last = slot.last.start;
            self.bytes.extend_from_within(last..last + prefix);
            self.push(rest)?;
            slot.last = from..self.bytes.len();
            self.push(slot.after)?;
        }
        Some(())
    }
}
