//! What the protocol does in the cases that the random server reaches too rarely, or not to the point.

use std::collections::BTreeMap;
use std::time::Duration;

use super::classify::{Classifier, Refresh};
use super::config::{BulkConfig, Poison, Policy};
use super::machine::Machine;
use super::model::{Most, Simple, arc_ids, ms, ranges, upsert};
use super::operation::*;
use super::output::{Cause, Letter, Output, Stop};
use super::routing::{RoutingKey, RoutingMap};

struct Fixture {
    now: Duration,
    machine: Machine<Simple>,
    groups: u64,
    sent: Vec<Request>,
    finished: BTreeMap<GroupId, Summary>,
    letters: Vec<Letter>,
    refreshes: Vec<Refresh>,
    stops: Vec<Stop>,
    wake: Option<Duration>,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut BulkConfig)) -> Self {
        let mut config = BulkConfig {
            linger: Duration::ZERO,
            coalesce: true,
            ..BulkConfig::default()
        };
        change(&mut config);
        let most = Most {
            requests: 4,
            operations: 100,
        };
        let map = RoutingMap::of(ranges(&[(0, 0), (1, 0x80)], &[])).unwrap();
        let classifier = Classifier::default();
        let now = Duration::ZERO;
        Fixture {
            now,
            machine: Machine::new(config, classifier, most, map, None, now),
            groups: 0,
            sent: Vec::new(),
            finished: BTreeMap::new(),
            letters: Vec::new(),
            refreshes: Vec::new(),
            stops: Vec::new(),
            wake: None,
        }
    }

    fn poll(&mut self) {
        let mut out = Vec::new();
        self.wake = self.machine.poll(self.now, &mut out);
        for output in out {
            match output {
                Output::Send(request) => self.sent.push(request),
                Output::Refresh(refresh) => self.refreshes.push(refresh),
                Output::Letter(letter) => self.letters.push(letter),
                Output::Finished(group, summary) => {
                    let before = self.finished.insert(group, summary);
                    assert_eq!(before, None);
                }
                Output::Stop(stop) => self.stops.push(stop),
            }
        }
    }

    fn submit(&mut self, operations: Vec<Operation>) -> GroupId {
        let group = GroupId(self.groups);
        self.groups += 1;
        self.machine.submit(self.now, group, operations);
        self.poll();
        group
    }

    /// The only request that is not answered yet.
    fn request(&mut self) -> Request {
        assert_eq!(self.sent.len(), 1, "{:?}", self.sent);
        self.sent.remove(0)
    }

    fn results(&mut self, request: &Request, status: impl Fn(usize) -> u16) {
        let result = |at| OperationResult {
            status: status(at),
            charge_ru: 2.0,
            etag: Some("\"e\"".into()),
            message: Some("why".into()),
            ..OperationResult::default()
        };
        let results: Vec<_> = (0..request.operations.len()).map(result).collect();
        self.answer(request, 207, results);
    }

    fn answer(&mut self, request: &Request, status: u16, results: Vec<OperationResult>) {
        let answer = Answer {
            status,
            results,
            charge_ru: 1.0,
            message: "whole".into(),
            activity_id: "activity".into(),
            ..Answer::default()
        };
        self.machine.answered(self.now, 0.0, request.id, answer);
        self.poll();
    }

    fn lost(&mut self, request: &Request, lost: Lost) {
        self.machine.lost(self.now, 0.0, request.id, lost);
        self.poll();
    }

    /// Lets time pass until the machine wants to be woken.
    fn wake(&mut self) -> Duration {
        let wake = self.wake.expect("something is due");
        let wait = wake - self.now;
        self.now = wake;
        self.poll();
        wait
    }
}

#[test]
fn a_group_is_acknowledged_once_with_its_counts() {
    let mut f = Fixture::new(|_| {});
    let empty = f.submit(vec![]);
    assert_eq!(f.finished[&empty], Summary::default());
    let group = f.submit(vec![upsert(1, "1"), upsert(2, "2"), upsert(1, "3")]);
    let request = f.request();
    assert_eq!(arc_ids(&request.operations), ["1", "2"]);
    f.results(&request, |at| [200, 429][at]);
    assert!(!f.finished.contains_key(&group));
    f.wake();
    let request = f.request();
    f.results(&request, |_| 201);
    let summary = &f.finished[&group];
    assert_eq!((summary.written, summary.superseded), (2, 1));
    assert_eq!((summary.requests, summary.throttled), (2, 1));
    assert_eq!(summary.charge_ru, 6.0);
    assert_eq!(summary.etag, None);
    let single = f.submit(vec![upsert(1, "4")]);
    let request = f.request();
    f.results(&request, |_| 200);
    assert_eq!(f.finished[&single].etag.as_deref(), Some("\"e\""));
    assert!(f.machine.is_idle());
}

/// A group that has gone must leave nothing behind, and take nothing from the others.
#[test]
fn a_withdrawn_group_leaves_what_others_wait_for() {
    let mut f = Fixture::new(|_| {});
    let first = f.submit(vec![upsert(1, "1")]);
    let old = f.submit(vec![upsert(1, "2"), upsert(2, "2")]);
    let gone = f.submit(vec![upsert(1, "3"), upsert(2, "3"), upsert(3, "3")]);
    assert_eq!(f.sent.len(), 3, "1, then 2, then 3");
    f.machine.withdraw(f.now, gone);
    for request in std::mem::take(&mut f.sent) {
        // What is in flight for nobody is not repeated.
        let throttle = arc_ids(&request.operations) == ["3"];
        f.results(&request, |_| if throttle { 429 } else { 200 });
    }
    assert_eq!(f.finished[&first].written, 1);
    // The content of `gone` had taken the place of that of `old`.
    let request = f.sent.remove(0);
    assert_eq!(arc_ids(&request.operations), ["1"]);
    assert_eq!(request.operations[0], upsert(1, "3").into());
    f.results(&request, |_| 200);
    assert_eq!(f.finished[&old].written + f.finished[&old].superseded, 2);
    assert!(!f.finished.contains_key(&gone));
    assert!(f.sent.is_empty() && f.machine.is_idle());
}

#[test]
fn after_a_close_nothing_is_sent_and_every_group_ends() {
    let mut f = Fixture::new(|config| config.coalesce = false);
    let a = f.submit(vec![upsert(1, "1"), upsert(1, "2")]);
    let b = f.submit(vec![upsert(2, "1")]);
    f.machine.close(f.now);
    f.poll();
    assert!(f.finished.is_empty());
    let late = f.submit(vec![upsert(3, "1")]);
    assert_eq!(f.finished[&late].unwritten, 1);
    let (first, second) = (f.sent.remove(0), f.sent.remove(0));
    f.results(&first, |_| 200);
    assert_eq!((f.finished[&a].written, f.finished[&a].unwritten), (1, 1));
    f.lost(&second, Lost::Maybe);
    assert_eq!((f.finished[&b].unwritten, f.finished[&b].uncertain), (1, 1));
    assert!(f.sent.is_empty() && f.stops.is_empty() && f.machine.is_idle());
}

#[test]
fn a_refused_request_is_halved_until_the_culprit_is_alone() {
    let mut f = Fixture::new(|_| {});
    let group = f.submit((0..16).map(|at| upsert(at, "1")).collect());
    let mut requests = 0;
    while let Some(request) = f.sent.pop() {
        requests += 1;
        assert!(requests <= 20);
        if arc_ids(&request.operations).contains(&"5".to_owned()) {
            f.answer(&request, 400, vec![]);
        } else {
            f.results(&request, |_| 200);
        }
    }
    let summary = &f.finished[&group];
    assert_eq!((summary.written, summary.dead), (15, 1));
    let refusal = summary.refusal.as_ref().unwrap();
    assert_eq!((refusal.status, &*refusal.message), (400, "whole"));
    assert_eq!(&*refusal.activity_id, "activity");
}

#[test]
fn a_dead_letter_counts_only_once_it_is_durable() {
    let mut f = Fixture::new(|config| config.on_poison = Poison::DeadLetter { per_minute: 1 });
    let group = f.submit(vec![upsert(1, "1")]);
    let next = f.submit(vec![upsert(1, "2")]);
    let request = f.request();
    f.results(&request, |_| 400);
    let letter = f.letters.pop().unwrap();
    assert_eq!(&*letter.refusal.message, "why");
    assert!(
        f.finished.is_empty() && f.sent.is_empty(),
        "its successor waits for it"
    );
    f.machine.letter_put(f.now, letter.id);
    f.poll();
    assert_eq!(f.finished[&group].dead, 1);
    // A second one in a minute is too much.
    let request = f.request();
    f.results(&request, |_| 400);
    assert_eq!(f.stops[0].cause, Cause::TooManyLetters);
    assert_eq!(&*f.stops[0].operation.as_ref().unwrap().key.id, "1");
    assert_eq!(f.finished[&next].unwritten, 1);
}

#[test]
fn a_poison_document_stops_a_writer_that_may_not_pass_it_over() {
    let mut f = Fixture::new(|config| config.on_poison = Poison::Fail);
    let group = f.submit(vec![upsert(1, "1"), upsert(2, "1"), upsert(3, "1")]);
    let request = f.request();
    f.results(&request, |at| [200, 400, 200][at]);
    assert_eq!(f.stops.len(), 1);
    assert_eq!(f.stops[0].cause, Cause::Poison);
    let summary = &f.finished[&group];
    assert_eq!(
        (summary.written, summary.unwritten, summary.uncertain),
        (2, 1, 0)
    );
}

#[test]
fn letters_that_cannot_be_written_end_with_a_stop() {
    let mut f = Fixture::new(|config| config.on_poison = Poison::DeadLetter { per_minute: 9 });
    let group = f.submit(vec![upsert(1, "1")]);
    let request = f.request();
    f.results(&request, |_| 400);
    let letter = f.letters.pop().unwrap();
    f.machine.close(f.now);
    f.poll();
    assert!(f.finished.is_empty(), "a close waits for its dead letters");
    f.machine.stop(f.now);
    f.poll();
    assert_eq!(f.finished[&group].unwritten, 1);
    f.machine.letter_put(f.now, letter.id);
    assert!(f.machine.is_idle());
}

#[test]
fn credentials_are_renewed_once_and_then_it_stops() {
    let mut f = Fixture::new(|_| {});
    f.submit(vec![upsert(1, "1")]);
    f.submit(vec![upsert(2, "1")]);
    for request in std::mem::take(&mut f.sent) {
        f.answer(&request, 401, vec![]);
    }
    assert_eq!(
        f.refreshes,
        [Refresh::Token],
        "once for all that were under way"
    );
    f.wake();
    let request = f.request();
    f.results(&request, |_| 200);
    // A success makes the next refusal a first one again.
    f.now += ms(1);
    f.submit(vec![upsert(1, "2")]);
    let request = f.request();
    f.answer(&request, 401, vec![]);
    assert_eq!(f.refreshes.len(), 2);
    assert!(f.stops.is_empty());
    f.wake();
    let request = f.request();
    f.answer(&request, 401, vec![]);
    assert_eq!(
        (f.stops[0].cause, f.stops[0].refusal.status),
        (Cause::Fatal, 401)
    );
}

#[test]
fn a_missing_container_is_read_again_before_anything_is_sent() {
    let mut f = Fixture::new(|_| {});
    let group = f.submit(vec![upsert(1, "1"), upsert(0x90, "1")]);
    for request in std::mem::take(&mut f.sent) {
        f.answer(&request, 404, vec![]);
    }
    assert_eq!(f.refreshes, [Refresh::Container]);
    f.now += Duration::from_secs(60);
    f.poll();
    assert!(f.sent.is_empty());
    let map = RoutingMap::of(ranges(&[(0, 0), (1, 0x80)], &[])).unwrap();
    f.machine.new_map(f.now, map);
    f.poll();
    let (first, second) = (f.sent.remove(0), f.sent.remove(0));
    f.results(&first, |_| 200);
    assert!(f.stops.is_empty());
    f.results(&second, |_| 200);
    assert_eq!(f.finished[&group].written, 2);
}

#[test]
fn a_range_that_has_changed_waits_for_the_map_and_the_other_goes_on() {
    let mut f = Fixture::new(|_| {});
    let group = f.submit(vec![upsert(1, "1"), upsert(2, "1")]);
    let request = f.request();
    f.results(&request, |at| [200, 410][at]);
    assert_eq!(f.refreshes, [Refresh::Map]);
    let waits = f.submit(vec![upsert(3, "1")]);
    let other = f.submit(vec![upsert(0x90, "1")]);
    let request = f.request();
    assert_eq!(request.range.as_str(), "1");
    f.results(&request, |_| 200);
    assert_eq!(f.finished[&other].written, 1);
    let map = RoutingMap::of(ranges(&[(2, 0), (3, 0x02), (1, 0x80)], &[])).unwrap();
    f.machine.new_map(f.now, map);
    f.poll();
    // The one that came back goes first, although the others were never sent.
    let request = f.request();
    assert_eq!(
        (request.range.as_str(), arc_ids(&request.operations)),
        ("3", vec!["2".into(), "3".into()])
    );
    f.results(&request, |_| 410);
    assert_eq!(
        f.refreshes.len(),
        1,
        "the map is not read more than ten times a second"
    );
    assert_eq!(f.wake(), ms(100));
    assert_eq!(f.refreshes, [Refresh::Map, Refresh::Map]);
    let map = RoutingMap::of(ranges(&[(2, 0), (3, 0x02), (1, 0x80)], &[])).unwrap();
    f.machine.new_map(f.now, map);
    f.poll();
    let request = f.request();
    f.results(&request, |_| 200);
    assert_eq!(f.finished[&group].written + f.finished[&waits].written, 3);
}

#[test]
fn a_stale_connection_costs_no_wait_and_a_dead_region_asks_for_another() {
    let mut f = Fixture::new(|_| {});
    f.submit(vec![upsert(1, "1")]);
    let request = f.request();
    f.lost(&request, Lost::Unsent);
    for wait in [50, 100] {
        let request = f.request();
        f.lost(&request, Lost::Unsent);
        assert_eq!(f.refreshes.len(), usize::from(wait == 100));
        assert_eq!(f.wake(), ms(wait));
    }
    assert_eq!(f.refreshes, [Refresh::Account]);
    let request = f.request();
    f.results(&request, |_| 200);
    assert!(f.machine.is_idle());
}

/// A transactional batch in which nobody was to blame came again at once, for ever.
#[test]
fn a_batch_that_blames_no_operation_waits() {
    let mut f = Fixture::new(|config| config.policy = Policy::Transactional);
    let group = f.submit(vec![upsert(1, "1")]);
    let request = f.request();
    f.results(&request, |_| 424);
    assert!(f.sent.is_empty());
    assert_eq!(f.wake(), ms(50));
    let request = f.request();
    f.results(&request, |_| 200);
    assert_eq!(f.finished[&group].written, 1);
}

#[test]
fn the_policy_and_the_size_choose_the_route() {
    let routes = |policy, operations: Vec<Operation>| {
        let mut f = Fixture::new(|config| config.policy = policy);
        f.submit(operations);
        let mut sent = Vec::new();
        while !f.sent.is_empty() {
            let request = f.sent.remove(0);
            f.results(&request, |_| 200);
            sent.push((request.route, arc_ids(&request.operations).join(" ")));
        }
        sent
    };
    let of = |key: &str, id: &str, len: usize| {
        let body = "1".repeat(len).into();
        let write = Write::new(key, id, Action::Upsert(body));
        Operation::new(write, RoutingKey::new(vec![1]))
    };
    let mixed = || vec![of("[1]", "a", 1), of("[2]", "b", 1), of("[1]", "c", 1)];
    assert_eq!(
        routes(Policy::Bulk, mixed()),
        [(Route::Bulk, "a b c".into())]
    );
    assert_eq!(
        routes(Policy::Transactional, mixed()),
        [
            (Route::Transactional, "a c".into()),
            (Route::Transactional, "b".into())
        ]
    );
    let point = |id: &str| (Route::Point, id.to_owned());
    assert_eq!(
        routes(Policy::Point, mixed()),
        [point("a"), point("b"), point("c")]
    );
    let large = vec![
        of("[1]", "a", 1),
        of("[1]", "b", 1_900_000),
        of("[1]", "c", 1),
    ];
    assert_eq!(
        routes(Policy::Bulk, large),
        [
            (Route::Bulk, "a".into()),
            point("b"),
            (Route::Bulk, "c".into())
        ]
    );
}

#[test]
fn a_partition_with_little_waits_for_more_but_not_for_long() {
    let mut f = Fixture::new(|config| config.linger = ms(2));
    f.submit(vec![upsert(1, "1")]);
    f.now += ms(1);
    f.submit(vec![upsert(2, "1")]);
    assert!(f.sent.is_empty());
    assert_eq!(f.wake(), ms(1));
    assert_eq!(arc_ids(&f.request().operations), ["1", "2"]);
    f.submit((0x80..=0xE3).map(|at| upsert(at, "1")).collect());
    assert_eq!(
        f.request().operations.len(),
        100,
        "a full request does not wait"
    );
}

#[test]
fn what_is_the_last_for_now_does_not_wait() {
    let mut f = Fixture::new(|config| config.linger = ms(2));
    f.submit(vec![upsert(1, "1"), upsert(0x80, "1")]);
    assert!(f.sent.is_empty());
    f.machine.hurry();
    f.poll();
    let sent = f.sent.drain(..).map(|sent| arc_ids(&sent.operations));
    assert_eq!(sent.collect::<Vec<_>>().concat(), ["1", "128"]);
    f.submit(vec![upsert(2, "1")]);
    assert!(f.sent.is_empty(), "what comes after it waits again");
}

/// One partition is throttled all the time, and there is one connection for both.
#[test]
fn a_throttled_partition_takes_nothing_from_the_other() {
    let mut f = Fixture::new(|config| config.max_connections = 1.try_into().unwrap());
    let hot = f.submit((0..100).map(|at| upsert(at, "1")).collect());
    let request = f.request();
    for at in 0x80..0xC0 {
        f.submit(vec![upsert(at, "1")]);
    }
    let held = f.machine.held();
    assert_eq!(held.bytes, held.partitions.iter().sum::<usize>());
    assert!(held.partitions.iter().all(|&bytes| bytes > 0));
    f.answer(&request, 429, vec![]);
    let request = f.request();
    assert_eq!(
        (request.range.as_str(), request.operations.len()),
        ("1", 64)
    );
    f.results(&request, |_| 200);
    assert_eq!(f.finished.len(), 64);
    assert!(!f.finished.contains_key(&hot) && f.sent.is_empty());
    let held = f.machine.held();
    assert_eq!(held.partitions, [held.bytes, 0]);
    f.wake();
    let request = f.request();
    f.results(&request, |_| 200);
    assert_eq!(f.finished[&hot].written, 100);
}

/// A move from one partition key to another is an insert and then a delete, in two partitions.
#[test]
fn a_document_that_moves_is_inserted_before_it_is_deleted() {
    let mut f = Fixture::new(|_| {});
    let on = |key: u8, action| {
        let write = Write::new(format!("[{key}]"), "a", action);
        Operation {
            order: OrderKey::of_id("a"),
            ..Operation::new(write, RoutingKey::new(vec![key]))
        }
    };
    let insert = on(1, Action::Upsert("1".into()));
    let delete = on(0x90, Action::Delete);
    let group = f.submit(vec![insert, delete]);
    let request = f.request();
    assert_eq!(request.operations[0].action.name(), "Upsert");
    f.results(&request, |_| 429);
    f.wake();
    let request = f.request();
    assert_eq!(request.operations[0].action.name(), "Upsert");
    f.results(&request, |_| 200);
    let request = f.request();
    assert_eq!(
        (request.operations[0].action.name(), request.range.as_str()),
        ("Delete", "1")
    );
    f.results(&request, |_| 404);
    assert_eq!(f.finished[&group].written, 2);
}
