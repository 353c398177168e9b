//! Names of checkpoint objects: numbers are zero-padded, so that a listing sorts the way the protocol counts.

use std::fmt;

use super::letters::LetterName;
use super::objects::SealKind;
use crate::{Epoch, Generation};

/// Number of key buckets of a base, and of a large seal. Fixed for ever: readers of any worker count rely on it. A few buckets
/// at a time are in memory while the state is read, so more would need less memory, for more and smaller objects.
pub const BUCKETS: u8 = 64;

/// The bucket of `key`, the same for whoever writes a base and whoever reads one.
pub fn bucket_of(key: &[u8]) -> u8 {
    // The remainder is below BUCKETS, so it fits.
    (xxhash_rust::xxh3::xxh3_64(key) % u64::from(BUCKETS)) as u8
}

/// Which commit: its generation and its number.
pub(super) type CommitName = (Generation, u64);

/// The name of one object, relative to the folder of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ObjectName {
    Generation(Generation),
    Start(Generation),
    Lease(u64),
    Request(Generation),
    Commit {
        generation: Generation,
        number: u64,
    },
    Seal {
        kind: SealKind,
        generation: Generation,
        process: u32,
        sequence: u64,
    },
    Base {
        generation: Generation,
        epoch: Epoch,
        bucket: u8,
    },
    Letter(LetterName),
}

/// The folder of what is kept beside the protocol.
pub(super) const LETTERS: &str = "deadletters";

/// The folders that hold the protocol's objects; anything else beside them (the lock file, letters) is not its business.
pub(super) const FOLDERS: [&str; 8] = [
    "lease",
    "request",
    "generation",
    "start",
    "commit",
    "seal",
    "state",
    "base",
];

impl ObjectName {
    /// Parses what `Display` prints, and nothing else: `seal/1/0/7` is not a name, because it would not sort.
    pub(super) fn parse(text: &str) -> Option<ObjectName> {
        let mut pieces = text.split('/');
        let folder = pieces.next()?;
        if folder == LETTERS {
            let name = pieces.next()?.parse().ok().map(ObjectName::Letter);
            return name.filter(|name| name.to_string() == text);
        }
        let numbers = pieces
            .map(|piece| piece.parse::<u64>().ok())
            .collect::<Option<Vec<u64>>>()?;
        let name = match (folder, numbers.as_slice()) {
            ("generation", [g]) => ObjectName::Generation(Generation(*g)),
            ("start", [g]) => ObjectName::Start(Generation(*g)),
            ("request", [g]) => ObjectName::Request(Generation(*g)),
            ("lease", [n]) => ObjectName::Lease(*n),
            ("commit", [g, n]) => ObjectName::Commit {
                generation: Generation(*g),
                number: *n,
            },
            ("seal" | "state", [g, process, sequence]) => ObjectName::Seal {
                kind: match folder {
                    "seal" => SealKind::Input,
                    _ => SealKind::State,
                },
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
            ObjectName::Request(g) => write!(f, "request/{:010}", g.0),
            ObjectName::Lease(number) => write!(f, "lease/{number:012}"),
            ObjectName::Commit { generation, number } => {
                write!(f, "commit/{:010}/{number:012}", generation.0)
            }
            ObjectName::Seal {
                kind,
                generation,
                process,
                sequence,
            } => {
                let folder = match kind {
                    SealKind::Input => "seal",
                    SealKind::State => "state",
                };
                write!(
                    f,
                    "{folder}/{:010}/{process:05}/{sequence:012}",
                    generation.0
                )
            }
            ObjectName::Base {
                generation,
                epoch,
                bucket,
            } => write!(f, "base/{:010}/{:016}/{bucket:02}", generation.0, epoch.0),
            ObjectName::Letter(name) => write!(f, "{LETTERS}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_sort_like_their_numbers() {
        let seal = |sequence| ObjectName::Seal {
            kind: SealKind::Input,
            generation: Generation(3),
            process: 1,
            sequence,
        };
        let commit = |number| ObjectName::Commit {
            generation: Generation(3),
            number,
        };
        let names = [
            ObjectName::Generation(Generation(7)),
            ObjectName::Start(Generation(7)),
            ObjectName::Lease(3),
            ObjectName::Request(Generation(7)),
            commit(12),
            ObjectName::Seal {
                kind: SealKind::State,
                generation: Generation(3),
                process: 0,
                sequence: 1,
            },
            seal(9),
            seal(10),
            ObjectName::Base {
                generation: Generation(2),
                epoch: Epoch(1_700_000_000_000),
                bucket: 15,
            },
            ObjectName::Letter(LetterName::of([b"a".as_slice()])),
        ];
        for name in names {
            assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }
        assert!(seal(9).to_string() < seal(10).to_string());
        assert!(commit(99).to_string() < commit(100).to_string());
    }

    #[test]
    fn only_the_canonical_form_is_a_name() {
        for text in [
            "commit/000000000001",
            "commit/0000000001/+00000000001",
            "commit/0000000001/2",
            "lease/1",
            "seal/0000000001/00001",
            "lock",
            "other/0000000001",
            "base/0000000001/0000000000000001/256",
            "deadletters/1",
            "deadletters/0123456789ABCDEF0123456789abcdef",
            "deadletters/0123456789abcdef0123456789abcdef/1",
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
