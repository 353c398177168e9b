//! Snapshot, then stream: how all versions are read from the beginning. Pure: requests and tokens are the driver's.
//!
//! The feed of all versions cannot start in the past, and the feed of latest versions carries no deletes. So:
//!
//! 1. *Pin*: the driver takes a position `P` in the feed of all versions, for every part of the range, before anything is read.
//! 2. *Load*: the latest versions are read and delivered page by page, until their feed has passed `P`. By then every document
//!    has come that did not change since `P`. Tokens carry `P` and the position of the load, so a load resumes at its page.
//! 3. *Collect*: the changes since `P` are read until their feed has passed the end of the load, `L`, and nothing is delivered:
//!    many of them are older than what the load has shown. The last change of each document is kept, in memory.
//! 4. All of them go out as one page, at a position `E` that is past `L`: what the load showed was never newer than `L`, so no
//!    document goes back in time, and what was deleted during the load goes away. From then on changes are delivered as they come.
//!
//! A crash before the page of step 4 is durable begins at step 2 or 3 again, with the same `P` and a later `E`.
//!
//! Which position has passed which is known from the LSNs in them. Where they cannot be read, "nothing new" for every part of the
//! range, in answer to requests sent in the phase that it is to end, counts in their place. It also counts when it comes twice at
//! the same position: a feed with nothing new need not move on to what only the other one carries, such as a delete. Both take it
//! that the feed of latest versions is read no less fresh than the position that was pinned, which session consistency and
//! stronger ones see to.
//!
//! What is collected is held in memory, one version of each document that changed during the load.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidefeed_runtime::{FeedRangeId, Record, Records};

use super::position::Position;

/// A feed to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// Of the latest versions.
    Latest,
    /// Of all versions and deletes.
    All,
}

/// What a feed answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) records: Records,
    /// After these records.
    pub(super) position: Position,
    /// Every part of the range has said "nothing new" since it last had something, or since the feed that is asked changed.
    pub(super) quiet: bool,
}

/// Records to deliver.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) records: Records,
    /// There is nothing after these records for now.
    pub(super) caught_up: bool,
}

/// Where the reader of a feed range is.
#[derive(Debug)]
pub(super) struct Phases {
    range: FeedRangeId,
    state: State,
}

#[derive(Debug)]
enum State {
    Load {
        pinned: Position,
        latest: Option<Position>,
        /// The position at which there was nothing new.
        quiet_at: Option<Position>,
    },
    Collect {
        pinned: Position,
        loaded: Position,
        changes: BTreeMap<Bytes, Option<Bytes>>,
        quiet_at: Option<Position>,
    },
    Stream {
        all: Position,
    },
}

/// What to resume from after the records that were delivered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resume<'a> {
    /// Load from here, and then collect from there.
    Load {
        pinned: &'a Position,
        latest: Option<&'a Position>,
    },
    /// Stream from here.
    Stream { all: &'a Position },
}

impl Phases {
    /// At the load, which has come to `latest`.
    pub(super) fn load(range: FeedRangeId, pinned: Position, latest: Option<Position>) -> Self {
        let state = State::Load {
            pinned,
            latest,
            quiet_at: None,
        };
        Phases { range, state }
    }

    /// At the stream.
    pub(super) fn stream(range: FeedRangeId, all: Position) -> Self {
        let state = State::Stream { all };
        Phases { range, state }
    }

    /// The feed to ask next.
    pub(super) fn asks(&self) -> Feed {
        match self.state {
            State::Load { .. } => Feed::Latest,
            State::Collect { .. } | State::Stream { .. } => Feed::All,
        }
    }

    /// What to resume from; once for what [`take`](Self::take) returned last.
    pub(super) fn resume(&self) -> Resume<'_> {
        match &self.state {
            State::Load { pinned, latest, .. } => Resume::Load {
                pinned,
                latest: latest.as_ref(),
            },
            State::Collect { pinned, loaded, .. } => Resume::Load {
                pinned,
                latest: Some(loaded),
            },
            State::Stream { all } => Resume::Stream { all },
        }
    }

    /// Takes the answer of the feed that was to be asked.
    pub(super) fn take(&mut self, answer: Answer) -> Option<Delivery> {
        let Answer {
            records,
            position,
            quiet,
        } = answer;
        match &mut self.state {
            State::Load {
                pinned,
                latest,
                quiet_at,
            } => {
                if has_passed(&position, pinned, &self.range, quiet, quiet_at) {
                    self.state = State::Collect {
                        pinned: pinned.clone(),
                        loaded: position,
                        changes: BTreeMap::new(),
                        quiet_at: None,
                    };
                } else {
                    *latest = Some(position);
                }
                // The load has not caught up before what it missed is there.
                let caught_up = false;
                (!records.is_empty()).then_some(Delivery { records, caught_up })
            }
            State::Collect {
                loaded,
                changes,
                quiet_at,
                ..
            } => {
                changes.extend(records.into_iter().map(|record| (record.key, record.body)));
                if !has_passed(&position, loaded, &self.range, quiet, quiet_at) {
                    return None;
                }
                let changes = std::mem::take(changes).into_iter();
                let records = changes.map(|(key, body)| Record { key, body }).collect();
                self.state = State::Stream { all: position };
                Some(Delivery {
                    records,
                    caught_up: quiet,
                })
            }
            State::Stream { all } => {
                *all = position;
                (quiet || !records.is_empty()).then_some(Delivery {
                    records,
                    caught_up: quiet,
                })
            }
        }
    }
}

/// Whether what was read through `position` has passed `goal`. `quiet_at` is where it was quiet before.
fn has_passed(
    position: &Position,
    goal: &Position,
    range: &FeedRangeId,
    quiet: bool,
    quiet_at: &mut Option<Position>,
) -> bool {
    let passed = position.has_passed(goal, range);
    let quiet_again = quiet && quiet_at.as_ref() == Some(position);
    if quiet {
        *quiet_at = Some(position.clone());
    }
    passed.unwrap_or(quiet) || quiet_again
}

#[cfg(test)]
#[path = "phases_tests.rs"]
mod tests;
