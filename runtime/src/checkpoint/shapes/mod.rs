//! Records without what they have in common: documents of a source look like each other, and so do their keys.
//!
//! A record is cut into *fixed* texts and *slots*: the names, braces and quotes of a document are fixed, and between them, in
//! the slots, are its strings, numbers and words. Fixed texts together are a *shape*. A shape is written once, with the
//! first record that has it; of each record follow the number of its shape and the values of its slots, and of a value only
//! what differs from the one before in that slot. So a small document takes as many bytes as its values need, in a third of the
//! time that a general compressor takes to find the same (measured: order events of two properties, zstd at level 1).
//!
//! ```text
//! records  = record*
//! record   = 0 length(key) length(body)+1 key body          as it is; of a removal 0 instead of the body's length
//!          | 1 shape value*                                 the first of its shape: the shapes are numbered from 2
//!          | number value*
//! shape    = slots(key) slots(body)+1 (length text)*        one text more than slots in the key, and so in the body
//! value    = 16·prefix+rest bytes                           prefix bytes of the slot's last value, and up to 14 others
//!          | 255 prefix rest bytes                          more
//! ```
//!
//! Numbers of more than a byte are LEB128. Nothing is asked of the bytes: what is no JSON has some shape too, or none, and comes
//! back byte by byte like everything else. Where shapes do not help, because each record has one of its own, records are
//! written as they are.

mod cut;
mod decode;
mod encode;
mod output;
mod shape;
mod word;

pub(super) use decode::decode;
pub(super) use encode::Encoder;

/// The record follows as it is.
const AS_IT_IS: u8 = 0;
/// A shape follows, and the first record that has it.
const NEW_SHAPE: u8 = 1;
/// The number of the first shape.
const FIRST_SHAPE: u8 = 2;
/// So many shapes have numbers; records of further ones are written as they are.
const MOST_SHAPES: usize = 253;
/// Keys and bodies with more slots have no shape. With the next limit it bounds what shapes take: 20 MB, where documents are like no other.
const MOST_SLOTS: usize = 128;
/// Shapes of more bytes are not kept.
const MOST_SHAPE_BYTES: usize = 16 << 10;
/// So many bytes of the last value a short value has at most.
const MOST_PREFIX: usize = 15;
/// So many others a short value has at most.
const MOST_REST: usize = 14;
/// The lengths of a longer value follow.
const LONG: u8 = 255;

#[cfg(test)]
mod tests;
