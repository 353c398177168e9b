//! The protocol against a server that does its worst, and an oracle that remembers everything.
//!
//! Every operation on a document carries a greater number than the one before. So the oracle is simple: the numbers that a
//! document takes on never fall, an acknowledged number is there, and the last one stays.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::classify::{Classifier, Refresh};
use super::config::{BulkConfig, Poison};
use super::flow::{Figures, Permit, Seen};
use super::machine::Machine;
use super::operation::*;
use super::output::{LetterId, Output};
use super::partition::{Pace, Share};
use super::routing::{RangeRecord, RoutingKey, RoutingMap};

/// A pace that only counts and pauses.
#[derive(Debug)]
pub(super) struct Simple {
    most: Most,
    in_flight: usize,
    paused_until: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) requests: usize,
    pub(super) operations: usize,
}

impl Pace for Simple {
    type Config = Most;
    type Sent = ();

    fn new(config: &Most, _: Share, _: Duration) -> Self {
        Simple {
            most: *config,
            in_flight: 0,
            paused_until: Duration::ZERO,
        }
    }

    fn permit(&mut self, now: Duration) -> Permit {
        if self.in_flight >= self.most.requests {
            return Permit::AwaitAnswer;
        }
        if now < self.paused_until {
            return Permit::Wait(self.paused_until - now);
        }
        Permit::Go {
            max_ops: self.most.operations,
            max_bytes: 100_000,
        }
    }

    fn sent(&mut self, _: Duration, operations: usize, _: usize) {
        assert!((1..=self.most.operations).contains(&operations));
        self.in_flight += 1;
    }

    fn answered(&mut self, now: Duration, (): (), seen: &Seen) {
        self.in_flight -= 1;
        if seen.throttled_ops + seen.refused_ops > 0 {
            let wait = seen.retry_after.max(Duration::from_millis(10));
            self.paused_until = self.paused_until.max(now + wait);
        }
    }

    fn share(&mut self, _: Share) {}

    fn figures(&self, _: Duration) -> Figures {
        Figures::default()
    }
}

const DOCUMENTS: u64 = 12;
const OPERATIONS: u64 = 600;
/// From then on the server behaves.
const FAULTS_UNTIL: Duration = Duration::from_secs(60);
/// Whatever comes after it is a machine that does not come to rest.
const REST_BY: Duration = Duration::from_secs(200);

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn ranges(bounds: &[(u64, u8)], parents: &[u64]) -> Vec<RangeRecord> {
    let uppers = bounds.iter().skip(1).map(|(_, lower)| *lower).chain([0xFF]);
    let records = bounds
        .iter()
        .zip(uppers)
        .map(|(&(id, lower), upper)| RangeRecord {
            id: id.to_string().as_str().into(),
            lower: RoutingKey::new(vec![lower]),
            upper: RoutingKey::new(vec![upper]),
            parents: parents
                .iter()
                .map(|id| id.to_string().as_str().into())
                .collect(),
            throughput_fraction: None,
        });
    records.collect()
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Submit,
    Withdraw(GroupId),
    Close,
    /// The server gets a request.
    Arrive(RequestId),
    /// A write that was thought lost takes effect.
    Late(u64, u64),
    Answer(RequestId),
    Lost(RequestId, bool),
    Map,
    Letter(LetterId),
    Change,
}

/// What the oracle knows.
#[derive(Default)]
struct Oracle {
    /// All that a document has been, in order; its last number; and the greatest that was submitted.
    seen: BTreeMap<u64, Vec<u64>>,
    groups: HashMap<GroupId, Vec<(u64, u64)>>,
    withdrawn: HashSet<(u64, u64)>,
    refused: HashSet<(u64, u64)>,
    last: BTreeMap<u64, u64>,
    in_flight: HashMap<OrderKey, RequestId>,
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    events_so_far: u64,
    machine: Machine<Simple>,
    settle: (Duration, Duration),
    requests: HashMap<RequestId, Request>,
    answers: HashMap<RequestId, Answer>,
    bounds: Vec<(u64, u8)>,
    next_range: u64,
    submitted: u64,
    next_group: u64,
    /// Documents share their order in pairs.
    by_pair: bool,
    poison: bool,
    /// A request with a malformed operation is refused as a whole.
    refuses_whole: bool,
    fault_rate: f64,
    is_closed: bool,
    oracle: Oracle,
    stats: BTreeMap<&'static str, u64>,
}

/// The document and the number that an operation carries.
fn content(operation: &Operation) -> (u64, u64) {
    let body = operation.action.body().expect("every operation has a body");
    let number = std::str::from_utf8(body).unwrap().parse().unwrap();
    (operation.key.id.parse().unwrap(), number)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = BulkConfig {
            coalesce: random.bool(),
            linger: ms(random.u64(0..3)),
            max_connections: random.usize(1..8).try_into().unwrap(),
            ambiguous_settle: ms(random.u64(1..3000)),
            fault_settle: ms(random.u64(1..3000)),
            on_poison: match random.bool() {
                true => Poison::Report,
                false => Poison::DeadLetter { per_minute: 1000 },
            },
            ..BulkConfig::default()
        };
        let most = Most {
            requests: random.usize(1..4),
            operations: random.usize(1..9),
        };
        let bounds = vec![(0, 0), (1, 0x40), (2, 0x80)];
        let map = RoutingMap::of(ranges(&bounds, &[])).unwrap();
        let classifier = Classifier::default();
        let settle = (config.ambiguous_settle, config.fault_settle);
        World {
            seed,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            events_so_far: 0,
            machine: Machine::new(config, classifier, most, map, None, Duration::ZERO),
            settle,
            requests: HashMap::new(),
            answers: HashMap::new(),
            bounds,
            next_range: 3,
            submitted: 0,
            next_group: 0,
            by_pair: random.u8(..) < 64,
            poison: random.bool(),
            refuses_whole: random.bool(),
            fault_rate: [0.0, 0.1, 0.3, 0.6][random.usize(..4)],
            is_closed: false,
            oracle: Oracle::default(),
            stats: BTreeMap::new(),
            random,
        }
    }

    fn after(&mut self, most_ms: u64, event: Event) {
        // Mostly short, sometimes long, so that the order of events is anything.
        let most = most_ms * 1000 / [1, 4, 30][self.random.usize(..3)];
        let wait = Duration::from_micros(self.random.u64(0..=most));
        self.at(self.now + wait, event);
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.events_so_far += 1;
        // Events of one instant come in any order.
        let tie = self.random.u64(..);
        self.events.push(Reverse((time, tie, event)));
    }

    fn fault(&mut self) -> bool {
        self.now < FAULTS_UNTIL && self.random.f64() < self.fault_rate
    }

    fn count(&mut self, what: &'static str) {
        *self.stats.entry(what).or_default() += 1;
    }

    fn submit(&mut self) {
        let size = self.random.u64(0..12).min(OPERATIONS - self.submitted);
        let group = GroupId(self.next_group);
        self.next_group += 1;
        let mut operations = Vec::new();
        let mut contents = Vec::new();
        for _ in 0..size {
            self.submitted += 1;
            let document = self.random.u64(..DOCUMENTS);
            let number = self.submitted;
            let body = number.to_string().into();
            let action = match self.random.u8(..8) {
                0 => Action::Replace(body),
                _ => Action::Upsert(body),
            };
            let write = Write::new(format!("[{document}]"), document.to_string(), action);
            let routing = RoutingKey::new(vec![(document * 21) as u8]);
            let mut operation = Operation::new(write, routing);
            if self.by_pair {
                operation.order = OrderKey::of_id(&(document / 2).to_string());
            }
            operations.push(operation);
            contents.push((document, number));
            self.oracle.last.insert(document, number);
        }
        self.oracle.groups.insert(group, contents);
        self.machine.submit(self.now, group, operations);
        if self.random.bool() {
            self.machine.hurry();
        }
        if self.random.u8(..) < 8 {
            self.after(2000, Event::Withdraw(group));
        }
        if self.submitted < OPERATIONS {
            self.after(300, Event::Submit);
        }
    }

    /// A write takes effect.
    fn apply(&mut self, (document, number): (u64, u64)) {
        let seen = self.oracle.seen.entry(document).or_default();
        if let Some(&before) = seen.last() {
            assert!(
                before <= number,
                "seed {}: document {document} fell from {before} to {number} at {:?}",
                self.seed,
                self.now,
            );
        }
        if seen.last() != Some(&number) {
            seen.push(number);
        }
    }

    fn is_poison(&self, (_, number): (u64, u64)) -> bool {
        self.poison && number.is_multiple_of(17)
    }

    /// A write takes effect now, later, or never. It is told about at `told`, and may be late by less than `settle`.
    fn maybe_apply(&mut self, content: (u64, u64), told: Duration, settle: Duration) {
        if self.is_poison(content) {
            return;
        }
        match self.random.u8(..3) {
            0 => self.apply(content),
            1 => {}
            _ => {
                let span = (told + settle - self.now).as_micros() as u64;
                let wait = Duration::from_micros(self.random.u64(..span));
                self.count("late");
                self.at(self.now + wait, Event::Late(content.0, content.1));
            }
        }
    }

    fn told_at(&mut self) -> Duration {
        self.now + Duration::from_micros(self.random.u64(0..20_000))
    }

    fn holds(&self, range: &str, operation: &Operation) -> bool {
        let after = self
            .bounds
            .partition_point(|(_, lower)| RoutingKey::new(vec![*lower]) <= operation.routing);
        self.bounds[after - 1].0.to_string() == range
    }

    fn arrive(&mut self, id: RequestId) {
        let request = self.requests[&id].clone();
        let contents: Vec<_> = request.operations.iter().map(|o| content(o)).collect();
        let told = self.told_at();
        let is_there = self
            .bounds
            .iter()
            .any(|(id, _)| id.to_string() == request.range.as_str());
        let failed = |status, sub_status| Answer {
            status,
            sub_status,
            charge_ru: 1.0,
            message: "no".into(),
            ..Answer::default()
        };
        let fault = if self.fault() {
            self.random.u8(..10)
        } else {
            u8::MAX
        };
        let answer = match fault {
            0 => {
                self.count("unsent");
                return self.at(told, Event::Lost(id, false));
            }
            1 | 2 => {
                self.count("lost");
                for content in contents {
                    self.maybe_apply(content, told, self.settle.0);
                }
                return self.at(told, Event::Lost(id, true));
            }
            3 => Answer {
                retry_after: Some(ms(self.random.u64(..100))),
                ..failed(429, 3200)
            },
            4 => {
                for content in contents {
                    self.maybe_apply(content, told, self.settle.1);
                }
                failed([408, 503, 500][self.random.usize(..3)], 0)
            }
            5 => failed(410, [1002, 1007, 1000][self.random.usize(..3)]),
            6 if request.operations.len() > 1 => failed(413, 0),
            7 => failed(403, 3),
            8 => {
                // Too few results, although something was done.
                for &content in &contents {
                    self.maybe_apply(content, told, self.settle.0);
                }
                let done = OperationResult {
                    status: 200,
                    ..OperationResult::default()
                };
                Answer {
                    results: vec![done; contents.len() - 1],
                    ..failed(207, 0)
                }
            }
            _ if !is_there => failed(410, 1002),
            _ if self.refuses_whole && contents.iter().any(|&content| self.is_poison(content)) => {
                self.count("refused whole");
                failed(400, 0)
            }
            _ => self.results(&request, told),
        };
        self.count(match answer.status {
            207 => "results",
            _ => "failed",
        });
        self.answers.insert(id, answer);
        self.at(told, Event::Answer(id));
    }

    fn results(&mut self, request: &Request, told: Duration) -> Answer {
        let mut results = Vec::new();
        for operation in &request.operations {
            let content = content(operation);
            let fault = if self.fault() {
                self.random.u8(..6)
            } else {
                u8::MAX
            };
            let (status, sub_status) = match fault {
                _ if !self.holds(request.range.as_str(), operation) => (410, 1002),
                0 => (429, [3200, 3088][self.random.usize(..2)]),
                1 => (449, 0),
                2 => {
                    self.maybe_apply(content, told, self.settle.1);
                    (408, 0)
                }
                3 if request.operations.len() > 1 => (413, 3402),
                4 => (424, 0),
                _ if self.is_poison(content) => (400, 0),
                _ => {
                    self.apply(content);
                    (200, 0)
                }
            };
            results.push(OperationResult {
                status,
                sub_status,
                charge_ru: 1.0,
                retry_after: (status == 429).then(|| ms(self.random.u64(..50))),
                ..OperationResult::default()
            });
        }
        Answer {
            status: 207,
            charge_ru: results.len() as f64,
            results,
            ..Answer::default()
        }
    }

    /// A range is split in two, or two are merged.
    fn change(&mut self) {
        let at = self.random.usize(..self.bounds.len());
        let id = self.next_range;
        self.next_range += 2;
        let lower = self.bounds[at].1;
        let upper = self.bounds.get(at + 1).map_or(0xFF, |next| next.1);
        if self.random.bool() && upper - lower > 1 {
            let middle = self.random.u8(lower + 1..upper);
            self.bounds.splice(at..=at, [(id, lower), (id + 1, middle)]);
        } else if at + 1 < self.bounds.len() {
            self.bounds.splice(at..=at + 1, [(id, lower)]);
        }
        self.count("changes");
        if self.now < FAULTS_UNTIL {
            self.after(10_000, Event::Change);
        }
    }

    fn handle(&mut self, event: Event) {
        let (now, random) = (self.now, self.random.f64());
        match event {
            Event::Submit => self.submit(),
            Event::Withdraw(group) => {
                let contents = self.oracle.groups.get(&group).cloned();
                self.oracle.withdrawn.extend(contents.unwrap_or_default());
                self.machine.withdraw(now, group);
                if self.oracle.groups.remove(&group).is_some() {
                    self.count("withdrawn");
                }
            }
            Event::Close => {
                self.is_closed = true;
                self.machine.close(now);
            }
            Event::Arrive(id) => self.arrive(id),
            Event::Late(document, number) => self.apply((document, number)),
            Event::Answer(id) => {
                self.ended(id);
                let answer = self.answers.remove(&id).unwrap();
                self.machine.answered(now, random, id, answer);
            }
            Event::Lost(id, maybe) => {
                self.ended(id);
                let lost = if maybe { Lost::Maybe } else { Lost::Unsent };
                self.machine.lost(now, random, id, lost);
            }
            Event::Map => {
                let parents: Vec<u64> = (0..self.next_range)
                    .filter(|id| !self.bounds.iter().any(|(used, _)| used == id))
                    .collect();
                let map = RoutingMap::of(ranges(&self.bounds, &parents)).unwrap();
                self.machine.new_map(now, map);
            }
            Event::Letter(id) => self.machine.letter_put(now, id),
            Event::Change => self.change(),
        }
    }

    fn ended(&mut self, id: RequestId) {
        let request = self.requests.remove(&id).unwrap();
        for operation in &request.operations {
            self.oracle.in_flight.remove(&operation.order);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send(request) => {
                assert!(!self.is_closed, "seed {}: sent after the close", self.seed);
                for operation in &request.operations {
                    let before = self.oracle.in_flight.insert(operation.order, request.id);
                    let seed = self.seed;
                    assert_eq!(
                        before, None,
                        "seed {seed}: two writes in flight: {operation:?}"
                    );
                }
                self.after(40, Event::Arrive(request.id));
                self.requests.insert(request.id, request);
            }
            Output::Refresh(Refresh::Token) => {}
            Output::Refresh(_) => self.after(100, Event::Map),
            Output::Letter(letter) => {
                self.refused(content(&letter.operation));
                self.after(100, Event::Letter(letter.id));
            }
            Output::Finished(group, summary) => self.finished(group, summary),
            Output::Stop(stop) => panic!("seed {}: {stop:?}", self.seed),
        }
    }

    fn refused(&mut self, content: (u64, u64)) {
        assert!(
            self.is_poison(content),
            "seed {}: {content:?} is well formed",
            self.seed
        );
        self.oracle.refused.insert(content);
    }

    fn finished(&mut self, group: GroupId, summary: Summary) {
        let seed = self.seed;
        let contents = self.oracle.groups.remove(&group);
        let contents = contents.unwrap_or_else(|| panic!("seed {seed}: {group:?} finished twice"));
        let Summary {
            written,
            ignored,
            superseded,
            dead,
            unwritten,
            ..
        } = summary;
        let counted = written + ignored + superseded + dead + unwritten;
        assert_eq!(counted, contents.len() as u64, "seed {seed}: {summary:?}");
        assert_eq!(ignored, 0, "seed {seed}");
        assert!(unwritten == 0 || self.is_closed, "seed {seed}: {summary:?}");
        let poison = contents.iter().filter(|&&content| self.is_poison(content));
        let poison: Vec<_> = poison.copied().collect();
        assert!(dead <= poison.len() as u64, "seed {seed}: {summary:?}");
        if unwritten > 0 {
            return;
        }
        for content in poison {
            self.oracle.refused.insert(content);
        }
        for (document, number) in contents {
            let highest = self.oracle.seen.get(&document).and_then(|seen| seen.last());
            // A refused operation may have taken the place of this one.
            let is_refused = |later: &u64| {
                self.oracle.refused.contains(&(document, *later))
                    || self.poison && later.is_multiple_of(17)
            };
            assert!(
                highest >= Some(&number) || (number..=self.submitted).any(|n| is_refused(&n)),
                "seed {seed}: {number} of document {document} was acknowledged, but it is at {highest:?}",
            );
        }
    }

    fn run(mut self) -> BTreeMap<&'static str, u64> {
        self.at(Duration::ZERO, Event::Submit);
        self.at(ms(500), Event::Change);
        if self.random.u8(..) < 32 {
            self.after(30_000, Event::Close);
        }
        let mut out = Vec::new();
        loop {
            let wake = self.machine.poll(self.now, &mut out);
            out.drain(..).for_each(|output| self.output(output));
            let next = self.events.peek().map(|Reverse((time, ..))| *time);
            let Some(time) = [wake, next].into_iter().flatten().min() else {
                break;
            };
            assert!(time < REST_BY, "seed {}: does not come to rest", self.seed);
            assert!(
                wake.is_none_or(|wake| wake > self.now),
                "seed {}: is woken in vain",
                self.seed
            );
            self.now = time;
            if next == Some(time) && (wake != next || self.random.bool()) {
                let Reverse((.., event)) = self.events.pop().unwrap();
                self.handle(event);
            }
        }
        self.check_the_end();
        self.stats
    }

    fn check_the_end(&self) {
        let seed = self.seed;
        assert!(self.machine.is_idle(), "seed {seed}: stuck");
        assert!(
            self.oracle.groups.is_empty(),
            "seed {seed}: {:?} never finished",
            self.oracle.groups
        );
        let held = self.machine.held();
        let in_partitions: usize = held.partitions.iter().sum();
        assert_eq!((held.bytes, in_partitions), (0, 0), "seed {seed}");
        assert_eq!(self.submitted, OPERATIONS);
        for (&document, &last) in &self.oracle.last {
            let is_due = !self.is_closed
                && !self.is_poison((document, last))
                && !self.oracle.withdrawn.contains(&(document, last));
            if is_due {
                let seen = self.oracle.seen[&document].last();
                assert_eq!(
                    seen,
                    Some(&last),
                    "seed {seed}: document {document} ended wrong"
                );
            }
        }
    }
}

#[test]
fn no_fault_makes_a_document_fall_back_or_get_lost() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let first = number("TIDEFEED_SEED");
    let seeds = match first {
        Some(_) => 1,
        None => number("TIDEFEED_BULK_SEEDS").unwrap_or(20),
    };
    let mut stats: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in (first.unwrap_or(0)..).take(seeds as usize) {
        let ran = std::panic::catch_unwind(|| World::new(seed).run());
        let ran = ran.unwrap_or_else(|_| panic!("failed: repeat it with TIDEFEED_SEED={seed}"));
        ran.into_iter()
            .for_each(|(what, n)| *stats.entry(what).or_default() += n);
    }
    // That the server did what it is there for.
    if seeds >= 20 {
        for what in [
            "unsent",
            "lost",
            "late",
            "failed",
            "refused whole",
            "results",
            "changes",
            "withdrawn",
        ] {
            assert!(stats[what] > 10, "{stats:?}");
        }
    }
    println!("{seeds} seeds: {stats:?}");
}

#[test]
fn one_seed_ends_the_same_way_twice() {
    assert_eq!(World::new(7).run(), World::new(7).run());
}

/// For tests beside this one.
pub(super) fn upsert(document: u8, body: &str) -> Operation {
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    let action = Action::Upsert(body);
    let write = Write::new(format!("[{document}]"), document.to_string(), action);
    Operation::new(write, RoutingKey::new(vec![document]))
}

pub(super) fn arc_ids(operations: &[Arc<Operation>]) -> Vec<String> {
    operations
        .iter()
        .map(|operation| operation.key.id.to_string())
        .collect()
}
