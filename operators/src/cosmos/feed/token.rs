//! Our tokens: a feed range, and where its reader is. Pure.
//!
//! `RANGE@TOKEN` in LatestVersion mode, with the SDK's token; `RANGE@{...}` in AllVersionsAndDeletes mode, with the phase, the
//! SDK's token of each feed that it needs, and the time at which the position was current, because it is good for a limited
//! time. The SDK reads a token of another range as "nothing known here", and would start over without a word; with the range in
//! front a mix-up is found.

use serde::{Deserialize, Serialize};
use tidefeed_runtime::{ContinuationToken, FeedRangeId};

use azure_data_cosmos::feed::FeedRange;

use super::config::FeedMode;
use super::ranges::parse_range;

/// Between the range and what follows.
const SEPARATOR: char = '@';

/// Where a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// In the feed of latest versions.
    Latest(String),
    /// In the feed of all versions.
    Full(SavedPhase),
}

/// Where a reader of all versions is. Tokens are the SDK's; `at` is in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SavedPhase {
    /// Loading the latest versions, up to `latest`; none: not begun. The changes since `full` are still to come.
    Load {
        full: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        latest: Option<String>,
        at: u64,
    },
    /// Following the changes.
    Stream { full: String, at: u64 },
}

impl SavedPhase {
    /// When the position in the feed of all versions was current, in seconds since 1970.
    pub(super) fn at(&self) -> u64 {
        match self {
            SavedPhase::Load { at, .. } | SavedPhase::Stream { at, .. } => *at,
        }
    }
}

/// The token of a position in `range`.
pub(super) fn encode(range: &FeedRangeId, saved: &Saved) -> ContinuationToken {
    let text = match saved {
        Saved::Latest(token) => token.clone(),
        Saved::Full(phase) => serde_json::to_string(phase).expect("strings and numbers are JSON"),
    };
    ContinuationToken(format!("{range}{SEPARATOR}{text}"))
}

/// The position in `token`, if its range covers `range`: after a split the children start from their parent's token.
pub(super) fn decode(
    token: &ContinuationToken,
    range: &FeedRange,
    mode: FeedMode,
) -> Result<Saved, &'static str> {
    let (of, rest) = token
        .0
        .split_once(SEPARATOR)
        .ok_or("it is not a token of a Cosmos DB feed")?;
    let of = parse_range(of).ok_or("it names a malformed feed range")?;
    if !range.is_subset_of(&of) {
        return Err("it is a token of another feed range");
    }
    if rest.is_empty() {
        return Err("it is cut off");
    }
    let saved = match rest.starts_with('{') {
        true => Saved::Full(serde_json::from_str(rest).map_err(|_| "it is malformed")?),
        false => Saved::Latest(rest.to_owned()),
    };
    match (&saved, mode) {
        (Saved::Latest(_), FeedMode::LatestVersion)
        | (Saved::Full(_), FeedMode::AllVersionsAndDeletes) => Ok(saved),
        _ => Err(
            "it is of the other mode of the feed: give the source its mode back, or start over with --fresh",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_latest(token: &str, range: &str) -> Result<Saved, &'static str> {
        let token = ContinuationToken(token.to_owned());
        decode(
            &token,
            &parse_range(range).unwrap(),
            FeedMode::LatestVersion,
        )
    }

    #[test]
    fn a_token_fits_its_range_and_the_children_of_its_range() {
        for range in ["10-20", "10-18", "18-20"] {
            let saved = decode_latest("10-20@c1.abc", range);
            assert_eq!(saved, Ok(Saved::Latest("c1.abc".to_owned())), "{range}");
        }
        for range in ["10-30", "20-30"] {
            assert!(decode_latest("10-20@c1.abc", range).is_err(), "{range}");
        }
        for broken in ["c1.abc", "10-20@", "20@c1.abc", "10-20@{}"] {
            assert!(decode_latest(broken, "10-20").is_err(), "{broken}");
        }
    }

    #[test]
    fn positions_come_back_as_they_were_in_their_mode() {
        let id = FeedRangeId("10-20".to_owned());
        let range = parse_range("10-20").unwrap();
        let (full, at) = ("c1.f".to_owned(), 12);
        let load = |latest: Option<&str>| {
            Saved::Full(SavedPhase::Load {
                full: full.clone(),
                latest: latest.map(str::to_owned),
                at,
            })
        };
        let stream = Saved::Full(SavedPhase::Stream {
            full: full.clone(),
            at,
        });
        let latest = Saved::Latest("c1.l".to_owned());
        let (all, newest) = (FeedMode::AllVersionsAndDeletes, FeedMode::LatestVersion);
        for (saved, mode, other) in [
            (load(None), all, newest),
            (load(Some("c1.l")), all, newest),
            (stream, all, newest),
            (latest, newest, all),
        ] {
            let token = encode(&id, &saved);
            assert_eq!(decode(&token, &range, mode), Ok(saved));
            let refused = decode(&token, &range, other).unwrap_err();
            assert!(refused.contains("other mode"), "{refused}");
        }
    }
}
