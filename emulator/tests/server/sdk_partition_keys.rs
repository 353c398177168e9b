//! Keys of every type land in the partition to which the SDK routes them: its own hash is the oracle.

use crate::common::{Outcome, client, container, server};
use azure_data_cosmos::feed::FeedScope;
use azure_data_cosmos::models::{PartitionKey, PartitionKeyDefinition, PartitionKeyValue};
use azure_data_cosmos::options::{ChangeFeedOptions, ChangeFeedStartFrom};
use futures::StreamExt;
use serde_json::{Value, json};

fn values() -> Vec<(PartitionKeyValue, Option<Value>)> {
    let mut values: Vec<(PartitionKeyValue, Option<Value>)> = vec![
        (PartitionKeyValue::NULL, Some(json!(null))),
        (PartitionKeyValue::UNDEFINED, None),
        (true.into(), Some(json!(true))),
        (false.into(), Some(json!(false))),
        ("".into(), Some(json!(""))),
        (
            "q\"\\\n\u{e6}\u{1F600}".into(),
            Some(json!("q\"\\\n\u{e6}\u{1F600}")),
        ),
        ("x".repeat(1_500).into(), Some(json!("x".repeat(1_500)))),
    ];
    for number in [
        0.0,
        -0.5,
        1.0,
        42.0,
        1e300,
        -7.25,
        9_007_199_254_740_991.0,
        0.1,
    ] {
        values.push((
            PartitionKeyValue::try_from(number).unwrap(),
            Some(json!(number)),
        ));
    }
    for index in 0..60 {
        let text = "k".repeat(index % 23) + &index.to_string();
        values.push((text.clone().into(), Some(json!(text))));
    }
    values
}

#[tokio::test]
async fn single_keys_are_routed_as_the_sdk_does() -> Outcome {
    let emulator = server(7);
    let client = client(&emulator).await?;
    let items = container(&client, "keys", PartitionKeyDefinition::from("/pk")).await?;
    let ranges = items.read_feed_ranges(None).await?;
    for (index, (key, value)) in values().into_iter().enumerate() {
        let id = format!("d{index}");
        let mut document = json!({"id": id});
        if let Some(value) = value {
            document["pk"] = value;
        }
        let key = PartitionKey::from(key);
        let written = items.create_item(key.clone(), &id, &document, None).await?;
        let partition: usize = written
            .headers()
            .partition_key_range_id()
            .expect("a range id")
            .parse()?;
        let expected = items
            .feed_range_from_partition_key(key.clone(), None)
            .await?;
        assert_eq!(expected.len(), 1);
        assert!(
            expected[0].is_subset_of(&ranges[partition]),
            "{document} went to {partition}"
        );
        let read: Value = items.read_item(key, &id, None).await?.into_model()?;
        // A whole double comes back as an integer, as the service writes it.
        let same = match read.get("pk") {
            Some(Value::Number(number)) => number.as_f64() == document["pk"].as_f64(),
            other => other == document.get("pk"),
        };
        assert!(same, "{read} {document}");
    }
    assert_eq!(emulator.stats().documents, values().len());
    Ok(())
}

#[tokio::test]
async fn hierarchical_keys_and_their_prefixes_work() -> Outcome {
    let emulator = server(5);
    let client = client(&emulator).await?;
    let definition = PartitionKeyDefinition::from(("/tenant", "/user"));
    let items = container(&client, "keys", definition).await?;
    let ranges = items.read_feed_ranges(None).await?;
    for tenant in 0..6 {
        for user in 0..5 {
            let (t, u, id) = (
                format!("t{tenant}"),
                format!("u{user}"),
                format!("d{tenant}{user}"),
            );
            let key = PartitionKey::from((t.clone(), u.clone()));
            let written = items
                .create_item(
                    key.clone(),
                    &id,
                    &json!({"id": id, "tenant": t, "user": u}),
                    None,
                )
                .await?;
            let partition: usize = written
                .headers()
                .partition_key_range_id()
                .expect("a range id")
                .parse()?;
            let expected = items.feed_range_from_partition_key(key, None).await?;
            assert!(
                expected
                    .iter()
                    .all(|range| range.is_subset_of(&ranges[partition]))
            );
        }
    }
    let prefix = PartitionKey::from("t3");
    let options = ChangeFeedOptions::default();
    let mut pages = items
        .query_change_feed::<Value>(
            FeedScope::partition(prefix.clone()),
            ChangeFeedStartFrom::Beginning,
            Some(options),
        )
        .await?;
    let page = pages.next().await.expect("a page")?.into_items();
    let users: Vec<&str> = page
        .iter()
        .map(|item| item.current().unwrap()["user"].as_str().unwrap())
        .collect();
    assert_eq!(users, ["u0", "u1", "u2", "u3", "u4"]);

    use futures::TryStreamExt;
    let rows: Vec<Value> = items
        .query_items::<Value>("SELECT * FROM c", FeedScope::partition(prefix), None)
        .await?
        .try_collect()
        .await?;
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["tenant"] == "t3"));
    Ok(())
}
