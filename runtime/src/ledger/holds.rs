//! What a process is at, and since when: the facts of [`stall`](crate::stall) that only its ledger has.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Ledger;
use crate::Epoch;
use crate::cluster::MemberFacts;
use crate::stall::{Culprit, Doing, DoingFact, LedgerFacts, MemberFact, OperatorMark, WorkerMarks};

/// What background tasks and workers are at. Touched once for a seal, a commit or a step of a worker.
#[derive(Debug)]
pub(super) struct Holds {
    /// When the ledger was made: from then on sinks wait to be let write.
    begun: Instant,
    unsettled_since: Mutex<Option<Instant>>,
    doing: Mutex<BTreeMap<u64, Begun>>,
    workers: Mutex<BTreeMap<usize, Arc<WorkerMarks>>>,
    /// What holds this process, in a member.
    holding: Mutex<Option<Culprit>>,
    /// When each member was heard last, and what to call it, in process 0.
    heard: Mutex<BTreeMap<u32, (String, Instant)>>,
}

/// What is under way.
#[derive(Debug)]
struct Begun {
    doing: Doing,
    at: Instant,
    moved_at: Instant,
}

impl Default for Holds {
    fn default() -> Self {
        Holds {
            begun: Instant::now(),
            unsettled_since: Mutex::default(),
            doing: Mutex::default(),
            workers: Mutex::default(),
            holding: Mutex::default(),
            heard: Mutex::default(),
        }
    }
}

impl Holds {
    pub(super) fn unsettled(&self, unsettled: bool) {
        let mut since = self.unsettled_since.lock();
        *since = unsettled.then(|| since.unwrap_or_else(Instant::now));
    }

    pub(super) fn heard(&self, process: u32, peer: &str) {
        let mut heard = self.heard.lock();
        let now = Instant::now();
        match heard.get_mut(&process) {
            Some(known) => known.1 = now,
            None => drop(heard.insert(process, (peer.to_owned(), now))),
        }
    }

    pub(super) fn holding(&self) -> Option<Box<Culprit>> {
        self.holding.lock().clone().map(Box::new)
    }

    fn members(&self, told: &[MemberFacts]) -> Vec<MemberFact> {
        let heard = self.heard.lock();
        let fact = |(process, facts): (u32, &MemberFacts)| {
            let known = heard.get(&process);
            let age = known.map(|(_, at)| at.elapsed());
            MemberFact {
                process,
                name: known.map_or_else(|| format!("process {process}"), |(peer, _)| peer.clone()),
                heard: age,
                sealed_through: facts.sealed_through,
                holding: facts.holding.clone().map(|one| older(*one, age)),
            }
        };
        (1..).zip(told).map(fact).collect()
    }
}

/// What was so when it was said is so for longer by now.
fn older(mut one: Culprit, age: Option<Duration>) -> Culprit {
    let more = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    one.since_ms = one.since_ms.saturating_add(more);
    one.quiet_ms = one.quiet_ms.saturating_add(more);
    one
}

/// A background task is at something until this is dropped.
#[must_use]
pub struct AtWork {
    ledger: Ledger,
    number: u64,
}

impl AtWork {
    /// It has made progress.
    pub fn moved(&self) {
        if let Some(begun) = self.ledger.0.holds.doing.lock().get_mut(&self.number) {
            begun.moved_at = Instant::now();
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.ledger.0.holds.doing.lock().remove(&self.number);
    }
}

impl Ledger {
    /// A background task begins something, and is at it until what this returns is dropped.
    pub fn at_work(&self, doing: Doing) -> AtWork {
        let mut all = self.0.holds.doing.lock();
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        let at = Instant::now();
        let begun = Begun {
            doing,
            at,
            moved_at: at,
        };
        all.insert(number, begun);
        AtWork {
            ledger: self.clone(),
            number,
        }
    }

    /// The marks of a worker, by its number over all processes.
    pub fn worker(&self, worker: usize) -> Arc<WorkerMarks> {
        let mut workers = self.0.holds.workers.lock();
        let marks = || Arc::new(WorkerMarks::new(worker));
        Arc::clone(workers.entry(worker).or_insert_with(marks))
    }

    /// What an operator of a worker marks its calls with.
    pub fn operator(&self, worker: usize, name: &str) -> OperatorMark {
        self.worker(worker).operator(name)
    }

    /// What holds this process, for process 0 to hear with the next word.
    pub fn hold(&self, holding: Option<Culprit>) {
        let kind = |one: &Option<Culprit>| one.as_ref().map(|one| one.kind);
        let after = kind(&holding);
        let before = std::mem::replace(&mut *self.0.holds.holding.lock(), holding);
        if kind(&before) != after {
            self.tell();
        }
    }

    /// What this ledger knows of what holds the run.
    pub fn stall_facts(&self) -> LedgerFacts {
        let holds = &self.0.holds;
        let acknowledged_from = |epochs: &super::Epochs| {
            let oldest = *epochs.in_flight.keys().next()?;
            let from = (Bound::Included(oldest), Bound::Unbounded);
            let (epoch, minted) = epochs.minted_at.range(from).next()?;
            Some((*epoch, minted.elapsed()))
        };
        let epochs = self.0.epochs.lock();
        let oldest = acknowledged_from(&epochs);
        let committed = epochs.last_commit_at.map(|at| at.elapsed());
        drop(epochs);
        let doing = holds.doing.lock();
        let doing = doing.values().map(|begun| DoingFact {
            doing: begun.doing,
            since: begun.at.elapsed(),
            quiet: begun.moved_at.elapsed(),
        });
        let workers = holds.workers.lock();
        let unverified = !self.0.verified.load(Ordering::Acquire);
        LedgerFacts {
            failure: self.told_failure(),
            workers: workers.values().filter_map(|marks| marks.fact()).collect(),
            doing: doing.collect(),
            oldest,
            committed,
            sealed_through: self.sealed_through(),
            unverified: unverified.then(|| holds.begun.elapsed()),
            unsettled: holds.unsettled_since.lock().map(|since| since.elapsed()),
            pages_waiting: self.0.pages_waiting.load(Ordering::Acquire) > 0,
            members: holds.members(&self.members()),
        }
    }

    /// Age of the oldest epoch that not every sink has acknowledged.
    pub fn oldest_in_flight(&self) -> Option<(Epoch, Duration)> {
        self.stall_facts().oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::Kind;

    #[test]
    fn what_is_begun_is_known_until_it_ends() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        let seal = ledger.at_work(Doing::Seal(Epoch(4)));
        let commit = ledger.at_work(Doing::Commit(Epoch(3)));
        let doing = || {
            let facts = ledger.stall_facts().doing;
            facts.into_iter().map(|fact| fact.doing).collect::<Vec<_>>()
        };
        assert_eq!(doing(), [Doing::Seal(Epoch(4)), Doing::Commit(Epoch(3))]);
        drop(seal);
        assert_eq!(doing(), [Doing::Commit(Epoch(3))]);
        drop(commit);
        assert_eq!(doing(), []);
    }

    #[test]
    fn the_oldest_epoch_in_flight_is_known_with_its_age() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        assert_eq!(ledger.oldest_in_flight(), None);
        let ago = |s| Instant::now().checked_sub(Duration::from_secs(s));
        ledger.minted(Epoch(5), ago(9).expect("the machine runs for longer"));
        ledger.minted(Epoch(6), ago(4).expect("the machine runs for longer"));
        let oldest = || {
            let (epoch, age) = ledger.oldest_in_flight()?;
            Some((epoch.0, age.as_secs()))
        };
        assert_eq!(oldest(), Some((5, 9)));
        ledger.acknowledged(Some(6));
        assert_eq!(oldest(), Some((6, 4)), "epoch 5 waits for a commit only");
        ledger.acknowledged(None);
        assert_eq!(oldest(), None);
    }

    #[test]
    fn gates_are_known_until_they_open() {
        let ledger = Ledger::new(Epoch(3), Epoch(4));
        ledger.unsettle();
        let facts = ledger.stall_facts();
        assert!(facts.unverified.is_some() && facts.unsettled.is_some());
        ledger.settle();
        ledger.verify();
        let facts = ledger.stall_facts();
        assert!(facts.unverified.is_none() && facts.unsettled.is_none());
    }

    #[test]
    fn process_0_knows_what_holds_a_member_and_when_it_was_heard() {
        let member = Ledger::new(Epoch(0), Epoch(0));
        member.hold(Some(Culprit {
            kind: Kind::Seal,
            name: None,
            process: 1,
            worker: None,
            range: None,
            since_ms: 5000,
            quiet_ms: 5000,
            epoch: Some(Epoch(4)),
            detail: "a test".to_owned(),
        }));
        let lead = Ledger::new(Epoch(0), Epoch(0));
        lead.lead(2);
        lead.hear_member(1, "process 1 at a:1", member.member_facts());
        let members = lead.stall_facts().members;
        let named: Vec<_> = members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(named, ["process 1 at a:1", "process 2"]);
        assert!(members[0].heard.is_some() && members[1].heard.is_none());
        let holding = members[0].holding.clone().expect("it said so");
        assert!(holding.since_ms >= 5000 && holding.kind == Kind::Seal);
        member.hold(None);
        lead.hear_member(1, "process 1 at a:1", member.member_facts());
        assert_eq!(lead.stall_facts().members[0].holding, None);
    }
}
