//! The object store as one process reaches it: over a network with faults.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::network::{Lost, send};
use super::world::{FAULT, World};
use super::*;

type StoreResult<T> = object_store::Result<T>;

/// Names in one page of a listing: each page shows another moment.
const PAGE: usize = 16;

#[derive(Clone)]
pub(super) struct Remote {
    world: Arc<World>,
    process: usize,
}

impl Remote {
    pub(super) fn new(world: &Arc<World>, process: usize) -> Self {
        Remote {
            world: Arc::clone(world),
            process,
        }
    }

    /// Sends a request and traces when it is sent, carried out and answered.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &Path,
        effect: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        let line = format!("p{} {what} {path}", self.process);
        let plan = self.world.plan_store(self.process);
        let (world, about) = (Arc::clone(&self.world), line.clone());
        let carried_out = async move {
            let outcome = effect.await;
            world.trace(format!("{about}: done {}", outcome.is_ok()));
            outcome
        };
        let moments = self.world.moments.clone();
        let sent = send(moments, plan, carried_out).await;
        let outcome = sent.unwrap_or_else(|Lost| {
            Err(object_store::Error::Generic {
                store: "remote",
                source: FAULT.into(),
            })
        });
        self.world
            .trace(format!("{line}: answered {}", outcome.is_ok()));
        outcome
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.process)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn unsupported() -> object_store::Error {
    object_store::Error::NotImplemented {
        operation: "anything but what a checkpoint uses".to_owned(),
        implementer: "the simulated store".to_owned(),
    }
}

#[async_trait]
impl ObjectStore for Remote {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.world.begin_mutation(self.process, location);
        let twice = self.world.put_twice();
        let (world, path) = (Arc::clone(&self.world), location.clone());
        let effect = async move {
            let bytes = Bytes::from(payload.clone());
            let put = world
                .objects
                .put_opts(&path, payload.clone(), options.clone());
            let first = put.await;
            if first.is_ok() {
                world.stored(&path, &bytes);
            }
            if first.is_ok() && twice {
                return world.objects.put_opts(&path, payload, options).await;
            }
            first
        };
        self.ask("put", location, effect).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(unsupported())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let (world, path) = (Arc::clone(&self.world), location.clone());
        let effect = async move { world.objects.get_opts(&path, options).await };
        self.ask("get", location, effect).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        let (world, path, ranges) = (Arc::clone(&self.world), location.clone(), ranges.to_vec());
        let effect = async move { world.objects.get_ranges(&path, &ranges).await };
        self.ask("get", location, effect).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let remote = self.clone();
        let delete = move |path: Path| {
            let remote = remote.clone();
            async move {
                remote.world.begin_mutation(remote.process, &path);
                let (world, gone) = (Arc::clone(&remote.world), path.clone());
                let effect = async move { world.objects.delete(&gone).await };
                remote.ask("delete", &path, effect).await?;
                Ok(path)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (remote, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let pages = stream::try_unfold(Some(Path::default()), move |after| {
            let (remote, prefix) = (remote.clone(), prefix.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                let page = remote.page(prefix, after).await?;
                let full = page.len() == PAGE;
                let next = page.last().filter(|_| full).map(|m| m.location.clone());
                Ok::<_, object_store::Error>(Some((stream::iter(page).map(Ok), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> StoreResult<ListResult> {
        Err(unsupported())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> StoreResult<()> {
        Err(unsupported())
    }
}

impl Remote {
    /// The names that follow `after`, as many as a page holds.
    async fn page(&self, prefix: Path, after: Path) -> StoreResult<Vec<ObjectMeta>> {
        let (world, folder) = (Arc::clone(&self.world), prefix.clone());
        let effect = async move {
            let all = world.objects.list(Some(&folder)).try_collect::<Vec<_>>();
            let mut all = all.now_or_never().expect("in memory")?;
            all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
            all.retain(|meta| meta.location > after);
            all.truncate(PAGE);
            Ok(all)
        };
        self.ask("list", &prefix, effect).await
    }
}
