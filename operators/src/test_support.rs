//! What tests of several operators share.

use std::sync::{Mutex, mpsc};

use differential_dataflow::consolidation::consolidate_updates;
use differential_dataflow::input::Input;
use differential_dataflow::{ExchangeData, VecCollection};
use timely::dataflow::operators::Capture;
use timely::dataflow::operators::capture::{Event, Extract};

/// Updates of rows at epochs.
pub(crate) type Found<R> = Vec<(R, u64, isize)>;

type Rows<'scope, R> = VecCollection<'scope, u64, R, isize>;

/// What two operators make of the same updates, net, on so many workers that each bring a part of them.
pub(crate) fn both<R: ExchangeData + Sync, O: ExchangeData>(
    updates: Found<R>,
    workers: usize,
    ours: impl for<'scope> Fn(Rows<'scope, R>) -> Rows<'scope, O> + Send + Sync + 'static,
    theirs: impl for<'scope> Fn(Rows<'scope, R>) -> Rows<'scope, O> + Send + Sync + 'static,
) -> (Found<O>, Found<O>) {
    let (to_ours, our_rows) = mpsc::channel();
    let (to_theirs, their_rows) = mpsc::channel();
    let senders = Mutex::new((to_ours, to_theirs));
    let epochs = updates.iter().map(|(_, epoch, _)| epoch + 1).max();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (to_ours, to_theirs) = senders.lock().expect("nobody panicked").clone();
        let (index, peers) = (worker.index(), worker.peers());
        let mut input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, rows) = scope.new_collection::<R, isize>();
            ours(rows.clone()).inner.capture_into(to_ours);
            theirs(rows).inner.capture_into(to_theirs);
            input
        });
        for (row, epoch, diff) in updates.iter().skip(index).step_by(peers) {
            input.update_at(row.clone(), *epoch, *diff);
        }
        for epoch in 1..=epochs.unwrap_or(1) {
            input.advance_to(epoch);
            input.flush();
            worker.step();
        }
    });
    drop(guards.expect("runs"));
    (net(our_rows), net(their_rows))
}

fn net<O: ExchangeData>(captured: mpsc::Receiver<Event<u64, Found<O>>>) -> Found<O> {
    let captured = captured.extract().into_iter();
    let mut all: Found<O> = captured.flat_map(|(_, rows)| rows).collect();
    consolidate_updates(&mut all);
    all
}
