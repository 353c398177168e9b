//! What Tidefeed's own operators take, beside those of differential dataflow that compute the same.
//!
//! ```text
//! cargo bench --bench operators
//! ```
//!
//! | figure | measures |
//! |---|---|
//! | `sum_by_speedup` | time of `explode` and `count_total` by that of `sum_by`: sum and count of each of 50 regions |
//! | `top_k_speedup` | time of `reduce` by that of `top_k`: the 10 largest orders of each of 500 regions |
//! | `sum_by_ns`, `top_k_ns` | nanoseconds for each change |
//!
//! One worker, 500,000 changes (100,000 for `top_k`) in epochs of 5,000, of which three in ten take an order back and bring it in another region. The
//! two take turns, each on the same changes; medians of five. The last line of the output is one JSON object.

use std::cmp::Reverse;
use std::time::Instant;

use differential_dataflow::VecCollection;
use differential_dataflow::input::Input;
use differential_dataflow::operators::CountTotal;
use serde::Serialize;
use tidefeed_benches::Outcome;
use tidefeed_benches::flights::mixed;
use tidefeed_benches::stats::{median, rounded};
use tidefeed_operators::sum_by::SumBy;
use tidefeed_operators::top_k::TopK;

/// What the shipped programs have.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PER_EPOCH: u64 = 5_000;
const ROUNDS: usize = 5;
const PLACES: usize = 10;

/// An order: its region, its number, and cents.
type Order = (String, u64, i64);
type Rows<'scope> = VecCollection<'scope, u64, Order, isize>;

#[derive(Serialize)]
struct Figures {
    sum_by_speedup: f64,
    sum_by_ns: f64,
    top_k_speedup: f64,
    top_k_ns: f64,
}

fn main() -> Outcome {
    let changes = 500_000;
    let (sums, sum_by) = in_turns(
        || {
            seconds(changes, 50, |rows| {
                let counted =
                    rows.explode(|(region, _, cents)| Some((region, (cents as isize, 1isize))));
                counted.count_total().probe().0
            })
        },
        || {
            seconds(changes, 50, |rows| {
                rows.sum_by(|(region, _, cents)| [(region, (cents as isize, 1isize))])
                    .probe()
                    .0
            })
        },
    );
    let ranked = 100_000;
    let (reduced, top_k) = in_turns(
        || {
            seconds(ranked, 500, |rows| {
                let reduced = rows.map(by_region).reduce(|_region, values, first| {
                    first.extend(
                        values
                            .iter()
                            .take(PLACES)
                            .map(|(value, _)| (**value, 1isize)),
                    );
                });
                reduced.probe().0
            })
        },
        || {
            seconds(ranked, 500, |rows| {
                rows.map(by_region).top_k(PLACES).probe().0
            })
        },
    );
    let figures = Figures {
        sum_by_speedup: rounded(sums / sum_by),
        sum_by_ns: rounded(sum_by * 1e9 / changes as f64),
        top_k_speedup: rounded(reduced / top_k),
        top_k_ns: rounded(top_k * 1e9 / ranked as f64),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn by_region((region, number, cents): Order) -> (String, (Reverse<i64>, u64)) {
    (region, (Reverse(cents), number))
}

/// The medians of both.
fn in_turns(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64) {
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        times.0.push(one());
        times.1.push(other());
    }
    (median(&times.0), median(&times.1))
}

/// How long a dataflow takes for so many changes of orders in so many regions.
fn seconds(
    changes: u64,
    regions: u64,
    build: impl Fn(Rows<'_>) -> timely::dataflow::ProbeHandle<u64> + Send + Sync + 'static,
) -> f64 {
    timely::execute_directly(move |worker| {
        let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, rows) = scope.new_collection();
            (input, build(rows))
        });
        let order = |number: u64, version: u64| -> Order {
            let random = mixed(number * 2 + version);
            (
                format!("region-{:02}", random % regions),
                number,
                (random % 100_000) as i64,
            )
        };
        let began = Instant::now();
        for epoch in 0..changes / PER_EPOCH {
            for number in epoch * PER_EPOCH..(epoch + 1) * PER_EPOCH {
                match number % 10 {
                    // An earlier order that no other change is about.
                    7.. if number > 10 => {
                        let earlier = number / 10 * 10 - 10 + (number % 10 - 7);
                        input.update(order(earlier, 0), -1);
                        input.update(order(earlier, 1), 1);
                    }
                    _ => input.update(order(number, 0), 1),
                }
            }
            input.advance_to(epoch + 1);
            input.flush();
            worker.step_while(|| probe.less_than(input.time()));
        }
        began.elapsed().as_secs_f64()
    })
}
