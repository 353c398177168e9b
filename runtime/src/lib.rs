//! Epochs, sealing, commits and recovery for dataflows on timely.

pub mod checkpoint;
mod error;
mod ids;
mod record;

pub use error::{Context, Error, ErrorKind, Result};
pub use ids::{ContinuationToken, Epoch, FeedRangeId, Generation};
pub use record::Record;
