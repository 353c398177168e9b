//! What arrangements keep, as differential's log tells of it. This crate does not know differential: who does hands the events on.

use std::sync::Arc;

use super::Watch;

/// What one arrangement has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arranged {
    /// In its batches. A sum of differences may be behind for a moment.
    pub(super) rows: i64,
    /// On their way into a batch.
    pub(super) batching: i64,
    /// Whether there was any event.
    pub(super) known: bool,
}

/// Takes in the events of differential's log `differential/arrange` on one worker. There are a few for each arrangement and epoch.
/// Operators are by timely's number of them.
///
/// To be put in place before the worker's dataflow is built:
///
/// ```text
/// log.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
///     for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
///         match event {
///             DifferentialEvent::Batch(one) => arrangements.batch(one.operator, one.length),
///             DifferentialEvent::Merge(one) => if let Some(merged) = one.complete {
///                 arrangements.merged(one.operator, one.length1 + one.length2, merged);
///             }
///             DifferentialEvent::Drop(one) => arrangements.dropped(one.operator, one.length),
///             DifferentialEvent::Batcher(one) => arrangements.batching(one.operator, one.records_diff),
///             DifferentialEvent::MergeShortfall(_) | DifferentialEvent::TraceShare(_) => {}
///         }
///     }
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Arrangements(Arc<Watch>);

impl Arrangements {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Arrangements(watch)
    }

    /// A batch of so many rows was added.
    pub fn batch(&self, operator: usize, rows: usize) {
        self.add(operator, signed(rows), 0);
    }

    /// Batches of `before` rows together were merged into one of `after`.
    pub fn merged(&self, operator: usize, before: usize, after: usize) {
        self.add(operator, signed(after) - signed(before), 0);
    }

    /// A batch of so many rows went with its arrangement.
    pub fn dropped(&self, operator: usize, rows: usize) {
        self.add(operator, -signed(rows), 0);
    }

    /// So many more rows wait for their epoch to be complete, or fewer.
    pub fn batching(&self, operator: usize, more: isize) {
        self.add(operator, 0, i64::try_from(more).unwrap_or(0));
    }

    fn add(&self, operator: usize, rows: i64, batching: i64) {
        let mut all = self.0.arranged.lock();
        if operator >= all.len() {
            all.resize(operator + 1, Arranged::default());
        }
        let one = &mut all[operator];
        one.rows += rows;
        one.batching += batching;
        one.known = true;
    }
}

fn signed(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
