//! Each kind from facts that have it, alone and among others; and an oracle for the order.

use std::time::Duration;

use super::*;
use crate::stall::{Awaited, DoingFact, LeaseFact, TargetWait};
use crate::{Epoch, FeedRangeId, Generation};

const AGE: Duration = Duration::from_secs(7);
const NOTICE: Duration = Duration::from_secs(2);

fn facts() -> Facts {
    Facts {
        process: 1,
        notice: NOTICE,
        phase: (Phase::Running, Duration::from_secs(100)),
        ledger: Some(LedgerFacts::default()),
        ..Facts::default()
    }
}

fn worker(inside: Option<&str>, passed: Option<&str>) -> WorkerFact {
    WorkerFact {
        worker: 3,
        since: AGE,
        building: false,
        inside: inside.map(str::to_owned),
        passed: passed.map(str::to_owned),
    }
}

fn a_range() -> RangeFact {
    RangeFact {
        source: "orders".to_owned(),
        range: FeedRangeId("-FF".to_owned()),
        worker: 2,
        asked: Some(AGE),
        answered: Some(AGE * 2),
        trouble: None,
        waits_for_room: None,
    }
}

fn a_sink(target: Option<TargetWait>) -> SinkFact {
    SinkFact {
        name: "totals".to_owned(),
        writing: Some((2, AGE)),
        scanning: None,
        target,
    }
}

fn a_member() -> MemberFact {
    MemberFact {
        process: 2,
        name: "process 2 at b:1".to_owned(),
        heard: Some(Duration::ZERO),
        sealed_through: Epoch(0),
        holding: None,
    }
}

/// Adds one cause to facts that are old enough to count, and says what is expected of it.
type Case = (Kind, fn(&mut Facts), &'static str);

fn ledger(facts: &mut Facts) -> &mut LedgerFacts {
    facts.ledger.as_mut().expect("there is one")
}

fn doing(facts: &mut Facts, doing: Doing) {
    let (since, quiet) = (AGE, AGE);
    ledger(facts).doing.push(DoingFact {
        doing,
        since,
        quiet,
    });
}

const CASES: &[Case] = &[
    (
        Kind::Silent,
        |f| {
            let heard = Some(AGE);
            ledger(f).members.push(MemberFact {
                heard,
                ..a_member()
            });
        },
        "process 2 at b:1 has said nothing",
    ),
    (
        Kind::Operator,
        |f| ledger(f).workers.push(worker(Some("Upsert: totals"), None)),
        "worker 3 does not come back from operator Upsert: totals",
    ),
    (
        Kind::Worker,
        |f| {
            let building = true;
            ledger(f).workers.push(WorkerFact {
                building,
                ..worker(None, None)
            });
        },
        "worker 3 is still building its dataflow",
    ),
    (
        Kind::Loading,
        |f| doing(f, Doing::Load),
        "the checkpoint is being loaded",
    ),
    (
        Kind::Verifying,
        |f| ledger(f).unverified = Some(AGE),
        "compared with the commit",
    ),
    (
        Kind::Settling,
        |f| ledger(f).unsettled = Some(AGE),
        "requests of the run before",
    ),
    (Kind::Seal, |f| doing(f, Doing::Seal(Epoch(9))), "the seal"),
    (
        Kind::State,
        |f| doing(f, Doing::State(Epoch(9))),
        "the keyed state",
    ),
    (
        Kind::Sink,
        |f| f.sinks.push(a_sink(None)),
        "sink totals has writes of worker 2",
    ),
    (
        Kind::Commit,
        |f| doing(f, Doing::Commit(Epoch(9))),
        "the commit",
    ),
    (
        Kind::Member,
        |f| {
            ledger(f).oldest = Some((Epoch(9), AGE));
            ledger(f).members.push(a_member());
        },
        "process 2 at b:1 has not sealed an epoch",
    ),
    (
        Kind::Reader,
        |f| f.ranges.push(a_range()),
        "feed range -FF of source orders does not answer; its last answer came 14.0 s ago",
    ),
    (
        Kind::Throttled,
        |f| {
            let trouble = Some(Trouble::Throttled { attempts: 5 });
            f.ranges.push(RangeFact {
                trouble,
                ..a_range()
            });
        },
        "is throttled: 5 requests in a row",
    ),
    (
        Kind::Budget,
        |f| {
            let trouble = Some(Trouble::Budget);
            f.ranges.push(RangeFact {
                trouble,
                ..a_range()
            });
        },
        "waits for the source's budget",
    ),
    (
        Kind::Room,
        |f| {
            f.ranges.push(RangeFact {
                asked: None,
                waits_for_room: Some(AGE),
                ..a_range()
            });
        },
        "waits for room",
    ),
];

#[test]
fn each_cause_is_named_and_only_when_it_is_old_enough() {
    for (kind, add, says) in CASES {
        let mut facts = facts();
        add(&mut facts);
        let found = explain(&facts);
        let culprit = found.culprit.clone().expect("a culprit");
        assert_eq!(culprit.kind, *kind);
        assert_eq!(culprit.since_ms, 7000, "{kind:?}");
        assert!(found.stalled && found.sentence.contains(says), "{found:?}");
        assert!(found.sentence.ends_with("(for 7.0 s)"), "{found:?}");
        let of = if matches!(kind, Kind::Silent | Kind::Member) {
            2
        } else {
            1
        };
        assert_eq!(culprit.process, of, "{kind:?}");
        let text = serde_json::to_string(&found).expect("JSON");
        let back: Explanation = serde_json::from_str(&text).expect("the same");
        assert_eq!(back, found);

        facts.notice = AGE + Duration::from_millis(1);
        let young = explain(&facts);
        assert!(!young.stalled && young.culprit.is_none(), "{young:?}");
    }
}

/// The oracle: of all pairs, the first is the one whose kind stands first in the list of the module.
#[test]
fn of_two_causes_the_first_is_the_one_that_the_other_waits_for() {
    for (one, add_one, _) in CASES {
        for (other, add_other, _) in CASES {
            let mut facts = facts();
            add_one(&mut facts);
            add_other(&mut facts);
            let found = explain(&facts);
            let first = found.culprit.as_ref().map(|culprit| culprit.kind);
            assert_eq!(first, Some(*one.min(other)), "{one:?} and {other:?}");
            let known = CASES.iter().position(|(kind, ..)| kind == one);
            let later = CASES.iter().position(|(kind, ..)| kind == other);
            assert_eq!(one <= other, known <= later, "{one:?} and {other:?}");
            let mut kinds: Vec<_> = found.also.iter().map(|also| also.kind).collect();
            kinds.extend(first);
            // What is not loaded yet cannot be compared.
            if (*one.min(other), *one.max(other)) == (Kind::Loading, Kind::Verifying) {
                continue;
            }
            assert!(kinds.contains(one) && kinds.contains(other), "{kinds:?}");
        }
    }
}

#[test]
fn a_start_says_what_it_waits_for_at_once() {
    let mut facts = Facts {
        phase: (Phase::Assembling, Duration::from_millis(10)),
        ledger: None,
        ..facts()
    };
    assert_eq!(explain(&facts).state, RunState::Assembling);
    facts.awaited.push(Awaited {
        process: 2,
        name: "process 2 at b:1".to_owned(),
        since: Duration::from_millis(10),
        why: Some("connection refused".to_owned()),
    });
    let found = explain(&facts);
    assert_eq!(
        found.sentence,
        "process 1: waits for process 2 at b:1: connection refused (for 0.0 s)"
    );
    assert_eq!(found.stuck(0), None, "it is right to wait");
    facts.awaited.clear();
    facts.phase = (Phase::TakingOver, AGE);
    let found = explain(&facts);
    assert_eq!(found.culprit.map(|one| one.kind), Some(Kind::Starting));
    facts.lease = Some(LeaseFact {
        generation: Generation(4),
        since: AGE,
    });
    let found = explain(&facts);
    assert_eq!(found.state, RunState::TakingOver);
    assert!(found.sentence.contains("lease of generation 4"));
    assert_eq!(found.stuck(0), None);
    for phase in [Phase::Starting, Phase::Opening, Phase::Connecting] {
        let facts = Facts {
            phase: (phase, AGE),
            lease: None,
            ..facts.clone()
        };
        let found = explain(&facts);
        let kind = found.culprit.as_ref().map(|one| one.kind);
        assert_eq!(kind, Some(Kind::Starting), "{phase:?}");
        assert_eq!(found.stuck(7000).is_some(), phase != Phase::Connecting);
    }
    facts.lease = None;
    facts.phase = (Phase::Ending, AGE);
    let kind = explain(&facts).culprit.map(|one| one.kind);
    assert_eq!(kind, Some(Kind::Ending));
    facts.phase = (Phase::Ended, AGE);
    assert_eq!(explain(&facts).culprit, None);
}

#[test]
fn nothing_to_do_is_no_stall() {
    let mut facts = facts();
    let found = explain(&facts);
    assert_eq!((found.state, found.stalled), (RunState::Idle, false));
    ledger(&mut facts).committed = Some(facts.notice);
    assert_eq!(explain(&facts).state, RunState::Idle);
    ledger(&mut facts).committed = Some(facts.notice / 2);
    assert_eq!(explain(&facts).state, RunState::Running);
    ledger(&mut facts).committed = None;
    ledger(&mut facts).oldest = Some((Epoch(9), Duration::from_millis(3)));
    let found = explain(&facts);
    assert_eq!((found.state, found.stalled), (RunState::Running, false));
    ledger(&mut facts).unverified = Some(Duration::from_millis(3));
    assert_eq!(explain(&facts).state, RunState::Resuming);
}

#[test]
fn an_epoch_that_nothing_holds_is_not_passed_over() {
    let mut facts = facts();
    ledger(&mut facts).oldest = Some((Epoch(9), AGE));
    let culprit = explain(&facts).culprit.expect("the epoch");
    assert_eq!(
        (culprit.kind, culprit.epoch),
        (Kind::Frontier, Some(Epoch(9)))
    );
    // A feed range holds no epoch.
    facts.ranges.push(a_range());
    let found = explain(&facts);
    assert_eq!(found.culprit.map(|one| one.kind), Some(Kind::Frontier));
    facts.sinks.push(a_sink(None));
    let found = explain(&facts);
    let culprit = found.culprit.expect("the sink");
    assert_eq!((culprit.kind, culprit.epoch), (Kind::Sink, Some(Epoch(9))));
    assert!(found.also.iter().all(|one| one.kind != Kind::Frontier));
}

#[test]
fn a_sink_that_is_refused_holds_an_epoch_with_short_batches() {
    let mut facts = facts();
    ledger(&mut facts).oldest = Some((Epoch(9), AGE));
    let short = Duration::from_millis(30);
    let mut sink = a_sink(Some(TargetWait {
        quiet: short,
        partition: Some("0".to_owned()),
        last_failure: None,
        failures: 0,
    }));
    sink.writing = Some((2, short));
    facts.sinks.push(sink);
    let kind = |facts: &Facts| explain(facts).culprit.map(|one| one.kind);
    assert_eq!(kind(&facts), Some(Kind::Frontier));
    let target = facts.sinks[0].target.as_mut().expect("it tells");
    target.last_failure = Some((429, 3200));
    let culprit = explain(&facts).culprit.expect("the sink");
    assert_eq!((culprit.kind, culprit.epoch), (Kind::Sink, Some(Epoch(9))));
    assert_eq!(culprit.quiet_ms, 30);
    facts.sinks[0].writing = None;
    assert_eq!(kind(&facts), Some(Kind::Frontier));
}

#[test]
fn a_sink_says_what_its_container_answers_and_whether_it_goes_on() {
    let wait = |quiet: Duration| TargetWait {
        quiet,
        partition: Some("0".to_owned()),
        last_failure: Some((429, 3200)),
        failures: 12,
    };
    let mut facts = facts();
    facts.sinks = vec![a_sink(Some(wait(AGE / 2)))];
    let found = explain(&facts);
    for says in ["none acknowledged for 3.5 s", "429/3200", "12 writes"] {
        assert!(found.sentence.contains(says), "{}", found.sentence);
    }
    let quiet = |found: &Explanation, ms| found.stuck(ms).is_some();
    assert!(quiet(&found, 3500) && !quiet(&found, 3501));
    facts.sinks = vec![a_sink(Some(wait(Duration::ZERO)))];
    let found = explain(&facts);
    assert!(found.stalled && found.sentence.contains("being acknowledged"));
    assert!(!quiet(&found, 1), "it goes on");
}

#[test]
fn the_culprit_of_a_member_is_named_by_process_0() {
    let mut facts = facts();
    facts.process = 0;
    let stuck = explain(&Facts {
        process: 2,
        follows: true,
        sinks: vec![a_sink(None)],
        ..facts.clone()
    });
    assert!(stuck.ask.is_some_and(|ask| ask.starts_with("process 0")));
    let holding = stuck.culprit;
    ledger(&mut facts).oldest = Some((Epoch(9), AGE));
    ledger(&mut facts).members = vec![MemberFact {
        holding,
        ..a_member()
    }];
    let found = explain(&facts);
    let culprit = found.culprit.clone().expect("the member's");
    assert_eq!((culprit.kind, culprit.process), (Kind::Sink, 2));
    assert_eq!(culprit.epoch, Some(Epoch(9)));
    assert_eq!(
        found.stuck(0),
        None,
        "a new start of process 0 mends nothing"
    );
}

#[test]
fn the_jobs_own_operators_are_narrowed_down() {
    let mut facts = facts();
    facts.code = [
        "ChangeFeed: a",
        "Map",
        "Sink: x",
        "ChangeFeed: b",
        "Filter",
        "Map",
        "Filter",
    ]
    .map(str::to_owned)
    .into();
    let named = |facts: &Facts| {
        let culprit = explain(facts).culprit.expect("the worker");
        assert_eq!(culprit.kind, Kind::Operator);
        culprit.name.expect("a name")
    };
    for (passed, expected) in [
        (Some("Source: a"), "Map, Filter"),
        (Some("Source: b"), "Filter, Map"),
        (Some("Upsert: x"), "Map, Filter"),
        (None, "Map, Filter"),
    ] {
        ledger(&mut facts).workers = vec![worker(None, passed)];
        assert_eq!(named(&facts), expected, "{passed:?}");
    }
    facts.code = (0..30).map(|n| format!("Op{n}")).collect();
    assert!(named(&facts).ends_with("Op9 and 20 more"));
    facts.code.clear();
    assert_eq!(named(&facts), "its operators");
}

#[test]
fn a_failure_comes_before_everything() {
    let mut facts = facts();
    facts.sinks.push(a_sink(None));
    ledger(&mut facts).failure = Some("sink totals stopped: too many dead letters".to_owned());
    let found = explain(&facts);
    assert_eq!(found.culprit.map(|one| one.kind), Some(Kind::Failed));
    assert!(found.sentence.ends_with("too many dead letters"));
}

#[test]
fn what_moves_is_not_stuck() {
    let mut facts = facts();
    let quiet = Duration::from_secs(1);
    let doing = Doing::Load;
    ledger(&mut facts).doing = vec![DoingFact {
        doing,
        since: AGE,
        quiet,
    }];
    let found = explain(&facts);
    assert_eq!(
        found.culprit.as_ref().map(|one| one.kind),
        Some(Kind::Loading)
    );
    assert!(found.stuck(1000).is_some() && found.stuck(1001).is_none());
    ledger(&mut facts).doing.clear();
    facts.sinks = vec![SinkFact {
        writing: None,
        scanning: Some((1, AGE)),
        ..a_sink(None)
    }];
    let found = explain(&facts);
    assert!(found.sentence.contains("reads its container"), "{found}");
    assert!(found.stuck(1).is_none());
}

#[test]
fn a_process_that_need_not_have_spoken_is_not_silent() {
    let mut facts = facts();
    facts.word_due = AGE * 2;
    let silent_for = |facts: &mut Facts, heard| {
        let heard = Some(heard);
        ledger(facts).members = vec![MemberFact {
            heard,
            ..a_member()
        }];
        explain(facts).culprit.map(|one| one.kind)
    };
    assert_eq!(silent_for(&mut facts, AGE), None);
    assert_eq!(silent_for(&mut facts, AGE * 2), Some(Kind::Silent));
}
