//! The rules one by one, and that no sequence of answers stops a flow for good.

use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn paid(ru: f64) -> Seen {
    Seen {
        charge: Some(ru),
        ..Seen::default()
    }
}

fn throttled(ops: usize, retry_after: Duration) -> Seen {
    Seen {
        throttled_ops: ops,
        retry_after,
        ..paid(0.0)
    }
}

/// Waits until the flow permits a request, and says how long that took.
fn wait(flow: &mut Flow, now: &mut Duration) -> Duration {
    let from = *now;
    for _ in 0..100 {
        match flow.permit(*now) {
            Permit::Go { max_ops, max_bytes } => {
                assert!(max_ops > 0 && max_bytes > 0);
                return *now - from;
            }
            Permit::Wait(wait) => {
                assert!(wait > Duration::ZERO);
                *now += wait;
            }
            Permit::AwaitAnswer => panic!("nothing is in flight"),
        }
    }
    panic!("asked a hundred times: {flow:?}");
}

#[test]
fn a_request_for_retry_after_is_honoured_and_bounded() {
    for (asked, most) in [(ms(700), ms(800)), (SECOND * 86_400, SECOND * 61)] {
        let mut now = SECOND;
        let mut flow = Flow::new(FlowConfig::default(), Some(1_000.0), now);
        let sent = flow.sent(now, 1, 300);
        now += ms(5);
        flow.answered(now, sent, &throttled(1, asked));
        assert_eq!(flow.figures(now).pause, asked.min(SECOND * 60));
        let waited = wait(&mut flow, &mut now);
        assert!(
            asked.min(SECOND * 60) <= waited && waited < most,
            "{waited:?}"
        );
    }
}

#[test]
fn answers_to_what_was_sent_before_a_cut_do_not_cut_again() {
    let mut flow = Flow::new(FlowConfig::default(), Some(1_000.0), SECOND);
    let sent: Vec<_> = (0..4).map(|_| flow.sent(SECOND, 1, 300)).collect();
    assert_eq!(flow.permit(SECOND), Permit::AwaitAnswer);
    let before = flow.figures(SECOND).rate;
    for sent in sent {
        flow.answered(SECOND + ms(5), sent, &throttled(1, ms(5)));
    }
    let after = flow.figures(SECOND).rate;
    assert!((after / before - CUT).abs() < 1e-9, "{before} {after}");
}

#[test]
fn what_is_not_about_request_units_pauses_and_cuts_once_a_second() {
    let mut now = SECOND;
    let mut flow = Flow::new(FlowConfig::default(), Some(1_000.0), now);
    let before = flow.figures(now).rate;
    let mut waits = Vec::new();
    for _ in 0..4 {
        let sent = flow.sent(now, 1, 300);
        let seen = Seen {
            refused_ops: 1,
            ..paid(0.0)
        };
        flow.answered(now, sent, &seen);
        waits.push(wait(&mut flow, &mut now).as_millis());
    }
    assert_eq!(waits, [50, 100, 200, 400]);
    let after = flow.figures(now).rate;
    assert!((after / before - CUT).abs() < 1e-9, "{before} {after}");
}

#[test]
fn timeouts_halve_what_is_in_flight_and_the_bytes_and_both_come_back() {
    let mut now = SECOND;
    let mut flow = Flow::new(FlowConfig::default(), None, now);
    let bytes = |flow: &Flow| flow.max_bytes;
    let first = bytes(&flow);
    for seen in [Some(0.0), None] {
        let sent = flow.sent(now, 100, first);
        let seen = Seen {
            charge: seen,
            overloaded: true,
            ..Seen::default()
        };
        flow.answered(now, sent, &seen);
    }
    assert_eq!(flow.figures(now).max_in_flight, 1);
    assert_eq!(bytes(&flow), LEAST_BYTES);
    for _ in 0..500 {
        now += ms(100);
        let sent = flow.sent(now, 100, bytes(&flow));
        flow.answered(now + ms(20), sent, &paid(1_000.0));
    }
    assert_eq!(flow.figures(now).max_in_flight, 4);
    assert_eq!(bytes(&flow), FlowConfig::default().max_bytes);
}

#[test]
fn a_lost_request_is_paid_for_and_one_never_written_is_not() {
    let now = SECOND;
    let mut flow = Flow::new(FlowConfig::default(), Some(1_000.0), now);
    flow.permit(now);
    let before = flow.tokens;
    let sent = flow.sent(now, 1, 300);
    let estimate = sent.estimate;
    flow.answered(now, sent, &Seen::default());
    assert_eq!(flow.tokens, before);
    let sent = flow.sent(now, 1, 300);
    let seen = Seen {
        overloaded: true,
        ..Seen::default()
    };
    flow.answered(now, sent, &seen);
    assert!((before - flow.tokens - estimate).abs() < 1e-9);
}

#[test]
fn an_idle_flow_has_no_burst() {
    let mut flow = Flow::new(FlowConfig::default(), Some(1_000.0), Duration::ZERO);
    let now = SECOND * 3_600;
    let mut ru = 0.0;
    while let Permit::Go { max_ops, .. } = flow.permit(now) {
        let sent = flow.sent(now, max_ops, 300 * max_ops);
        ru += 10.0 * max_ops as f64;
        flow.answered(now, sent, &paid(10.0 * max_ops as f64));
    }
    assert!((10.0..=60.0).contains(&ru), "{ru}");
}

#[test]
fn an_operation_that_costs_more_than_a_second_has_makes_progress_at_the_rate() {
    for budget in [None, Some(Budget::RuPerSecond(100.0))] {
        let config = FlowConfig {
            budget,
            ..FlowConfig::default()
        };
        let mut now = SECOND;
        let mut flow = Flow::new(config, Some(100.0), now);
        flow.doubling_from = None;
        for _ in 0..20 {
            wait(&mut flow, &mut now);
            let sent = flow.sent(now, 1, 300);
            flow.answered(now + ms(5), sent, &paid(500.0));
        }
        // 20 operations of 5 seconds' worth each.
        let took = (now - SECOND).as_secs_f64();
        assert!((80.0..=120.0).contains(&took), "{took}");
    }
}

#[test]
fn no_sequence_of_answers_stops_a_flow_for_good() {
    for seed in seeds(200) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = SECOND;
        let mut flow = any_flow(&mut random, now);
        let mut in_flight = Vec::new();
        for _ in 0..random.usize(1..400) {
            if let Permit::Go { max_ops, .. } = flow.permit(now) {
                let ops = random.usize(1..=max_ops);
                in_flight.push(flow.sent(now, ops, random.usize(..2_000_000)));
            }
            if !in_flight.is_empty() && random.u32(..3) > 0 {
                let sent = in_flight.swap_remove(random.usize(..in_flight.len()));
                let seen = any_seen(&mut random, sent.ops);
                flow.answered(now, sent, &seen);
            }
            if random.u32(..50) == 0 {
                flow.reference(any_reference(&mut random));
            }
            now += Duration::from_micros(1 << random.u32(..27));
        }
        for sent in in_flight {
            let seen = any_seen(&mut random, sent.ops);
            flow.answered(now, sent, &seen);
        }
        let waited = wait(&mut flow, &mut now);
        // The longest pause, and then the longest debt.
        assert!(
            waited <= SECOND * 122,
            "TIDEFEED_SEED={seed}: {waited:?}, {flow:?}"
        );
    }
}

fn any_flow(random: &mut fastrand::Rng, now: Duration) -> Flow {
    let config = FlowConfig {
        budget: match random.u32(..3) {
            0 => Some(Budget::RuPerSecond(random.f64() * 1_000.0)),
            1 => Some(Budget::Fraction(random.f64())),
            _ => None,
        },
        max_in_flight: random.usize(1..10),
        ..FlowConfig::default()
    };
    Flow::new(config, any_reference(random), now)
}

fn any_reference(random: &mut fastrand::Rng) -> Option<f64> {
    let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e18];
    match random.u32(..4) {
        0 => None,
        1 => Some(odd[random.usize(..odd.len())]),
        _ => Some(10f64.powf(random.f64() * 5.0)),
    }
}

fn any_seen(random: &mut fastrand::Rng, ops: usize) -> Seen {
    let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e15];
    Seen {
        charge: match random.u32(..5) {
            0 => None,
            1 => Some(odd[random.usize(..odd.len())]),
            _ => Some(20.0 * random.f64() * ops as f64),
        },
        throttled_ops: if random.bool() {
            random.usize(..=ops)
        } else {
            0
        },
        refused_ops: (random.u32(..5) == 0) as usize,
        retry_after: match random.u32(..10) {
            0 => Duration::MAX,
            1 => SECOND * random.u32(..100_000),
            _ => ms(random.u64(..100)),
        },
        overloaded: random.u32(..5) == 0,
        too_large: random.u32(..10) == 0,
    }
}

/// Seeds to try: `TIDEFEED_SEED=17` is that one only, `TIDEFEED_BULK_SEEDS=1000` so many.
pub(super) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is a number")),
        )
    };
    match number("TIDEFEED_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDEFEED_BULK_SEEDS").unwrap_or(usual),
    }
}
