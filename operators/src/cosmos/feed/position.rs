//! What is in a token of the SDK, as far as it must be known. Pure.
//!
//! The SDK's token holds one continuation of the service for each part of a feed range that it has polled; of a part without one
//! it knows no more than the start that was asked for. The service's continuation is the logical sequence number (LSN) up to
//! which the part has been read, in quotes; LSNs grow within a part, through splits and merges, and are the same in both modes
//! of the feed. None of this is promised, so what cannot be read is an error or "not known", never a guess.

use azure_core::base64;
use serde::Deserialize;
use tidefeed_runtime::{Error, FeedRangeId, Result};

/// A token of the SDK and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) token: String,
    parts: Vec<Part>,
}

/// A part of a feed range and how far it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: FeedRangeId,
    /// `None` if the service's continuation is something else.
    pub(super) lsn: Option<u64>,
}

/// The version of the SDK's tokens that this can read.
const PREFIX: &str = "c1.";

#[derive(Deserialize)]
struct Token {
    root: Root,
}

#[derive(Deserialize)]
struct Root {
    kind: String,
    #[serde(default)]
    active_tokens: Vec<Continuation>,
}

#[derive(Deserialize)]
struct Continuation {
    min_epk: String,
    max_epk: String,
    server_continuation: String,
}

impl Position {
    /// Reads a token of the SDK.
    ///
    /// # Errors
    /// `Internal` when it is not of the form that is known.
    pub(super) fn of(token: String) -> Result<Self> {
        let unknown = || {
            Error::internal(
                "the SDK's continuation token is not of the form that is known: use the version of the SDK that Tidefeed pins",
            )
        };
        let json = token.strip_prefix(PREFIX).ok_or_else(unknown)?;
        let json = base64::decode_url_safe(json).map_err(|_| unknown())?;
        let Token { root } = serde_json::from_slice(&json).map_err(|_| unknown())?;
        if root.kind != "unordered_merge" {
            return Err(unknown());
        }
        let part = |continuation: Continuation| Part {
            range: FeedRangeId::of(&continuation.min_epk, &continuation.max_epk),
            lsn: lsn(&continuation.server_continuation),
        };
        let parts = root.active_tokens.into_iter().map(part).collect();
        Ok(Position::new(token, parts))
    }

    /// A token that says this.
    pub(super) fn new(token: String, mut parts: Vec<Part>) -> Self {
        parts.sort_by_key(|part| part.range.bounds());
        Position { token, parts }
    }

    /// Parts that the service has answered for.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Whether the service has answered for every part of `range`.
    pub(super) fn covers(&self, range: &FeedRangeId) -> bool {
        let Some((mut reached, max)) = range.bounds() else {
            return false;
        };
        for (from, to) in self.parts.iter().filter_map(|part| part.range.bounds()) {
            if from <= reached && reached < to {
                reached = to;
            }
        }
        reached >= max
    }

    /// Whether every part of `range` has been read at least as far as `other` says; `None` if that cannot be known.
    pub(super) fn has_passed(&self, other: &Position, range: &FeedRangeId) -> Option<bool> {
        if !self.covers(range) || !other.covers(range) {
            return Some(false);
        }
        let mut passed = true;
        for part in &self.parts {
            let overlaps = |theirs: &&Part| theirs.range.overlaps(&part.range);
            for theirs in other.parts.iter().filter(overlaps) {
                passed &= part.lsn? >= theirs.lsn?;
            }
        }
        Some(passed)
    }
}

fn lsn(continuation: &str) -> Option<u64> {
    continuation.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: &str) -> FeedRangeId {
        FeedRangeId(id.to_owned())
    }

    /// `10-20:7` for each part; without a number, one that is not known.
    fn position(parts: &[&str]) -> Position {
        let part = |text: &&str| {
            let (bounds, lsn) = text.split_once(':').unwrap();
            Part {
                range: range(bounds),
                lsn: lsn.parse().ok(),
            }
        };
        Position::new(String::new(), parts.iter().map(part).collect())
    }

    #[test]
    fn a_token_of_the_sdk_is_read() {
        let json = r#"{"op":"ChangeFeed","rid":"r","root":{"kind":"unordered_merge","active_tokens":[
            {"min_epk":"80","max_epk":"FF","server_continuation":"\"12\""},
            {"min_epk":"","max_epk":"80","server_continuation":"12;34"}],"start_from":{"kind":"now"}},"cfm":true}"#;
        let token = format!("c1.{}", base64::encode_url_safe(json));
        let read = Position::of(token.clone()).unwrap();
        assert_eq!(read.token, token);
        assert_eq!(read.parts, position(&["-80:?", "80-FF:12"]).parts);
        let fresh = r#"{"op":"ChangeFeed","rid":"r","root":{"kind":"unordered_merge","start_from":{"kind":"now"}}}"#;
        let fresh = Position::of(format!("c1.{}", base64::encode_url_safe(fresh))).unwrap();
        assert!(!fresh.covers(&range("-FF")));
        let other = r#"{"op":"Query","rid":"r","root":{"kind":"drained"}}"#;
        let other = format!("c1.{}", base64::encode_url_safe(other));
        for bad in ["", "c2.e30", "c1.?", "c1.e30", &other] {
            assert!(Position::of(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gap_is_not_covered() {
        let parts = position(&["-20:1", "20-40:1", "60-FF:1"]);
        for (id, expected) in [
            ("-20", true),
            ("-40", true),
            ("10-30", true),
            ("60-FF", true),
            ("-FF", false),
            ("40-60", false),
            ("30-50", false),
            ("50-70", false),
        ] {
            assert_eq!(parts.covers(&range(id)), expected, "{id}");
        }
        // The same bound with and without zeros at its end.
        let long = position(&["-2000:1", "20-FF:1"]);
        assert!(long.covers(&range("10-40")) && long.covers(&range("200000-FF")));
    }

    #[test]
    fn every_part_must_have_passed_what_it_overlaps() {
        let behind = position(&["-40:5", "40-FF:9"]);
        for (parts, expected) in [
            (&["-40:5", "40-FF:9"][..], Some(true)),
            (&["-40:4", "40-FF:9"], Some(false)),
            (&["-FF:8"], Some(false)),
            (&["-FF:9"], Some(true)),
            (&["-20:5", "20-40:6", "40-60:9", "60-FF:10"], Some(true)),
            (&["-20:5", "20-40:4", "40-60:9", "60-FF:10"], Some(false)),
            (&["-40:50"], Some(false)),
            (&["-40:5", "40-FF:?"], None),
        ] {
            let ahead = position(parts);
            assert_eq!(
                ahead.has_passed(&behind, &range("-FF")),
                expected,
                "{parts:?}"
            );
        }
        // A child of a split: what lies outside of it does not count.
        let child = position(&["-20:5"]);
        assert_eq!(child.has_passed(&behind, &range("-20")), Some(true));
    }
}
