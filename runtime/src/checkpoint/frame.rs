//! The frame around every object: one readable line, then the body.
//!
//! ```text
//! tidefeed-checkpoint 2 commit/0000000003/000000000007 1234 0f3a…(32 hexadecimal digits)
//! ```
//!
//! Magic, format version, name (its first word is the kind), length of the body, and an xxh3-128 over name and body. The
//! name is inside, so an object that was copied or moved to another name is told apart from a damaged one. The checksum
//! finds damage, not malice: whoever can write the store can also write a right checksum.
//!
//! The line of an object that is read in parts has one more number at its end: how many bytes of the body the checksum
//! covers. They are its heading, and the heading holds a checksum for each part of the rest. So the one checksum stands for
//! the whole object, and still any part can be checked without the others.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::names::ObjectName;

const MAGIC: &str = "tidefeed-checkpoint";
/// No header is longer; bounds the search for its end in a damaged object.
const MAX_HEADER_BYTES: usize = 160;

/// The format of an object: raised with every change to such objects that an older version would misread. A run that starts over
/// reads leases and generations, so theirs stays when only records are kept in another way.
fn format_of(name: ObjectName) -> u32 {
    match name {
        ObjectName::Seal { .. } | ObjectName::Base { .. } => 3,
        _ => 2,
    }
}

/// xxh3-128 over the name and the body of an object; 32 hexadecimal digits in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub u128);

impl Checksum {
    /// Of a part of an object, which the checksum of the object covers through its heading.
    pub(super) fn of_part(bytes: &[u8]) -> Checksum {
        Checksum(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    fn of(name: &str, body: &[u8]) -> Checksum {
        let mut hasher = Xxh3::new();
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
        hasher.update(body);
        Checksum(hasher.digest128())
    }

    fn parse(text: &str) -> Option<Checksum> {
        let value = u128::from_str_radix(text, 16).ok()?;
        let checksum = Checksum(value);
        // One spelling per value, so that every flipped bit of a header is found.
        (checksum.to_string() == text).then_some(checksum)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Checksum::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("expected 32 hexadecimal digits"))
    }
}

/// What is wrong with an object. The store turns it into an error that names the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    NoHeader,
    OtherFormat { expected: u32, found: u32 },
    OtherObject(String),
    Length { expected: u64, found: u64 },
    Checksum,
    Content(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::NoHeader => f.write_str("is damaged (no valid header)"),
            Damage::OtherFormat { expected, found } => write!(
                f,
                "is in format {found} and this version reads format {expected} \
                 (run the version that wrote it if it is not damaged)"
            ),
            Damage::OtherObject(name) => write!(f, "is not what its name says (it holds {name})"),
            Damage::Length { expected, found } => {
                write!(
                    f,
                    "is damaged (body of {found} instead of {expected} bytes)"
                )
            }
            Damage::Checksum => f.write_str("is damaged (checksum differs)"),
            Damage::Content(what) => write!(f, "is damaged ({what})"),
        }
    }
}

/// An object ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Framed {
    pub(super) name: ObjectName,
    pub(super) header: Bytes,
    pub(super) body: Bytes,
    pub(super) checksum: Checksum,
}

impl Framed {
    pub(super) fn new(name: ObjectName, body: Bytes) -> Framed {
        Framed::with_header(name, body, None)
    }

    /// An object that is read in parts: its first `heading_bytes` must hold the checksums of the rest.
    pub(super) fn in_parts(name: ObjectName, body: Bytes, heading_bytes: usize) -> Framed {
        Framed::with_header(name, body, Some(heading_bytes))
    }

    fn with_header(name: ObjectName, body: Bytes, heading_bytes: Option<usize>) -> Framed {
        let text = name.to_string();
        let covered = heading_bytes.unwrap_or(body.len());
        let checksum = Checksum::of(&text, &body[..covered]);
        let (format, length) = (format_of(name), body.len());
        let heading = heading_bytes.map_or_else(String::new, |bytes| format!(" {bytes}"));
        let header = format!("{MAGIC} {format} {text} {length} {checksum}{heading}\n");
        Framed {
            name,
            header: Bytes::from(header),
            body,
            checksum,
        }
    }

    pub(super) fn len(&self) -> u64 {
        (self.header.len() + self.body.len()) as u64
    }

    /// Whether `bytes` is this object.
    pub(super) fn equals(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.len()
            && bytes.starts_with(&self.header)
            && bytes.ends_with(&self.body)
    }
}

/// The line before the body, read.
struct Header {
    /// Length of the line itself, with its end.
    bytes: usize,
    body_bytes: u64,
    checksum: Checksum,
    /// The bytes of the body that the checksum covers; `None`: all.
    heading_bytes: Option<usize>,
}

fn read_header(name: ObjectName, bytes: &Bytes) -> Result<Header, Damage> {
    let end = bytes
        .iter()
        .take(MAX_HEADER_BYTES)
        .position(|byte| *byte == b'\n')
        .ok_or(Damage::NoHeader)?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| Damage::NoHeader)?;
    let fields: Vec<&str> = header.split(' ').collect();
    let [MAGIC, format, written_as, length, checksum, heading @ ..] = fields.as_slice() else {
        return Err(Damage::NoHeader);
    };
    let (expected, found) = (format_of(name), canonical(format).ok_or(Damage::NoHeader)?);
    match ObjectName::parse(written_as) {
        // Of another kind it may have another format, and still be sound.
        Some(other) if other != name && format_of(other) == found => {
            return Err(Damage::OtherObject((*written_as).to_owned()));
        }
        _ if found != expected => return Err(Damage::OtherFormat { expected, found }),
        None => return Err(Damage::NoHeader),
        Some(_) => {}
    }
    let heading_bytes = match heading {
        [] => None,
        [bytes] => Some(canonical(bytes).ok_or(Damage::NoHeader)?),
        _ => return Err(Damage::NoHeader),
    };
    Ok(Header {
        bytes: end + 1,
        body_bytes: canonical(length).ok_or(Damage::NoHeader)?,
        checksum: Checksum::parse(checksum).ok_or(Damage::NoHeader)?,
        heading_bytes,
    })
}

/// What the frame of an object says, checked.
#[derive(Clone, Debug)]
pub(super) struct Unframed {
    /// Stands for the whole object.
    pub(super) checksum: Checksum,
    /// The body, or as much of it as was read.
    pub(super) body: Bytes,
    /// Where the body begins in the object.
    pub(super) body_at: u64,
    /// Length of the whole body.
    pub(super) body_bytes: u64,
    /// Whether the body beyond its heading has to be checked part by part.
    pub(super) in_parts: bool,
}

/// Checks the frame of the object of `size` bytes that begins with `bytes`. Of an object that is read in parts only the
/// heading has to be there; of any other `None` asks for all of it.
pub(super) fn unframe_start(
    name: ObjectName,
    bytes: &Bytes,
    size: u64,
) -> Result<Option<Unframed>, Damage> {
    let header = read_header(name, bytes)?;
    let found = size.saturating_sub(header.bytes as u64);
    if found != header.body_bytes {
        return Err(Damage::Length {
            expected: header.body_bytes,
            found,
        });
    }
    let body = bytes.slice(header.bytes..);
    let covered = match header.heading_bytes {
        Some(heading) if heading as u64 > found => return Err(Damage::NoHeader),
        Some(heading) => body.get(..heading),
        None if body.len() as u64 == found => Some(&body[..]),
        None => None,
    };
    let Some(covered) = covered else {
        return Ok(None);
    };
    if Checksum::of(&name.to_string(), covered) != header.checksum {
        return Err(Damage::Checksum);
    }
    Ok(Some(Unframed {
        checksum: header.checksum,
        body,
        body_at: header.bytes as u64,
        body_bytes: found,
        in_parts: header.heading_bytes.is_some(),
    }))
}

/// Checks the frame of the object read under `name`.
pub(super) fn unframe(name: ObjectName, bytes: &Bytes) -> Result<Unframed, Damage> {
    let whole = unframe_start(name, bytes, bytes.len() as u64)?;
    // Only an object that was not read to its end could ask for more.
    whole.ok_or(Damage::NoHeader)
}

fn canonical<T: std::str::FromStr + fmt::Display>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generation;

    fn commit(number: u64) -> ObjectName {
        ObjectName::Commit {
            generation: Generation(1),
            number,
        }
    }

    fn example() -> (Framed, Bytes) {
        let framed = Framed::new(commit(7), Bytes::from_static(b"{\"a\": 1}"));
        let bytes = Bytes::from([framed.header.as_ref(), framed.body.as_ref()].concat());
        (framed, bytes)
    }

    #[test]
    fn a_frame_round_trips() {
        let (framed, bytes) = example();
        let unframed = unframe(framed.name, &bytes).unwrap();
        assert_eq!(unframed.checksum, framed.checksum);
        assert_eq!(unframed.body, framed.body);
        assert!(framed.equals(&bytes) && !framed.equals(&bytes[1..]));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let (framed, bytes) = example();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut copy = bytes.to_vec();
                copy[at] ^= 1 << bit;
                let result = unframe(framed.name, &Bytes::from(copy));
                assert!(result.is_err(), "bit {bit} of byte {at}");
            }
            assert!(unframe(framed.name, &bytes.slice(..at)).is_err());
        }
        let longer = Bytes::from([bytes.as_ref(), b"x"].concat());
        assert!(unframe(framed.name, &longer).is_err());
    }

    #[test]
    fn a_moved_object_and_a_newer_format_are_told_apart_from_damage() {
        let (_, bytes) = example();
        assert_eq!(
            unframe(commit(8), &bytes).unwrap_err(),
            Damage::OtherObject("commit/0000000001/000000000007".to_owned())
        );
        let newer = String::from_utf8(bytes.to_vec())
            .unwrap()
            .replacen(" 2 ", " 99 ", 1);
        assert_eq!(
            unframe(commit(7), &Bytes::from(newer)).unwrap_err(),
            Damage::OtherFormat {
                expected: 2,
                found: 99
            }
        );
        assert_eq!(
            unframe(commit(7), &Bytes::new()).unwrap_err(),
            Damage::NoHeader
        );
    }

    #[test]
    fn the_heading_of_an_object_in_parts_is_checked_without_the_rest() {
        let framed = Framed::in_parts(commit(7), Bytes::from_static(b"heading|rest"), 8);
        let bytes = Bytes::from([framed.header.as_ref(), framed.body.as_ref()].concat());
        let (start, size) = (framed.header.len() + 8, framed.len());
        for read in start..=bytes.len() {
            let found = unframe_start(framed.name, &bytes.slice(..read), size);
            let found = found.unwrap().expect("the heading is there");
            assert!(found.in_parts && found.checksum == framed.checksum);
            assert_eq!(found.body_at + found.body_bytes, size);
        }
        let short = unframe_start(framed.name, &bytes.slice(..start - 1), size);
        assert!(short.unwrap().is_none(), "it must ask for more");
        for at in 0..start {
            for bit in 0..8 {
                let mut copy = bytes.to_vec();
                copy[at] ^= 1 << bit;
                let result = unframe_start(framed.name, &Bytes::from(copy), size);
                assert!(result.is_err(), "bit {bit} of byte {at}");
            }
        }
        assert!(unframe_start(framed.name, &bytes, size - 1).is_err());
    }
}
