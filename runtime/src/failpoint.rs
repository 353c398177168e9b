//! Places where a test makes a run fail: just before or just after a step of the protocol, at the n-th time.
//!
//! A [`Failpoints`] belongs to one run. It travels with the run's [`Ledger`](crate::Ledger), for what happens in the dataflow,
//! and with its [`CheckpointStore`](crate::checkpoint::CheckpointStore), for what becomes durable. A run that has none, which
//! is every run outside of tests, pays one look at an `Option` at each step.
//!
//! What happens at the point is the caller's to say. [`Failpoints::aborting`] ends the process on the spot, as a crash does:
//! no destructor runs and nothing is flushed. It says on standard error which point it was, so that a test can tell that end
//! from any other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, ErrorKind};

/// A step of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The ticker mints an epoch.
    Tick,
    /// A source attaches what has arrived to an epoch and hands it to the sealer.
    Attach,
    /// A record of the lease is created: it is taken, renewed, or given back.
    LeasePut,
    /// A generation record is created.
    Claim,
    /// A start record is created: the run pins what it starts from.
    Pin,
    /// A seal is created.
    SealPut,
    /// A source drops its capability for a sealed epoch.
    CapabilityDrop,
    /// A sink writes a batch to its target.
    SinkWrite,
    /// A sink drops the capabilities of an acknowledged batch.
    Acknowledge,
    /// A commit is created.
    CommitPut,
    /// An object of a base is created.
    BaseWrite,
    /// An object that nothing needs any more is deleted.
    GarbageDelete,
}

impl Step {
    /// Every step.
    pub const ALL: [Step; 12] = [
        Step::Tick,
        Step::Attach,
        Step::LeasePut,
        Step::Claim,
        Step::Pin,
        Step::SealPut,
        Step::CapabilityDrop,
        Step::SinkWrite,
        Step::Acknowledge,
        Step::CommitPut,
        Step::BaseWrite,
        Step::GarbageDelete,
    ];

    fn name(self) -> &'static str {
        match self {
            Step::Tick => "tick",
            Step::Attach => "attach",
            Step::LeasePut => "lease-put",
            Step::Claim => "claim",
            Step::Pin => "pin",
            Step::SealPut => "seal-put",
            Step::CapabilityDrop => "capability-drop",
            Step::SinkWrite => "sink-write",
            Step::Acknowledge => "acknowledge",
            Step::CommitPut => "commit-put",
            Step::BaseWrite => "base-write",
            Step::GarbageDelete => "garbage-delete",
        }
    }
}

/// The side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of the step has happened.
    Before,
    /// The step has happened, and nothing after it.
    After,
}

impl Side {
    /// Both sides.
    pub const BOTH: [Side; 2] = [Side::Before, Side::After];

    fn name(self) -> &'static str {
        match self {
            Side::Before => "before",
            Side::After => "after",
        }
    }
}

/// One point in a run, written as `seal-put:before:3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failpoint {
    /// The step.
    pub step: Step,
    /// The side of the step.
    pub side: Side,
    /// Which time, from 1, counted over all threads of the run.
    pub time: u64,
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failpoint { step, side, time } = self;
        write!(f, "{}:{}:{time}", step.name(), side.name())
    }
}

impl FromStr for Failpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (step, rest) = text.split_once(':')?;
            let (side, time) = rest.split_once(':')?;
            Some(Failpoint {
                step: Step::ALL.into_iter().find(|known| known.name() == step)?,
                side: Side::BOTH.into_iter().find(|known| known.name() == side)?,
                time: time.parse().ok().filter(|time| *time > 0)?,
            })
        };
        parse().ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!(
                    "{text:?} is no failpoint: write STEP:before:N or STEP:after:N, where N is 1 or more and STEP one of {}",
                    Step::ALL.map(Step::name).join(", ")
                ),
            )
        })
    }
}

/// The failpoint of a run, or none. Clones count together.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<Armed>>);

struct Armed {
    point: Failpoint,
    passed: AtomicU64,
    action: Box<dyn Fn() + Send + Sync>,
}

impl Failpoints {
    /// Calls `action` at the point.
    pub fn new(point: Failpoint, action: impl Fn() + Send + Sync + 'static) -> Self {
        Failpoints(Some(Arc::new(Armed {
            point,
            passed: AtomicU64::new(0),
            action: Box::new(action),
        })))
    }

    /// Aborts the process at the point.
    pub fn aborting(point: Failpoint) -> Self {
        Failpoints::new(point, move || {
            eprintln!("failpoint {point}");
            std::process::abort();
        })
    }

    /// The step is about to happen.
    pub fn before(&self, step: Step) {
        self.pass(step, Side::Before);
    }

    /// The step has happened.
    pub fn after(&self, step: Step) {
        self.pass(step, Side::After);
    }

    fn pass(&self, step: Step, side: Side) {
        if let Some(armed) = &self.0
            && (armed.point.step, armed.point.side) == (step, side)
            && armed.passed.fetch_add(1, Ordering::Relaxed) + 1 == armed.point.time
        {
            (armed.action)();
        }
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = self.0.as_ref().map(|armed| armed.point);
        f.debug_tuple("Failpoints").field(&point).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_met_once_at_its_time_on_its_side() {
        let hits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&hits);
        let point = "seal-put:after:2".parse().expect("a point");
        let failpoints = Failpoints::new(point, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let clone = failpoints.clone();
        let mut seen = Vec::new();
        for _ in 0..3 {
            failpoints.before(Step::SealPut);
            clone.after(Step::CommitPut);
            clone.after(Step::SealPut);
            seen.push(hits.load(Ordering::Relaxed));
        }
        assert_eq!(seen, [0, 1, 1]);
        Failpoints::default().after(Step::SealPut);
    }

    #[test]
    fn points_have_names() {
        for step in Step::ALL {
            for side in Side::BOTH {
                let point = Failpoint {
                    step,
                    side,
                    time: 3,
                };
                assert_eq!(point.to_string().parse::<Failpoint>().ok(), Some(point));
            }
        }
        for wrong in [
            "",
            "tick",
            "tick:before",
            "tick:before:0",
            "tock:after:1",
            "tick:at:1",
        ] {
            let error = wrong.parse::<Failpoint>().expect_err(wrong).report();
            assert!(error.contains("is no failpoint") && error.contains("seal-put"));
        }
    }
}
