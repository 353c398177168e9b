//! The frame around every object: one readable line, then the body.
//!
//! ```text
//! tidefeed-checkpoint 2 commit/0000000003/000000000007 1234 0f3a…(32 hexadecimal digits)
//! ```
//!
//! Magic, format version, name (its first word is the kind), length of the body, and an xxh3-128 over name and body. The
//! name is inside, so an object that was copied or moved to another name is told apart from a damaged one. The checksum
//! finds damage, not malice: whoever can write the store can also write a right checksum.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

use super::names::ObjectName;

const MAGIC: &str = "tidefeed-checkpoint";
/// Raised with every change that an older version would misread.
const FORMAT: u32 = 2;
/// No header is longer; bounds the search for its end in a damaged object.
const MAX_HEADER_BYTES: usize = 160;

/// xxh3-128 over the name and the body of an object; 32 hexadecimal digits in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub u128);

impl Checksum {
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
    OtherFormat(u32),
    OtherObject(String),
    Length { expected: u64, found: u64 },
    Checksum,
    Content(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::NoHeader => f.write_str("is damaged (no valid header)"),
            Damage::OtherFormat(found) => write!(
                f,
                "is in format {found} and this version reads format {FORMAT} \
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
        let text = name.to_string();
        let checksum = Checksum::of(&text, &body);
        let header = format!("{MAGIC} {FORMAT} {text} {} {checksum}\n", body.len());
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

/// Checks the frame of the object read under `name` and returns its checksum and body.
pub(super) fn unframe(name: ObjectName, bytes: &Bytes) -> Result<(Checksum, Bytes), Damage> {
    let end = bytes
        .iter()
        .take(MAX_HEADER_BYTES)
        .position(|byte| *byte == b'\n')
        .ok_or(Damage::NoHeader)?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| Damage::NoHeader)?;
    let fields: Vec<&str> = header.split(' ').collect();
    let [MAGIC, format, written_as, length, checksum] = fields.as_slice() else {
        return Err(Damage::NoHeader);
    };
    let format: u32 = canonical(format).ok_or(Damage::NoHeader)?;
    if format != FORMAT {
        return Err(Damage::OtherFormat(format));
    }
    let expected: u64 = canonical(length).ok_or(Damage::NoHeader)?;
    let checksum = Checksum::parse(checksum).ok_or(Damage::NoHeader)?;
    if ObjectName::parse(written_as).is_none() {
        return Err(Damage::NoHeader);
    }
    if *written_as != name.to_string() {
        return Err(Damage::OtherObject((*written_as).to_owned()));
    }
    let body = bytes.slice(end + 1..);
    let found = body.len() as u64;
    if found != expected {
        return Err(Damage::Length { expected, found });
    }
    if Checksum::of(written_as, &body) != checksum {
        return Err(Damage::Checksum);
    }
    Ok((checksum, body))
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
        let (checksum, body) = unframe(framed.name, &bytes).unwrap();
        assert_eq!((checksum, body), (framed.checksum, framed.body.clone()));
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
            unframe(commit(8), &bytes),
            Err(Damage::OtherObject(
                "commit/0000000001/000000000007".to_owned()
            ))
        );
        let newer =
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replacen(&format!(" {FORMAT} "), " 99 ", 1);
        assert_eq!(
            unframe(commit(7), &Bytes::from(newer)),
            Err(Damage::OtherFormat(99))
        );
        assert_eq!(unframe(commit(7), &Bytes::new()), Err(Damage::NoHeader));
    }
}
