//! What is looked at. Every `Duration` is an age at the moment of looking.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Culprit;
use crate::{Epoch, FeedRangeId, Generation};

/// How far a process has come in its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It looks at its code and its configuration.
    #[default]
    Starting,
    /// It waits for the other processes, or for process 0.
    Assembling,
    /// A member waits for process 0 to take the checkpoint over.
    Following,
    /// It opens sources and sinks.
    Opening,
    /// It takes the checkpoint over and decides what becomes of the sinks.
    TakingOver,
    /// It connects with the other processes for data.
    Connecting,
    /// Its workers run.
    Running,
    /// It ends, for good or ill.
    Ending,
    /// It has ended.
    Ended,
}

/// What a process is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It has not come to assemble yet.
    Starting,
    /// It waits for other processes.
    Assembling,
    /// It takes the checkpoint over.
    TakingOver,
    /// Its workers run, and sinks may not write yet: the checkpoint is loaded and compared, or earlier requests are waited out.
    Resuming,
    /// It runs.
    Running,
    /// It runs, and there is nothing to do.
    Idle,
    /// It ends.
    Ending,
    /// It has ended.
    Ended,
}

/// What one process knows.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Which process this is.
    pub process: u32,
    /// What is younger is no stall.
    pub notice: Duration,
    /// A process of the cluster says something at least this often.
    pub word_due: Duration,
    /// Where the process stands, and for how long.
    pub phase: (Phase, Duration),
    /// Processes that have not come.
    pub awaited: Vec<Awaited>,
    /// The lease that is waited out.
    pub lease: Option<LeaseFact>,
    /// What the ledger knows; from when there is one.
    pub ledger: Option<LedgerFacts>,
    /// Feed ranges that are read here.
    pub ranges: Vec<RangeFact>,
    /// Sinks.
    pub sinks: Vec<SinkFact>,
    /// The operators of the job's code, in their order, with stand-ins for sources and sinks.
    pub code: Vec<String>,
    /// Whether process 0 is another one.
    pub follows: bool,
}

/// A process that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Its number.
    pub process: u32,
    /// What to call it: its number and address.
    pub name: String,
    /// For how long.
    pub since: Duration,
    /// Why it was not reached, if it was looked for.
    pub why: Option<String>,
}

/// The lease of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFact {
    /// Which run has it.
    pub generation: Generation,
    /// For how long it has been waited for.
    pub since: Duration,
}

/// What a ledger knows.
#[derive(Clone, Debug, Default)]
pub struct LedgerFacts {
    /// What has ended the run, if it has failed, without documents.
    pub failure: Option<String>,
    /// The workers of this process.
    pub workers: Vec<WorkerFact>,
    /// What the background tasks are at.
    pub doing: Vec<DoingFact>,
    /// The oldest epoch that is minted and not acknowledged by every sink. In process 0.
    pub oldest: Option<(Epoch, Duration)>,
    /// Age of the last commit.
    pub committed: Option<Duration>,
    /// What this process has sealed.
    pub sealed_through: Epoch,
    /// For how long sinks have waited for the views to be verified.
    pub unverified: Option<Duration>,
    /// For how long sinks have waited for earlier requests to settle.
    pub unsettled: Option<Duration>,
    /// Whether pages wait to be attached.
    pub pages_waiting: bool,
    /// The other processes, in process 0.
    pub members: Vec<MemberFact>,
}

/// Where a worker's thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFact {
    /// The worker, counted over all processes.
    pub worker: usize,
    /// For how long it has been in its present step, or in building its dataflow.
    pub since: Duration,
    /// Whether it builds its dataflow.
    pub building: bool,
    /// The operator that it is in, as far as operators say so.
    pub inside: Option<String>,
    /// The last operator that said that it was done, in this step.
    pub passed: Option<String>,
}

/// What a background task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Packing the seal of an epoch.
    Pack(Epoch),
    /// Writing the seal of an epoch.
    Seal(Epoch),
    /// Writing keyed state of an epoch.
    State(Epoch),
    /// Writing the commit of an epoch.
    Commit(Epoch),
    /// Loading the checkpoint.
    Load,
}

/// For how long a background task has been at something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoingFact {
    /// At what.
    pub doing: Doing,
    /// For how long.
    pub since: Duration,
    /// For how long without progress.
    pub quiet: Duration,
}

/// What is wrong with the requests of a feed range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The service puts them off.
    Throttled {
        /// Requests in a row.
        attempts: u32,
    },
    /// They fail, and are repeated.
    Failing {
        /// Requests in a row.
        attempts: u32,
        /// What the last one came to, on one line.
        error: String,
    },
    /// They wait for the budget of request units.
    Budget,
}

/// A feed range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeFact {
    /// Its source.
    pub source: String,
    /// The range.
    pub range: FeedRangeId,
    /// The worker that it feeds.
    pub worker: usize,
    /// For how long the present request has gone without an answer, retries included; `None` when none is under way.
    pub asked: Option<Duration>,
    /// Age of the last answer; `None` before the first.
    pub answered: Option<Duration>,
    /// What is wrong with the present request.
    pub trouble: Option<Trouble>,
    /// For how long its page has waited for room.
    pub waits_for_room: Option<Duration>,
}

/// What a target knows of writes that are not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetWait {
    /// For how long writes are under way without any being acknowledged.
    pub quiet: Duration,
    /// The physical partition with the last failure, if there was one.
    pub partition: Option<String>,
    /// Status and sub-status of that; status 0 for no answer.
    pub last_failure: Option<(u16, u32)>,
    /// Writes that did not succeed and were repeated, since the target was opened.
    pub failures: u64,
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkFact {
    /// Its name.
    pub name: String,
    /// The oldest batch that is at the target: its worker, and for how long.
    pub writing: Option<(usize, Duration)>,
    /// The worker that has been reading the container for longest, to bring it in line with the view, and for how long.
    pub scanning: Option<(usize, Duration)>,
    /// What the target knows, if it can tell.
    pub target: Option<TargetWait>,
}

/// A member, as process 0 knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFact {
    /// Its number.
    pub process: u32,
    /// What to call it.
    pub name: String,
    /// Age of its last word; `None` before the first.
    pub heard: Option<Duration>,
    /// What it has sealed.
    pub sealed_through: Epoch,
    /// What holds it, by its own account, with ages as of now.
    pub holding: Option<Culprit>,
}
