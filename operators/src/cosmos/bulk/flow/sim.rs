//! Flows against simulated partitions: the targets of the controller, for every way of metering, near and far.
//!
//! `TIDEFEED_BULK_SEEDS=200` tries so many seeds instead of a few, `TIDEFEED_SEED=17` one; `--nocapture` prints the figures, the
//! worst of all seeds. Operations cost 5.5 or 11 RU, each 20 % more or less, timers fire up to 2 ms late and sometimes 15 ms.
//! Writers start at 1 s, when buckets are full. Times are in seconds, shares between 0 and 1.

mod outcome;
mod server;
mod world;

use super::tests::seeds;
use super::{Budget, FlowConfig};
use outcome::Outcome;
use server::Shape;
use world::{Plan, WriterPlan, run};

const SHAPES: [Shape; 3] = [Shape::Bucket, Shape::Window, Shape::NoBank];
/// Shortest and longest round trip in milliseconds: near, in the region, far, and anything.
const TRIPS: [(f64, f64); 4] = [(1.0, 1.5), (4.0, 6.0), (15.0, 20.0), (1.0, 20.0)];

/// Every way of metering, every round trip, every seed.
fn each(usual: u64, mut check: impl FnMut(Shape, (f64, f64), &mut dyn Iterator<Item = u64>)) {
    for shape in SHAPES {
        for trip in TRIPS {
            check(shape, trip, &mut seeds(usual));
        }
    }
}

fn writer(reference: Option<f64>) -> WriterPlan {
    WriterPlan {
        server: 0,
        pool: 0,
        from_s: 1.0,
        config: FlowConfig::default(),
        reference,
    }
}

fn plan(shape: Shape, limit: f64, trip: (f64, f64), is_known: bool, seed: u64) -> Plan {
    Plan {
        shape,
        limits: vec![limit],
        changes: vec![],
        round_trip_ms: trip,
        writers: vec![writer(is_known.then_some(limit))],
        pools: vec![64],
        until_s: 311.0,
        seed,
    }
}

/// The worst of several runs.
#[derive(Debug)]
struct Worst {
    used: f64,
    throttled_requests: f64,
    throttled_operations: f64,
    /// Of any five seconds.
    used_5_s: f64,
    throttled_5_s: f64,
}

impl Worst {
    fn none() -> Self {
        Worst {
            used: f64::MAX,
            throttled_requests: 0.0,
            throttled_operations: 0.0,
            used_5_s: f64::MAX,
            throttled_5_s: 0.0,
        }
    }

    fn add(&mut self, seen: &Outcome, from: f64, to: f64, limit: f64) {
        let used = |from, to| seen.ru_per_s(from, to, |_| true) / limit;
        self.used = self.used.min(used(from, to));
        let requests = seen.throttled_requests(from, to);
        self.throttled_requests = self.throttled_requests.max(requests);
        let operations = seen.throttled_operations(from, to);
        self.throttled_operations = self.throttled_operations.max(operations);
        let mut at = from;
        while at + 5.0 <= to {
            self.used_5_s = self.used_5_s.min(used(at, at + 5.0));
            let throttled = seen.throttled_requests(at, at + 5.0);
            self.throttled_5_s = self.throttled_5_s.max(throttled);
            at += 1.0;
        }
    }

    fn is_within_bounds(&self) -> bool {
        self.used >= 0.95 && self.throttled_requests <= 0.05
    }

    fn is_steady(&self) -> bool {
        self.used_5_s >= 0.95 && self.throttled_5_s <= 0.05
    }
}

#[test]
fn one_writer_uses_what_is_provisioned() {
    for (limit, is_known) in [
        (1_000.0, true),
        (1_000.0, false),
        (4_000.0, true),
        (4_000.0, false),
    ] {
        each(1, |shape, trip, seeds| {
            let mut worst = Worst::none();
            for seed in seeds {
                let seen = run(plan(shape, limit, trip, is_known, seed));
                worst.add(&seen, 11.0, 311.0, limit);
                let ok = worst.is_within_bounds() && worst.is_steady();
                assert!(
                    ok,
                    "TIDEFEED_SEED={seed} {limit} {is_known} {shape:?} {trip:?} {worst:?}"
                );
            }
            println!("steady {limit} known {is_known} {shape:?} {trip:?} {worst:.4?}");
        });
    }
}

#[test]
fn a_changed_limit_is_settled_in_ten_seconds() {
    for (factor, is_known) in [(2.0, true), (2.0, false), (0.5, true), (0.5, false)] {
        each(1, |shape, trip, seeds| {
            let mut worst = Worst::none();
            let mut settled = 0.0f64;
            for seed in seeds {
                let mut plan = plan(shape, 1_000.0, trip, is_known, seed);
                plan.changes = vec![(61.0, 0, 1_000.0 * factor)];
                plan.until_s = 101.0;
                let seen = run(plan);
                worst.add(&seen, 71.0, 101.0, 1_000.0 * factor);
                settled = settled.max(settled_after(&seen, 61.0, 1_000.0 * factor));
                let ok = worst.is_within_bounds() && worst.is_steady();
                assert!(
                    ok,
                    "TIDEFEED_SEED={seed} {factor} {is_known} {shape:?} {trip:?} {worst:?}"
                );
            }
            println!(
                "x{factor} known {is_known} {shape:?} {trip:?} settled {settled} s {worst:.4?}"
            );
        });
    }
}

#[test]
fn a_storm_that_ends_is_over_in_ten_seconds() {
    for (storm_s, is_known) in [(2.0, true), (2.0, false), (20.0, true), (20.0, false)] {
        each(1, |shape, trip, seeds| {
            let mut worst = Worst::none();
            let mut settled = 0.0f64;
            for seed in seeds {
                let over = 61.0 + storm_s;
                let mut plan = plan(shape, 1_000.0, trip, is_known, seed);
                plan.changes = vec![(61.0, 0, 0.0), (over, 0, 1_000.0)];
                plan.until_s = over + 40.0;
                let seen = run(plan);
                worst.add(&seen, over + 10.0, over + 40.0, 1_000.0);
                settled = settled.max(settled_after(&seen, over, 1_000.0));
                let ok = worst.is_within_bounds() && worst.is_steady();
                assert!(
                    ok,
                    "TIDEFEED_SEED={seed} {storm_s} {is_known} {shape:?} {trip:?} {worst:?}"
                );
            }
            println!(
                "storm of {storm_s} s known {is_known} {shape:?} {trip:?} settled {settled} s {worst:.4?}"
            );
        });
    }
}

/// Seconds after `at` from which on the next five seconds are within the bounds.
fn settled_after(seen: &Outcome, at: f64, limit: f64) -> f64 {
    let mut last_bad = 0.0;
    for second in 0..25 {
        let from = at + f64::from(second);
        let mut worst = Worst::none();
        worst.add(seen, from, from + 5.0, limit);
        if !worst.is_within_bounds() {
            last_bad = f64::from(second) + 1.0;
        }
    }
    last_bad
}

#[test]
fn a_limit_that_appears_is_settled_in_ten_seconds() {
    for is_known in [true, false] {
        each(1, |shape, trip, seeds| {
            let mut worst = Worst::none();
            for seed in seeds {
                let mut plan = plan(shape, 1e9, trip, is_known, seed);
                plan.writers[0].reference = is_known.then_some(1_000.0);
                plan.changes = vec![(6.0, 0, 1_000.0)];
                plan.until_s = 31.0;
                worst.add(&run(plan), 16.0, 31.0, 1_000.0);
                let ok = worst.is_within_bounds();
                assert!(
                    ok,
                    "TIDEFEED_SEED={seed} {is_known} {shape:?} {trip:?} {worst:?}"
                );
            }
            println!("1e9 to 1000 known {is_known} {shape:?} {trip:?} {worst:.4?}");
        });
    }
}

#[test]
fn two_writers_share_fairly() {
    for is_known in [true, false] {
        each(1, |shape, trip, seeds| {
            let mut worst = Worst::none();
            let mut ratios = [f64::MAX; 3];
            let mut all = Vec::new();
            for seed in seeds {
                let mut plan = plan(shape, 1_000.0, trip, is_known, seed);
                let second = writer(plan.writers[0].reference);
                plan.writers.push(WriterPlan {
                    from_s: 61.0,
                    ..second
                });
                let seen = run(plan);
                worst.add(&seen, 71.0, 311.0, 1_000.0);
                let ratio = |from, to| {
                    let [first, second] =
                        [0, 1].map(|i| seen.ru_per_s(from, to, |r| r.writer == i));
                    (first / second).min(second / first)
                };
                let windows = [(91.0, 121.0), (121.0, 181.0), (181.0, 301.0)];
                for (worst, (from, to)) in ratios.iter_mut().zip(windows) {
                    *worst = worst.min(ratio(from, to));
                }
                all.push(ratio(181.0, 301.0));
                let ok = worst.is_within_bounds() && ratios[2] >= 0.7;
                assert!(
                    ok,
                    "TIDEFEED_SEED={seed} {is_known} {shape:?} {trip:?} {ratios:?} {worst:?}"
                );
            }
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            assert!(mean >= 0.8, "{is_known} {shape:?} {trip:?} {all:?}");
            println!("two known {is_known} {shape:?} {trip:?} {mean:.3} {ratios:.3?} {worst:.4?}");
        });
    }
}

#[test]
fn a_partition_throttled_to_a_tenth_leaves_the_others_alone() {
    each(1, |shape, trip, seeds| {
        for seed in seeds {
            let four = |slow: f64| {
                let mut plan = plan(shape, 1_000.0, trip, true, seed);
                plan.limits = vec![slow, 1_000.0, 1_000.0, 1_000.0];
                let writers = (0..4).map(|server| WriterPlan {
                    server,
                    ..writer(Some(1_000.0))
                });
                plan.writers = writers.collect();
                plan.pools = vec![8];
                plan.until_s = 41.0;
                run(plan)
            };
            let (even, uneven) = (four(1_000.0), four(100.0));
            let all = even.ru_per_s(11.0, 41.0, |_| true);
            assert!(
                all >= 0.95 * 4_000.0,
                "TIDEFEED_SEED={seed} {shape:?} {trip:?} {all}"
            );
            for server in 1..4 {
                let [fast, alone] =
                    [&uneven, &even].map(|seen| seen.ru_per_s(11.0, 41.0, |r| r.server == server));
                assert!(
                    fast >= 0.95 * alone,
                    "TIDEFEED_SEED={seed} {shape:?} {trip:?} {fast} {alone}"
                );
            }
        }
    });
}

#[test]
fn a_budget_is_never_exceeded_by_more_than_a_twentieth() {
    let cases = [
        (1_000.0, Budget::RuPerSecond(300.0), 300.0),
        (1_000.0, Budget::RuPerSecond(100.0), 100.0),
        (4_000.0, Budget::Fraction(0.5), 2_000.0),
        (4_000.0, Budget::Fraction(0.95), 3_800.0),
    ];
    for (limit, budget, ru) in cases {
        each(1, |shape, trip, seeds| {
            let (mut busiest, mut used) = (0.0f64, f64::MAX);
            for seed in seeds {
                let mut plan = plan(shape, limit, trip, true, seed);
                plan.writers[0].config.budget = Some(budget);
                plan.until_s = 41.0;
                let seen = run(plan);
                busiest = busiest.max(seen.busiest_second() / ru);
                used = used.min(seen.ru_per_s(11.0, 41.0, |_| true) / ru);
                let ok = busiest <= 1.05 && used >= 0.85;
                assert!(
                    ok,
                    "TIDEFEED_SEED={seed} {budget:?} {shape:?} {trip:?} {busiest} {used}"
                );
            }
            println!("{budget:?} {shape:?} {trip:?} busiest {busiest:.3} used {used:.3}");
        });
    }
}

#[test]
fn without_a_limit_nothing_is_paced_after_two_seconds() {
    for reference in [None, Some(400.0), Some(1_000.0), Some(10_000.0)] {
        for trip in TRIPS {
            for seed in seeds(1) {
                let mut plan = plan(Shape::Unlimited, 0.0, trip, false, seed);
                plan.writers[0].reference = reference;
                plan.until_s = 4.0;
                let last = run(plan).last_wait_s - 1.0;
                println!("unlimited {reference:?} {trip:?} last wait after {last:.2} s");
                assert!(
                    last <= 2.0,
                    "TIDEFEED_SEED={seed} {reference:?} {trip:?} {last}"
                );
            }
        }
    }
}
