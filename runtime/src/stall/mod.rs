//! Why a run is stalled: what holds it, and since when. Pure: facts come in, with their ages, and an explanation comes out.
//!
//! 1. What is looked at is in [`Facts`]: what one process knows of itself, and in process 0 what the members have told. Whoever
//!    collects them takes the time; nothing here has a clock.
//! 2. A fact that is younger than [`Facts::notice`] is no stall but the run at work.
//! 3. Whatever is older is a [`Culprit`]. Of several the one that the others wait for comes first: a worker that does not come back
//!    keeps its epoch from being sealed, what is not sealed is not written, and what is not written is not committed ([`Kind`] is in
//!    this order). Among equals the oldest comes first.
//! 4. A member tells process 0 its own first culprit, so process 0 names that and not only the member.
//! 5. An epoch that nothing known holds is named as such ([`Kind::Frontier`]): better than to say that all is well.
//!
//! How long something has been so ([`Culprit::since_ms`]) and how long nothing has moved in it ([`Culprit::quiet_ms`]) are two things:
//! a large batch to a small container takes its time, and goes on. Liveness looks at the second, and only at what a new start of
//! this process could mend ([`Explanation::stuck`]).
//!
//! # Limits
//!
//! - timely's log of what each operator does is in a buffer of its worker's thread, which says nothing while the thread is
//!   stuck. So an operator of Tidefeed's own is known at once, as it says so itself ([`WorkerMarks`]), and of the job's own code, which
//!   are differential's operators, only between which of Tidefeed's it is.
//! - A client's retries of a checkpoint store are its own: that a write takes long is seen, and not what the store answered.

mod explain;
mod facts;
mod marks;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Epoch;
pub use explain::explain;
pub use facts::{
    Awaited, Doing, DoingFact, Facts, LeaseFact, LedgerFacts, MemberFact, Phase, RangeFact,
    RunState, SinkFact, TargetWait, Trouble, WorkerFact,
};
pub use marks::{OperatorMark, WorkerMarks};

/// What may hold a run, in the order in which one waits for the other: the first is the cause of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The run has failed, and ends.
    Failed,
    /// The cluster waits for a process to come.
    Assembling,
    /// An earlier run did not end in order, and its lease is waited out.
    Lease,
    /// A step of the start takes long: it is in `name`.
    Starting,
    /// The run is ending.
    Ending,
    /// A process of the cluster says nothing.
    Silent,
    /// A worker's thread is inside an operator, or inside the job's code between two.
    Operator,
    /// A worker's thread is not running its dataflow.
    Worker,
    /// The checkpoint is being loaded.
    Loading,
    /// Sinks wait until the views are as the commit says, or until process 0 lets them write.
    Verifying,
    /// Sinks wait until requests of the run before cannot act any more.
    Settling,
    /// A seal is being packed or written.
    Seal,
    /// Changes of keyed state are being written.
    State,
    /// A sink's writes are not acknowledged.
    Sink,
    /// A commit is being written.
    Commit,
    /// A process of the cluster has not sealed an epoch.
    Member,
    /// An epoch is in flight, and nothing that is known holds it.
    Frontier,
    /// A feed range fails, or does not answer.
    Reader,
    /// A feed range is throttled.
    Throttled,
    /// A feed range waits for the budget of request units that the configuration gives it.
    Budget,
    /// A page waits for room.
    Room,
}

impl Kind {
    /// Whether a new start of this process would not help: it waits for others, as it should.
    fn is_patience(self) -> bool {
        matches!(
            self,
            Kind::Assembling
                | Kind::Lease
                | Kind::Verifying
                | Kind::Settling
                | Kind::Silent
                | Kind::Member
                | Kind::Budget
                | Kind::Failed
                | Kind::Room
        )
    }
}

/// What holds the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Culprit {
    /// What it is.
    pub kind: Kind,
    /// Its name: of the source, the sink, the operator, or the address of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The process that it is in, or that it is.
    pub process: u32,
    /// The worker, counted over all processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<usize>,
    /// The feed range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// For how long it has been so, milliseconds.
    pub since_ms: u64,
    /// For how long nothing has moved in it, milliseconds; at most `since_ms`.
    pub quiet_ms: u64,
    /// The epoch that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// What is known beside, on one line.
    pub detail: String,
}

impl fmt::Display for Culprit {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.since_ms as f64 / 1000.0;
        write!(f, "process {}: {}", self.process, self.detail)?;
        if let Some(epoch) = self.epoch {
            write!(f, ", which holds epoch {epoch}")?;
        }
        match self.kind {
            // It has happened, and goes on no more.
            Kind::Failed => Ok(()),
            _ => write!(f, " (for {seconds:.1} s)"),
        }
    }
}

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// What the process is doing.
    pub state: RunState,
    /// Whether anything holds it.
    pub stalled: bool,
    /// One sentence.
    pub sentence: String,
    /// The first cause, if it is stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Culprit>,
    /// What else takes long, consequences among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Culprit>,
    /// Which process this is.
    pub process: u32,
    /// Whom to ask for the whole cluster, if this is one of its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
}

impl fmt::Display for Explanation {
    /// A line for what holds the run, and one for each that takes long beside it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        for one in &self.also {
            write!(f, "\n  also: {one}")?;
        }
        match &self.ask {
            Some(ask) => write!(f, "\n  ask {ask}"),
            None => Ok(()),
        }
    }
}

impl Explanation {
    /// What keeps this process from moving for so long, if a new start of it could mend that. What another process is to blame for,
    /// and what is waited for as it should be, does not count.
    pub fn stuck(&self, after_ms: u64) -> Option<&Culprit> {
        let all = self.culprit.iter().chain(&self.also);
        let mut own = all.filter(|one| one.process == self.process && !one.kind.is_patience());
        own.find(|one| one.quiet_ms >= after_ms)
    }
}
