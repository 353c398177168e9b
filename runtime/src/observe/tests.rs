use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Input, Map, ToStream};
use timely::dataflow::operators::{Concat, Enter, Exchange, Leave, Probe};
use timely::dataflow::{ProbeHandle, StreamVec};
use timely::worker::Worker;

use super::*;
use crate::{Epoch, Ledger, run_workers};

mod arranged;
mod cost;

fn ledger() -> Ledger {
    Ledger::new(Epoch(0), Epoch(0))
}

/// An operator that is at it for so long for each batch of records.
fn dawdle<'scope>(
    records: StreamVec<'scope, u64, u64>,
    name: &str,
    long: Duration,
) -> StreamVec<'scope, u64, u64> {
    records.unary(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|cap, records| {
                let begun = Instant::now();
                while begun.elapsed() < long {
                    std::hint::spin_loop();
                }
                output.session(&cap).give_container(records);
            });
        }
    })
}

/// The one operator with this name.
fn named<'a>(figures: &'a WorkerFigures, name: &str) -> &'a OperatorFigures {
    let mut found = figures.operators.iter().filter(|one| &*one.name == name);
    let one = found.next().expect("it was built");
    assert!(found.next().is_none(), "{name} is there twice");
    one
}

/// What runs from an operator to another.
fn between<'a>(figures: &'a WorkerFigures, from: &str, to: &str) -> &'a ChannelFigures {
    let (from, to) = (named(figures, from).id, named(figures, to).id);
    let mut channels = figures.channels.iter();
    let found = channels.find(|one| one.from == from && one.to == to);
    found.expect("they are connected")
}

/// Steps until what is seen of the only worker is as it should be.
fn step_until(worker: &mut Worker, figures: &Figures, holds: impl Fn(&WorkerFigures) -> bool) {
    let begun = Instant::now();
    loop {
        worker.step_or_park(Some(Duration::from_millis(5)));
        if figures.snapshot().first().is_some_and(&holds) {
            return;
        }
        let seen = figures.snapshot();
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen:#?}");
    }
}

#[test]
fn busy_operators_are_found_with_what_they_took() {
    for workers in [1, 2] {
        let ledger = ledger();
        run_workers(workers, None, &ledger, |worker| {
            let mine = if worker.index() == 0 { 10_000 } else { 0 };
            worker.dataflow::<u64, _, _>(|scope| {
                let records = ToStream::to_stream(0..mine, scope).exchange(|record| *record);
                let quick = dawdle(records, "Quick", Duration::ZERO);
                dawdle(quick, "Slow", Duration::from_millis(5)).map(|record| record + 1);
            });
            Ok(())
        })
        .expect("runs");
        let all = ledger.operator_figures().snapshot();
        assert_eq!(all.len(), workers);
        for (index, figures) in all.iter().enumerate() {
            assert_eq!(figures.worker, index);
            let taken = 10_000 / workers as u64;
            for name in ["Exchange", "Quick", "Slow", "FlatMap"] {
                let one = named(figures, name);
                assert_eq!((one.records_in, one.queued), (taken, 0), "{name}");
                assert!(one.ended && one.own == one.busy && !one.is_scope);
            }
            let (slow, root) = (named(figures, "Slow"), &figures.operators[0]);
            assert!(slow.busy >= Duration::from_millis(5));
            assert!(slow.busy >= named(figures, "Quick").busy);
            assert!(root.scope.is_none() && root.is_scope && slow.scope == Some(root.id));
            assert_eq!(figures.busy, root.busy);
            assert!(figures.busy + figures.parked <= figures.since);
            let (sent, away) = match (index, workers) {
                (0, 1) => (10_000, 0),
                (0, _) => (10_000, 5000),
                _ => (0, 0),
            };
            let into = between(figures, "ToStreamBuilder", "Exchange");
            assert_eq!(
                (into.sent, into.sent_to_others, into.to_port),
                (sent, away, 0)
            );
            assert_eq!(into.received, taken);
            let within = between(figures, "Quick", "Slow");
            assert_eq!((within.sent, within.sent_to_others), (taken, 0));
        }
    }
}

#[test]
fn scopes_have_what_is_in_them_and_channels_run_through_their_edges() {
    let ledger = ledger();
    run_workers(1, None, &ledger, |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let source = ToStream::to_stream(0..5000_u64, scope);
            let first = dawdle(source, "First", Duration::ZERO);
            let out = scope.region_named("Outer", |outer| {
                let inner = outer.region_named("Inner", |inner| {
                    let records = first.clone().enter(outer).enter(inner);
                    dawdle(records, "Within", Duration::from_millis(2)).leave(outer)
                });
                dawdle(inner, "Beside", Duration::from_millis(2)).leave(scope)
            });
            let through =
                scope.region_named("Through", |through| first.enter(through).leave(scope));
            dawdle(out.concat(through), "Last", Duration::ZERO);
        });
        Ok(())
    })
    .expect("runs");
    let figures = ledger.operator_figures().snapshot().remove(0);
    let scope_of = |name: &str| {
        let scope = named(&figures, name).scope?;
        let mut operators = figures.operators.iter();
        let scope = operators.find(|one| one.id == scope);
        scope.map(|scope| scope.name.to_string())
    };
    let scopes = ["Within", "Inner", "Beside"].map(|name| scope_of(name).expect("a scope"));
    assert_eq!(scopes, ["Inner", "Outer", "Outer"]);
    let busy = |name: &str| named(&figures, name).busy;
    assert!(busy("Inner") >= busy("Within") && busy("Within") >= Duration::from_millis(2));
    assert!(busy("Outer") >= busy("Inner") + busy("Beside"));
    assert_eq!(named(&figures, "Inner").records_in, 5000, "what entered it");
    for scope in ["Outer", "Inner", "Through"] {
        assert!(named(&figures, scope).is_scope, "{scope}");
    }
    let order: Vec<_> = figures.operators.iter().map(|one| &one.address).collect();
    assert!(order.is_sorted());
    for (from, to) in [
        ("First", "Within"),
        ("Within", "Beside"),
        ("Beside", "Concatenate"),
    ] {
        assert_eq!(between(&figures, from, to).received, 5000, "{from} to {to}");
    }
    assert_eq!(between(&figures, "First", "Concatenate").received, 5000);
    assert_eq!(between(&figures, "Concatenate", "Last").received, 10_000);
    let scopes: Vec<_> = figures
        .operators
        .iter()
        .filter(|one| one.is_scope)
        .collect();
    let ends = |id: usize| {
        figures
            .channels
            .iter()
            .any(|one| one.from == id || one.to == id)
    };
    assert!(!scopes.iter().any(|scope| ends(scope.id)));
}

#[test]
fn what_is_not_taken_is_queued_and_what_is_said_is_told_while_the_worker_has_nothing_to_do() {
    timely::execute_directly(|worker| {
        let ledger = ledger();
        let figures = ledger.operator_figures().clone();
        register(worker, 1, &figures);
        let open = Rc::new(Cell::new(false));
        let opened = Rc::clone(&open);
        let mut input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, records) = scope.new_input();
            records
                .unary_frontier::<timely::container::CapacityContainerBuilder<Vec<u64>>, _, _, _>(
                    Pipeline,
                    "Waits",
                    |_cap, info| {
                        let gauge = ledger.operator_gauge(0, info.global_id);
                        move |(input, frontier), _output| {
                            gauge.frontier(frontier.frontier().as_option().copied());
                            if opened.get() {
                                input.for_each(|_, _| {});
                                gauge.rows(3);
                            }
                        }
                    },
                );
            input
        });
        input.advance_to(5);
        (0..100).for_each(|record: u64| input.send(record));
        input.flush();
        step_until(worker, &figures, |seen| {
            let one = named(seen, "Waits");
            one.queued == 100 && one.frontier == Some(Epoch(5)) && one.arranged_rows.is_none()
        });
        open.set(true);
        input.send(100);
        input.advance_to(7);
        step_until(worker, &figures, |seen| {
            let one = named(seen, "Waits");
            let state = (one.queued, one.records_in, one.frontier, one.arranged_rows);
            state == (0, 101, Some(Epoch(7)), Some(3)) && seen.operators[0].queued == 0
        });
        // It has nothing to do, and still says so.
        let before = figures.snapshot().remove(0);
        step_until(worker, &figures, |seen| {
            let since = seen.since.saturating_sub(before.since);
            let parked = seen.parked.saturating_sub(before.parked);
            since >= Duration::from_millis(200) && parked * 2 >= since
        });
        drop(input);
        step_until(worker, &figures, |seen| {
            named(seen, "Waits").frontier.is_none()
        });
    });
}

#[test]
fn nothing_grows_with_the_number_of_epochs() {
    timely::execute_directly(|worker| {
        let figures = Figures::default();
        register(worker, 1, &figures);
        let probe = ProbeHandle::new();
        let mut input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, records) = scope.new_input::<u64>();
            records
                .exchange(|record| *record)
                .map(|record| record)
                .probe_with(&probe);
            input
        });
        let mut run = |worker: &mut Worker, epochs: std::ops::Range<u64>| {
            for epoch in epochs {
                input.send(epoch);
                input.advance_to(epoch + 1);
                worker.step_while(|| probe.less_than(&(epoch + 1)));
            }
            let records = input.time().to_owned();
            step_until(worker, &figures, |seen| {
                named(seen, "FlatMap").records_in == records
            });
            let seen = figures.watch(0).seen.lock().clone();
            let (graph, sums) = (&seen.graph, &seen.sums);
            [
                graph.nodes.len() + graph.edges.len(),
                sums.own_ns.len(),
                sums.passed.len(),
                sums.ended.len(),
            ]
        };
        assert_eq!(run(worker, 0..10), run(worker, 10..3000));
    });
}

#[test]
fn it_can_be_off() {
    let ledger = ledger();
    ledger.operator_figures().switch(false);
    run_workers(1, None, &ledger, |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            ToStream::to_stream(0..10_u64, scope).map(|record| record);
        });
        Ok(())
    })
    .expect("runs");
    assert!(ledger.operator_figures().snapshot().is_empty());
    assert!(ledger.operator_figures().arrangements(0).is_none());
}
