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
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
