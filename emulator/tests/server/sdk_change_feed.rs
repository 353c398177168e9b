//! The change feed through the official SDK.

use std::time::Duration;

use crate::common::{Outcome, client, container, server};
use azure_data_cosmos::TransactionalBatch;
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::{ChangeFeedPageIterator, FeedScope};
use azure_data_cosmos::models::{ChangeFeedItem, PartitionKeyDefinition};
use azure_data_cosmos::options::{
    ChangeFeedMode, ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint,
};
use futures::StreamExt;
use serde_json::{Value, json};

type Pages = ChangeFeedPageIterator<ChangeFeedItem<Value>>;

fn page_of(most: u32) -> ChangeFeedOptions {
    ChangeFeedOptions::default()
        .with_max_item_count(MaxItemCountHint::Limit(most.try_into().unwrap()))
}

async fn open(
    items: &ContainerClient,
    scope: FeedScope,
    start: ChangeFeedStartFrom,
    options: ChangeFeedOptions,
) -> Result<Pages, Box<dyn std::error::Error>> {
    Ok(items
        .query_change_feed::<Value>(scope, start, Some(options))
        .await?)
}

/// Sizes and items of pages until `idle` empty ones came in a row.
async fn drain(
    pages: &mut Pages,
    idle: usize,
) -> Result<(Vec<usize>, Vec<ChangeFeedItem<Value>>), Box<dyn std::error::Error>> {
    let (mut sizes, mut all, mut empty) = (Vec::new(), Vec::new(), 0);
    while empty < idle {
        let page = pages
            .next()
            .await
            .expect("a change feed has no end")?
            .into_items();
        if page.is_empty() {
            empty += 1;
        } else {
            empty = 0;
            sizes.push(page.len());
            all.extend(page);
        }
    }
    Ok((sizes, all))
}

fn ids(items: &[ChangeFeedItem<Value>]) -> Vec<String> {
    items
        .iter()
        .map(|item| item.current().unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

async fn fill(items: &ContainerClient, range: std::ops::Range<usize>) -> Outcome {
    for index in range {
        let id = format!("d{index:04}");
        items
            .upsert_item(
                id.clone(),
                &id,
                &json!({"id": id, "pk": id, "n": index}),
                None,
            )
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_feed_is_read_in_pages_and_resumed() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "feed", PartitionKeyDefinition::from("/pk")).await?;
    fill(&items, 0..100).await?;
    let mut pages = open(
        &items,
        FeedScope::full_container(),
        ChangeFeedStartFrom::Beginning,
        page_of(7),
    )
    .await?;
    let (sizes, all) = drain(&mut pages, 4).await?;
    assert!(sizes.iter().all(|size| *size <= 7) && sizes.len() >= 100 / 7);
    assert_eq!(
        sorted(ids(&all)),
        (0..100)
            .map(|index| format!("d{index:04}"))
            .collect::<Vec<_>>()
    );
    for item in &all {
        let current = item.current().unwrap();
        let metadata = item.metadata().expect("metadata");
        assert_eq!(
            metadata.lsn().map(|lsn| lsn.value()),
            current["_lsn"].as_i64()
        );
        assert_eq!(
            metadata
                .conflict_resolution_timestamp()
                .map(|ts| ts.as_secs()),
            current["_ts"].as_u64()
        );
    }

    let token = pages.to_continuation_token()?;
    fill(&items, 50..53).await?;
    items.delete_item("d0001", "d0001", None).await?;
    fill(&items, 100..102).await?;
    let mut resumed = open(
        &items,
        FeedScope::full_container(),
        ChangeFeedStartFrom::Beginning,
        page_of(7).with_continuation_token(token),
    )
    .await?;
    let (_, changed) = drain(&mut resumed, 4).await?;
    assert_eq!(
        sorted(ids(&changed)),
        ["d0050", "d0051", "d0052", "d0100", "d0101"]
    );
    let (_, nothing) = drain(&mut resumed, 8).await?;
    assert!(nothing.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_update_moves_a_document_to_its_newest_place() -> Outcome {
    let emulator = server(1);
    let client = client(&emulator).await?;
    let items = container(&client, "feed", PartitionKeyDefinition::from("/pk")).await?;
    fill(&items, 0..5).await?;
    fill(&items, 1..2).await?;
    items.delete_item("d0003", "d0003", None).await?;
    let mut pages = open(
        &items,
        FeedScope::full_container(),
        ChangeFeedStartFrom::Beginning,
        page_of(100),
    )
    .await?;
    let (_, all) = drain(&mut pages, 1).await?;
    assert_eq!(ids(&all), ["d0000", "d0002", "d0004", "d0001"]);
    let lsns: Vec<i64> = all
        .iter()
        .map(|item| item.metadata().unwrap().lsn().unwrap().value())
        .collect();
    assert_eq!(lsns, [1, 3, 5, 6]);
    Ok(())
}

#[tokio::test]
async fn a_batch_is_never_split_over_pages() -> Outcome {
    let emulator = server(1);
    let client = client(&emulator).await?;
    let items = container(&client, "feed", PartitionKeyDefinition::from("/pk")).await?;
    for round in 0..3 {
        let mut batch = TransactionalBatch::new("x");
        for index in 0..10 {
            batch = batch.create_item(json!({"id": format!("r{round}i{index}"), "pk": "x"}))?;
        }
        items.execute_transactional_batch(batch, None).await?;
    }
    let mut pages = open(
        &items,
        FeedScope::full_container(),
        ChangeFeedStartFrom::Beginning,
        page_of(4),
    )
    .await?;
    let (sizes, all) = drain(&mut pages, 1).await?;
    assert_eq!(sizes, [10, 10, 10]);
    assert!(
        all[..10]
            .iter()
            .all(|item| item.metadata().unwrap().lsn() == all[0].metadata().unwrap().lsn())
    );
    let mut pages = open(
        &items,
        FeedScope::full_container(),
        ChangeFeedStartFrom::Beginning,
        page_of(11),
    )
    .await?;
    assert_eq!(drain(&mut pages, 1).await?.0, [20, 10]);
    Ok(())
}

#[tokio::test]
async fn a_feed_starts_now_or_at_a_point_in_time() -> Outcome {
    let emulator = server(2);
    let client = client(&emulator).await?;
    let items = container(&client, "feed", PartitionKeyDefinition::from("/pk")).await?;
    fill(&items, 0..10).await?;
    let first: Value = items
        .read_item("d0000", "d0000", None)
        .await?
        .into_model()?;
    let second = |seconds: u64| {
        let time =
            std::time::UNIX_EPOCH + Duration::from_secs(first["_ts"].as_u64().unwrap() + seconds);
        ChangeFeedStartFrom::PointInTime(time.into())
    };

    let mut now = open(
        &items,
        FeedScope::full_container(),
        ChangeFeedStartFrom::Now,
        page_of(100),
    )
    .await?;
    assert!(drain(&mut now, 2).await?.1.is_empty());
    // Wait until the clock of the server is in another second, by what the server writes.
    let mut index = 10;
    loop {
        fill(&items, index..index + 1).await?;
        let id = format!("d{index:04}");
        let latest: Value = items.read_item(id.clone(), &id, None).await?.into_model()?;
        if latest["_ts"].as_u64() >= first["_ts"].as_u64().map(|ts| ts + 2) {
            break;
        }
        index += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, seen) = drain(&mut now, 4).await?;
    assert_eq!(
        seen.len(),
        index - 9,
        "everything after the start, and nothing before"
    );

    let scope = FeedScope::full_container;
    let mut all = open(&items, scope(), second(0), page_of(1_000)).await?;
    assert_eq!(drain(&mut all, 4).await?.1.len(), index + 1);
    let mut late = open(&items, scope(), second(2), page_of(1_000)).await?;
    assert_eq!(ids(&drain(&mut late, 4).await?.1), [format!("d{index:04}")]);
    let mut future = open(&items, scope(), second(3_600), page_of(1_000)).await?;
    assert!(drain(&mut future, 4).await?.1.is_empty());
    fill(&items, 0..1).await?;
    assert!(
        drain(&mut future, 4).await?.1.is_empty(),
        "a start to come is not forgotten after an empty page"
    );
    Ok(())
}

#[tokio::test]
async fn ranges_and_keys_cover_a_container_without_overlap() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "feed", PartitionKeyDefinition::from("/pk")).await?;
    fill(&items, 0..60).await?;
    let ranges = items.read_feed_ranges(None).await?;
    assert_eq!(ranges.len(), 4);
    let mut union = Vec::new();
    for range in ranges {
        let mut pages = open(
            &items,
            FeedScope::range(range),
            ChangeFeedStartFrom::Beginning,
            page_of(10),
        )
        .await?;
        union.extend(ids(&drain(&mut pages, 1).await?.1));
    }
    assert_eq!(
        sorted(union),
        (0..60)
            .map(|index| format!("d{index:04}"))
            .collect::<Vec<_>>()
    );

    items
        .upsert_item(
            "d0007",
            "other",
            &json!({"id": "other", "pk": "d0007"}),
            None,
        )
        .await?;
    let mut one = open(
        &items,
        FeedScope::partition("d0007"),
        ChangeFeedStartFrom::Beginning,
        page_of(10),
    )
    .await?;
    assert_eq!(ids(&drain(&mut one, 1).await?.1), ["d0007", "other"]);
    // The same through an interval that is a part of a physical partition.
    for range in items.feed_range_from_partition_key("d0007", None).await? {
        let mut pages = open(
            &items,
            FeedScope::range(range),
            ChangeFeedStartFrom::Beginning,
            page_of(10),
        )
        .await?;
        let found = ids(&drain(&mut pages, 1).await?.1);
        assert!(found.contains(&"d0007".to_owned()) && found.contains(&"other".to_owned()));
    }
    Ok(())
}

#[tokio::test]
async fn all_versions_and_deletes_come_once_and_in_order_across_a_split() -> Outcome {
    let emulator = server(1);
    let client = client(&emulator).await?;
    let items = container(&client, "feed", PartitionKeyDefinition::from("/pk")).await?;
    let options = || ChangeFeedOptions::default().with_mode(ChangeFeedMode::AllVersionsAndDeletes);
    fill(&items, 0..3).await?;
    let whole = FeedScope::full_container;
    let mut pages = open(&items, whole(), ChangeFeedStartFrom::Now, options()).await?;
    assert!(drain(&mut pages, 2).await?.1.is_empty());
    fill(&items, 2..5).await?;
    items.delete_item("d0000", "d0000", None).await?;
    let (_, first) = drain(&mut pages, 2).await?;
    assert_eq!(
        happened(&first),
        [
            ("replace".to_owned(), "d0002".to_owned()),
            ("create".to_owned(), "d0003".to_owned()),
            ("create".to_owned(), "d0004".to_owned()),
            ("delete".to_owned(), "d0000".to_owned()),
        ]
    );
    let deleted = first[3].metadata().expect("metadata");
    assert_eq!(deleted.partition_key(), Some(&json!({"pk": "d0000"})));
    assert_eq!(deleted.time_to_live_expired(), Some(false));
    assert_eq!(first[3].previous().expect("an image")["n"], 0);
    let replaced = first[0].metadata().expect("metadata");
    assert!(replaced.previous_image_lsn() < replaced.lsn());

    let token = pages.to_continuation_token()?;
    items.delete_item("d0001", "d0001", None).await?;
    emulator.split("db", "feed", 0)?;
    fill(&items, 1..3).await?;
    let resumed = options().with_continuation_token(token);
    let mut pages = open(&items, whole(), ChangeFeedStartFrom::Beginning, resumed).await?;
    let (_, mut second) = drain(&mut pages, 4).await?;
    second.sort_by_key(identity);
    assert_eq!(
        happened(&second),
        [
            ("delete".to_owned(), "d0001".to_owned()),
            ("create".to_owned(), "d0001".to_owned()),
            ("replace".to_owned(), "d0002".to_owned()),
        ]
    );
    Ok(())
}

fn identity(item: &ChangeFeedItem<Value>) -> String {
    let deleted = item.metadata().and_then(|metadata| metadata.id());
    let id = deleted.or_else(|| item.current()?["id"].as_str());
    id.expect("an id").to_owned()
}

fn happened(items: &[ChangeFeedItem<Value>]) -> Vec<(String, String)> {
    let kind = |item: &ChangeFeedItem<Value>| {
        format!("{:?}", item.operation_type().expect("an operation")).to_lowercase()
    };
    items
        .iter()
        .map(|item| (kind(item), identity(item)))
        .collect()
}
