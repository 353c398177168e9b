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

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidefeed_runtime::Epoch;
use tidefeed_runtime::watermarks::{MarkHistory, Marks, Watermarks};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Broadcast;

use crate::by_epoch::ByEpoch;
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
            let mut epochs = ByEpoch::<Vec<Marks>>::new();
            move |(marks, frontier), (unsealed, _), output| {
                // It carries nothing, but an input must be read.
                unsealed.for_each(|_, _| {});
                marks.for_each(|cap, marks| epochs.at(*cap.time(), &cap).append(marks));
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
                while let Some((_, cap, marks)) = epochs.next_complete(frontier) {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use tidefeed_runtime::FeedRangeId;
    use tidefeed_runtime::watermarks::Mark;
    use timely::dataflow::operators::Capture;
    use timely::dataflow::operators::capture::Extract;
    use timely::dataflow::operators::core::UnorderedInput;

    use super::*;

    const EPOCHS: u64 = 40;

    /// What each worker finds in each epoch, from the second half on; the first half is in a checkpoint.
    fn found(random: &mut fastrand::Rng, workers: usize) -> Vec<Vec<Marks>> {
        let ranges: Vec<_> = (0..4)
            .map(|range| FeedRangeId(format!("file:{range}")))
            .collect();
        let epoch = |epoch: u64| {
            let mut parts = vec![Marks::default(); workers];
            if epoch == 0 {
                parts[0].begun = Some(ranges.iter().cloned().collect());
            }
            for _ in 0..random.u8(..4) {
                let at = random.usize(..ranges.len());
                let mark = Mark {
                    at_ms: epoch * 10 + random.u64(..30),
                    idle: random.u8(..3) == 0,
                };
                parts[at % workers].note(ranges[at].clone(), mark);
            }
            parts
        };
        (0..EPOCHS).map(epoch).collect()
    }

    /// Where the watermark moves, computed in order.
    fn expected(found: &[Vec<Marks>], from: u64) -> Vec<(u64, u64)> {
        let mut source = Watermarks::default();
        let mut moves = Vec::new();
        for (epoch, marks) in (0..).zip(found) {
            let moved = go_on(&mut source, marks);
            if epoch == from && source.watermark_ms > 0 {
                moves.push((epoch, source.watermark_ms));
            } else if epoch > from {
                moves.extend(moved.map(|now_ms| (epoch, now_ms)));
            }
        }
        moves
    }

    /// From a commit in any epoch, with sealed epochs beyond it, every worker sees the same moves at the same epochs.
    #[test]
    fn every_worker_sees_every_move_and_a_replay_is_the_same() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        for round in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed ^ round);
            let workers = random.usize(1..=3);
            let found = found(&mut random, workers);
            let committed = random.u64(..EPOCHS / 4);
            let mut history = MarkHistory::default();
            for (epoch, marks) in (0..EPOCHS / 2).zip(&found) {
                match epoch <= committed {
                    true => history.committed.apply(marks),
                    false => history.sealed.push((Epoch(epoch), marks.clone())),
                }
            }
            let expected = expected(&found, committed);
            let (sender, receiver) = channel();
            let sender = Mutex::new(sender);
            let guards = timely::execute(timely::Config::process(workers), move |worker| {
                let index = worker.index();
                let mut random = fastrand::Rng::with_seed(seed + index as u64);
                let sender = sender.lock().expect("nobody panicked").clone();
                let parts = WatermarkParts {
                    source: "s".to_owned(),
                    resumed: Epoch(committed),
                    history: history.clone(),
                    counters: Arc::default(),
                };
                let ((mut input, mut cap), _unsealed) = worker.dataflow::<u64, _, _>(|scope| {
                    let (input, marks) = scope.new_unordered_input();
                    let (other, unsealed) =
                        scope.new_unordered_input::<CapacityContainerBuilder<Vec<()>>>();
                    watermark(marks, unsealed, parts).capture_into(sender);
                    // Dropped at once: everything is sealed.
                    (input, other.0)
                });
                for epoch in EPOCHS / 2..EPOCHS {
                    cap.downgrade(&epoch);
                    let marks = found[epoch as usize][index].clone();
                    if !marks.is_empty() {
                        input.activate().session(&cap).give(marks);
                    }
                    if random.bool() {
                        worker.step();
                    }
                }
            });
            drop(guards.expect("runs"));
            let captured = receiver.extract().into_iter();
            let mut moves: Vec<_> = captured
                .flat_map(|(epoch, moves)| moves.into_iter().map(move |at| (epoch, at)))
                .collect();
            moves.sort_unstable();
            let everyone = expected.iter().flat_map(|at| vec![*at; workers]);
            assert_eq!(moves, everyone.collect::<Vec<_>>(), "{workers} workers");
        }
    }

    #[test]
    fn the_watermark_waits_for_the_seal() {
        timely::execute_directly(|worker| {
            let ((mut input, mut cap), (_unsealed, mut unsealed_cap), probe) = worker
                .dataflow::<u64, _, _>(|scope| {
                    use timely::dataflow::operators::Probe;
                    let (input, marks) = scope.new_unordered_input();
                    let (other, unsealed) =
                        scope.new_unordered_input::<CapacityContainerBuilder<Vec<()>>>();
                    let parts = WatermarkParts {
                        source: "s".to_owned(),
                        resumed: Epoch(0),
                        history: MarkHistory::default(),
                        counters: Arc::default(),
                    };
                    let (probe, _) = watermark(marks, unsealed, parts).probe();
                    (input, other, probe)
                });
            let mut marks = Marks::default();
            let range = FeedRangeId("-FF".to_owned());
            marks.begun = Some([range.clone()].into());
            let mark = Mark {
                at_ms: 7,
                idle: false,
            };
            marks.note(range, mark);
            cap.downgrade(&3);
            input.activate().session(&cap).give(marks);
            cap.downgrade(&4);
            for (sealed, passed) in [(3, false), (4, true)] {
                unsealed_cap.downgrade(&sealed);
                for _ in 0..50 {
                    worker.step();
                }
                assert_eq!(!probe.less_equal(&3), passed, "sealed below {sealed}");
            }
        });
    }
}
