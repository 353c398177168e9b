//! Runs a script on both servers, finds the first operation that differs, and makes its script small.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::known::forget_all;
use crate::outcome::Outcome;
use crate::script::{Action, Operation};
use crate::side::{Session, Side};

/// How long to look for a smaller script.
const SHRINK_FOR: Duration = Duration::from_secs(60);

/// Both servers.
pub struct Pair {
    pub ours: Side,
    pub oracle: Side,
    databases: AtomicUsize,
    classes: RefCell<BTreeMap<String, usize>>,
}

/// An operation after which the servers disagree.
#[derive(Clone, Debug)]
pub struct Difference {
    pub step: usize,
    pub ours: Outcome,
    pub oracle: Outcome,
}

impl Pair {
    pub fn new(ours: Side, oracle: Side) -> Self {
        Self {
            ours,
            oracle,
            databases: AtomicUsize::new(0),
            classes: RefCell::default(),
        }
    }

    /// How many outcomes of each class there were.
    pub fn classes(&self) -> BTreeMap<String, usize> {
        self.classes.borrow().clone()
    }

    /// Runs a script in a new database; the first difference that is not known.
    pub async fn run(&self, script: &[Operation]) -> Fallible<Option<Difference>> {
        self.first_difference(script, forget_all).await
    }

    /// Runs a script in a new database; the first operation with two outcomes, after `forget` changed
    /// them, or with a wrong one.
    pub async fn first_difference(
        &self,
        script: &[Operation],
        forget: impl Fn(&Action, &mut Outcome),
    ) -> Fallible<Option<Difference>> {
        let database = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut ours = Session::open(&self.ours, database.clone()).await?;
        let mut oracle = Session::open(&self.oracle, database).await?;
        let mut difference = None;
        for (step, operation) in script.iter().enumerate() {
            let mut mine = ours.perform(step, operation).await?;
            let mut theirs = oracle.perform(step, operation).await?;
            let wrong = mine.is_wrong();
            forget(&operation.action, &mut mine);
            forget(&operation.action, &mut theirs);
            let mut classes = self.classes.borrow_mut();
            *classes.entry(mine.class()).or_default() += 1;
            if wrong || mine != theirs {
                difference = Some(Difference {
                    step,
                    ours: mine,
                    oracle: theirs,
                });
                break;
            }
        }
        ours.close().await?;
        oracle.close().await?;
        Ok(difference)
    }

    /// Takes operations out of a script as long as it still ends in a difference.
    pub async fn shrink(
        &self,
        mut script: Vec<Operation>,
        mut difference: Difference,
    ) -> Fallible<(Vec<Operation>, Difference)> {
        let deadline = Instant::now() + SHRINK_FOR;
        script.truncate(difference.step + 1);
        let mut chunk = script.len() / 2;
        while chunk > 0 {
            let mut end = script.len() - 1;
            while end > 0 && Instant::now() < deadline {
                let start = end.saturating_sub(chunk);
                let mut smaller = script.clone();
                smaller.drain(start..end);
                if let Some(found) = self.run(&smaller).await? {
                    smaller.truncate(found.step + 1);
                    script = smaller;
                    difference = found;
                    end = start.min(script.len() - 1);
                } else {
                    end = start;
                }
            }
            chunk /= 2;
        }
        Ok((script, difference))
    }
}

/// What to print about a difference.
pub fn report(seed: u64, first: &Difference, script: &[Operation], shrunk: &Difference) -> String {
    let mut text = format!(
        "seed {seed}: the servers differ at operation {}; {} operations are enough:\n",
        first.step,
        script.len()
    );
    for (step, operation) in script.iter().enumerate() {
        text.push_str(&format!(
            "  {step}: {} {:?}\n",
            operation.shape.name(),
            operation.action
        ));
    }
    text.push_str(&format!(
        "  ours:   {:?}\n  oracle: {:?}\n",
        shrunk.ours, shrunk.oracle
    ));
    text
}
