//! Writing.

use std::collections::HashMap;

use super::cut::Slots;
use super::output::Output;
use super::shape::Shape;
use super::{FIRST_SHAPE, MOST_SHAPE_BYTES, MOST_SHAPES, NEW_SHAPE};
use crate::RecordRef;

/// So many shapes that came last are tried before a record is cut anew.
const RECENT: usize = 4;

/// After so many records in a row without a shape none is cut any more: they are like no other, and it would be in vain.
const STRANGERS: usize = 64;

/// Writes records, each without what it has in common with those before.
#[derive(Default)]
pub(in crate::checkpoint) struct Encoder<'a> {
    shapes: Vec<Shape<'a>>,
    numbers: HashMap<Vec<u8>, usize>,
    /// The shapes that came last, the last one first.
    recent: Vec<usize>,
    /// How many records in a row had no shape.
    strangers: usize,
    slots: Slots,
    to: Output,
}

impl<'a> Encoder<'a> {
    /// Writes after what is in `to`.
    pub(in crate::checkpoint) fn new(to: Vec<u8>) -> Self {
        Encoder {
            to: Output::after(to),
            ..Encoder::default()
        }
    }

    /// What was there and was written.
    pub(in crate::checkpoint) fn finish(self) -> Vec<u8> {
        self.to.finish()
    }

    /// Writes a record.
    #[inline]
    pub(in crate::checkpoint) fn push(&mut self, record: RecordRef<'a>) {
        let begin = self.to.end();
        for place in 0..self.recent.len() {
            let number = self.recent[place];
            self.to.byte(FIRST_SHAPE + number as u8);
            if self.shapes[number].write(&record, &mut self.to) {
                if place > 0 {
                    self.recent[..=place].rotate_right(1);
                }
                return;
            }
            self.to.back_to(begin);
        }
        self.push_other(&record);
    }

    /// Writes a record that has none of the last shapes.
    #[cold]
    fn push_other(&mut self, record: &RecordRef<'a>) {
        match self.shape_of(record) {
            Some(number) => {
                self.strangers = 0;
                self.recent.retain(|recent| *recent != number);
                self.recent.truncate(RECENT - 1);
                self.recent.insert(0, number);
                self.shapes[number].write_at(record, &self.slots, &mut self.to);
            }
            None => {
                self.strangers += 1;
                self.to.as_it_is(record);
            }
        }
    }

    /// Cuts a record and writes the number of its shape, or the shape if it is new. `None` when it can have none.
    fn shape_of(&mut self, record: &RecordRef<'a>) -> Option<usize> {
        if self.strangers >= STRANGERS || !self.slots.find(record) {
            return None;
        }
        let bytes = self.slots.shape(record);
        if let Some(number) = self.numbers.get(&bytes) {
            self.to.byte(FIRST_SHAPE + *number as u8);
            return Some(*number);
        }
        let number = self.shapes.len();
        if number == MOST_SHAPES || bytes.len() > MOST_SHAPE_BYTES {
            return None;
        }
        self.to.byte(NEW_SHAPE);
        self.to.text(&bytes);
        self.numbers.insert(bytes, number);
        self.shapes.push(Shape::of(record, &self.slots));
        Some(number)
    }
}
