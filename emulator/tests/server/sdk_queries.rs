//! Queries through the official SDK.

use crate::common::{Outcome, client, container, server};
use azure_data_cosmos::Query;
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::FeedScope;
use azure_data_cosmos::models::{PartitionKeyDefinition, ThroughputProperties};
use azure_data_cosmos::options::{MaxItemCountHint, QueryOptions};
use futures::TryStreamExt;
use serde_json::{Value, json};

type Rows = Result<Vec<Value>, Box<dyn std::error::Error>>;

async fn rows(
    items: &ContainerClient,
    scope: FeedScope,
    query: impl Into<Query>,
    page: u32,
) -> Rows {
    let options =
        QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(page.try_into()?));
    Ok(items
        .query_items::<Value>(query, scope, Some(options))
        .await?
        .try_collect()
        .await?)
}

async fn filled(items: &ContainerClient) -> Outcome {
    for index in 0..60 {
        let (id, pk) = (format!("d{index:02}"), format!("p{}", index % 7));
        let document = json!({"id": id, "pk": pk, "n": index, "odd": index % 2 == 1, "o": {"s": format!("s{}", index % 3)}, "list": [index, 0]});
        items.create_item(pk, &id, &document, None).await?;
    }
    Ok(())
}

fn numbers(rows: &[Value]) -> Vec<i64> {
    rows.iter()
        .map(|row| row.as_i64().or(row["n"].as_i64()).unwrap())
        .collect()
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort();
    numbers
}

#[tokio::test]
async fn filters_projections_and_pages_work_across_partitions() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    filled(&items).await?;
    let all = FeedScope::full_container;

    let everything = rows(&items, all(), "SELECT * FROM c", 7).await?;
    assert_eq!(sorted(numbers(&everything)), (0..60).collect::<Vec<_>>());
    assert!(
        everything
            .iter()
            .all(|row| row["_rid"].is_string() && row["_etag"].is_string())
    );

    let query = Query::from(
        "SELECT VALUE c.n FROM c WHERE c.n >= @low AND (c.odd = true OR NOT IS_DEFINED(c.n))",
    )
    .with_parameter("@low", 40)?;
    assert_eq!(
        sorted(numbers(&rows(&items, all(), query, 3).await?)),
        (41..60).step_by(2).collect::<Vec<_>>()
    );

    let shaped = rows(
        &items,
        all(),
        "SELECT c.n, c.o.s AS s, c.missing FROM c WHERE c.n = 5",
        10,
    )
    .await?;
    assert_eq!(shaped, [json!({"n": 5, "s": "s2"})]);

    let ordered = rows(
        &items,
        all(),
        "SELECT * FROM c WHERE c.n < 30 ORDER BY c.n DESC",
        4,
    )
    .await?;
    assert_eq!(numbers(&ordered), (0..30).rev().collect::<Vec<_>>());
    let ordered = rows(
        &items,
        all(),
        "SELECT VALUE c.n FROM c ORDER BY c.n OFFSET 5 LIMIT 10",
        4,
    )
    .await?;
    assert_eq!(numbers(&ordered), (5..15).collect::<Vec<_>>());
    assert_eq!(
        rows(&items, all(), "SELECT TOP 9 * FROM c", 4).await?.len(),
        9
    );
    let tied = rows(&items, all(), "SELECT c.n, c.o.s FROM c ORDER BY c.o.s", 5).await?;
    assert_eq!(sorted(numbers(&tied)), (0..60).collect::<Vec<_>>());
    assert!(
        tied.windows(2)
            .all(|pair| pair[0]["s"].as_str() <= pair[1]["s"].as_str())
    );
    Ok(())
}

#[tokio::test]
async fn one_logical_partition_can_be_counted_and_summed() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    filled(&items).await?;
    let one = || FeedScope::partition("p3");
    // p3 holds 3, 10, 17, .. 59.
    assert_eq!(rows(&items, one(), "SELECT * FROM c", 2).await?.len(), 9);
    for (query, expected) in [
        ("SELECT VALUE COUNT(1) FROM c", json!([9])),
        ("SELECT VALUE SUM(c.n) FROM c", json!([279])),
        ("SELECT VALUE AVG(c.n) FROM c", json!([31])),
        ("SELECT VALUE MIN(c.n) FROM c WHERE c.odd", json!([3])),
        (
            "SELECT MAX(c.n) AS most, COUNT(c.missing) AS none FROM c",
            json!([{"most": 59, "none": 0}]),
        ),
        (
            "SELECT VALUE c.n FROM c WHERE c.n > 30 ORDER BY c.n DESC",
            json!([59, 52, 45, 38, 31]),
        ),
    ] {
        assert_eq!(
            json!(rows(&items, one(), query, 100).await?),
            expected,
            "{query}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_ordered_query_resumes_from_a_token() -> Outcome {
    use futures::StreamExt;
    let emulator = server(3);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    filled(&items).await?;
    for query in [
        "SELECT * FROM c ORDER BY c.n",
        "SELECT * FROM c ORDER BY c.o.s DESC",
        "SELECT * FROM c",
    ] {
        let (mut seen, mut token) = (Vec::new(), None);
        loop {
            let mut options =
                QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(7.try_into()?));
            if let Some(token) = token.take() {
                options = options.with_continuation_token(token);
            }
            let mut pages = items
                .query_items::<Value>(query, FeedScope::full_container(), Some(options))
                .await?
                .into_pages();
            let Some(page) = pages.next().await else {
                break;
            };
            seen.extend(numbers(&page?.into_items()));
            if seen.len() >= 60 {
                break;
            }
            token = Some(pages.to_continuation_token()?);
        }
        if query.contains("c.n") {
            assert_eq!(seen, (0..60).collect::<Vec<_>>());
        }
        assert_eq!(sorted(seen), (0..60).collect::<Vec<_>>(), "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn distinct_joins_and_windows_work_across_partitions() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    filled(&items).await?;
    let all = FeedScope::full_container;
    for (query, expected) in [
        (
            "SELECT DISTINCT TOP 9 VALUE c.o.s FROM c",
            json!(["s0", "s1", "s2"]),
        ),
        (
            "SELECT DISTINCT VALUE c.o.s FROM c ORDER BY c.o.s DESC",
            json!(["s2", "s1", "s0"]),
        ),
        (
            "SELECT VALUE c.n FROM c WHERE c.pk = 'p3' AND c.n < 20",
            json!([3, 10, 17]),
        ),
        (
            "SELECT TOP 2 VALUE c.n FROM c ORDER BY c.n DESC",
            json!([59, 58]),
        ),
        (
            "SELECT VALUE c.n FROM c WHERE c.id LIKE 'd_5' ORDER BY c.n OFFSET 1 LIMIT 2",
            json!([15, 25]),
        ),
        (
            "SELECT VALUE x FROM c JOIN x IN c.list WHERE c.n = 7 AND x > 0",
            json!([7]),
        ),
        (
            "SELECT VALUE c.n FROM c WHERE EXISTS(SELECT VALUE 1 FROM x IN c.list WHERE x = 9)",
            json!([9]),
        ),
    ] {
        let mut found = rows(&items, all(), query, 3).await?;
        if !query.contains("ORDER BY") {
            found.sort_by_key(ToString::to_string);
        }
        let mut expected = expected.as_array().unwrap().clone();
        if !query.contains("ORDER BY") {
            expected.sort_by_key(ToString::to_string);
        }
        assert_eq!(found, expected, "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn groups_of_one_logical_partition() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    filled(&items).await?;
    let query = "SELECT c.o.s, COUNT(1) AS n, MAX(c.n) AS most FROM c GROUP BY c.o.s";
    let mut groups = rows(&items, FeedScope::partition("p3"), query, 2).await?;
    groups.sort_by_key(|group| group["s"].to_string());
    // p3 holds 3, 10, 17, .. 59.
    assert_eq!(
        json!(groups),
        json!([
            {"s": "s0", "n": 3, "most": 45},
            {"s": "s1", "n": 3, "most": 52},
            {"s": "s2", "n": 3, "most": 59},
        ])
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_merged_or_parsed_is_refused_by_name() -> Outcome {
    let emulator = server(2);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    for (scope, query, name) in [
        (
            FeedScope::partition("x"),
            "SELECT udf.f(c) FROM c",
            "user-defined",
        ),
        (
            FeedScope::partition("x"),
            "SELECT c.a FROM c WHERE c.a ~ 1",
            "near '~'",
        ),
        (
            FeedScope::full_container(),
            "SELECT VALUE COUNT(1) FROM c",
            "Query contained Aggregate",
        ),
        (
            FeedScope::full_container(),
            "SELECT c.a FROM c GROUP BY c.a",
            "Query contained GroupBy",
        ),
    ] {
        let error = rows(&items, scope, query, 10)
            .await
            .expect_err("refused")
            .to_string();
        assert!(error.contains(name), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn throughput_is_remembered() -> Outcome {
    let emulator = server(2);
    let client = client(&emulator).await?;
    let items = container(&client, "queries", PartitionKeyDefinition::from("/pk")).await?;
    assert_eq!(
        items
            .read_throughput(None)
            .await?
            .and_then(|offer| offer.throughput()),
        Some(400)
    );
    items
        .begin_replace_throughput(ThroughputProperties::manual(1_000), None)
        .await?
        .await?;
    assert_eq!(
        items
            .read_throughput(None)
            .await?
            .and_then(|offer| offer.throughput()),
        Some(1_000)
    );
    Ok(())
}
