//! Names of checkpoint objects: numbers are zero-padded, so that a listing sorts the way the protocol counts.

use std::fmt;

use crate::{Epoch, Generation};

/// Number of key buckets of a base, and of a large seal. Fixed for ever: readers of any worker count rely on it. A few buckets
/// at a time are in memory while the state is read, so more would need less memory, for more and smaller objects.
pub const BUCKETS: u8 = 64;

/// The bucket of `key`, the same for whoever writes a base and whoever reads one.
pub fn bucket_of(key: &[u8]) -> u8 {
    // The remainder is below BUCKETS, so it fits.
    (xxhash_rust::xxh3::xxh3_64(key) % u64::from(BUCKETS)) as u8
}

/// The name of one object, relative to the folder of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ObjectName {
    Generation(Generation),
    Start(Generation),
    Commit(u64),
    Seal {
        generation: Generation,
        process: u32,
        sequence: u64,
    },
    Base {
        generation: Generation,
        epoch: Epoch,
        bucket: u8,
    },
}

/// The folders that hold objects; anything else beside them (the lock file) is not the protocol's.
pub(super) const FOLDERS: [&str; 5] = ["generation", "start", "commit", "seal", "base"];

impl ObjectName {
    /// Parses what `Display` prints, and nothing else: `seal/1/0/7` is not a name, because it would not sort.
    pub(super) fn parse(text: &str) -> Option<ObjectName> {
        let mut pieces = text.split('/');
        let folder = pieces.next()?;
        let numbers = pieces
            .map(|piece| piece.parse::<u64>().ok())
            .collect::<Option<Vec<u64>>>()?;
        let name = match (folder, numbers.as_slice()) {
            ("generation", [g]) => ObjectName::Generation(Generation(*g)),
            ("start", [g]) => ObjectName::Start(Generation(*g)),
            ("commit", [n]) => ObjectName::Commit(*n),
            ("seal", [g, process, sequence]) => ObjectName::Seal {
                generation: Generation(*g),
                process: u32::try_from(*process).ok()?,
                sequence: *sequence,
            },
            ("base", [g, epoch, bucket]) => ObjectName::Base {
                generation: Generation(*g),
                epoch: Epoch(*epoch),
                bucket: u8::try_from(*bucket).ok()?,
            },
            _ => return None,
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectName::Generation(g) => write!(f, "generation/{:010}", g.0),
            ObjectName::Start(g) => write!(f, "start/{:010}", g.0),
            ObjectName::Commit(number) => write!(f, "commit/{number:012}"),
            ObjectName::Seal {
                generation,
                process,
                sequence,
            } => write!(f, "seal/{:010}/{process:05}/{sequence:012}", generation.0),
            ObjectName::Base {
                generation,
                epoch,
                bucket,
            } => write!(f, "base/{:010}/{:016}/{bucket:02}", generation.0, epoch.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_sort_like_their_numbers() {
        let seal = |sequence| ObjectName::Seal {
            generation: Generation(3),
            process: 1,
            sequence,
        };
        let names = [
            ObjectName::Generation(Generation(7)),
            ObjectName::Start(Generation(7)),
            ObjectName::Commit(12),
            seal(9),
            seal(10),
            ObjectName::Base {
                generation: Generation(2),
                epoch: Epoch(1_700_000_000_000),
                bucket: 15,
            },
        ];
        for name in names {
            assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }
        assert!(seal(9).to_string() < seal(10).to_string());
        assert!(ObjectName::Commit(99).to_string() < ObjectName::Commit(100).to_string());
    }

    #[test]
    fn only_the_canonical_form_is_a_name() {
        for text in [
            "commit/1",
            "commit/+00000000001",
            "commit/000000000001/2",
            "seal/0000000001/00001",
            "lock",
            "other/0000000001",
            "base/0000000001/0000000000000001/256",
        ] {
            assert_eq!(ObjectName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn buckets_are_below_their_number_and_never_change() {
        assert!((0..1000u32).all(|n| bucket_of(&n.to_le_bytes()) < BUCKETS));
        // A changed bucket function could no longer read the bases of earlier versions.
        let buckets = [b"".as_slice(), b"a", b"flight-1", b"flight-2"].map(bucket_of);
        assert_eq!(buckets, [2, 31, 5, 5]);
    }
}
