//! A job as one process of several.
//!
//! ```text
//! process 0                                    a member
//! 1. wait for all                              look for process 0, and prove to belong there
//! 2. connect, take the checkpoint over,        wait
//!    decide what becomes of the sinks
//! 3. say which generation it is, and how  -->  connect, read what the start record pins
//!    each sink starts
//! 4. connect for data with all the others      likewise
//! 5. the dataflow, on all workers              likewise
//! 6. wait until nobody has anything under  <-- say that nothing is under way any more
//!    way, give the checkpoint back
//! ```
//!
//! What keeps one from getting through is told to the others, and ends all. A failure that asks for a start from the beginning
//! (`on_expired = "reload"`) ends a cluster like any other.

mod options;
mod supervisor;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_operators::target::REQUEST_DEADLINE;
use tidefeed_runtime::checkpoint::{Fingerprint, LeaseConfig, Supervised};
use tidefeed_runtime::cluster::{Follow, Hosts, Lead, Place, Secret, Tls};
use tidefeed_runtime::dataflow::SinkStart;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::ending::LeaseKeeper;
pub(crate) use options::{Role, options, role};
pub(crate) use supervisor::supervise;

/// Beyond the time that a request may take, what a process may take to say that it has none any more.
const TO_SAY_SO: Duration = Duration::from_secs(2);

/// One process of a cluster.
#[derive(Debug)]
pub struct Member {
    process: u32,
    hosts: Hosts,
    secret: Secret,
    tls: Option<Tls>,
    peer_timeout: Duration,
    listener: Option<TcpListener>,
    supervised: Option<Supervised>,
}

impl Member {
    /// Process `process` of those at `hosts`, which all know `secret`. Others are lost after 5 s of silence.
    ///
    /// # Errors
    /// `Config` when there is no such process.
    pub fn new(process: u32, hosts: Hosts, secret: Secret) -> Result<Member> {
        hosts.address(process)?;
        Ok(Member {
            process,
            hosts,
            secret,
            tls: None,
            peer_timeout: Duration::from_secs(5),
            listener: None,
            supervised: None,
        })
    }

    /// Says that whoever has started it has seen every process of the runs before end. By itself it does not know.
    pub(crate) fn supervised(mut self, supervised: Option<Supervised>) -> Self {
        self.supervised = supervised;
        self
    }

    /// After how much silence another process is lost.
    pub fn peer_timeout(mut self, peer_timeout: Duration) -> Self {
        self.peer_timeout = peer_timeout;
        self
    }

    /// Encrypts what it says to the others, who have to do the same.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Listens here, and not at its address among the hosts.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Within how much time every other process says something at least: two of the five words that fit into the peer timeout.
    pub(crate) fn word_due(&self) -> Duration {
        self.peer_timeout * 2 / 5
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            process: self.process,
            processes: self.hosts.processes(),
            supervised: self.supervised,
        }
    }

    pub(crate) fn place(
        self,
        job: &str,
        workers: u32,
        fingerprint: &Fingerprint,
        lease: LeaseConfig,
    ) -> Result<Place> {
        let graph = serde_json::to_vec(fingerprint)
            .context(ErrorKind::Internal, || "a fingerprint has no JSON form")?;
        Ok(Place {
            process: self.process,
            hosts: self.hosts,
            secret: self.secret,
            tls: self.tls,
            peer_timeout: self.peer_timeout,
            lease: lease.duration,
            job: job.to_owned(),
            workers,
            graph: format!("{:016x}", xxh3_64(&graph)),
            listener: self.listener,
            awaited: Default::default(),
        })
    }
}

/// Which process of a run this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) process: u32,
    pub(crate) processes: u32,
    /// Of which run of a supervisor, if one has started all processes.
    pub(crate) supervised: Option<Supervised>,
}

impl Position {
    pub(crate) const ALONE: Position = Position {
        process: 0,
        processes: 1,
        supervised: None,
    };

    /// Whether the decisions of the run are made here.
    pub(crate) fn leads(self) -> bool {
        self.process == 0
    }

    /// The number of the first worker here, of so many in each process.
    pub(crate) fn first_worker(self, workers: usize) -> usize {
        self.process as usize * workers
    }

    /// The workers of all processes.
    pub(crate) fn all_workers(self, workers: usize) -> usize {
        self.processes as usize * workers
    }
}

/// What process 0 tells the job in other processes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunPlan {
    /// How the run starts with each sink.
    pub(crate) sinks: BTreeMap<String, SinkStart>,
}

/// By what a process takes part in a run, from its start until its end.
pub(crate) enum Standing {
    Alone(LeaseKeeper),
    Lead(LeaseKeeper, Lead),
    Member(Follow),
}

impl Standing {
    /// How long to wait before the first write to a sink. A member waits until it is told.
    pub(crate) fn settle(&self) -> Option<Duration> {
        match self {
            Standing::Alone(lease) | Standing::Lead(lease, _) => Some(lease.settle()),
            Standing::Member(_) => None,
        }
    }

    /// Nothing is under way any more in this process. The checkpoint is given back when that is true for all.
    pub(crate) async fn end(self) {
        let patience = REQUEST_DEADLINE + TO_SAY_SO;
        match self {
            Standing::Alone(lease) => lease.release().await,
            Standing::Lead(lease, lead) => match lead.end(patience).await {
                true => lease.release().await,
                false => tracing::warn!(
                    event = "lease_kept",
                    "another process did not say that it has ended: the checkpoint is not given back, and the next run waits, unless a \
                     supervisor knows better"
                ),
            },
            Standing::Member(follow) => follow.end(patience).await,
        }
    }

    /// The start has come to nothing.
    pub(crate) async fn give_up(self, error: &Error) {
        match self {
            Standing::Alone(lease) => lease.release().await,
            Standing::Lead(lease, lead) => {
                lead.refuse(error).await;
                lease.release().await;
            }
            Standing::Member(follow) => follow.fail(error).await,
        }
    }
}
