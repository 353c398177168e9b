//! What a start finds and decides: the lines that every start logs, and that `JOB check` prints without starting.
//!
//! Limits: `check` reads the checkpoint without taking it over, so a run that lives may change it meanwhile, and whether
//! another run lives does not show. It compares fingerprints, not views: the rows of a view are known only when it is computed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tidefeed_runtime::checkpoint::Resume;
use tidefeed_runtime::{Error, FeedRangeId};

use crate::decision::{Decision, Decisions};

/// What a start would do.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The job.
    pub job: String,
    /// The number that the run would have.
    pub generation: u64,
    /// The commit that it would start from; `None` when there is none.
    pub commit: Option<CommitReport>,
    /// Sealed epochs beyond the commit, of all processes, that it would replay.
    pub seals_to_replay: u64,
    /// The job's sources.
    pub sources: BTreeMap<String, SourceReport>,
    /// The job's sinks, and those of the checkpoint that it no longer has.
    pub sinks: BTreeMap<String, SinkReport>,
    /// Why the job can run as one process only, if the first documents of its sources show that.
    pub cannot_travel: Option<String>,
    /// Why it would not start.
    pub refused: Option<RefusalReport>,
}

/// The commit that a start would go on from.
#[derive(Clone, Debug, Serialize)]
pub struct CommitReport {
    /// Its place in the chain.
    pub number: u64,
    /// The generation that wrote it.
    pub generation: u64,
    /// Everything through this epoch is in the sinks; milliseconds since 1970.
    pub epoch: u64,
    /// How long ago it was written, by this machine's clock, milliseconds.
    pub age_ms: u64,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// Feed ranges whose positions are saved.
    pub saved: Vec<FeedRangeId>,
    /// Feed ranges of the container now.
    pub live: Vec<FeedRangeId>,
}

/// One sink.
#[derive(Clone, Debug, Serialize)]
pub struct SinkReport {
    /// What becomes of it.
    pub becomes: SinkFate,
    /// Why, where that is not plain.
    pub reason: Option<String>,
    /// Documents that its view held as of the commit, where its operators have not changed since. A sink that is carried on
    /// writes only what changes after that; one that is rebuilt writes at most these, and deletes what is not of them.
    pub rows: Option<u64>,
}

/// What becomes of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkFate {
    /// It is carried on.
    Continue,
    /// Its container is empty and is filled; or it holds documents of its own, which the sink writes into.
    New,
    /// It writes into documents of the container's own, from the commit on.
    Begin,
    /// Its container is brought in line with the view.
    Rebuild,
    /// The start is refused because of it.
    Refused,
    /// The job no longer has it; its container is left alone.
    Gone,
}

/// Why a start would be refused.
#[derive(Clone, Debug, Serialize)]
pub struct RefusalReport {
    /// The line that it would end with.
    pub message: String,
    /// The exit code that it would end with.
    pub exit_code: u8,
}

impl RefusalReport {
    pub(crate) fn of(error: &Error) -> Self {
        RefusalReport {
            message: error.report(),
            exit_code: error.kind().exit_code(),
        }
    }
}

impl CheckReport {
    pub(crate) fn new(
        job: &str,
        resume: &Resume,
        sources: BTreeMap<String, SourceReport>,
        decisions: &Decisions,
        fingerprints: &BTreeMap<String, String>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| now.as_millis() as u64);
        let commit = resume.commit.as_ref();
        let rows = |sink: &String| {
            let state = commit?.sinks.get(sink)?;
            (fingerprints.get(sink) == Some(&state.fingerprint)).then_some(state.rows)
        };
        let mut sinks: BTreeMap<String, SinkReport> = decisions
            .sinks
            .iter()
            .map(|(sink, decision)| {
                let (becomes, reason) = fate(decision);
                let report = SinkReport {
                    becomes,
                    reason,
                    rows: rows(sink),
                };
                (sink.clone(), report)
            })
            .collect();
        for sink in &decisions.gone {
            let report = SinkReport {
                becomes: SinkFate::Gone,
                reason: None,
                rows: None,
            };
            sinks.insert(sink.clone(), report);
        }
        CheckReport {
            job: job.to_owned(),
            generation: resume.generation.0,
            commit: commit.map(|commit| CommitReport {
                number: commit.number,
                generation: commit.generation.0,
                epoch: commit.epoch.0,
                age_ms: now_ms.saturating_sub(commit.written_at_ms),
            }),
            seals_to_replay: resume.seals_to_replay(),
            sources,
            sinks,
            cannot_travel: None,
            refused: None,
        }
    }

    /// The exit code that a start would end with at once; 0 if it would go ahead.
    pub fn exit_code(&self) -> u8 {
        self.refused.as_ref().map_or(0, |refused| refused.exit_code)
    }
}

fn fate(decision: &Decision) -> (SinkFate, Option<String>) {
    match decision {
        Decision::Continue => (SinkFate::Continue, None),
        Decision::Start => (SinkFate::New, None),
        Decision::Begin(reason) => (SinkFate::Begin, Some(reason.to_string())),
        Decision::Rebuild(reason) => (SinkFate::Rebuild, Some(reason.to_string())),
        Decision::Refuse(reason) => (SinkFate::Refused, Some(reason.to_string())),
    }
}

/// One line for each thing.
impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}, generation {}: ", self.job, self.generation)?;
        match &self.commit {
            None => f.write_str("no commit")?,
            Some(commit) => write!(
                f,
                "commit {} of generation {}, epoch {}, {} s old",
                commit.number,
                commit.generation,
                commit.epoch,
                Duration::from_millis(commit.age_ms).as_secs()
            )?,
        }
        write!(f, ", {} seals to replay", self.seals_to_replay)?;
        for (name, source) in &self.sources {
            let (saved, live) = (source.saved.len(), source.live.len());
            write!(f, "\nsource {name}: {saved} feed ranges saved, {live} live")?;
        }
        for (name, sink) in &self.sinks {
            write!(f, "\nsink {name}: {}", sink.becomes.text())?;
            if let Some(reason) = &sink.reason {
                write!(f, ", because {reason}")?;
            }
            if let Some(rows) = sink.rows {
                write!(f, ", {rows} documents as of the commit")?;
            }
        }
        if let Some(what) = &self.cannot_travel {
            write!(f, "\nas a cluster it would not start: {what}")?;
        }
        match &self.refused {
            None => Ok(()),
            Some(refused) => write!(
                f,
                "\na start would end with exit code {}: {}",
                refused.exit_code, refused.message
            ),
        }
    }
}

impl SinkFate {
    fn text(self) -> &'static str {
        match self {
            SinkFate::Continue => "continues",
            SinkFate::New => "is new, its container is filled",
            SinkFate::Begin => "begins, and writes what changes after the commit",
            SinkFate::Rebuild => "is rebuilt, its container brought in line with the view",
            SinkFate::Refused => "is refused",
            SinkFate::Gone => "is gone, its container is left alone",
        }
    }
}
