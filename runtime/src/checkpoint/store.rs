//! Reading and writing framed objects: the only file here that asks an `object_store` for anything.
//!
//! A create whose answer was lost is tried again, and an object that then exists already is compared with what was to be
//! written: equal means that the first try came through. A remote store can also answer "exists" while another create
//! of the same object, perhaps one's own lost one, is still under way; nothing can be read then, and trying again tells.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::figures::{StoreCounters, StoreFigures};
use super::frame::{Checksum, Damage, Framed, Unframed, unframe, unframe_start};
use super::location::Location;
use super::lock::{HeldLock, Place};
use super::names::{FOLDERS, LETTERS, ObjectName};
use super::settings::Settings;
use crate::failpoint::{Failpoints, Step};
use crate::fence::Fence;
use crate::stall::LeaseFact;
use crate::{Context, Error, ErrorKind, Generation, Result};

/// What to do about an object that cannot be used.
fn remedy(name: ObjectName) -> &'static str {
    match name {
        ObjectName::Letter(_) => {
            "restore it from a copy, or delete it and try what it held again with --rebuild SINK"
        }
        _ => "restore it from a copy, or start over with --fresh",
    }
}

/// Tries of a create whose outcome is in doubt.
const CREATE_TRIES: u32 = 5;
/// Wait before the second of them; it doubles.
const CREATE_PAUSE: Duration = Duration::from_millis(100);

/// The checkpoint of one job: where its seals, bases and commits live. Clones share the store.
#[derive(Clone)]
pub struct CheckpointStore {
    objects: Arc<dyn ObjectStore>,
    job: Arc<str>,
    place: Place,
    failpoints: Failpoints,
    /// Asked before each write and delete.
    fence: Fence,
    /// ` in LOCATION`, for the errors of a remote store.
    within: Arc<str>,
    /// Whether records are kept, without which there is no recovery.
    keeps_records: bool,
    /// The lease that is waited out, and since when.
    waits_out: Arc<Mutex<Option<(Generation, Instant)>>>,
    counters: Arc<StoreCounters>,
}

impl fmt::Debug for CheckpointStore {
    /// The objects are left out: a client has credentials in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckpointStore({}{})", self.job, self.within)
    }
}

impl CheckpointStore {
    /// A store in the directory `dir`, which is created if it does not exist. The objects of the job are in the folder
    /// `dir/<job>`. Every object is flushed to disk, with its directory entry, before a write returns.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `job` is not a plain name or the directory cannot be created.
    pub fn local(dir: &FilePath, job: &str) -> Result<Self> {
        check_job_name(job)?;
        let folder = dir.join(job);
        let named = || {
            format!(
                "cannot create the checkpoint directory {}",
                folder.display()
            )
        };
        std::fs::create_dir_all(&folder).context(ErrorKind::Config, named)?;
        // The folders themselves must survive a power cut too, as far as the system lets us flush a directory.
        for created in [Some(dir), dir.parent()].into_iter().flatten() {
            if let Ok(handle) = std::fs::File::open(created) {
                let _ = handle.sync_all();
            }
        }
        let objects = LocalFileSystem::new_with_prefix(dir)
            .context(ErrorKind::Config, named)?
            .with_fsync(true);
        Ok(Self::over(Arc::new(objects), job, Place::Folder(folder)))
    }

    /// The store of `job` at `location`, with the credentials of the environment. The objects of the job have names below
    /// `location/<job>`. A lease decides who runs where the location is a URL, as for [`CheckpointStore::shared`]. Nothing is asked of a remote store yet: a wrong name or key shows with the first request.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `job` is not a plain name, the directory cannot be created, a setting of the environment is
    /// missing or malformed, or the program was built without the cargo feature that a URL needs.
    pub fn open(location: &Location, job: &str) -> Result<Self> {
        Self::open_with(location, job, &Settings::from_env())
    }

    /// Like [`CheckpointStore::open`], with settings from elsewhere than the environment.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(location: &Location, job: &str, settings: &Settings) -> Result<Self> {
        let remote = match location {
            Location::Directory(directory) => return Self::local(directory, job),
            Location::Remote(remote) => remote,
        };
        check_job_name(job)?;
        let place = match remote.in_memory() {
            true => Place::Memory(Arc::default()),
            false => Place::Shared,
        };
        Ok(CheckpointStore {
            within: Arc::from(format!(" in {location}")),
            ..Self::over(remote.connect(settings)?, job, place)
        })
    }

    /// A store that lives as long as its clones, for tests and for jobs that need no recovery.
    ///
    /// # Panics
    /// If `job` is not a plain name, as described at [`CheckpointStore::local`].
    pub fn in_memory(job: &str) -> Self {
        assert!(check_job_name(job).is_ok(), "{job:?} is not a job name");
        let place = Place::Memory(Arc::new(AtomicBool::new(false)));
        Self::over(Arc::new(InMemory::new()), job, place)
    }

    /// A store in memory that keeps no records, for jobs that start over each time: commits bound how far a run is ahead of its sinks,
    /// as ever, and nothing of it outlives the run.
    ///
    /// # Panics
    /// As for [`CheckpointStore::in_memory`].
    pub fn volatile(job: &str) -> Self {
        CheckpointStore {
            keeps_records: false,
            ..Self::in_memory(job)
        }
    }

    pub(super) fn keeps_records(&self) -> bool {
        self.keeps_records
    }

    /// A store over any client of an object store, for those that no location names. A lease decides who runs, as for
    /// [`CheckpointStore::shared`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `job` is not a plain name.
    pub fn over_objects(objects: Arc<dyn ObjectStore>, job: &str) -> Result<Self> {
        check_job_name(job)?;
        Ok(Self::over(objects, job, Place::Shared))
    }

    pub(super) fn over(objects: Arc<dyn ObjectStore>, job: &str, place: Place) -> Self {
        CheckpointStore {
            objects,
            job: Arc::from(job),
            place,
            failpoints: Failpoints::default(),
            fence: Fence::unlimited(),
            within: Arc::from(""),
            keeps_records: true,
            waits_out: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// The same store for another run, whose figures begin at nothing.
    pub fn counted_anew(self) -> Self {
        CheckpointStore {
            counters: Arc::default(),
            ..self
        }
    }

    /// What this store and its clones have written and deleted so far.
    pub fn figures(&self) -> StoreFigures {
        self.counters.figures()
    }

    /// A commit that names a new base is durable.
    pub(super) fn based(&self) {
        self.counters.based();
    }

    /// The lease of an earlier run that is waited out now.
    pub fn lease_waited_out(&self) -> Option<LeaseFact> {
        let waiting = self.waits_out.lock();
        waiting.map(|(generation, began)| LeaseFact {
            generation,
            since: began.elapsed(),
        })
    }

    /// The lease of this run is waited out from now on; of none any more.
    pub(super) fn wait_out(&self, generation: Option<Generation>) {
        let mut waiting = self.waits_out.lock();
        let since = waiting.map_or_else(Instant::now, |(_, began)| began);
        *waiting = generation.map(|generation| (generation, since));
    }

    /// The same store for runs on several machines, as on a file system over the network: not a lock decides who runs, but
    /// a lease that is renewed in the store ([`LeaseConfig`](super::LeaseConfig)).
    pub fn shared(self) -> Self {
        CheckpointStore {
            place: Place::Shared,
            ..self
        }
    }

    /// The same store for a run that may write as long as `fence` is open.
    pub(super) fn fenced(&self, fence: Fence) -> Self {
        CheckpointStore {
            fence,
            ..self.clone()
        }
    }

    /// Fails where a test says.
    #[doc(hidden)]
    pub fn with_failpoints(mut self, failpoints: Failpoints) -> Self {
        self.failpoints = failpoints;
        self
    }

    /// Name of the job.
    pub fn job(&self) -> &str {
        &self.job
    }

    pub(super) fn lock(&self) -> Result<Option<HeldLock>> {
        self.place.lock()
    }

    /// The full name of an object, as errors print it and as it is found below the store's root.
    pub(super) fn full_name(&self, name: ObjectName) -> String {
        format!("{}/{name}", self.job)
    }

    /// The error for an object that is there and cannot be used.
    pub(super) fn damaged(&self, name: ObjectName, damage: &Damage) -> Error {
        Error::new(
            ErrorKind::Checkpoint,
            format!("{} {damage}: {}", self.full_name(name), remedy(name)),
        )
    }

    /// The error for an object that must be there and is not.
    pub(super) fn missing(&self, name: ObjectName) -> Error {
        Error::new(
            ErrorKind::Checkpoint,
            format!("{} is missing: {}", self.full_name(name), remedy(name)),
        )
    }

    fn failed(&self, doing: &str, name: &str, error: object_store::Error) -> Error {
        let context = format!("cannot {doing} {name}{}", self.within);
        match Failure::of(&error) {
            Some(Failure { kind, why, .. }) => Error::new(kind, format!("{context}: {why}")),
            None => Error::new(ErrorKind::Checkpoint, context).with_source(error),
        }
    }

    /// Creates an object; durable when it returns. One that exists with the same content counts as created.
    pub(super) async fn create(&self, object: &Framed) -> Result<()> {
        let step = step_of(object.name);
        step.into_iter()
            .for_each(|step| self.failpoints.before(step));
        match self.put_unless_there(object).await? {
            Some(there) if !object.equals(&there) => return Err(self.taken(object.name)),
            _ => {}
        }
        step.into_iter()
            .for_each(|step| self.failpoints.after(step));
        Ok(())
    }

    /// The error for a name that another run has taken.
    fn taken(&self, name: ObjectName) -> Error {
        let full = self.full_name(name);
        Error::new(
            ErrorKind::Fenced,
            format!("another run has written {full}: stop one of the two"),
        )
    }

    /// Creates an object; durable when it returns. If there is one of that name already, returns that one's bytes instead.
    pub(super) async fn put_unless_there(&self, object: &Framed) -> Result<Option<Bytes>> {
        let full = self.full_name(object.name);
        let path = Path::from(full.as_str());
        let began = Instant::now();
        let wrote = || self.counters.wrote(object.len(), began.elapsed());
        let mut pause = CREATE_PAUSE;
        let mut left = CREATE_TRIES;
        // Whether an earlier try may have come through.
        let mut in_doubt = false;
        loop {
            left -= 1;
            let payload = PutPayload::from_iter([object.header.clone(), object.body.clone()]);
            let put = self
                .objects
                .put_opts(&path, payload, PutMode::Create.into());
            match self.fence.guard(put).await? {
                Ok(_) => {
                    wrote();
                    return Ok(None);
                }
                Err(object_store::Error::AlreadyExists { .. }) => {
                    match self.read(object.name).await? {
                        Some(there) => {
                            if in_doubt && object.equals(&there) {
                                wrote();
                            }
                            return Ok(Some(there));
                        }
                        None if left > 0 => {}
                        None => return Err(self.taken(object.name)),
                    }
                }
                Err(error) => {
                    in_doubt = Failure::of(&error).is_some_and(|failure| failure.in_doubt);
                    if left == 0 || !in_doubt {
                        return Err(self.failed("write", &full, error));
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// The bytes of an object, `None` if it does not exist.
    async fn read(&self, name: ObjectName) -> Result<Option<Bytes>> {
        let full = self.full_name(name);
        let path = Path::from(full.as_str());
        let answer = match self.objects.get(&path).await {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error @ object_store::Error::NotFound { .. })
                if !Failure::of(&error).is_some_and(|failure| failure.store_missing()) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failed("read", &full, error)),
        }
    }

    /// An object that must exist, all of it.
    pub(super) async fn load(&self, name: ObjectName) -> Result<Unframed> {
        let bytes = self.read(name).await?.ok_or_else(|| self.missing(name))?;
        self.unframed(name, &bytes)
    }

    fn unframed(&self, name: ObjectName, bytes: &Bytes) -> Result<Unframed> {
        unframe(name, bytes).map_err(|damage| self.damaged(name, &damage))
    }

    /// An object that must exist: all of it, or of one that is read in parts the beginning with its heading. One request, if
    /// `first` bytes are enough.
    pub(super) async fn load_start(&self, name: ObjectName, first: u64) -> Result<Unframed> {
        // What has no beginning is read again in one piece, which says what is wrong with it.
        let Some((bytes, size)) = self.read_range(name, 0..first).await? else {
            return self.load(name).await;
        };
        match unframe_start(name, &bytes, size) {
            Ok(Some(start)) => Ok(start),
            Ok(None) => self.load(name).await,
            Err(damage) => Err(self.damaged(name, &damage)),
        }
    }

    /// The bytes in `range`, or as many of them as there are, of an object that must exist, and its size; `None` if the
    /// store does not answer such a request, as when the range begins beyond the end. Reading all of the object tells why.
    pub(super) async fn read_range(
        &self,
        name: ObjectName,
        range: Range<u64>,
    ) -> Result<Option<(Bytes, u64)>> {
        let path = Path::from(self.full_name(name));
        let options = GetOptions::new().with_range(Some(range));
        let answer = match self.objects.get_opts(&path, options).await {
            Ok(answer) => {
                let size = answer.meta.size;
                answer.bytes().await.map(|bytes| (bytes, size))
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(read) => Ok(Some(read)),
            Err(object_store::Error::NotFound { .. }) => Err(self.missing(name)),
            Err(_) => Ok(None),
        }
    }

    /// A JSON object, if it exists.
    pub(super) async fn find_json<T: DeserializeOwned>(
        &self,
        name: ObjectName,
    ) -> Result<Option<T>> {
        let Some(bytes) = self.read(name).await? else {
            return Ok(None);
        };
        let object = self.unframed(name, &bytes)?;
        self.parsed(name, &object).map(Some)
    }

    /// A JSON object that must exist.
    pub(super) async fn load_json<T: DeserializeOwned>(
        &self,
        name: ObjectName,
    ) -> Result<(Checksum, T)> {
        let object = self.load(name).await?;
        let value = self.parsed(name, &object)?;
        Ok((object.checksum, value))
    }

    fn parsed<T: DeserializeOwned>(&self, name: ObjectName, object: &Unframed) -> Result<T> {
        serde_json::from_slice(&object.body).map_err(|error| {
            let damage = Damage::Content(format!("unreadable content, {error}"));
            self.damaged(name, &damage)
        })
    }

    /// Creates a JSON object and returns its checksum.
    pub(super) async fn create_json<T: Serialize>(
        &self,
        name: ObjectName,
        value: &T,
    ) -> Result<Checksum> {
        let mut body = serde_json::to_vec_pretty(value).map_err(|error| {
            Error::internal(format!("cannot encode {}", self.full_name(name))).with_source(error)
        })?;
        body.push(b'\n');
        let object = Framed::new(name, Bytes::from(body));
        self.create(&object).await?;
        Ok(object.checksum)
    }

    /// The names of all objects of the job, sorted.
    pub(super) async fn list(&self) -> Result<Vec<ObjectName>> {
        self.list_in(&FOLDERS).await
    }

    /// The names of the lease records, sorted.
    pub(super) async fn list_leases(&self) -> Result<Vec<ObjectName>> {
        self.list_in(&["lease"]).await
    }

    /// The names of the letters, sorted.
    pub(super) async fn list_letters(&self) -> Result<Vec<ObjectName>> {
        self.list_in(&[LETTERS]).await
    }

    async fn list_in(&self, folders: &[&str]) -> Result<Vec<ObjectName>> {
        let mut names = Vec::new();
        for folder in folders {
            let prefix = Path::from(format!("{}/{folder}", self.job));
            let mut found = self.objects.list(Some(&prefix));
            let failed = |error| self.failed("list", prefix.as_ref(), error);
            while let Some(meta) = found.try_next().await.map_err(failed)? {
                names.push(self.name_of(&meta.location)?);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn name_of(&self, location: &Path) -> Result<ObjectName> {
        let relative = location.as_ref().strip_prefix(&*self.job);
        relative
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(ObjectName::parse)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Checkpoint,
                    format!("{location} is no object of a checkpoint: move it elsewhere"),
                )
            })
    }

    /// Deletes an object; one that is gone already counts as deleted.
    pub(super) async fn delete(&self, name: ObjectName) -> Result<()> {
        let full = self.full_name(name);
        let path = Path::from(full.as_str());
        self.failpoints.before(Step::GarbageDelete);
        match self.fence.guard(self.objects.delete(&path)).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                self.counters.deleted();
                self.failpoints.after(Step::GarbageDelete);
                Ok(())
            }
            Err(error) => Err(self.failed("delete", &full, error)),
        }
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }
}

/// The step of the protocol that creating an object is.
fn step_of(name: ObjectName) -> Option<Step> {
    match name {
        ObjectName::Generation(_) => Some(Step::Claim),
        ObjectName::Start(_) => Some(Step::Pin),
        ObjectName::Seal { .. } => Some(Step::SealPut),
        ObjectName::Lease(_) => Some(Step::LeasePut),
        ObjectName::Commit { .. } => Some(Step::CommitPut),
        ObjectName::Base { .. } => Some(Step::BaseWrite),
        ObjectName::Request(_) | ObjectName::Letter(_) => None,
    }
}

fn check_job_name(job: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if job.is_empty() || job.len() > 128 || job.starts_with('.') || !job.chars().all(plain) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "{job:?} is not a job name: use up to 128 letters, digits, '-', '_' and '.', not starting with '.'"
            ),
        ));
    }
    Ok(())
}
