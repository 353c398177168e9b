//! Taking over a checkpoint: the protocol of [the module](super), with the I/O around its decisions.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::load_commit;
use super::commit_writer::{CommitWriter, now_ms};
use super::frame::Checksum;
use super::lease::{Claimant, Lease, LeaseConfig};
use super::ledger::Ledger;
use super::lock::HeldLock;
use super::names::ObjectName;
use super::objects::{
    CommitRecord, CommitRef, Fingerprint, GenerationRecord, SealKind, SealRef, Series, StartRecord,
};
use super::reader::{SealedTokens, read_tokens};
use super::recovery::{Span, Survey, beyond, pending_rebuilds, runs_of};
use super::resume::Resume;
use super::seal_writer::SealWriter;
use super::store::CheckpointStore;
use super::supervised::Supervised;
use crate::feed_range::advance;
use crate::watermarks::MarkHistory;
use crate::{Epoch, Error, ErrorKind, Fence, Generation, Result};

/// Who wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIdentity {
    /// Name of the job.
    pub job: String,
    /// What the job is made of.
    pub fingerprint: Fingerprint,
    /// Processes of the cluster. May differ from one run to the next.
    pub processes: u32,
    /// Workers in each process. May differ from one run to the next.
    pub workers_per_process: u32,
}

/// How to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Start over: what is there is neither read nor believed, and goes once the new run has committed and collects
    /// garbage. Default: no.
    pub fresh: bool,
    /// Commits to keep, at least 1, default 3 (guess). More allow going further back by hand; fewer save space.
    pub retain_commits: usize,
    /// How long a run may be out of touch before another one takes over.
    pub lease: LeaseConfig,
    /// Which run of whose, if a supervisor has seen the runs before it end.
    pub supervised: Option<Supervised>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fresh: false,
            retain_commits: 3,
            lease: LeaseConfig::default(),
            supervised: None,
        }
    }
}

/// A checkpoint that this run has taken over.
#[derive(Debug)]
pub struct Opened {
    /// The number of this run.
    pub generation: Generation,
    /// What it starts from.
    pub resume: Resume,
    /// Writes the seals of process 0.
    pub seals: SealWriter,
    /// Writes how keyed state changes in process 0.
    pub states: SealWriter,
    /// Writes the commits.
    pub commits: CommitWriter,
    /// Keeps other runs out: to be kept ([`Lease::keep`]) while the run lives, and released at its end.
    pub lease: Lease,
}

/// What a process other than 0 gets.
#[derive(Debug)]
pub struct Joined {
    /// What the run starts from, the same as in process 0.
    pub resume: Resume,
    /// Writes the seals of this process.
    pub seals: SealWriter,
    /// Writes how keyed state changes in this process.
    pub states: SealWriter,
}

/// What was found, checked.
#[derive(Default)]
struct Found {
    commit: Option<(CommitRef, CommitRecord)>,
    /// The seals beyond the commit.
    sealed: Vec<SealedTokens>,
    /// Sinks that are still to be rebuilt.
    rebuild: BTreeSet<String>,
    /// What the job was made of.
    before: Option<Fingerprint>,
}

/// A checkpoint that is held and read, and not yet started from.
#[derive(Debug)]
pub struct TakenOver {
    store: CheckpointStore,
    identity: RunIdentity,
    options: Options,
    lease: Lease,
    resume: Resume,
    /// The seals beyond the commit.
    pinned: Vec<SealRef>,
}

/// Takes over the checkpoint of a job and starts from it, in process 0: [`take_over`] and [`TakenOver::start`] without a
/// look between them.
///
/// # Errors
/// As those two.
pub async fn open(
    store: &CheckpointStore,
    identity: &RunIdentity,
    options: Options,
) -> Result<Opened> {
    let taken = take_over(store, identity, options).await?;
    taken.start(BTreeSet::new()).await
}

/// Takes over the checkpoint of a job, in process 0: takes its lease, which may mean to wait out that of a lost run, and
/// finds what to start from. Nothing but the lease is written.
///
/// # Errors
/// - `Fenced` if another run lives;
/// - `Checkpoint` if an object is damaged, missing or of another job, or if a source is another container than the state was
///   read from.
pub async fn take_over(
    store: &CheckpointStore,
    identity: &RunIdentity,
    options: Options,
) -> Result<TakenOver> {
    let claimant = Claimant {
        cluster: identity.processes > 1,
        supervised: options.supervised,
    };
    let lease = Lease::acquire(store, options.lease, claimant).await?;
    let read = observe(store, identity, options.fresh, lease.generation()).await;
    // A run that took longer than its lease has read while another one wrote: what it makes of that means nothing.
    match lease.fence().check().and(read) {
        Ok((resume, pinned)) => Ok(TakenOver {
            store: store.fenced(lease.fence().clone()),
            identity: identity.clone(),
            options,
            lease,
            resume,
            pinned,
        }),
        Err(error) => {
            // Nothing was begun, so nobody has to wait. The error is what matters.
            let _ = lease.release().await;
            Err(error)
        }
    }
}

/// What a run would start from now, `fresh` or not. Reads only, and so may be outdated by a run that lives.
///
/// # Errors
/// `Checkpoint` as [`take_over`].
pub async fn look(store: &CheckpointStore, identity: &RunIdentity, fresh: bool) -> Result<Resume> {
    let generation = Survey::of(&store.list().await?).next_generation();
    let (resume, _) = observe(store, identity, fresh, generation).await?;
    Ok(resume)
}

impl TakenOver {
    /// What the run will start from. Its start record names the sinks that an earlier run was to rebuild and did not.
    pub fn resume(&self) -> &Resume {
        &self.resume
    }

    /// Pins what was found in a start record. `rebuild` names further sinks whose containers may hold something else than
    /// their view. When it returns, the generation record and the start record are durable.
    ///
    /// # Errors
    /// `Fenced` if the lease was lost, `Checkpoint` if the store does not take the records.
    pub async fn start(mut self, rebuild: BTreeSet<String>) -> Result<Opened> {
        let generation = self.lease.generation();
        self.resume.start.rebuild.extend(rebuild);
        let start = &self.resume.start;
        let record = generation_record(&self.identity, generation);
        let names = (
            ObjectName::Generation(generation),
            ObjectName::Start(generation),
        );
        self.store.create_json(names.0, &record).await?;
        self.store.create_json(names.1, start).await?;
        let ledger = Ledger::new(generation, self.resume.commit.as_ref(), self.pinned);
        let lock = self.lease.lock();
        let (seals, states) = writers(&self.store, &self.resume, 0, &lock);
        let start = start.clone();
        let retain = self.options.retain_commits;
        Ok(Opened {
            generation,
            seals,
            states,
            commits: CommitWriter::new(self.store, start, ledger, retain, lock),
            resume: self.resume,
            lease: self.lease,
        })
    }

    /// Gives the checkpoint back without having started.
    ///
    /// # Errors
    /// As [`Lease::release`].
    pub async fn release(self) -> Result<()> {
        self.lease.release().await
    }
}

async fn observe(
    store: &CheckpointStore,
    identity: &RunIdentity,
    fresh: bool,
    generation: Generation,
) -> Result<(Resume, Vec<SealRef>)> {
    let survey = Survey::of(&store.list().await?);
    let found = match fresh {
        true => Found::default(),
        false => find(store, identity, &survey).await?,
    };
    let pinned: Vec<SealRef> = found.sealed.iter().map(|sealed| sealed.seal).collect();
    let start = StartRecord {
        generation,
        fresh,
        commit: found.commit.as_ref().map(|(reference, _)| *reference),
        first_commit: survey.last_commit() + 1,
        runs: runs_of(&pinned),
        rebuild: found.rebuild.clone(),
    };
    Ok((resume_from(start, found), pinned))
}

/// Joins a run that process 0 has opened, in another process of its cluster: reads what the start record pins, and writes as
/// long as `fence` is open.
///
/// # Errors
/// `Checkpoint` as for [`open`], or if `generation` has not started; `Internal` if `process` is 0 or not below
/// `identity.processes`.
pub async fn join(
    store: &CheckpointStore,
    identity: &RunIdentity,
    generation: Generation,
    process: u32,
    fence: &Fence,
) -> Result<Joined> {
    let store = &store.fenced(fence.clone());
    if process == 0 || process >= identity.processes {
        return Err(Error::internal(format!(
            "process {process} of {} cannot join a run",
            identity.processes
        )));
    }
    check_owner(store, identity, generation).await?;
    let (_, start): (Checksum, StartRecord) =
        store.load_json(ObjectName::Start(generation)).await?;
    let commit = match start.commit {
        Some(named) => Some(load_commit(store, named.name(), Some(named)).await?),
        None => None,
    };
    let spans: Vec<Span> = start.runs.iter().map(Span::of).collect();
    let found = read_found(store, commit, &spans).await?;
    let resume = resume_from(start, found);
    let (seals, states) = writers(store, &resume, process, &None);
    Ok(Joined {
        resume,
        seals,
        states,
    })
}

/// The writers of the inputs and of the keyed state of a process. Inputs go on beyond everything sealed; state begins
/// beyond the commit, because the replay computes it anew.
fn writers(
    store: &CheckpointStore,
    resume: &Resume,
    process: u32,
    lock: &Option<HeldLock>,
) -> (SealWriter, SealWriter) {
    let writer = |kind, floor| {
        let series = Series {
            kind,
            generation: resume.generation,
            process,
        };
        SealWriter::new(store.clone(), series, floor, lock.clone())
    };
    let committed = resume.commit.as_ref().map(|commit| commit.epoch);
    (
        writer(SealKind::Input, resume.last_sealed),
        writer(SealKind::State, committed),
    )
}

async fn find(store: &CheckpointStore, identity: &RunIdentity, survey: &Survey) -> Result<Found> {
    let refused = |refusal| store.refused(refusal);
    let Some(newest) = survey.newest_start().map_err(refused)? else {
        return Ok(Found::default());
    };
    let owner = check_owner(store, identity, newest).await?;
    let (_, start): (Checksum, StartRecord) = store.load_json(ObjectName::Start(newest)).await?;
    let commit = match survey.commit_for(&start).map_err(refused)? {
        Some(name) => Some(load_commit(store, name, start.commit).await?),
        None => None,
    };
    let record = commit.as_ref().map(|(_, record)| record);
    let spans = beyond(survey, &start, record).map_err(refused)?;
    let rebuild = pending_rebuilds(&start, record);
    let found = read_found(store, commit, &spans).await?;
    Ok(Found {
        rebuild,
        before: Some(owner.fingerprint),
        ..found
    })
}

/// Checks that the state that generation `owner` started belongs to this job, unchanged.
async fn check_owner(
    store: &CheckpointStore,
    identity: &RunIdentity,
    owner: Generation,
) -> Result<GenerationRecord> {
    let name = ObjectName::Generation(owner);
    let (_, record): (Checksum, GenerationRecord) = store.load_json(name).await?;
    if record.job != identity.job {
        return Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "{} belongs to job {}, not {}: use another checkpoint directory",
                store.full_name(name),
                record.job,
                identity.job
            ),
        ));
    }
    match identity.fingerprint.moved_source(&record.fingerprint) {
        None => Ok(record),
        Some(difference) => Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "the checkpoint of job {} was read from another container ({difference}): \
                 start with --fresh to read the new one, or name the old one again",
                identity.job
            ),
        )),
    }
}

async fn read_found(
    store: &CheckpointStore,
    commit: Option<(CommitRef, CommitRecord)>,
    spans: &[Span],
) -> Result<Found> {
    let floor = commit.as_ref().map(|(_, record)| record.epoch);
    let mut sealed = Vec::new();
    for span in spans {
        sealed.append(&mut read_tokens(store, span, floor).await?);
    }
    Ok(Found {
        commit,
        sealed,
        ..Found::default()
    })
}

fn resume_from(start: StartRecord, found: Found) -> Resume {
    let commit = found.commit.map(|(_, record)| record);
    let mut tokens = commit
        .as_ref()
        .map(|commit| commit.tokens.clone())
        .unwrap_or_default();
    let mut sealed = found.sealed;
    // Stable, so that the seals of one process stay in order.
    sealed.sort_by_key(|sealed| sealed.seal.epoch);
    for part in sealed.iter().flat_map(|sealed| &sealed.parts) {
        let known = tokens.entry(part.source.clone()).or_default();
        advance(known, part.ranges.clone());
    }
    let marks = marks_of(commit.as_ref(), &sealed);
    let last: Option<Epoch> = sealed.last().map(|sealed| sealed.seal.epoch);
    Resume {
        generation: start.generation,
        last_sealed: last.max(commit.as_ref().map(|commit| commit.epoch)),
        commit,
        tokens,
        marks,
        before: found.before,
        start,
    }
}

/// How far the event times of each source had come at the commit, and in the seals beyond it, which are in order.
fn marks_of(
    commit: Option<&CommitRecord>,
    sealed: &[SealedTokens],
) -> BTreeMap<String, MarkHistory> {
    let committed = commit.into_iter().flat_map(|commit| &commit.marks);
    let mut marks: BTreeMap<String, MarkHistory> = committed
        .map(|(source, committed)| {
            let history = MarkHistory {
                committed: committed.clone(),
                sealed: Vec::new(),
            };
            (source.clone(), history)
        })
        .collect();
    for sealed in sealed {
        let parts = sealed.parts.iter().filter(|part| !part.marks.is_empty());
        for part in parts {
            let history = marks.entry(part.source.clone()).or_default();
            history.seal(sealed.seal.epoch, part.marks.clone());
        }
    }
    marks
}

fn generation_record(identity: &RunIdentity, generation: Generation) -> GenerationRecord {
    GenerationRecord {
        job: identity.job.clone(),
        generation,
        processes: identity.processes,
        workers_per_process: identity.workers_per_process,
        fingerprint: identity.fingerprint.clone(),
        pid: std::process::id(),
        started_at_ms: now_ms(),
    }
}
