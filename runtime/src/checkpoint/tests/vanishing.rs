//! A store whose objects go between a listing that names them and the first read.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;

use super::ObjectName;
use crate::checkpoint::CheckpointStore;

/// Deletes some objects when they are read.
#[derive(Debug)]
pub(in crate::checkpoint) struct Vanishing {
    inner: Arc<dyn ObjectStore>,
    left: Mutex<BTreeSet<Path>>,
}

impl Vanishing {
    /// The objects of `store`, of which those called `names` go when they are read.
    pub(in crate::checkpoint) fn over(
        store: &CheckpointStore,
        names: impl IntoIterator<Item = ObjectName>,
    ) -> CheckpointStore {
        let paths = names.into_iter();
        let paths = paths.map(|name| Path::from(store.full_name(name)));
        let vanishing = Vanishing {
            inner: Arc::clone(store.objects()),
            left: Mutex::new(paths.collect()),
        };
        CheckpointStore::over_objects(Arc::new(vanishing), store.job()).unwrap()
    }
}

impl fmt::Display for Vanishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("vanishing store")
    }
}

#[async_trait]
impl ObjectStore for Vanishing {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let goes = self.left.lock().remove(location);
        if goes {
            self.inner.delete(location).await?;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
