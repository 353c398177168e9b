//! What arrangements keep, from differential's log.

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use tidefeed_runtime::Ledger;
use timely::worker::Worker;

/// Hands differential's log of a worker on to the [figures of its operators](tidefeed_runtime::observe), if they are on. To be called
/// before the dataflow is built.
pub fn watch_arrangements(worker: &Worker, ledger: &Ledger) {
    let arrangements = ledger.operator_figures().arrangements(worker.index());
    let (Some(arrangements), Some(mut log)) = (arrangements, worker.log_register()) else {
        return;
    };
    log.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
        for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
            match event {
                DifferentialEvent::Batch(one) => arrangements.batch(one.operator, one.length),
                DifferentialEvent::Merge(one) => {
                    if let Some(merged) = one.complete {
                        arrangements.merged(one.operator, one.length1 + one.length2, merged);
                    }
                }
                DifferentialEvent::Drop(one) => arrangements.dropped(one.operator, one.length),
                DifferentialEvent::Batcher(one) => {
                    arrangements.batching(one.operator, one.records_diff);
                }
                DifferentialEvent::MergeShortfall(_) | DifferentialEvent::TraceShare(_) => {}
            }
        }
    });
}
