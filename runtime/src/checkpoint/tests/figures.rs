//! What a store has counted, against what lies in it.

use std::time::SystemTime;

use futures::TryStreamExt;

use super::*;

/// Objects and bytes that lie in a store.
async fn held(store: &CheckpointStore) -> (u64, u64) {
    let found = store.objects().list(None).try_collect::<Vec<_>>();
    let found = found.await.unwrap();
    // A lock is a file of the directory, and no object.
    let objects = found
        .iter()
        .filter(|meta| meta.location.filename() != Some("lock"));
    let sizes: Vec<u64> = objects.map(|meta| meta.size).collect();
    (sizes.len() as u64, sizes.iter().sum())
}

#[tokio::test(start_paused = true)]
async fn counted_objects_are_those_that_lie_in_the_store() {
    for place in Place::both() {
        let store = &place.store;
        let began = SystemTime::now();
        let mut opened = open(store, &identity(), options()).await.unwrap();
        let mut written = store.figures();
        assert_eq!(
            held(store).await,
            (written.objects_written, written.bytes_written)
        );
        for epoch in 1..=40 {
            let records = vec![record("a", Some(&epoch.to_string()))];
            let parts = vec![part("flights", "-FF", &format!("t{epoch}"), records)];
            let seal = opened.seals.write(Epoch(epoch), parts).await.unwrap();
            opened
                .commits
                .commit(commit_of(epoch, &[seal]))
                .await
                .unwrap();
            let more = store.figures();
            assert_eq!(more.objects_written, written.objects_written + 2);
            written = more;
            if epoch == 20 {
                assert_eq!((written.bases, written.last_base_at), (0, None));
                let compaction = opened.commits.compaction().unwrap();
                let base = compaction.clone().run().await.unwrap().unwrap();
                // What is there already is not written again.
                let before = store.figures().objects_written;
                assert_eq!(before, written.objects_written + base.buckets.len() as u64);
                compaction.run().await.unwrap();
                assert_eq!(store.figures().objects_written, before);
                opened.commits.set_base(base).unwrap();
                assert_eq!(store.figures().bases, 0, "no commit names it yet");
                written = store.figures();
            }
        }
        assert_eq!(
            held(store).await,
            (written.objects_written, written.bytes_written)
        );
        assert_eq!(written.writes.count(), written.objects_written);
        assert_eq!((written.bases, written.objects_deleted), (1, 0));
        let last = written.last_base_at.expect("a base");
        assert!(began <= last && last <= SystemTime::now());

        let report = opened.commits.collect_garbage().await.unwrap();
        let figures = store.figures();
        assert!(report.deleted > 0);
        assert_eq!(figures.objects_deleted, report.deleted);
        let left = figures.objects_written - figures.objects_deleted;
        assert_eq!(held(store).await.0, left);

        // The next run of the process has its own store.
        drop(opened);
        let next = place.reopened();
        open(&next, &identity(), options()).await.unwrap();
        if place.folder.is_some() {
            let both = next.figures().after(&figures);
            assert_eq!(both.bases, 1, "the base is not named anew");
            let left = both.objects_written - both.objects_deleted;
            assert_eq!(held(store).await.0, left);
        }
    }
}
