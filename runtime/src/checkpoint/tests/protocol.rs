//! The protocol step by step: who may take over, what a run gets, what it may write.

use super::*;
use crate::checkpoint::frame::Framed;
use crate::checkpoint::names::ObjectName;
use crate::watermarks::{Mark, Marks, Watermarks};
use crate::{ErrorKind, Generation};

async fn second_process(store: &CheckpointStore, opened: &Opened) -> Joined {
    let fence = opened.lease.fence();
    let joined = join(store, &identity(), opened.generation, 1, fence).await;
    joined.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_run_gets_back_what_the_last_one_made_durable() {
    for place in Place::both() {
        let store = place.reopened();
        let mut model = Model::default();
        let mut opened = open(&store, &identity(), options()).await.unwrap();
        assert_eq!(opened.generation, Generation(1));
        model.check(&store, &opened.resume).await;
        let mut second = second_process(&store, &opened).await;
        let parts = [
            vec![part(
                "flights",
                "-80",
                "1",
                vec![record("a", Some("1")), record("a", Some("2"))],
            )],
            vec![part("flights", "80-FF", "1", vec![record("b", Some("1"))])],
            vec![part(
                "flights",
                "-80",
                "2",
                vec![record("a", None), record("c", Some("3"))],
            )],
        ];
        let one = opened
            .seals
            .write(Epoch(5), parts[0].clone())
            .await
            .unwrap();
        let two = second
            .seals
            .write(Epoch(5), parts[1].clone())
            .await
            .unwrap();
        let commit = opened
            .commits
            .commit(commit_of(5, &[two, one]))
            .await
            .unwrap();
        opened
            .seals
            .write(Epoch(6), parts[2].clone())
            .await
            .unwrap();
        for (epoch, parts) in [5, 5, 6].into_iter().zip(parts) {
            model.seals.push((Epoch(epoch), parts));
        }
        model.commit = Some(Epoch(5));
        drop((opened, second, store));

        let store = place.reopened();
        let opened = open(&store, &identity(), options()).await.unwrap();
        assert_eq!(opened.generation, Generation(2));
        assert_eq!(opened.resume.commit.as_ref(), Some(&commit));
        model.check(&store, &opened.resume).await;
        assert_eq!(
            opened.resume.tokens["flights"].len(),
            1,
            "the commit of this test names no tokens"
        );
    }
}

/// Where the event times of a source stand comes back as of the commit, and what was found in each sealed epoch beyond it.
#[tokio::test(start_paused = true)]
async fn marks_are_as_durable_as_the_tokens_beside_them() {
    for place in Place::both() {
        let store = place.reopened();
        let mut opened = open(&store, &identity(), options()).await.unwrap();
        let mut second = second_process(&store, &opened).await;
        let found = |range: &str, at_ms, idle| {
            let mut marks = Marks::default();
            marks.note(FeedRangeId(range.into()), Mark { at_ms, idle });
            marks
        };
        let sealed = |range: &str, token: &str, marks: &Marks| SealPart {
            marks: marks.clone(),
            ..part("flights", range, token, vec![record(range, Some(token))])
        };
        let (first, other) = (found("-80", 70, false), found("80-FF", 50, false));
        let one = sealed("-80", "1", &first);
        let one = opened.seals.write(Epoch(5), vec![one]).await.unwrap();
        let two = sealed("80-FF", "1", &other);
        let two = second.seals.write(Epoch(5), vec![two]).await.unwrap();
        let mut watermarks = Watermarks::default();
        watermarks.apply(&[first, other]);
        let request = CommitRequest {
            marks: BTreeMap::from([("flights".into(), watermarks.clone())]),
            ..commit_of(5, &[one, two])
        };
        opened.commits.commit(request).await.unwrap();
        // An epoch in which only time went on, and one of both processes.
        let alone = SealPart {
            ranges: Vec::new(),
            records: Default::default(),
            ..sealed("80-FF", "", &found("80-FF", 0, true))
        };
        second.seals.write(Epoch(6), vec![alone]).await.unwrap();
        for (seals, range) in [(&mut opened.seals, "-80"), (&mut second.seals, "80-FF")] {
            let part = sealed(range, "2", &found(range, 90, false));
            seals.write(Epoch(7), vec![part]).await.unwrap();
        }
        drop((opened, second, store));

        let store = place.reopened();
        let resume = open(&store, &identity(), options()).await.unwrap().resume;
        let history = &resume.marks["flights"];
        assert_eq!(history.committed, watermarks);
        let epochs = history.sealed.iter();
        let epochs: Vec<_> = epochs.map(|(at, parts)| (at.0, parts.len())).collect();
        assert_eq!(epochs, [(6, 1), (7, 2)]);
        let mut moves = vec![history.committed.watermark_ms];
        for (_, parts) in &history.sealed {
            watermarks.apply(parts);
            moves.push(watermarks.watermark_ms);
        }
        assert_eq!(moves, [50, 70, 90]);
        assert_eq!(history.newest(), watermarks);
    }
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time() {
    for place in Place::both() {
        let opened = open(&place.store, &identity(), options()).await.unwrap();
        let again = place.reopened();
        let error = open(&again, &identity(), options()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        if let Some(folder) = &place.folder {
            let named = folder.path().join("job").display().to_string();
            assert!(error.to_string().contains(&named), "{error}");
        }
        // A writer alone still holds the lock.
        let seals = opened.seals;
        open(&again, &identity(), options()).await.unwrap_err();
        drop((seals, opened.commits));
        drop(opened.resume);
    }
    let place = Place::local();
    drop(open(&place.store, &identity(), options()).await.unwrap());
    open(&place.reopened(), &identity(), options())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_another_container_does_not_resume() {
    for place in Place::both() {
        let ours = identity();
        let opened = open(&place.store, &ours, options());
        opened.await.unwrap().lease.release().await.unwrap();
        let objects = async || {
            let mut names = place.store.list().await.unwrap();
            names.retain(|name| !matches!(name, ObjectName::Lease(_)));
            names
        };
        let before = objects().await;
        let mut changed = identity();
        let sources = &mut changed.fingerprint.sources;
        sources.insert("flights".into(), "db/other".into());
        let refused = open(&place.store, &changed, options()).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert!(
            error
                .to_string()
                .contains("source flights was db/flights and is now db/other"),
            "{error}"
        );
        let mut other = identity();
        other.job = "other".into();
        let refused = open(&place.store, &other, options()).await;
        let error = refused.unwrap_err();
        let belongs = "belongs to job job, not other";
        assert!(error.to_string().contains(belongs), "{error}");
        assert_eq!(objects().await, before, "nothing was written");
        let fresh = Options {
            fresh: true,
            ..options()
        };
        drop(open(&place.store, &changed, fresh).await.unwrap());
        // From now on the state is the changed job's.
        let opened = open(&place.store, &changed, options());
        drop(opened.await.unwrap());
        let refused = open(&place.store, &ours, options()).await;
        refused.unwrap_err();
        // Another cluster size is no change, and neither is another sink: that one is for the job to decide.
        changed.processes = 7;
        let sinks = &mut changed.fingerprint.sinks;
        sinks.insert("board".into(), "v2".into());
        let opened = open(&place.store, &changed, options());
        opened.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_run_that_died_before_its_start_record_changed_nothing() {
    let store = CheckpointStore::in_memory("job");
    let mut opened = open(&store, &identity(), options()).await.unwrap();
    opened.seals.write(Epoch(1), vec![]).await.unwrap();
    drop(opened);
    let framed = Framed::new(
        ObjectName::Generation(Generation(2)),
        Bytes::from_static(b"{}"),
    );
    store.create(&framed).await.unwrap();
    let opened = open(&store, &identity(), options()).await.unwrap();
    assert_eq!(
        (opened.generation, opened.resume.last_sealed),
        (Generation(3), Some(Epoch(1)))
    );
}

fn first_commit() -> ObjectName {
    ObjectName::Commit {
        generation: Generation(1),
        number: 1,
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_create_is_ours_and_another_one_is_fenced() {
    for place in Place::both() {
        let name = first_commit();
        let framed = Framed::new(name, Bytes::from_static(b"one"));
        place.store.create(&framed).await.unwrap();
        place.store.create(&framed).await.unwrap();
        let other = Framed::new(name, Bytes::from_static(b"two"));
        let error = place.store.create(&other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(
            error
                .to_string()
                .contains("another run has written job/commit/"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_lost_its_number_to_another_is_fenced() {
    let store = CheckpointStore::in_memory("job");
    let mut opened = open(&store, &identity(), options()).await.unwrap();
    let seal = ObjectName::Seal {
        kind: SealKind::Input,
        generation: Generation(1),
        process: 0,
        sequence: 1,
    };
    for name in [seal, first_commit()] {
        store
            .create(&Framed::new(name, Bytes::from_static(b"x")))
            .await
            .unwrap();
    }
    let error = opened.seals.write(Epoch(1), vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let error = opened.commits.commit(commit_of(1, &[])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[tokio::test(start_paused = true)]
async fn epochs_only_rise_across_runs_too() {
    let store = CheckpointStore::in_memory("job");
    let mut opened = open(&store, &identity(), options()).await.unwrap();
    opened.seals.write(Epoch(7), vec![]).await.unwrap();
    assert_eq!(
        opened
            .seals
            .write(Epoch(7), vec![])
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Internal
    );
    drop(opened);
    let mut opened = open(&store, &identity(), options()).await.unwrap();
    opened.seals.write(Epoch(7), vec![]).await.unwrap_err();
    // A refused epoch is not a failed write.
    opened.seals.write(Epoch(8), vec![]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_split_survives_a_crash_with_all_children_or_none() {
    let store = CheckpointStore::in_memory("job");
    let mut opened = open(&store, &identity(), options()).await.unwrap();
    opened
        .seals
        .write(Epoch(1), vec![part("flights", "-FF", "1", vec![])])
        .await
        .unwrap();
    let mut split = part("flights", "-80", "1", vec![]);
    split
        .ranges
        .push((FeedRangeId("80-FF".into()), ContinuationToken("1".into())));
    opened.seals.write(Epoch(2), vec![split]).await.unwrap();
    let mut overlapping = commit_of(2, &[]);
    overlapping.tokens = BTreeMap::from([(
        "flights".into(),
        ["-FF", "-80"]
            .map(|id| (FeedRangeId(id.into()), ContinuationToken("1".into())))
            .into(),
    )]);
    let error = opened.commits.commit(overlapping).await.unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
    drop(opened);
    let opened = open(&store, &identity(), options()).await.unwrap();
    let ranges: Vec<&str> = opened.resume.tokens["flights"]
        .keys()
        .map(|id| id.0.as_str())
        .collect();
    assert_eq!(ranges, ["-80", "80-FF"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_run_that_compacts_leaves_little_behind() {
    for place in Place::both() {
        let store = &place.store;
        let mut opened = open(store, &identity(), options()).await.unwrap();
        let mut model = Model::default();
        for epoch in 1..=200 {
            let parts = vec![part(
                "flights",
                "-FF",
                "t",
                vec![record("a", Some(&epoch.to_string()))],
            )];
            let seal = opened
                .seals
                .write(Epoch(epoch), parts.clone())
                .await
                .unwrap();
            model.seals.push((Epoch(epoch), parts));
            opened
                .commits
                .commit(commit_of(epoch, &[seal]))
                .await
                .unwrap();
            model.commit = Some(Epoch(epoch));
            if epoch % 64 == 0 {
                opened.commits.collect_garbage().await.unwrap();
            }
            if epoch % 50 == 0 {
                let compaction = opened.commits.compaction().unwrap();
                // Written twice, as after a failure: the same objects.
                let base = compaction.clone().run().await.unwrap().unwrap();
                assert_eq!(compaction.run().await.unwrap(), Some(base.clone()));
                opened.commits.set_base(base).unwrap();
            }
        }
        // Collected after 64, 128 and 192 commits.
        let left = store.list().await.unwrap();
        let count = |is: fn(&ObjectName) -> bool| left.iter().filter(|name| is(name)).count();
        assert_eq!(
            count(|name| matches!(name, ObjectName::Commit { .. })),
            3 + 8
        );
        assert_eq!(count(|name| matches!(name, ObjectName::Seal { .. })), 50);
        assert_eq!(count(|name| matches!(name, ObjectName::Base { .. })), 2);
        drop(opened);
        let opened = open(store, &identity(), options()).await.unwrap();
        model.check(store, &opened.resume).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_readable_objects_are_readable() {
    let place = Place::local();
    let mut opened = open(&place.store, &identity(), options()).await.unwrap();
    let seal = opened
        .seals
        .write(Epoch(1), vec![part("flights", "-FF", "t1", vec![])])
        .await
        .unwrap();
    opened.commits.commit(commit_of(1, &[seal])).await.unwrap();
    let folder = place.folder.as_ref().unwrap().path().join("job");
    let text = std::fs::read_to_string(folder.join("commit/0000000001/000000000001")).unwrap();
    let (header, json) = text.split_once('\n').unwrap();
    assert!(header.starts_with("tidefeed-checkpoint 2 commit/0000000001/000000000001 "));
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(value["runs"][0]["last"], 1);
    let seal = std::fs::read(folder.join("seal/0000000001/00000/000000000001")).unwrap();
    assert!(seal.starts_with(b"tidefeed-checkpoint 3 seal/0000000001/00000/000000000001 "));
    let heading = seal.split(|byte| *byte == b'\n').nth(1).unwrap();
    let value: serde_json::Value = serde_json::from_slice(heading).unwrap();
    assert_eq!(value["parts"][0]["ranges"][0][1], "t1");
}

#[tokio::test(start_paused = true)]
async fn what_a_dying_write_left_on_disk_is_swept_away() {
    let place = Place::local();
    let folder = place
        .folder
        .as_ref()
        .unwrap()
        .path()
        .join("job/seal/0000000001/00000");
    std::fs::create_dir_all(&folder).unwrap();
    let left = folder.join("000000000001#1");
    std::fs::write(&left, b"half").unwrap();
    let mut opened = open(&place.store, &identity(), options()).await.unwrap();
    assert!(!left.exists());
    opened.seals.write(Epoch(1), vec![]).await.unwrap();
}

#[test]
fn job_names_are_plain() {
    let folder = tempfile::TempDir::new().unwrap();
    for bad in ["", ".", "..", "a/b", "a b", "ä", "a#1", &"x".repeat(129)] {
        let error = CheckpointStore::local(folder.path(), bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
    }
    CheckpointStore::local(folder.path(), "flights-eu_2.1").unwrap();
}
