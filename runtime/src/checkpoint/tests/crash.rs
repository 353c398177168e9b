//! The crash table of the module, walked: a run dies before and after each of its writes and deletes in turn.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::checkpoint::lock::Place as LockPlace;

/// Lets `left` mutations through, then none: the next one fails before or after it takes effect, all later ones fail.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn ObjectStore>,
    left: AtomicI64,
    effective: bool,
}

fn died() -> object_store::Error {
    object_store::Error::Generic {
        store: "mortal",
        source: "the process died".into(),
    }
}

/// What becomes of a mutation.
enum Fate {
    Succeeds,
    DiesAfter,
    DiesBefore,
}

impl Mortal {
    fn fate(&self) -> Fate {
        match self.left.fetch_sub(1, Ordering::AcqRel) {
            left if left > 0 => Fate::Succeeds,
            0 if self.effective => Fate::DiesAfter,
            _ => Fate::DiesBefore,
        }
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mortal store")
    }
}

#[async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self.fate() {
            Fate::Succeeds => self.inner.put_opts(location, payload, options).await,
            Fate::DiesAfter => {
                self.inner.put_opts(location, payload, options).await?;
                Err(died())
            }
            Fate::DiesBefore => Err(died()),
        }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(died())
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let fate = self.fate();
        let inner = Arc::clone(&self.inner);
        locations
            .and_then(move |path| {
                let fate = matches!(fate, Fate::Succeeds);
                let inner = Arc::clone(&inner);
                async move {
                    if fate {
                        inner.delete(&path).await?;
                        return Ok(path);
                    }
                    Err(died())
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        Err(died())
    }
}

/// One run of the script: what it was told is durable, and whether it died on the way.
struct Script<'a> {
    store: &'a CheckpointStore,
    effective: bool,
    model: &'a mut Model,
}

impl Script<'_> {
    async fn seal(
        &mut self,
        opened: &mut Opened,
        epoch: u64,
        value: &str,
    ) -> crate::Result<SealRef> {
        let records = vec![
            record("a", Some(value)),
            record(value, Some("{}")),
            record("b", None),
        ];
        let parts = vec![part("flights", "-FF", &epoch.to_string(), records)];
        let result = opened.seals.write(Epoch(epoch), parts.clone()).await;
        if result.is_ok() || self.effective {
            self.model.seals.push((Epoch(epoch), parts));
        }
        result
    }

    async fn commit(
        &mut self,
        opened: &mut Opened,
        epoch: u64,
        seals: &[SealRef],
    ) -> crate::Result<()> {
        let mut committed = self.model.clone();
        committed.seals.retain(|(sealed, _)| sealed.0 <= epoch);
        let mut request = commit_of(epoch, seals);
        request.tokens = committed.tokens();
        let result = opened.commits.commit(request).await;
        if result.is_ok() || self.effective {
            self.model.commit = Some(Epoch(epoch));
        }
        result.map(drop)
    }

    /// Three runs, with everything a run can do.
    async fn perform(&mut self, lease: LeaseConfig) -> crate::Result<()> {
        let options = Options {
            fresh: false,
            retain_commits: 1,
            lease,
            supervised: None,
        };
        let mut opened = open(self.store, &identity(), options).await?;
        let mut seals = Vec::new();
        for epoch in 1..=20 {
            seals.push(
                self.seal(&mut opened, epoch, &format!("v{}", epoch % 5))
                    .await?,
            );
        }
        self.commit(&mut opened, 18, &seals[..18]).await?;
        drop(opened);

        let mut opened = open(self.store, &identity(), options).await?;
        self.model.check(self.store, &opened.resume).await;
        let compaction = opened.resume.compaction(self.store);
        let base = compaction.expect("there is a commit").run().await?;
        opened
            .commits
            .set_base(base.expect("eighteen seals are worth a base"))?;
        let one = self.seal(&mut opened, 21, "w1").await?;
        self.commit(&mut opened, 19, &[]).await?;
        opened.commits.collect_garbage().await?;
        let two = self.seal(&mut opened, 22, "w2").await?;
        self.commit(&mut opened, 22, &[one, two]).await?;
        opened.commits.collect_garbage().await?;
        self.seal(&mut opened, 23, "w3").await?;
        drop(opened);

        let mut opened = open(self.store, &identity(), options).await?;
        self.model.check(self.store, &opened.resume).await;
        let three = self.seal(&mut opened, 24, "x").await?;
        self.commit(&mut opened, 24, &[three]).await
    }
}

/// Runs the script on a store that does not die; returns what must be durable. No run of it renews its lease.
#[cfg(feature = "cloud")]
pub(super) async fn uninterrupted(store: &CheckpointStore, lease: LeaseConfig) -> Model {
    let mut model = Model::default();
    let mut script = Script {
        store,
        effective: false,
        model: &mut model,
    };
    script.perform(lease).await.unwrap();
    model
}

/// Runs the script on a store that dies at its `at`-th mutation, then resumes. Returns whether it died.
async fn die_and_resume(place: &Place, at: i64, effective: bool) -> bool {
    let mortal = Mortal {
        inner: Arc::clone(place.store.objects()),
        left: AtomicI64::new(at),
        effective,
    };
    let lock = LockPlace::Memory(Arc::new(AtomicBool::new(false)));
    let store = CheckpointStore::over(Arc::new(mortal), "job", lock);
    let mut model = Model::default();
    let mut script = Script {
        store: &store,
        effective,
        model: &mut model,
    };
    let died = script.perform(LeaseConfig::default()).await.is_err();
    let survivor = &place.store;
    for epoch in [100, 200] {
        let mut opened = open(survivor, &identity(), options()).await.unwrap();
        model.check(survivor, &opened.resume).await;
        assert_eq!(opened.resume.tokens, model.tokens());
        let mut script = Script {
            store: survivor,
            effective: false,
            model: &mut model,
        };
        let seal = script.seal(&mut opened, epoch, "after").await.unwrap();
        script.commit(&mut opened, epoch, &[seal]).await.unwrap();
        opened.commits.collect_garbage().await.unwrap();
    }
    died
}

#[tokio::test(start_paused = true)]
async fn a_run_may_die_at_any_write() {
    for effective in [false, true] {
        let mut at = 0;
        while die_and_resume(&Place::memory(), at, effective).await {
            at += 1;
        }
        assert!(at > 56, "the script has more writes than {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_may_die_at_any_write_on_disk() {
    for at in (0..56).step_by(7) {
        assert!(die_and_resume(&Place::local(), at, at % 2 == 0).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_failed_writes_no_more() {
    let mortal = Mortal {
        inner: Arc::clone(Place::memory().store.objects()),
        left: AtomicI64::new(4),
        effective: true,
    };
    let lock = LockPlace::Memory(Arc::new(AtomicBool::new(false)));
    let store = CheckpointStore::over(Arc::new(mortal), "job", lock);
    let mut opened = open(&store, &identity(), options()).await.unwrap();
    opened.seals.write(Epoch(1), vec![]).await.unwrap();
    for epoch in [2, 3] {
        opened.seals.write(Epoch(epoch), vec![]).await.unwrap_err();
        opened
            .commits
            .commit(commit_of(epoch, &[]))
            .await
            .unwrap_err();
    }
    assert!(
        opened
            .commits
            .commit(commit_of(4, &[]))
            .await
            .unwrap_err()
            .to_string()
            .contains("end")
    );
}
