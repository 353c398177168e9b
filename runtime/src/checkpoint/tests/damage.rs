//! Every damaged, moved or missing object is an error that names it and says what to do.
//!
//! `frame.rs` and `records.rs` flip every bit of what they read. Here a whole start meets each damage, so only every fifth byte
//! of an object is damaged; `TIDEFEED_DAMAGE_STEP=1` damages each.

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::checkpoint::names::ObjectName;
use crate::{ErrorKind, Generation};

/// A state with every kind of object: two generations, a base, seals in and beyond the last commit.
async fn build(store: &CheckpointStore) {
    let seal = |epoch: u64| {
        let records = vec![
            record(&format!("k{epoch}"), Some("{}")),
            record("k1", Some("1")),
        ];
        vec![part("flights", "-FF", &epoch.to_string(), records)]
    };
    let mut opened = open(store, &identity(), options()).await.unwrap();
    let mut seals = Vec::new();
    for epoch in 1..=20 {
        seals.push(opened.seals.write(Epoch(epoch), seal(epoch)).await.unwrap());
    }
    opened
        .commits
        .commit(commit_of(18, &seals[..18]))
        .await
        .unwrap();
    drop(opened);
    let mut opened = open(store, &identity(), options()).await.unwrap();
    let compaction = opened.resume.compaction(store).unwrap();
    let base = compaction.run().await.unwrap().unwrap();
    opened.commits.set_base(base).unwrap();
    let mut own = Vec::new();
    for epoch in 21..=23 {
        own.push(opened.seals.write(Epoch(epoch), seal(epoch)).await.unwrap());
    }
    opened
        .commits
        .commit(commit_of(21, &own[..1]))
        .await
        .unwrap();
}

/// The objects that opening reads.
const OPENED: [&str; 5] = [
    "generation/0000000002",
    "start/0000000002",
    "commit/0000000002/000000000002",
    "seal/0000000002/00000/000000000002",
    "seal/0000000002/00000/000000000003",
];

/// The objects that rehydrating reads besides: of the base, a seal of the commit, and a replayed one.
const REHYDRATED: [&str; 4] = [
    "base/0000000002/0000000000000018/05",
    "base/0000000002/0000000000000018/58",
    "seal/0000000001/00000/000000000019",
    "seal/0000000002/00000/000000000001",
];

fn path(name: &str) -> Path {
    Path::from(format!("job/{name}"))
}

async fn load(store: &CheckpointStore, name: &str) -> Bytes {
    let object = store.objects().get(&path(name)).await.unwrap();
    object.bytes().await.unwrap()
}

async fn overwrite(store: &CheckpointStore, name: &str, bytes: Bytes) {
    let payload = PutPayload::from_bytes(bytes);
    store.objects().put(&path(name), payload).await.unwrap();
}

/// The error of opening, or of rehydrating what was opened before the damage.
async fn error_of(store: &CheckpointStore, resume: Option<&Resume>) -> crate::Error {
    match resume {
        Some(resume) => rehydrate(store, resume, Share::WHOLE).await.err(),
        None => open(store, &identity(), options()).await.err(),
    }
    .expect("damage must not pass")
}

fn check(error: &crate::Error, name: &str, what: &str) {
    assert_eq!(error.kind(), ErrorKind::Checkpoint, "{what}: {error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("job/{name} ")),
        "{what} of {name}: {text}"
    );
    assert!(
        text.contains("or start over with --fresh"),
        "{what}: {text}"
    );
}

/// Damages `name` in every way. `step` thins out the byte positions.
async fn damage(store: &CheckpointStore, name: &str, resume: Option<&Resume>, step: usize) {
    let good = load(store, name).await;
    for at in (0..good.len()).step_by(step) {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1 << (at % 8);
        overwrite(store, name, Bytes::from(flipped)).await;
        let error = error_of(store, resume).await;
        check(&error, name, &format!("flipped byte {at}"));
        overwrite(store, name, good.slice(..at)).await;
        check(
            &error_of(store, resume).await,
            name,
            &format!("truncation to {at}"),
        );
    }
    overwrite(store, name, Bytes::from([good.as_ref(), b"\n"].concat())).await;
    check(&error_of(store, resume).await, name, "a byte too many");
    for other in OPENED
        .iter()
        .chain(&REHYDRATED)
        .filter(|other| **other != name)
    {
        overwrite(store, name, load(store, other).await).await;
        let error = error_of(store, resume).await;
        check(&error, name, "exchange");
        assert!(error.to_string().contains(other), "{error}");
    }
    overwrite(store, name, good).await;
}

#[tokio::test(start_paused = true)]
async fn every_damage_is_an_error_that_names_the_object() {
    let in_memory = number("TIDEFEED_DAMAGE_STEP").unwrap_or(5) as usize;
    for (place, step) in Place::both().into_iter().zip([in_memory, 397]) {
        let store = &place.store;
        build(store).await;
        for name in OPENED {
            damage(store, name, None, step).await;
        }
        let opened = open(store, &identity(), options()).await.unwrap();
        for name in REHYDRATED {
            damage(store, name, Some(&opened.resume), step).await;
        }
        rehydrate(store, &opened.resume, Share::WHOLE)
            .await
            .unwrap();
    }
}

/// A large seal is read by range, so its frame's checksum cannot see all of it.
#[tokio::test(start_paused = true)]
async fn damage_in_a_large_seal_is_found_whichever_way_it_is_read() {
    let store = &Place::memory().store;
    let mut random = 1u64;
    let mut noise = |_| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        record(&format!("k{random}"), Some(&format!("{random:0>1100}")))
    };
    let records: Vec<Record> = (0..1000).map(&mut noise).collect();
    let mut opened = open(store, &identity(), options()).await.unwrap();
    let parts = vec![part("flights", "-FF", "1", records)];
    opened.seals.write(Epoch(1), parts).await.unwrap();
    drop(opened);
    let name = "seal/0000000001/00000/000000000001";
    // Beyond the commit it is read as a whole, when the store is opened.
    damage_some(store, name, None).await;
    let mut opened = open(store, &identity(), options()).await.unwrap();
    opened.commits.commit(commit_of(1, &[])).await.unwrap();
    drop(opened);
    let opened = open(store, &identity(), options()).await.unwrap();
    damage_some(store, name, Some(&opened.resume)).await;
    let (collection, _) = rehydrate(store, &opened.resume, Share::WHOLE)
        .await
        .unwrap();
    assert_eq!(collection["flights"].len(), 1000);
}

async fn damage_some(store: &CheckpointStore, name: &str, resume: Option<&Resume>) {
    let good = load(store, name).await;
    for at in (0..good.len()).step_by(1009) {
        let mut flipped = good.to_vec();
        flipped[at] ^= 1 << (at % 8);
        overwrite(store, name, Bytes::from(flipped)).await;
        let what = format!("flipped byte {at}");
        check(&error_of(store, resume).await, name, &what);
        overwrite(store, name, good.slice(..at)).await;
        let what = format!("truncation to {at}");
        check(&error_of(store, resume).await, name, &what);
    }
    overwrite(store, name, good).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_object_is_an_error_that_names_it() {
    for place in Place::both() {
        let store = &place.store;
        build(store).await;
        // The last commit and the last seal cannot be missed: a run that died before them left the same.
        for name in OPENED
            .iter()
            .filter(|name| !name.starts_with("commit") && !name.ends_with('3'))
        {
            let good = load(store, name).await;
            store.objects().delete(&path(name)).await.unwrap();
            let error = error_of(store, None).await;
            check(&error, name, "absence");
            assert!(error.to_string().contains("is missing"), "{error}");
            overwrite(store, name, good).await;
        }
        let opened = open(store, &identity(), options()).await.unwrap();
        for name in REHYDRATED {
            let good = load(store, name).await;
            store.objects().delete(&path(name)).await.unwrap();
            check(
                &error_of(store, Some(&opened.resume)).await,
                name,
                "absence",
            );
            overwrite(store, name, good).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_seal_of_another_run_with_a_right_frame_is_told_apart() {
    let (ours, other) = (Place::memory(), Place::memory());
    build(&ours.store).await;
    let mut opened = open(&other.store, &identity(), options()).await.unwrap();
    drop(opened);
    opened = open(&other.store, &identity(), options()).await.unwrap();
    for epoch in 31..=33 {
        opened.seals.write(Epoch(epoch), vec![]).await.unwrap();
    }
    for name in [OPENED[3], OPENED[4]] {
        let good = load(&ours.store, name).await;
        overwrite(&ours.store, name, load(&other.store, name).await).await;
        check(
            &error_of(&ours.store, None).await,
            name,
            "exchange with another run's",
        );
        overwrite(&ours.store, name, good).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_fresh_starts_over_what_cannot_be_read() {
    for place in Place::both() {
        let store = &place.store;
        build(store).await;
        for name in OPENED {
            overwrite(store, name, Bytes::from_static(b"junk")).await;
        }
        check(&error_of(store, None).await, OPENED[0], "junk");
        let fresh = Options {
            fresh: true,
            ..options()
        };
        let mut opened = open(store, &identity(), fresh).await.unwrap();
        assert_eq!(opened.generation, Generation(3));
        Model::default().check(store, &opened.resume).await;
        let seal = opened.seals.write(Epoch(50), vec![]).await.unwrap();
        opened.commits.commit(commit_of(50, &[seal])).await.unwrap();
        assert!(opened.commits.collect_garbage().await.unwrap().deleted > 40);
        drop(opened);
        let opened = open(store, &identity(), options()).await.unwrap();
        assert_eq!(opened.resume.commit.unwrap().epoch, Epoch(50));
        let mut left = store.list().await.unwrap();
        left.retain(|name| !matches!(name, ObjectName::Lease(_)));
        assert_eq!(
            left.len(),
            6,
            "two generations, two starts, a seal, a commit: {left:?}"
        );
    }
}

/// Only what keeps records has changed its format: a run that starts over still reads who held the checkpoint.
#[tokio::test(start_paused = true)]
async fn seals_of_an_earlier_format_are_refused_and_fresh_starts_over() {
    for place in Place::both() {
        let store = &place.store;
        build(store).await;
        let seal = load(store, OPENED[4]).await;
        let rest = seal.strip_prefix(b"tidefeed-checkpoint 3 ");
        let older = [b"tidefeed-checkpoint 2 ", rest.expect("a seal")].concat();
        overwrite(store, OPENED[4], older.into()).await;
        let error = error_of(store, None).await;
        check(&error, OPENED[4], "an earlier format");
        let why = "is in format 2 and this version reads format 3";
        assert!(error.to_string().contains(why), "{error}");
        let fresh = Options {
            fresh: true,
            ..options()
        };
        let opened = open(store, &identity(), fresh).await.unwrap();
        assert_eq!(opened.generation, Generation(3));
    }
}

/// Who holds the checkpoint cannot be told then, and to guess would be to risk two runs at once.
#[tokio::test(start_paused = true)]
async fn a_damaged_lease_record_is_an_error_that_says_what_to_do() {
    for place in Place::both() {
        let store = &place.store;
        build(store).await;
        let newest = store.list_leases().await.unwrap().pop().unwrap();
        let good = load(store, &newest.to_string()).await;
        for bad in [good.slice(..good.len() - 1), Bytes::from_static(b"junk")] {
            overwrite(store, &newest.to_string(), bad).await;
            let error = error_of(store, None).await;
            assert_eq!(error.kind(), ErrorKind::Checkpoint);
            let text = error.report();
            assert!(text.contains(&format!("job/{newest} is damaged")), "{text}");
            assert!(text.contains("delete it"), "{text}");
        }
        overwrite(store, &newest.to_string(), good).await;
        open(store, &identity(), options()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_file_among_the_objects_is_reported() {
    let place = Place::memory();
    build(&place.store).await;
    overwrite(&place.store, "commit/0000000002/copy-of-2", Bytes::new()).await;
    let error = error_of(&place.store, None).await;
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert!(
        error
            .to_string()
            .contains("job/commit/0000000002/copy-of-2"),
        "{error}"
    );
}
