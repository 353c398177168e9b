//! What the figures cost. For a look by hand: `cargo test --release -p tidefeed-runtime --lib figures_cost -- --ignored --nocapture`.

use differential_dataflow::input::Input as _;
use differential_dataflow::operators::CountTotal;

use super::arranged::watch_arrangements;
use super::*;

const ROUNDS: usize = 30;

/// Operators that do hardly anything: the worst there is.
fn bare(worker: &mut Worker, epochs: u64, records: u64) {
    let probe = ProbeHandle::new();
    let mut input = worker.dataflow::<u64, _, _>(|scope| {
        let (input, mut stream) = scope.new_input::<u64>();
        stream = stream.exchange(|record| *record);
        for _ in 0..10 {
            stream = stream.map(|record| record.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1);
        }
        stream.probe_with(&probe);
        input
    });
    for epoch in 1..=epochs {
        (0..records).for_each(|record| input.send(record));
        input.advance_to(epoch);
        worker.step_while(|| probe.less_than(&epoch));
    }
}

/// A view as jobs have them: rows come and go, and are counted by a key.
fn counted(worker: &mut Worker, epochs: u64, records: u64) {
    let probe = ProbeHandle::new();
    let mut input = worker.dataflow::<u64, _, _>(|scope| {
        let (input, rows) = scope.new_collection::<(u64, u64), isize>();
        let counts = rows.map(|(key, _)| key).count_total();
        counts
            .map(|(key, count)| (count, key))
            .count_total()
            .probe_with(&probe);
        input
    });
    let mut row = 0;
    for epoch in 1..=epochs {
        for _ in 0..records {
            row += 1;
            input.insert((row % 10_007, row));
        }
        input.advance_to(epoch);
        input.flush();
        worker.step_while(|| probe.less_than(&epoch));
    }
}

/// What this thread has had of a core: what else the machine does costs the caches only.
fn at_work() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanos = told.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

fn timed(on: bool, run: fn(&mut Worker, u64, u64), epochs: u64, records: u64) -> Duration {
    timely::execute_directly(move |worker| {
        let figures = Figures::default();
        figures.switch(on);
        register(worker, 1, &figures);
        watch_arrangements(worker, &figures);
        let begun = at_work();
        run(worker, epochs, records);
        at_work().saturating_sub(begun)
    })
}

#[test]
#[ignore = "a measurement, which needs the machine for itself"]
fn figures_cost_little() {
    type Run = fn(&mut Worker, u64, u64);
    let runs: [(&str, Run, u64, u64); 5] = [
        ("bare, 100,000 records an epoch", bare, 30, 100_000),
        ("bare, 1000 records an epoch", bare, 2000, 1000),
        ("bare, 10 records an epoch", bare, 5000, 10),
        ("counted, 10,000 rows an epoch", counted, 40, 10_000),
        ("counted, 100 rows an epoch", counted, 2000, 100),
    ];
    for (what, run, epochs, records) in runs {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            for on in [round % 2 == 0, round % 2 == 1] {
                let into = if on { &mut with } else { &mut without };
                into.push(timed(on, run, epochs, records));
            }
        }
        without.sort_unstable();
        with.sort_unstable();
        let ratio = |at: usize| without[at].as_secs_f64() / with[at].as_secs_f64();
        let each = |all: &[Duration]| all[0].as_secs_f64() * 1e6 / epochs as f64;
        println!(
            "{what}: {:.1} us an epoch without, {:.1} with; throughput {:.4} (best), {:.4} (median)",
            each(&without),
            each(&with),
            ratio(0),
            ratio(ROUNDS / 2),
        );
    }
}
