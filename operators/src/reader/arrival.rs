//! What goes from a reader to its worker, and what a reader starts from.

use serde::{Deserialize, Serialize};
use tidefeed_runtime::FeedRangeId;
use tidefeed_runtime::bridge::Room;
use tidefeed_runtime::watermarks::Mark;

use crate::feed::{Page, Start};

/// A page and the range that it comes from.
#[derive(Debug)]
pub struct Arrival {
    /// The feed range.
    pub range: FeedRangeId,
    /// The page.
    pub page: Page,
    /// Bytes of its records.
    pub bytes: u64,
    /// With this page the range has caught up for the first time.
    pub caught_up: bool,
    /// Set on the last arrival of a range that others go on with: they start at this page's token.
    pub handed_over: Option<HandedOver>,
    /// Where the range stands in event time from here on, if that has changed.
    pub mark: Option<Mark>,
    /// Held until the arrival is dropped.
    pub(super) room: Option<Room>,
}

impl Arrival {
    /// Whether the ticker was told of it: an epoch is due for it at once.
    pub fn counts(&self) -> bool {
        let page = &self.page;
        let awaited = self.handed_over.is_some() || page.receipt.is_some();
        self.caught_up || awaited || self.mark.is_some() || !page.records.is_empty()
    }
}

/// What takes the place of a feed range.
#[derive(Clone, Debug)]
pub struct HandedOver {
    /// The ranges that tile it.
    pub parts: Vec<FeedRangeId>,
    /// Whether each of them still has to catch up for the first time.
    pub loading: bool,
    /// Where each of them begins in event time, if that is read: where the range stood, and idle if it was.
    pub mark: Option<Mark>,
}

/// A feed range to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeStart {
    /// The range.
    pub range: FeedRangeId,
    /// Where in it to start.
    pub start: Start,
    /// Whether it still has to catch up for the first time.
    pub loading: bool,
}
