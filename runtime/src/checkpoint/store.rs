//! Reading and writing framed objects: the only file here that talks to `object_store`.

use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Checksum, Damage, Framed, Unframed, unframe, unframe_start};
use super::lock::{HeldLock, Place};
use super::names::{FOLDERS, ObjectName};
use crate::fence::Fence;
use crate::{Context, Error, ErrorKind, Result};

/// What to do about an object that cannot be used.
const REMEDY: &str = "restore it from a copy, or start over with --fresh";

/// The checkpoint of one job: where its seals, bases and commits live. Clones share the store.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    objects: Arc<dyn ObjectStore>,
    job: Arc<str>,
    place: Place,
    /// Asked before each write and delete.
    fence: Fence,
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

    /// A store that lives as long as its clones, for tests and for jobs that need no recovery.
    ///
    /// # Panics
    /// If `job` is not a plain name, as described at [`CheckpointStore::local`].
    pub fn in_memory(job: &str) -> Self {
        assert!(check_job_name(job).is_ok(), "{job:?} is not a job name");
        let place = Place::Memory(Arc::new(AtomicBool::new(false)));
        Self::over(Arc::new(InMemory::new()), job, place)
    }

    pub(super) fn over(objects: Arc<dyn ObjectStore>, job: &str, place: Place) -> Self {
        CheckpointStore {
            objects,
            job: Arc::from(job),
            place,
            fence: Fence::unlimited(),
        }
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
            format!("{} {damage}: {REMEDY}", self.full_name(name)),
        )
    }

    /// The error for an object that must be there and is not.
    pub(super) fn missing(&self, name: ObjectName) -> Error {
        Error::new(
            ErrorKind::Checkpoint,
            format!("{} is missing: {REMEDY}", self.full_name(name)),
        )
    }

    fn failed(&self, doing: &str, name: &str, error: object_store::Error) -> Error {
        let kind = match error {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => ErrorKind::Denied,
            _ => ErrorKind::Checkpoint,
        };
        Error::new(kind, format!("cannot {doing} {name}")).with_source(error)
    }

    /// Creates an object; durable when it returns. One that exists with the same content counts as created, because
    /// the answer to the first try may have been lost.
    pub(super) async fn create(&self, object: &Framed) -> Result<()> {
        let full = self.full_name(object.name);
        let payload = PutPayload::from_iter([object.header.clone(), object.body.clone()]);
        let path = Path::from(full.as_str());
        let put = self
            .objects
            .put_opts(&path, payload, PutMode::Create.into());
        match self.fence.guard(put).await? {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = self.read(object.name).await?;
                if there.is_some_and(|bytes| object.equals(&bytes)) {
                    return Ok(());
                }
                Err(Error::new(
                    ErrorKind::Fenced,
                    format!("another run has written {full}: stop one of the two"),
                ))
            }
            Err(error) => Err(self.failed("write", &full, error)),
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
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", &full, error)),
        }
    }

    /// An object that must exist, all of it.
    pub(super) async fn load(&self, name: ObjectName) -> Result<Unframed> {
        let bytes = self.read(name).await?.ok_or_else(|| self.missing(name))?;
        unframe(name, &bytes).map_err(|damage| self.damaged(name, &damage))
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

    /// A JSON object that must exist.
    pub(super) async fn load_json<T: DeserializeOwned>(
        &self,
        name: ObjectName,
    ) -> Result<(Checksum, T)> {
        let object = self.load(name).await?;
        let value = serde_json::from_slice(&object.body).map_err(|error| {
            let damage = Damage::Content(format!("unreadable content, {error}"));
            self.damaged(name, &damage)
        })?;
        Ok((object.checksum, value))
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
        match self.fence.guard(self.objects.delete(&path)).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", &full, error)),
        }
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
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
