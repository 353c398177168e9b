//! What the processes of a run tell each other of their ledgers.
//!
//! A member tells process 0 its [`MemberFacts`], and process 0 tells every member its [`RunFacts`]. Each message is all that its
//! sender has to say: figures are absolute or only grow, so of several messages the newest is enough, and none depends on one
//! before it. Process 0 decides on sums over all processes, which are never exact at one moment. What makes them safe:
//!
//! 1. Feed ranges are counted *up* by process 0 alone, before anybody may read them; members only count what has ended, was read
//!    up, or has caught up. So as long as any range is still to be read, the sums say so, however late a member is heard.
//! 2. A member looks at what has ended before it looks at the pages that wait. So whoever hears that the last range has ended
//!    hears of its pages too.
//! 3. Nothing here lets a sink write or an epoch be committed: seals are reported through the dataflow, and frontiers decide (I1, I4).
//!    What is heard late delays epochs, and nothing more.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use serde::{Deserialize, Serialize};

use crate::stall::Culprit;
use crate::{Epoch, Error, ErrorKind};

/// The longest report of itself that a member tells process 0, about each second, beside its facts: a connection that moves this much
/// well within the peer timeout loses nobody.
pub const MAX_REPORT_BYTES: usize = 64 << 10;

/// When a run is to end in order; what comes later here is sooner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// Never.
    #[default]
    No,
    /// Once every feed range has caught up.
    CaughtUp,
    /// With what is read by now.
    Here,
}

/// What a member knows and process 0 needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemberFacts {
    /// What has become of feed ranges. Looked at before everything else.
    pub ranges: RangeCounts,
    /// The newest epoch that it has made durable.
    pub sealed_through: Epoch,
    /// Pages that an epoch is due for, and that wait for it.
    pub pages_waiting: u64,
    /// Bytes of those.
    pub bytes_waiting: u64,
    /// Readers that hold a page for which there is no room.
    pub room_wanted: u64,
    /// Bytes that it attached to each epoch since the oldest that is in flight.
    pub attached: BTreeMap<Epoch, u64>,
    /// When it was asked to end in order.
    pub finish: Finish,
    /// It was asked to end at once.
    pub stopped: bool,
    /// Why it fails.
    pub failure: Option<Told>,
    /// What holds it, by its own account, with ages as of when it was found.
    pub holding: Option<Box<Culprit>>,
}

/// What has become of feed ranges in one process; the numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RangeCounts {
    /// Ranges of which everything is read that was asked for.
    pub ended: u64,
    /// Ranges that were read to where they catch up for the first time.
    pub read_up: u64,
    /// Ranges of which all that is attached too.
    pub caught_up: u64,
    /// The newest epoch that it was attached to.
    pub caught_up_in: Epoch,
    /// Ranges that start at now and have got a durable position.
    pub fixed: u64,
}

/// What process 0 knows and every member needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunFacts {
    /// The newest committed epoch.
    pub committed_through: Epoch,
    /// No older epoch is in flight.
    pub oldest_in_flight: Epoch,
    /// Sinks may write.
    pub writable: bool,
    /// The epoch by which the sources had caught up for the first time.
    pub loaded_by: Option<Epoch>,
    /// When the run is to end in order.
    pub finish: Finish,
    /// The run is to end at once.
    pub stopped: bool,
    /// Why the run fails.
    pub failure: Option<Told>,
}

/// A failure, as one process tells it to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// The exit code of its kind.
    code: u8,
    /// What has happened, on one line.
    report: String,
    /// What the operating system says of it, if it is from there: it knows no documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
}

/// How the first clause of a report begins if it has no document in it.
const SAFE: [&str; 9] = [
    "sink ",
    "source ",
    "worker ",
    "process ",
    "cannot seal ",
    "cannot commit ",
    "cannot load ",
    "cannot write state ",
    "the position in feed range ",
];
/// How a clause after it does; up to a semicolon.
const SAFE_CAUSE: &str = "too many writes of container ";

impl Told {
    /// What has happened without what it is about, as that may be a document: what has stopped, and the exit code.
    pub fn summary(&self) -> String {
        let mut clauses = self.report.split(": ");
        let first = clauses.next().unwrap_or_default();
        let code = self.code;
        if !SAFE.iter().any(|safe| first.starts_with(safe)) {
            return format!("exit code {code}, its log says why");
        }
        let counted = |clause: &&str| clause.ends_with(" writes were not carried out");
        let cause = clauses
            .find(|clause| !counted(clause))
            .filter(|clause| clause.starts_with(SAFE_CAUSE))
            .and_then(|clause| clause.split("; ").next());
        let mut what = first.to_owned();
        for more in cause.into_iter().chain(self.system.as_deref()) {
            what = what + ": " + more;
        }
        format!("{what} (exit code {code}, its log says why)")
    }

    /// What to tell of an error.
    pub fn of(error: &Error) -> Told {
        Told {
            code: error.kind().exit_code(),
            report: error.report(),
            system: system_error(error),
        }
    }

    /// The error of a process that hears this from `peer`. That the run is fenced is true for all of it; any other failure is the
    /// other's own, and for whoever hears of it a peer is lost.
    pub fn heard_from(&self, peer: &str) -> Error {
        let fenced = ErrorKind::Fenced;
        let lost = ErrorKind::PeerLost;
        match self.code {
            code if code == fenced.exit_code() => {
                Error::new(fenced, format!("{peer}: {}", self.report))
            }
            // Somebody else's failure, passed on as it is.
            code if code == lost.exit_code() => Error::new(lost, self.report.clone()),
            _ => Error::new(lost, format!("{peer} has failed: {}", self.report)),
        }
    }
}

/// The error of the operating system among the causes.
fn system_error(error: &Error) -> Option<String> {
    let first = error.source();
    let mut causes = std::iter::successors(first, |&error| error.source());
    causes.find_map(|cause| {
        let io = cause.downcast_ref::<std::io::Error>()?;
        io.raw_os_error().is_some().then(|| io.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_no_documents_in_it() {
        let summary = |error: &Error| Told::of(error).summary();
        let rows = Error::new(ErrorKind::Data, "two rows share a key: {\"id\":\"secret\"}");
        assert_eq!(summary(&rows), "exit code 3, its log says why");
        let sink = rows.wrap("sink totals stopped");
        let expected = "sink totals stopped (exit code 3, its log says why)";
        assert_eq!(summary(&sink), expected);
        let refused = "too many writes of container d/totals are refused, so it is not these documents that are wrong; the last was \
                       document secret: 413/0";
        let refused = Error::new(ErrorKind::Rejected, refused)
            .wrap("2 writes were not carried out")
            .wrap("sink totals stopped");
        let expected = "sink totals stopped: too many writes of container d/totals are refused, so it is not these documents that are \
                        wrong (exit code 9, its log says why)";
        assert_eq!(summary(&refused), expected);
    }

    #[test]
    fn a_summary_says_what_the_operating_system_does() {
        let full = std::io::Error::from_raw_os_error(28);
        let full = Error::new(ErrorKind::Checkpoint, "cannot write an object").with_source(full);
        let summary = Told::of(&full.wrap("cannot seal epoch 7")).summary();
        let expected = "cannot seal epoch 7: No space left on device (os error 28) (exit code 7, its log says why)";
        assert_eq!(summary, expected);
    }
}
