//! Taking over a checkpoint: the protocol of [the module](super), with the I/O around its decisions.

use std::time::{SystemTime, UNIX_EPOCH};

use super::commit_writer::{CommitWriter, now_ms};
use super::frame::Checksum;
use super::ledger::Ledger;
use super::lock::HeldLock;
use super::names::ObjectName;
use super::objects::{
    CommitRecord, CommitRef, Fingerprint, GenerationRecord, SealRef, StartRecord,
};
use super::reader::{SealedTokens, read_tokens};
use super::recovery::{Span, Survey, beyond, check_commit, runs_of};
use super::resume::Resume;
use super::seal_writer::SealWriter;
use super::store::CheckpointStore;
use super::tokens::advance;
use crate::{Epoch, Error, ErrorKind, Generation, Result};

/// Who wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIdentity {
    /// Name of the job.
    pub job: String,
    /// What the job is made of; a changed one does not resume.
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
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fresh: false,
            retain_commits: 3,
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
    /// Writes the commits.
    pub commits: CommitWriter,
    /// Keeps other runs out. The writers hold it too.
    pub lock: HeldLock,
}

/// What a process other than 0 gets.
#[derive(Debug)]
pub struct Joined {
    /// What the run starts from, the same as in process 0.
    pub resume: Resume,
    /// Writes the seals of this process.
    pub seals: SealWriter,
}

/// What was found, checked.
#[derive(Default)]
struct Found {
    commit: Option<(CommitRef, CommitRecord)>,
    /// The seals beyond the commit.
    sealed: Vec<SealedTokens>,
}

/// Takes over the checkpoint of a job, in process 0: locks it, finds what to start from, and pins that in a start record.
/// When it returns, the generation record and the start record are durable.
///
/// # Errors
/// - `Fenced` if another run holds the lock or has taken the same generation;
/// - `Checkpoint` if an object is damaged, missing or of another job, or if the fingerprint differs from the one that the
///   state was written with. Nothing was written then.
pub async fn open(
    store: &CheckpointStore,
    identity: &RunIdentity,
    options: Options,
) -> Result<Opened> {
    // 1. lock
    let lock = store.lock()?;
    // 2. observe
    let survey = Survey::of(&store.list().await?);
    // 3. decide, and read what the decisions name
    let found = if options.fresh {
        Found::default()
    } else {
        find(store, identity, &survey).await?
    };
    let generation = survey.next_generation();
    let refs: Vec<SealRef> = found.sealed.iter().map(|sealed| sealed.seal).collect();
    let start = StartRecord {
        generation,
        fresh: options.fresh,
        commit: found.commit.as_ref().map(|(reference, _)| *reference),
        commits_after: survey.last_commit(),
        runs: runs_of(&refs),
    };
    // 4. and 5. claim the generation, pin the start
    let record = generation_record(identity, generation);
    store
        .create_json(ObjectName::Generation(generation), &record)
        .await?;
    store
        .create_json(ObjectName::Start(generation), &start)
        .await?;
    let resume = resume_from(start.clone(), found);
    let ledger = Ledger::new(generation, resume.commit.as_ref(), refs);
    let floor = resume.last_sealed;
    Ok(Opened {
        generation,
        seals: SealWriter::new(store.clone(), generation, 0, floor, Some(lock.clone())),
        commits: CommitWriter::new(
            store.clone(),
            start,
            ledger,
            options.retain_commits,
            lock.clone(),
        ),
        resume,
        lock: HeldLock(lock),
    })
}

/// Joins a run that process 0 has opened, in another process of its cluster: reads what the start record pins.
///
/// # Errors
/// `Checkpoint` as for [`open`], or if `generation` has not started; `Internal` if `process` is 0 or not below
/// `identity.processes`.
pub async fn join(
    store: &CheckpointStore,
    identity: &RunIdentity,
    generation: Generation,
    process: u32,
) -> Result<Joined> {
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
        Some(named) => Some(load_commit(store, &start, named.number).await?),
        None => None,
    };
    let spans: Vec<Span> = start.runs.iter().map(Span::of).collect();
    let found = read_found(store, commit, &spans).await?;
    let resume = resume_from(start, found);
    let floor = resume.last_sealed;
    Ok(Joined {
        seals: SealWriter::new(store.clone(), generation, process, floor, None),
        resume,
    })
}

async fn find(store: &CheckpointStore, identity: &RunIdentity, survey: &Survey) -> Result<Found> {
    let refused = |refusal| store.refused(refusal);
    let Some(newest) = survey.newest_start().map_err(refused)? else {
        return Ok(Found::default());
    };
    check_owner(store, identity, newest).await?;
    let (_, start): (Checksum, StartRecord) = store.load_json(ObjectName::Start(newest)).await?;
    let commit = match survey.commit_for(&start).map_err(refused)? {
        Some(number) => Some(load_commit(store, &start, number).await?),
        None => None,
    };
    let record = commit.as_ref().map(|(_, record)| record);
    let spans = beyond(survey, &start, record).map_err(refused)?;
    read_found(store, commit, &spans).await
}

/// Checks that the state that generation `owner` started belongs to this job, unchanged.
async fn check_owner(
    store: &CheckpointStore,
    identity: &RunIdentity,
    owner: Generation,
) -> Result<()> {
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
    match identity.fingerprint.difference(&record.fingerprint) {
        None => Ok(()),
        Some(difference) => Err(Error::new(
            ErrorKind::Checkpoint,
            format!(
                "the job {} has changed since its checkpoint was written ({difference}): \
                 start with --fresh to rebuild, or run the previous version",
                identity.job
            ),
        )),
    }
}

async fn load_commit(
    store: &CheckpointStore,
    start: &StartRecord,
    number: u64,
) -> Result<(CommitRef, CommitRecord)> {
    let (checksum, record): (_, CommitRecord) = store.load_json(ObjectName::Commit(number)).await?;
    check_commit(start, &record, checksum).map_err(|refusal| store.refused(refusal))?;
    Ok((CommitRef { number, checksum }, record))
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
    Ok(Found { commit, sealed })
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
        advance(&mut tokens, &part.source, &part.ranges);
    }
    let last: Option<Epoch> = sealed.last().map(|sealed| sealed.seal.epoch);
    Resume {
        generation: start.generation,
        last_sealed: last.max(commit.as_ref().map(|commit| commit.epoch)),
        commit,
        tokens,
        start,
    }
}

fn generation_record(identity: &RunIdentity, generation: Generation) -> GenerationRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |since| since.as_nanos());
    GenerationRecord {
        job: identity.job.clone(),
        generation,
        processes: identity.processes,
        workers_per_process: identity.workers_per_process,
        fingerprint: identity.fingerprint.clone(),
        run: format!("{}-{nanos:x}", std::process::id()),
        started_at_ms: now_ms(),
    }
}
