//! Where a worker's thread is, for others to see while it is stuck.
//!
//! The worker marks the beginning of each step, and Tidefeed's own operators when they begin and end. A mark is one or two stores
//! into an atomic that only this worker writes to; the clock is read once a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::WorkerFact;

/// No operator.
const NONE: usize = 0;
/// The worker has not begun, or has ended.
const AWAY: u64 = 0;

/// The marks of one worker.
#[derive(Debug)]
pub struct WorkerMarks {
    worker: usize,
    origin: Instant,
    /// When the step began, microseconds since `origin` plus one.
    step: AtomicU64,
    building: AtomicUsize,
    /// Operators by their number, counted from 1.
    inside: AtomicUsize,
    passed: AtomicUsize,
    names: Mutex<Vec<String>>,
}

/// What one operator of one worker marks its calls with.
#[derive(Clone, Debug)]
pub struct OperatorMark {
    worker: Arc<WorkerMarks>,
    number: usize,
}

/// The operator is at work until this is dropped.
#[derive(Debug)]
pub struct Inside<'a>(&'a OperatorMark);

impl WorkerMarks {
    pub(crate) fn new(worker: usize) -> Self {
        WorkerMarks {
            worker,
            origin: Instant::now(),
            step: AtomicU64::new(AWAY),
            building: AtomicUsize::new(0),
            inside: AtomicUsize::new(NONE),
            passed: AtomicUsize::new(NONE),
            names: Mutex::new(Vec::new()),
        }
    }

    /// Another operator of this worker.
    pub(crate) fn operator(self: &Arc<Self>, name: &str) -> OperatorMark {
        let mut names = self.names.lock();
        names.push(name.to_owned());
        OperatorMark {
            worker: Arc::clone(self),
            number: names.len(),
        }
    }

    /// The worker builds its dataflow.
    pub(crate) fn build(&self) {
        self.building.store(1, Ordering::Relaxed);
        self.begin();
    }

    /// A step begins; one that runs no operator is a wait for work.
    pub(crate) fn step(&self) {
        self.building.store(0, Ordering::Relaxed);
        self.inside.store(NONE, Ordering::Relaxed);
        self.passed.store(NONE, Ordering::Relaxed);
        self.begin();
    }

    fn begin(&self) {
        let now = self.origin.elapsed().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX - 1);
        self.step.store(now + 1, Ordering::Release);
    }

    /// The worker has left its dataflow.
    pub(crate) fn leave(&self) {
        self.step.store(AWAY, Ordering::Release);
    }

    /// Where the thread is; `None` before it has begun and after it has ended.
    pub(crate) fn fact(&self) -> Option<WorkerFact> {
        let began = self.step.load(Ordering::Acquire).checked_sub(1)?;
        let names = self.names.lock();
        let name = |number: usize| names.get(number.checked_sub(1)?).cloned();
        let began = Duration::from_micros(began);
        Some(WorkerFact {
            worker: self.worker,
            since: self.origin.elapsed().saturating_sub(began),
            building: self.building.load(Ordering::Relaxed) == 1,
            inside: name(self.inside.load(Ordering::Relaxed)),
            passed: name(self.passed.load(Ordering::Relaxed)),
        })
    }
}

impl OperatorMark {
    /// The operator is called; to be kept until it returns.
    pub fn enter(&self) -> Inside<'_> {
        self.worker.inside.store(self.number, Ordering::Relaxed);
        Inside(self)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let OperatorMark { worker, number } = self.0;
        worker.inside.store(NONE, Ordering::Relaxed);
        worker.passed.store(*number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_where_its_operators_say() {
        let marks = Arc::new(WorkerMarks::new(3));
        assert_eq!(marks.fact(), None);
        marks.build();
        let (source, sink) = (marks.operator("Source: a"), marks.operator("Upsert: b"));
        assert!(marks.fact().is_some_and(|fact| fact.building));
        marks.step();
        let place = || {
            let fact = marks.fact().expect("it runs");
            assert!(!fact.building && fact.worker == 3);
            (fact.inside, fact.passed)
        };
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(place(), (None, None));
        let inside = source.enter();
        assert_eq!(place(), (name("Source: a"), None));
        drop(inside);
        assert_eq!(place(), (None, name("Source: a")));
        let inside = sink.enter();
        assert_eq!(place(), (name("Upsert: b"), name("Source: a")));
        drop(inside);
        marks.step();
        assert_eq!(place(), (None, None));
        marks.leave();
        assert_eq!(marks.fact(), None);
    }
}
