//! The watermark operator: what all readers of a source have found becomes the source's watermark, epoch by epoch.
//!
//! ```text
//!   worker 0: source --marks--+                            +--> worker 0
//!   worker 1: source --marks--+--> watermark on worker 0 --+--> worker 1
//!   every source --unsealed-------------^
//! ```
//!
//! 1. First the watermark of the commit at the commit's epoch, and that of each sealed epoch beyond it at its own: the same as they were.
//! 2. An epoch is decided when nothing can come any more of it from any worker, by [`Watermarks`]. Where the watermark has moved, it
//!    goes to every worker at that epoch.
//! 3. The stream does not pass an epoch before that is sealed (I1): the other stream of the source holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidefeed_runtime::Epoch;
use tidefeed_runtime::watermarks::{MarkHistory, Marks, Watermarks};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Broadcast;

use crate::reader::SourceCounters;

/// What a watermark is made from.
pub struct WatermarkParts {
    /// The source's name.
    pub source: String,
    /// The epoch of the commit that the run resumes from; 0 on a fresh start.
    pub resumed: Epoch,
    /// What the checkpoint holds.
    pub history: MarkHistory,
    /// Counters of the source, to show it.
    pub counters: Arc<SourceCounters>,
}

/// The watermark of a source, milliseconds since the UNIX epoch, on every worker, at each epoch in which it has moved.
pub fn watermark<'scope>(
    marks: StreamVec<'scope, u64, Marks>,
    unsealed: StreamVec<'scope, u64, ()>,
    parts: WatermarkParts,
) -> StreamVec<'scope, u64, u64> {
    let first_worker = marks.scope().index() == 0;
    let name = format!("Watermark: {}", parts.source);
    let to_first = Exchange::new(|_: &Marks| 0);
    type Moments = CapacityContainerBuilder<Vec<u64>>;
    let moved = marks.binary_frontier::<_, Moments, _, _, _, _>(
        unsealed,
        to_first,
        Pipeline,
        &name,
        |cap, _info| {
            let mut replay = first_worker.then_some((cap, parts.history));
            let mut source = Watermarks::default();
            let mut waiting: BTreeMap<u64, (Capability<u64>, Vec<Marks>)> = BTreeMap::new();
            move |(marks, frontier), (unsealed, _), output| {
                // It carries nothing, but an input must be read.
                unsealed.for_each(|_, _| {});
                marks.for_each(|cap, marks| {
                    let at = waiting.entry(*cap.time());
                    let (_, waiting) = at.or_insert_with(|| (cap.retain(0), Vec::new()));
                    waiting.append(marks);
                });
                // 1. What is replayed; then the capability of the beginning goes.
                if let Some((cap, history)) = replay.take() {
                    source = history.committed;
                    if source.watermark_ms > 0 {
                        let cap = cap.delayed(&parts.resumed.0);
                        output.session(&cap).give(source.watermark_ms);
                    }
                    for (epoch, sealed) in history.sealed {
                        if let Some(now_ms) = go_on(&mut source, &sealed) {
                            output.session(&cap.delayed(&epoch.0)).give(now_ms);
                        }
                    }
                }
                // 2. What is complete.
                let bound = frontier.frontier().as_option().copied();
                while let Some(first) = waiting.first_entry()
                    && bound.is_none_or(|bound| *first.key() < bound)
                {
                    let (cap, marks) = first.remove();
                    if let Some(now_ms) = go_on(&mut source, &marks) {
                        output.session(&cap).give(now_ms);
                    }
                }
                if first_worker {
                    let shown = &parts.counters.watermark_ms;
                    shown.store(source.watermark_ms, Ordering::Relaxed);
                }
            }
        },
    );
    moved.broadcast()
}

/// The watermark after an epoch, if it has moved in it.
fn go_on(source: &mut Watermarks, marks: &[Marks]) -> Option<u64> {
    let before = source.watermark_ms;
    source.apply(marks);
    (source.watermark_ms > before).then_some(source.watermark_ms)
}
