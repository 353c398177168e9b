//! Simulation.
mod server;
mod world;
use super::{Budget, FlowConfig};
use server::Shape;
use world::{Outcome, Plan, WriterPlan, run};

const SHAPES: [Shape; 3] = [Shape::Bucket, Shape::Window, Shape::NoBank];
const TRIPS: [(f64, f64); 4] = [(1.0, 1.5), (4.0, 6.0), (15.0, 20.0), (1.0, 20.0)];

fn writer(reference: Option<f64>) -> WriterPlan {
    WriterPlan { server: 0, pool: 0, from_s: 1.0, config: FlowConfig::default(), reference }
}

fn plan(shape: Shape, limit: f64, trip: (f64, f64), seed: u64) -> Plan {
    Plan {
        shape, limits: vec![limit], changes: vec![], round_trip_ms: trip,
        writers: vec![writer(Some(limit))], pools: vec![64], until_s: 311.0, seed,
    }
}

fn worst(o: &Outcome, from: f64, to: f64, limit: f64, w: f64) -> (f64, f64) {
    let (mut u, mut p) = (f64::MAX, 0.0f64);
    let mut at = from;
    while at + w <= to {
        u = u.min(o.ru_per_s(at, at + w, |_| true) / limit);
        p = p.max(o.throttled_requests(at, at + w));
        at += 1.0;
    }
    (u * 100.0, p * 100.0)
}

#[test]
fn table() {
    let seeds: u64 = std::env::var("TIDEFEED_BULK_SEEDS").map_or(3, |s| s.parse().unwrap());
    let what = std::env::var("WHAT").unwrap_or_default();
    if what.contains('s') {
    println!("steady: limit ref shape trip: used% 429req% 429op%  worst5s used, 429 req/s");
    for limit in [1000.0, 4000.0] {
        for known in [true, false] {
            for shape in SHAPES { for trip in TRIPS {
                let mut w = [f64::MAX, 0.0, 0.0, f64::MAX, 0.0, 0.0];
                for seed in 0..seeds {
                    let mut p = plan(shape, limit, trip, seed);
                    if !known { p.writers[0].reference = None; }
                    let o = run(p);
                    let (u5, p5) = worst(&o, 11.0, 311.0, limit, 5.0);
                    w[0] = w[0].min(o.ru_per_s(11.0, 311.0, |_| true) / limit * 100.0);
                    w[1] = w[1].max(o.throttled_requests(11.0, 311.0) * 100.0);
                    w[2] = w[2].max(o.throttled_operations(11.0, 311.0) * 100.0);
                    w[3] = w[3].min(u5); w[4] = w[4].max(p5);
                    w[5] = o.records.len() as f64 / 310.0;
                }
                println!("{limit} {known} {shape:?} {trip:?}: {:.1} {:.2} {:.2}  {:.1} {:.1} {:.0}", w[0], w[1], w[2], w[3], w[4], w[5]);
            }}
        }
    }
    } if what.contains('c') {
    println!("change: shape trip factor: first 5s window after change ok at +s; [10s,40s] used, 429");
    for known in [true, false] { for factor in [2.0, 0.5] { for shape in SHAPES { for trip in TRIPS {
        let mut w = [f64::MAX, 0.0, f64::MAX, 0.0, 0.0];
        for seed in 0..seeds {
            let mut p = plan(shape, 1000.0, trip, seed);
            p.changes = vec![(61.0, 0, 1000.0 * factor)];
            p.until_s = 131.0;
            if !known { p.writers[0].reference = None; }
            let o = run(p);
            let l = 1000.0 * factor;
            w[0] = w[0].min(o.ru_per_s(71.0, 131.0, |_| true) / l * 100.0);
            w[1] = w[1].max(o.throttled_requests(71.0, 131.0) * 100.0);
            let (u, q) = worst(&o, 71.0, 131.0, l, 5.0);
            w[2] = w[2].min(u); w[3] = w[3].max(q);
            // last second in which it was out of bounds
            let mut s: f64 = 0.0; 
            for i in 0..30 { let a = 61.0 + f64::from(i); let (u, q) = worst(&o, a, a + 2.0, l, 2.0); if u < 95.0 || q > 5.0 { s = f64::from(i) + 1.0; } else if f64::from(i) > s + 4.0 { break; } }
            w[4] = w[4].max(s);
        }
        println!("{known} x{factor} {shape:?} {trip:?}: {:.1} {:.2}  {:.1} {:.1} last bad second {}", w[0], w[1], w[2], w[3], w[4]);
    }}}}
    } if what.contains('t') {
    println!("two writers: known shape trip: ratio[30..60 after] ratio [60..120] ratio [120..240], used, 429");
    for known in [true, false] { for shape in SHAPES { for trip in TRIPS {
        let mut w = [f64::MAX, f64::MAX, f64::MAX, f64::MAX, 0.0];
        for seed in 0..seeds {
            let mut p = plan(shape, 1000.0, trip, seed);
            let r = if known { Some(1000.0) } else { None };
            p.writers = vec![writer(r), WriterPlan { from_s: 61.0, ..writer(r) }];
            let o = run(p);
            for (i, (a, b)) in [(91.0, 121.0), (121.0, 181.0), (181.0, 301.0)].into_iter().enumerate() {
                let x = o.ru_per_s(a, b, |r| r.writer == 0); let y = o.ru_per_s(a, b, |r| r.writer == 1);
                w[i] = w[i].min((x / y).min(y / x));
            }
            w[3] = w[3].min(o.ru_per_s(71.0, 301.0, |_| true) / 10.0);
            w[4] = w[4].max(o.throttled_requests(71.0, 301.0) * 100.0);
        }
        println!("{known} {shape:?} {trip:?}: {:.2} {:.2} {:.2}  {:.1} {:.2}", w[0], w[1], w[2], w[3], w[4]);
    }}}
    } if what.contains('b') {
    println!("budget");
    for (limit, budget) in [(1000.0, Budget::RuPerSecond(300.0)), (4000.0, Budget::Fraction(0.5)), (1000.0, Budget::RuPerSecond(100.0))] {
        for shape in SHAPES { for trip in TRIPS {
            let b = match budget { Budget::RuPerSecond(b) => b, Budget::Fraction(f) => f * limit };
            let mut w = [0.0f64, f64::MAX, 0.0];
            for seed in 0..seeds {
                let mut p = plan(shape, limit, trip, seed);
                p.until_s = 61.0;
                p.writers[0].config.budget = Some(budget);
                let o = run(p);
                w[0] = w[0].max(o.busiest_second() / b);
                w[1] = w[1].min(o.ru_per_s(11.0, 61.0, |_| true) / b);
                w[2] = o.throttled_requests(1.0, 61.0);
            }
            println!("{budget:?} {shape:?} {trip:?}: busiest {:.3} mean {:.3} 429 {:.3}", w[0], w[1], w[2]);
        }}
    }
    } if what.contains('u') {
    println!("unlimited");
    for known in [None, Some(400.0), Some(1000.0), Some(10000.0)] { for trip in TRIPS {
        let mut p = plan(Shape::Unlimited, 0.0, trip, 1);
        p.writers[0].reference = known;
        p.until_s = 11.0;
        let o = run(p);
        println!("{known:?} {trip:?}: last wait {:.2}s ops/s {:.0}", o.last_wait_s - 1.0, o.records.iter().filter(|r| r.arrived_s > 3.0).map(|r| r.ops).sum::<usize>() as f64 / 8.0);
    }}
    } if what.contains('o') {
    println!("one of four at 10 %");
    for shape in SHAPES { for trip in TRIPS {
        let four = |slow: f64| {
            let mut p = plan(shape, 1000.0, trip, 1);
            p.limits = vec![slow, 1000.0, 1000.0, 1000.0];
            p.writers = (0..4).map(|server| WriterPlan { server, ..writer(Some(1000.0)) }).collect();
            p.pools = vec![8];
            p.until_s = 61.0;
            run(p)
        };
        let (a, b) = (four(1000.0), four(100.0));
        let r: Vec<_> = (1..4).map(|s| b.ru_per_s(11.0, 61.0, |r| r.server == s) / a.ru_per_s(11.0, 61.0, |r| r.server == s)).collect();
        println!("{shape:?} {trip:?}: {r:.3?} hot {:.1}", b.ru_per_s(11.0, 61.0, |r| r.server == 0));
    }}
    }
}
