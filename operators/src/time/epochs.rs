//! The epochs of a run, in order: those that are replayed, and those that are minted.
//!
//! 1. First the epochs that the [loader](tidefeed_runtime::loader) tells of: that of the commit and those sealed beyond it. Then every
//!    tick. Each worker sees each epoch once, as a record at its own time.
//! 2. The record goes downstream at once, so that whoever reads it can say what falls due in the epoch. But the stream stays at an
//!    epoch until that is sealed (I1): something may be made from the passing of time alone, without any source above it.
//!
//! After a failure the capabilities stay: `sealed_through` does not move any more.

use std::collections::VecDeque;

use tidefeed_runtime::Ledger;
use tidefeed_runtime::bridge::{Inbox, Waker};
use tidefeed_runtime::loader::Loaded;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// Puts the epochs that are replayed before those that are minted. `ticks` must have each epoch on every worker.
pub fn epochs<'scope>(
    ticks: StreamVec<'scope, u64, u64>,
    mut load: Inbox<Loaded>,
    ledger: Ledger,
) -> StreamVec<'scope, u64, u64> {
    let scope = ticks.scope();
    let mut builder = OperatorBuilder::new("Epochs".to_owned(), scope);
    let mut ticks = builder.new_input(ticks, Pipeline);
    let (output, epochs) = builder.new_output();
    let mut output = OutputBuilder::from(output);
    let info = builder.operator_info();
    let wakes = || scope.worker().sync_activator_for(info.address.to_vec());
    load.attach(wakes());
    let sealed = Waker::default();
    sealed.attach(wakes());
    ledger.wake_when_sealed(sealed);
    builder.build(move |mut caps| {
        let mut load_cap = caps.pop();
        let mut unsealed_caps: VecDeque<Capability<u64>> = VecDeque::new();
        move |_frontiers| {
            let mut output = output.activate();
            // 1. What is replayed. The next to arrive wakes the operator.
            while let Some(cap) = &mut load_cap {
                match load.try_next() {
                    Some(Loaded::Records(chunk)) => {
                        cap.downgrade(&chunk.epoch.0);
                        output.session(cap).give(chunk.epoch.0);
                    }
                    // Dropped: from here on the stream follows the ticks.
                    Some(Loaded::All) => load_cap = None,
                    None => break,
                }
            }
            // 2. Let go of what is sealed.
            let sealed = ledger.sealed_through();
            while unsealed_caps
                .front()
                .is_some_and(|cap| *cap.time() <= sealed.0)
            {
                unsealed_caps.pop_front();
            }
            // 3. What is minted.
            ticks.for_each(|cap, minted| {
                for epoch in minted.drain(..) {
                    let cap = cap.delayed(&epoch, 0);
                    output.session(&cap).give(epoch);
                    unsealed_caps.push_back(cap);
                }
            });
        }
    });
    epochs
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tidefeed_runtime::Epoch;
    use tidefeed_runtime::bridge::ByteBudget;
    use tidefeed_runtime::loader::Chunk;
    use timely::dataflow::operators::probe::Handle;
    use timely::dataflow::operators::{Input, Inspect, Probe};

    use super::*;

    #[test]
    fn replayed_epochs_come_first_and_no_epoch_passes_before_it_is_sealed() {
        let tokio = tokio::runtime::Builder::new_current_thread().build();
        let tokio = tokio.expect("a runtime");
        timely::execute_directly(move |worker| {
            let ledger = Ledger::new(Epoch(3), Epoch(5));
            let (sender, inbox) = Inbox::new(4);
            let seen = Rc::new(RefCell::new(Vec::new()));
            let (probe, found) = (Handle::new(), Rc::clone(&seen));
            let mut ticks = worker.dataflow::<u64, _, _>(|scope| {
                let (handle, ticks) = scope.new_input::<Vec<u64>>();
                epochs(ticks, inbox, ledger.clone())
                    .inspect(move |epoch| found.borrow_mut().push(*epoch))
                    .probe_with(&probe);
                handle
            });
            ticks.advance_to(7);
            ticks.send(7);
            ticks.advance_to(8);
            let mut step = || {
                for _ in 0..20 {
                    worker.step();
                }
            };
            step();
            assert!(probe.less_equal(&0), "the load has not begun");
            let budget = ByteBudget::new(1000);
            for epoch in [3, 5] {
                let chunk = tokio.block_on(Chunk::within(&budget, Epoch(epoch), Vec::new()));
                tokio.block_on(sender.send(Loaded::Records(chunk)));
                step();
                assert!(probe.less_equal(&epoch) && !probe.less_than(&epoch));
            }
            tokio.block_on(sender.send(Loaded::All));
            step();
            assert!(probe.less_equal(&7) && !probe.less_than(&7));
            let mut all = seen.borrow().clone();
            all.sort_unstable();
            assert_eq!(all, [3, 5, 7]);
            ledger.sealed(Epoch(7), None);
            step();
            assert!(!probe.less_than(&8));
        });
    }
}
