//! The rules of a running server: replaced at any time, asked by every request, and waited for by frozen ones.

use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::FaultOperation;
use super::engine::{Decision, End, FaultEngine, Subject};
use super::rule::{FaultPlan, FaultRule};

/// Some rule is in force.
const ACTIVE: u8 = 1;
/// Some rule names a partition.
const PARTITIONS: u8 = 2;
/// Some rule names operations of bulk batches.
const ITEMS: u8 = 4;

/// The rules of a running server. A server without rules pays one relaxed load for each request.
#[derive(Debug)]
pub struct Faults {
    /// What the rules are about, so that most requests need no lock.
    about: AtomicU8,
    engine: Mutex<FaultEngine>,
    /// Grows with every change of the rules.
    version: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            about: AtomicU8::new(0),
            engine: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

/// A decision, and the version of the rules that made it.
#[derive(Debug)]
pub struct Verdict {
    /// What happens.
    pub decision: Decision,
    version: u64,
}

impl Faults {
    /// Puts rules in force in place of the ones before, and releases what those froze.
    ///
    /// # Errors
    /// One clause that names the rule, the field and its range; then the rules before stay in force.
    pub fn set(&self, plan: FaultPlan) -> Result<(), String> {
        plan.validate()?;
        self.put(plan);
        Ok(())
    }

    /// Takes all rules back, and releases what they froze.
    pub fn clear(&self) {
        self.put(FaultPlan::default());
    }

    fn put(&self, plan: FaultPlan) {
        let about = about(&plan.rules);
        let mut engine = self.engine.lock();
        *engine = FaultEngine::new(plan);
        self.about.store(about, Ordering::Relaxed);
        // Under the lock, so that a verdict never carries the version of other rules.
        self.version.send_modify(|version| *version += 1);
    }

    /// Whether no rule is in force.
    pub fn is_idle(&self) -> bool {
        self.about.load(Ordering::Relaxed) & ACTIVE == 0
    }

    /// Whether requests have to say which partitions they are about.
    pub fn ask_partitions(&self) -> bool {
        self.about.load(Ordering::Relaxed) & PARTITIONS != 0
    }

    /// Decides about a request.
    pub fn decide(&self, subject: &Subject<'_>) -> Verdict {
        let mut engine = self.engine.lock();
        Verdict {
            decision: engine.decide(subject),
            version: *self.version.borrow(),
        }
    }

    /// Decides about one operation of a bulk batch in partition `partition`: it proceeds, or is refused before or after.
    pub fn decide_item(&self, database: &str, container: &str, partition: u32) -> End {
        if self.about.load(Ordering::Relaxed) & ITEMS == 0 {
            return End::Proceed;
        }
        let decision = self.engine.lock().decide(&Subject {
            operation: Some(FaultOperation::BulkItem),
            database: Some(database),
            container: Some(container),
            partitions: &[partition],
        });
        decision.end
    }

    /// Waits until the rules that made `verdict` are in force no more.
    pub async fn changed_since(&self, verdict: &Verdict) {
        let mut version = self.version.subscribe();
        // The sender lives in `self`, so waiting cannot fail before the change.
        let _ = version.wait_for(|now| *now != verdict.version).await;
    }

    /// Calls `look` with the seed and the rules in force, each with its hits.
    pub fn inspect<T>(&self, look: impl FnOnce(&FaultEngine) -> T) -> T {
        look(&self.engine.lock())
    }
}

fn about(rules: &[FaultRule]) -> u8 {
    rules.iter().fold(0, |about, rule| {
        let partitions = rule.partition.map_or(0, |_| PARTITIONS);
        let items = rule.operations.contains(&FaultOperation::BulkItem);
        about | ACTIVE | partitions | if items { ITEMS } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultAction;

    fn plan(rules: Vec<FaultRule>) -> FaultPlan {
        FaultPlan { seed: 0, rules }
    }

    #[test]
    fn items_of_a_bulk_batch_are_refused_by_partition() {
        let faults = Faults::default();
        assert_eq!(faults.decide_item("db", "items", 0), End::Proceed);
        let rule = FaultRule::new(FaultAction::status(449))
            .on(&[FaultOperation::BulkItem])
            .in_container("db", "items")
            .in_partition(1)
            .times(1);
        faults.set(plan(vec![rule])).unwrap();
        assert!(faults.ask_partitions() && !faults.is_idle());
        assert_eq!(faults.decide_item("db", "items", 0), End::Proceed);
        assert_eq!(faults.decide_item("db", "other", 1), End::Proceed);
        let refused = faults.decide_item("db", "items", 1);
        assert!(matches!(&refused, End::Refuse(status) if status.status == 449));
        assert_eq!(faults.decide_item("db", "items", 1), End::Proceed);
    }

    #[test]
    fn bad_rules_leave_the_rules_before_in_force() {
        let faults = Faults::default();
        faults
            .set(plan(vec![FaultRule::new(FaultAction::Freeze)]))
            .unwrap();
        let bad = FaultRule::new(FaultAction::Freeze).probability(2.0);
        assert!(faults.set(plan(vec![bad])).is_err());
        assert!(!faults.is_idle());
        assert_eq!(faults.decide(&Subject::default()).decision.end, End::Freeze);
        faults.clear();
        assert!(faults.is_idle());
    }

    #[tokio::test]
    async fn a_change_releases_whoever_waits_and_whoever_comes_late() {
        let faults = Faults::default();
        let freeze = || plan(vec![FaultRule::new(FaultAction::Freeze)]);
        faults.set(freeze()).unwrap();
        let verdict = faults.decide(&Subject::default());
        let waiting = faults.changed_since(&verdict);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("released without a change"),
            () = std::future::ready(()) => {}
        }
        // The same rules again are a change too: their counts start anew.
        faults.set(freeze()).unwrap();
        waiting.await;
        faults.changed_since(&verdict).await;
    }
}
