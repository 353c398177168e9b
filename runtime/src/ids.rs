//! Newtypes for what crosses a module: epochs, generations and tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The dataflow timestamp as the protocol sees it: milliseconds since the UNIX epoch, strictly increasing.
///
/// Inside a dataflow the timestamp is the bare `u64`, which timely and differential know; everything that seals, commits
/// or recovers speaks of `Epoch`. The mint keeps epochs unique: of two ticks within one millisecond the second is one
/// larger than the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// One run of a job's cluster. Numbers only grow; 0 means "no run yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Cosmos DB's opaque resume position in one feed range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContinuationToken(pub String);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FeedRangeId;

    /// The columns of `checkpoints list` and `show` were not below each other.
    #[test]
    fn they_are_as_wide_as_they_are_asked_to_be() {
        let range = FeedRangeId("-80".to_owned());
        let row = format!("{:>3}|{:>4}|{range:<5}|", Generation(7), Epoch(12));
        assert_eq!(row, "  7|  12|-80  |");
    }
}
