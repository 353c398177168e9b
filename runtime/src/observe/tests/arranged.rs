//! Arrangements of differential itself. What hands on its log here is what a crate that knows differential does.

use differential_dataflow::input::Input;
use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use differential_dataflow::trace::{BatchReader, TraceReader};
use timely::progress::Antichain;

use super::*;

pub(super) fn watch_arrangements(worker: &Worker, figures: &Figures) {
    let Some(arrangements) = figures.arrangements(worker.index()) else {
        return;
    };
    let Some(mut register) = worker.log_register() else {
        return;
    };
    register.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
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

const KEYS: u64 = 2000;
const EPOCHS: u64 = 200;
const CHANGED: u64 = 50;

/// What is known of arrangement `Rows` on the worker.
fn rows(figures: &Figures, worker: usize) -> OperatorFigures {
    let all = figures.snapshot();
    let mine = all.iter().find(|one| one.worker == worker);
    named(mine.expect("it is watched"), "Rows").clone()
}

/// Every value of a key replaces the one before, so the collection always has one row for each key.
fn replaced_rows(worker: &mut Worker, figures: &Figures) {
    register(worker, worker.peers(), figures);
    watch_arrangements(worker, figures);
    let (index, peers) = (worker.index() as u64, worker.peers() as u64);
    let probe = ProbeHandle::new();
    let (mut input, mut trace) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, rows) = scope.new_collection::<(u64, u64), isize>();
        let arranged = rows.arrange_by_key_named("Rows");
        arranged.stream.clone().probe_with(&probe);
        (input, arranged.trace)
    });
    let mine = |key: &u64| key % peers == index;
    (0..KEYS)
        .filter(mine)
        .for_each(|key| input.insert((key, 0)));
    for epoch in 1..=EPOCHS {
        input.advance_to(epoch);
        input.flush();
        let upto = Antichain::from_elem(epoch.saturating_sub(1));
        trace.set_logical_compaction(upto.borrow());
        trace.set_physical_compaction(upto.borrow());
        worker.step_while(|| probe.less_than(&epoch));
        for key in (0..CHANGED).map(|at| (epoch * CHANGED + at) % KEYS) {
            if mine(&key) {
                let before = epoch.saturating_sub(KEYS / CHANGED);
                input.remove((key, before));
                input.insert((key, epoch));
            }
        }
    }
    input.advance_to(EPOCHS + 1);
    input.flush();
    worker.step_while(|| probe.less_than(&(EPOCHS + 1)));
    worker.step();
    let mut held = 0;
    trace.map_batches(|batch| held += batch.len() as u64);
    let told = rows(figures, worker.index());
    let all = told.arranged_rows.expect("it was told of");
    assert!(
        all >= held,
        "as many as its batches have, or had before a merge"
    );
    let live = KEYS / peers;
    assert!((live..=2 * live).contains(&all), "{all} rows for {live}");
    assert_eq!(told.batching_rows, Some(0));
    drop((input, trace));
    while worker.has_dataflows() {
        worker.step();
    }
    worker.step();
    assert_eq!(rows(figures, worker.index()).arranged_rows, Some(0));
}

#[test]
fn an_arrangement_has_the_rows_of_its_batches() {
    for workers in [1, 2] {
        let figures = Figures::default();
        let config = timely::Config::process(workers);
        let guards = timely::execute(config, move |worker| replaced_rows(worker, &figures));
        for result in guards.expect("starts").join() {
            result.expect("as told");
        }
    }
}
