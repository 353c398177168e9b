use std::collections::HashSet;

use super::*;
use crate::target::Target;

#[test]
fn ranges_tile_the_space_of_hashes() {
    for count in [1, 2, 3, 7] {
        let ids = range_ids(count);
        let bounds: Vec<_> = ids.iter().map(|id| id.0.split_once('-').unwrap()).collect();
        assert_eq!(bounds[0].0, "");
        assert_eq!(bounds[count - 1].1, "FF");
        assert!(bounds.windows(2).all(|pair| pair[0].1 == pair[1].0));
    }
}

#[test]
fn keys_are_json_arrays() {
    assert_eq!(key_of(r#"["a",1]"#, "x\"y"), r#"["a",1,"x\"y"]"#);
}

#[test]
fn a_key_goes_to_the_range_that_its_hash_is_in() {
    let container = MemoryContainer::new(MemoryOptions {
        ranges: 3,
        ..Default::default()
    });
    for n in 0..100 {
        let key = format!("[{n}]");
        let hash = format!("{:016X}", xxh3_64(key.as_bytes()));
        let range = &container.shared.ranges[container.range_of(&key)];
        let (min, max) = range.0.split_once('-').unwrap();
        assert!(min <= hash.as_str() && (max == "FF" || hash.as_str() < max));
    }
}

#[tokio::test]
async fn overlapping_writes_to_one_document_are_noticed() {
    let container = MemoryContainer::new(MemoryOptions::default());
    let write = |id: &str| DocumentWrite::upsert("[1]", id, "{}");
    let (a, b) = tokio::join!(
        container.apply(vec![write("x")]),
        container.apply(vec![write("y")])
    );
    a.unwrap();
    b.unwrap();
    assert_eq!(container.violations(), Vec::<String>::new());
    let (a, b) = tokio::join!(
        container.apply(vec![write("x")]),
        container.apply(vec![write("x")])
    );
    a.unwrap();
    b.unwrap();
    assert_eq!(container.violations().len(), 1);
    container.apply(vec![write("z"), write("z")]).await.unwrap();
    assert_eq!(container.violations().len(), 2);
    assert_eq!(container.writes_of(r#"[1,"x"]"#), 3);
}

#[tokio::test]
async fn a_held_batch_has_begun_and_ends_when_let_go() {
    let container = MemoryContainer::new(MemoryOptions::default());
    container.hold_writes(true);
    let writer = container.clone();
    let task = tokio::spawn(async move {
        let write = DocumentWrite::upsert("[1]", "x", "{}");
        writer.apply(vec![write]).await
    });
    while container.batches() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(container.contents().is_empty());
    container.hold_writes(false);
    task.await.unwrap().unwrap();
    assert_eq!(container.contents().len(), 1);
}

#[tokio::test]
async fn a_held_batch_that_is_closed_is_never_written() {
    let container = MemoryContainer::new(MemoryOptions::default());
    let write = DocumentWrite::upsert("[1]", "x", "{}");
    let writer = Arc::new(container.clone());
    container.hold_writes(true);
    let task = tokio::spawn({
        let (writer, write) = (Arc::clone(&writer), write.clone());
        async move { writer.apply(vec![write]).await }
    });
    while container.batches() == 0 {
        tokio::task::yield_now().await;
    }
    writer.close();
    task.await.unwrap().unwrap_err();
    container.hold_writes(false);
    writer.apply(vec![write.clone()]).await.unwrap_err();
    assert!(container.contents().is_empty());
    container.apply(vec![write]).await.unwrap();
    assert_eq!(container.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failing_batch_writes_what_the_seed_says() {
    let run = |seed| async move {
        let container = MemoryContainer::new(MemoryOptions {
            seed,
            ..Default::default()
        });
        container.fail_next_batch(ErrorKind::Unreachable);
        let batch = (0..20)
            .map(|n| DocumentWrite::upsert("[1]", n.to_string(), "{}"))
            .collect::<Vec<_>>();
        let error = container.apply(batch.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let part = container.contents();
        container.apply(batch).await.unwrap();
        assert_eq!(container.contents().len(), 20);
        part
    };
    assert_eq!(run(7).await, run(7).await);
    let mut sizes = HashSet::new();
    for seed in 0..10 {
        sizes.insert(run(seed).await.len());
    }
    assert!(sizes.len() > 3, "{sizes:?}");
}
