//! The temporal filter: a row is in the result at epoch e if its first moment is at or before e, and its last after e.
//!
//! ```text
//!   rows ----------------> valid --rows that are valid--> the job
//!   epochs --each, once---> |  |
//!                              +--Due: does anything fall due?--> sealer
//! ```
//!
//! Numbered rules, per worker:
//!
//! 1. An update of a row that is valid at the update's time goes through at once. The rest waits in the [`Schedule`].
//! 2. An epoch is due when nothing can come any more of the epochs before it, neither rows nor epochs. Then the sealer is told
//!    whether the epoch changes anything, and what falls due by then is emitted at the epoch. Everything that the epoch's own rows
//!    will bring lies beyond it, so they may be here already or still come.
//! 3. An epoch is held from its record until then, and no longer: so what is due can be emitted at it, and the output is never
//!    behind both inputs. What falls due far ahead holds nothing.
//! 4. About [`ROWS_AT_ONCE`] are emitted in one activation: after a long time down much may fall due at once.
//!
//! Costs: a row in memory for each whose validity ends or has not begun. If the retraction of a row comes on another worker than the
//! row did, both workers keep it until it has gone by time; source collections and reductions keep a row on one worker.

use std::collections::BTreeMap;
use std::ops::Range;

use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use tidefeed_runtime::Epoch;
use tidefeed_runtime::sealer::{Due, DueSender};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use super::schedule::{Passed, Schedule};

/// Rows that are emitted in one activation, some milliseconds of work; a guess.
const ROWS_AT_ONCE: usize = 16 << 10;

/// Keeps the rows whose time it is.
pub trait Valid<'scope, R> {
    /// The rows that are valid at each of `epochs`, which has each epoch on every worker ([`epochs`](super::epochs::epochs)).
    ///
    /// `bounds` says from when until before when a row is valid, in milliseconds since the UNIX epoch; it must be deterministic.
    /// [`NEVER`](super::schedule::NEVER) is no end. `dues` is told of every epoch whether anything falls due in it.
    fn valid<F>(self, epochs: StreamVec<'scope, u64, u64>, dues: DueSender, bounds: F) -> Self
    where
        F: Fn(&R) -> Range<u64> + 'static;
}

impl<'scope, R: ExchangeData> Valid<'scope, R> for VecCollection<'scope, u64, R, isize> {
    fn valid<F>(self, epochs: StreamVec<'scope, u64, u64>, dues: DueSender, bounds: F) -> Self
    where
        F: Fn(&R) -> Range<u64> + 'static,
    {
        let scope = self.inner.scope();
        let valid =
            self.inner
                .binary_frontier(epochs, Pipeline, Pipeline, "Valid", |_cap, info| {
                    let activator = scope.activator_for(info.address);
                    let mut filter = Filter {
                        bounds,
                        dues,
                        schedule: Schedule::default(),
                        waiting: BTreeMap::new(),
                    };
                    move |(rows, rows_frontier), (epochs, epochs_frontier), output| {
                        // 1. Drain.
                        rows.for_each(|cap, rows| {
                            let shown = rows.drain(..).filter_map(|update| filter.add(update));
                            output.session(&cap).give_iterator(shown);
                        });
                        epochs.for_each(|cap, epochs| {
                            for epoch in epochs.drain(..) {
                                let cap = cap.delayed(&epoch, 0);
                                filter.waiting.insert(epoch, Waiting { cap, told: false });
                            }
                        });
                        // 2. Emit what falls due, epoch by epoch.
                        let before = |epoch: &u64| {
                            rows_frontier.less_than(epoch) || epochs_frontier.less_than(epoch)
                        };
                        while let Some((epoch, cap)) = filter.next_due(before) {
                            let mut session = output.session(&cap);
                            let give = |row, diff| session.give((row, epoch, diff));
                            if filter.pass(epoch, give) == Passed::More {
                                return activator.activate();
                            }
                        }
                    }
                });
        valid.as_collection()
    }
}

/// An epoch whose time has not come, or which is being worked on.
struct Waiting {
    cap: Capability<u64>,
    told: bool,
}

/// The filter of one worker.
struct Filter<R, F> {
    bounds: F,
    dues: DueSender,
    schedule: Schedule<R>,
    waiting: BTreeMap<u64, Waiting>,
}

impl<R: Ord + Clone, F: Fn(&R) -> Range<u64>> Filter<R, F> {
    fn add(&mut self, update: (R, u64, isize)) -> Option<(R, u64, isize)> {
        let valid = (self.bounds)(&update.0);
        self.schedule.add(update, valid)
    }

    /// The lowest epoch, unless something may still come from before it. The sealer is told of it once.
    fn next_due(&mut self, before: impl Fn(&u64) -> bool) -> Option<(u64, Capability<u64>)> {
        let mut first = self.waiting.first_entry()?;
        let epoch = *first.key();
        if before(&epoch) {
            return None;
        }
        let Waiting { cap, told } = first.get_mut();
        if !std::mem::replace(told, true) {
            let any = self.schedule.is_due(epoch);
            let epoch = Epoch(epoch);
            // The sealer is gone only when the run has failed, and then its failure is already known.
            let _ = self.dues.send(Due { epoch, any });
        }
        Some((epoch, cap.clone()))
    }

    fn pass(&mut self, epoch: u64, give: impl FnMut(R, isize)) -> Passed {
        let passed = self.schedule.pass(epoch, ROWS_AT_ONCE, &self.bounds, give);
        if passed == Passed::All {
            // Dropped: everything that is due is emitted.
            self.waiting.remove(&epoch);
        }
        passed
    }
}
