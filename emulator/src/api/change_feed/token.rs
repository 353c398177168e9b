//! Continuations of the change feed.
//!
//! Of one partition or a part of one: `"17"`, the LSN. Of several: `"-1F:17;1F-FF:40"`, key ranges with an LSN each. Splits
//! and merges keep LSNs, so the LSN of a parent is good for each child's keys, and the LSN of a merged partition's part for
//! the keys of that part. `@` and a second follow if the feed starts in the future. Ranges are in key order and do not
//! overlap, so a continuation never asks for anything twice.

use crate::epk::{EpkRange, cmp_padded, from_hex, to_hex};

/// Where a read begins.
#[derive(Debug, PartialEq)]
pub enum Position {
    /// With the first change that is still there.
    Beginning,
    /// From now on.
    Now,
    /// Behind an LSN, wherever it is.
    After(u64),
    /// Behind an LSN for each key range.
    Parts(Vec<Part>),
}

/// A key range of a continuation.
#[derive(Debug, PartialEq)]
pub struct Part {
    /// The keys.
    pub range: EpkRange,
    /// LSN up to which they have been read.
    pub after: u64,
}

impl Position {
    /// Reads a continuation, with its quotes or without; [`since`] reads its start in the future.
    pub fn from_token(token: &str) -> Option<Self> {
        let token = token.trim_matches('"');
        let token = token.split_once('@').map_or(token, |(token, _)| token);
        if let Ok(lsn) = token.parse() {
            return Some(Self::After(lsn));
        }
        let part = |text: &str| {
            let (range, lsn) = text.split_once(':')?;
            let (min, max) = range.split_once('-')?;
            Some(Part {
                range: EpkRange {
                    min: from_hex(min)?,
                    max: from_hex(max)?,
                },
                after: lsn.parse().ok()?,
            })
        };
        let parts = token.split(';').map(part).collect::<Option<Vec<_>>>()?;
        let proper = |part: &Part| cmp_padded(&part.range.min, &part.range.max).is_lt();
        let ordered = |pair: &[Part]| cmp_padded(&pair[0].range.max, &pair[1].range.min).is_le();
        let tiles = parts.iter().all(proper) && parts.windows(2).all(ordered);
        tiles.then_some(Self::Parts(parts))
    }
}

/// The second at which a feed starts that was to start in the future when the continuation was written.
pub fn since(token: &str) -> Option<u32> {
    token.trim_matches('"').split_once('@')?.1.parse().ok()
}

/// Writes a continuation, with its quotes.
pub fn write<'a>(
    parts: impl ExactSizeIterator<Item = (&'a EpkRange, u64)>,
    since: Option<u32>,
) -> String {
    let single = parts.len() == 1;
    let mut token = String::from("\"");
    for (index, (range, after)) in parts.enumerate() {
        if index > 0 {
            token.push(';');
        }
        if !single {
            token.push_str(&format!("{}-{}:", to_hex(&range.min), to_hex(&range.max)));
        }
        token.push_str(&after.to_string());
    }
    if let Some(since) = since {
        token.push_str(&format!("@{since}"));
    }
    token.push('"');
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let ranges = EpkRange::split_evenly(3);
        let one = write([(&ranges[0], 7)].into_iter(), None);
        assert_eq!(one, "\"7\"");
        assert_eq!(Position::from_token(&one), Some(Position::After(7)));
        let three = write(ranges.iter().zip([1, 2, 3]), Some(99));
        let parts = ranges
            .into_iter()
            .zip([1, 2, 3])
            .map(|(range, after)| Part { range, after })
            .collect();
        assert_eq!(Position::from_token(&three), Some(Position::Parts(parts)));
        assert_eq!(since(&three), Some(99));
        assert_eq!(since(&one), None);
        for bad in [
            "",
            "x",
            "-FF",
            "-FF:x",
            "G-FF:1",
            "1;2",
            "-:1",
            "FF-10:1",
            "-10:1;-20:1",
            "10-20:1;-10:1",
        ] {
            assert_eq!(Position::from_token(bad), None, "{bad}");
        }
    }
}
