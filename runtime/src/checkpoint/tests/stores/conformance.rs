//! What every store must do. Each case has a job of its own.

use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::super::crash;
use super::*;
use crate::checkpoint::frame::Framed;
use crate::checkpoint::names::ObjectName;
use crate::{ErrorKind, Generation};

fn name(number: u64) -> ObjectName {
    ObjectName::Commit {
        generation: Generation(1),
        number,
    }
}

fn commit(number: u64, body: &str) -> Framed {
    Framed::new(name(number), Bytes::copy_from_slice(body.as_bytes()))
}

/// Long enough for the runs of these tests, which do not always renew it.
fn lease() -> LeaseConfig {
    LeaseConfig {
        duration: Duration::from_secs(3),
        settle: Duration::ZERO,
    }
}

pub(super) async fn an_object_is_created_once(backend: &Backend) {
    let (one, two) = (backend.open("once"), backend.open("once"));
    one.create(&commit(1, "mine")).await.unwrap();
    for store in [&one, &two] {
        store.create(&commit(1, "mine")).await.unwrap();
        for other in ["yours", "min", "mine!", ""] {
            let error = store.create(&commit(1, other)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
        }
        let (checksum, body) = store.load(name(1)).await.unwrap();
        assert_eq!(body, "mine");
        assert_eq!(checksum, commit(1, "mine").checksum);
    }
}

pub(super) async fn a_missing_object_is_missed(backend: &Backend) {
    let store = backend.open("missing");
    assert_eq!(store.list().await.unwrap(), []);
    let error = store.load(name(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(error.to_string().contains("is missing"), "{error:?}");
}

/// More than a page of a listing, which S3 ends at 1,000 names.
pub(super) async fn a_listing_is_complete_and_sorted(backend: &Backend) {
    let store = backend.open("listing");
    let mut names: Vec<ObjectName> = (1..=1010)
        .map(|sequence| ObjectName::Seal {
            kind: SealKind::Input,
            generation: Generation(2),
            process: (sequence % 12) as u32,
            sequence,
        })
        .collect();
    names.extend([9, 10, 1, 100, 99].map(name));
    names.push(ObjectName::Generation(Generation(10)));
    names.push(ObjectName::Start(Generation(9)));
    let created = stream::iter(&names).map(|name| {
        let store = store.clone();
        let object = Framed::new(*name, Bytes::new());
        async move { store.create(&object).await }
    });
    created
        .buffer_unordered(8)
        .try_collect::<()>()
        .await
        .unwrap();
    names.sort_unstable();
    assert_eq!(store.list().await.unwrap(), names);
    assert_eq!(backend.open("listing").list().await.unwrap(), names);
}

pub(super) async fn what_others_keep_is_left_alone(backend: &Backend) {
    let store = backend.open("ours");
    store.create(&commit(1, "")).await.unwrap();
    let put = async |name: &str| {
        let payload = PutPayload::from_static(b"not ours");
        let objects = store.objects();
        objects.put(&Path::from(name), payload).await.unwrap();
    };
    for name in [
        "ours-too/commit/0000000001/000000000001",
        "our/commit/readme",
        "ours/notes/readme",
        "ours/commits/readme",
        "readme",
    ] {
        put(name).await;
    }
    assert_eq!(store.list().await.unwrap(), [name(1)]);
    put("ours/commit/readme").await;
    let error = store.list().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert_eq!(
        error.to_string(),
        "ours/commit/readme is no object of a checkpoint: move it elsewhere"
    );
}

pub(super) async fn deleting_twice_is_deleting_once(backend: &Backend) {
    let store = backend.open("deleting");
    store.create(&commit(1, "")).await.unwrap();
    store.create(&commit(2, "")).await.unwrap();
    for _ in 0..2 {
        store.delete(name(1)).await.unwrap();
        assert_eq!(store.list().await.unwrap(), [name(2)]);
    }
    store.load(name(1)).await.unwrap_err();
}

pub(super) async fn a_large_object_comes_back(backend: &Backend) {
    let body: Vec<u8> = (0..20 << 20)
        .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let object = Framed::new(name(1), Bytes::from(body));
    backend.open("large").create(&object).await.unwrap();
    let (checksum, body) = backend.open("large").load(name(1)).await.unwrap();
    assert_eq!(checksum, object.checksum);
    assert!(body == object.body, "another body came back");
}

pub(super) async fn one_of_two_wins_a_race(backend: &Backend) {
    let (one, two) = (backend.open("race"), backend.open("race"));
    for number in 1..=30 {
        let contend = |store: CheckpointStore, body: &'static str| {
            tokio::spawn(async move { store.create(&commit(number, body)).await })
        };
        let tasks = (contend(one.clone(), "one"), contend(two.clone(), "two"));
        let results = [("one", tasks.0.await), ("two", tasks.1.await)];
        let (_, body) = one.load(name(number)).await.unwrap();
        for (who, result) in results {
            match result.unwrap() {
                Ok(()) => assert_eq!(body, who),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
                    assert_ne!(body, who);
                }
            }
        }
    }
}

/// Of several runs that start at once one gets the checkpoint, and keeps it.
pub(super) async fn one_of_many_holds_the_lease(backend: &Backend) {
    let options = Options {
        lease: lease(),
        ..Options::default()
    };
    let runs = (0..4).map(|_| {
        let store = backend.open("lease");
        tokio::spawn(async move {
            let mut opened = open(&store, &identity(), options).await?;
            // Holds it longer than anybody waits.
            let kept = tokio::time::timeout(lease().duration * 2, opened.lease.keep());
            assert!(kept.await.is_err(), "it lost the lease");
            opened.lease.release().await
        })
    });
    let mut winners = 0;
    for ended in futures::future::join_all(runs).await {
        match ended.unwrap() {
            Ok(()) => winners += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}"),
        }
    }
    assert_eq!(winners, 1);
}

pub(super) async fn the_whole_protocol(backend: &Backend) {
    let model = crash::uninterrupted(&backend.open("job"), lease()).await;
    let store = backend.open("job");
    let kept = store.list().await.unwrap();
    assert!(
        !kept.contains(&name(1)),
        "garbage was not collected: {kept:?}"
    );
    let options = Options {
        lease: lease(),
        ..Options::default()
    };
    let opened = open(&store, &identity(), options).await.unwrap();
    model.check(&store, &opened.resume).await;
    // The writers hold the lock of a directory too.
    drop((opened.seals, opened.states, opened.commits));
    opened.lease.release().await.unwrap();
    // Nobody has to wait for what was released.
    let began = Instant::now();
    open(&store, &identity(), options).await.unwrap();
    assert!(began.elapsed() < lease().duration);
}
