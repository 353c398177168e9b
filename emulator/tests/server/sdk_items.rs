//! Point operations and batches through the official SDK.

use crate::common::{Outcome, client, client_with_key, container, server};
use azure_data_cosmos::TransactionalBatch;
use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use azure_data_cosmos::options::{
    BatchUpsertOptions, ContentResponseOnWrite, ItemReadOptions, ItemWriteOptions,
    OperationOptions, Precondition,
};
use serde_json::{Value, json};

fn status<T>(result: azure_data_cosmos::Result<T>) -> u16 {
    u16::from(
        result
            .err()
            .expect("the call must fail")
            .status()
            .status_code(),
    )
}

fn if_match(etag: &str) -> Option<ItemWriteOptions> {
    Some(ItemWriteOptions::default().with_precondition(Precondition::if_match(etag.to_owned())))
}

#[tokio::test]
async fn items_are_created_read_replaced_and_deleted() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "items", PartitionKeyDefinition::from("/pk")).await?;
    let mut operation = OperationOptions::default();
    operation.content_response_on_write = Some(ContentResponseOnWrite::Enabled);
    let content = ItemWriteOptions::default().with_operation_options(operation);

    let document = json!({"id": "a", "pk": "x", "number": 1.5, "text": "q\"\\\n\u{e6}", "list": [1, null, {"b": true}]});
    let created = items
        .create_item("x", "a", &document, Some(content))
        .await?;
    assert_eq!(u16::from(created.status().status_code()), 201);
    assert!(
        created
            .headers()
            .request_charge()
            .is_some_and(|charge| charge.value() > 0.0)
    );
    assert_eq!(created.headers().item_lsn(), Some(1));
    let etag = created.headers().etag().expect("an etag").to_string();
    let created: Value = created.into_model()?;
    assert_eq!(created["_etag"].as_str(), Some(etag.as_str()));
    for name in ["_rid", "_self", "_ts", "_attachments"] {
        assert!(!created[name].is_null(), "{name}");
    }
    let read = items.read_item("x", "a", None).await?;
    let read: Value = read.into_model()?;
    assert_eq!(read, created);
    assert_eq!(read["text"], document["text"]);
    assert_eq!(read["list"], document["list"]);

    assert_eq!(
        status(items.create_item("x", "a", &document, None).await),
        409
    );
    assert_eq!(status(items.read_item("y", "a", None).await), 404);
    assert_eq!(
        status(
            items
                .replace_item("x", "b", &json!({"id": "b", "pk": "x"}), None)
                .await
        ),
        404
    );

    let known =
        ItemReadOptions::default().with_precondition(Precondition::if_none_match(etag.clone()));
    let unchanged = items.read_item("x", "a", Some(known)).await;
    let code = unchanged.map_or_else(
        |error| error.status().status_code(),
        |response| response.status().status_code(),
    );
    assert_eq!(u16::from(code), 304);

    let replaced = items
        .replace_item(
            "x",
            "a",
            &json!({"id": "a", "pk": "x", "v": 2}),
            if_match(&etag),
        )
        .await?;
    assert_ne!(
        replaced.headers().etag().map(ToString::to_string),
        Some(etag.clone())
    );
    assert_eq!(
        status(
            items
                .replace_item("x", "a", &json!({"id": "a", "pk": "x"}), if_match(&etag))
                .await
        ),
        412
    );
    assert_eq!(
        status(
            items
                .upsert_item("x", "a", &json!({"id": "a", "pk": "x"}), if_match(&etag))
                .await
        ),
        412
    );
    assert_eq!(
        status(items.delete_item("x", "a", if_match(&etag)).await),
        412
    );
    let never = ItemWriteOptions::default().with_precondition(Precondition::if_none_match("*"));
    assert_eq!(
        status(
            items
                .upsert_item("x", "a", &json!({"id": "a", "pk": "x"}), Some(never))
                .await
        ),
        412
    );
    let read: Value = items.read_item("x", "a", None).await?.into_model()?;
    assert_eq!(read["v"], 2);

    items.delete_item("x", "a", None).await?;
    assert_eq!(status(items.delete_item("x", "a", None).await), 404);
    assert_eq!(status(items.read_item("x", "a", None).await), 404);
    assert_eq!(
        u16::from(
            items
                .upsert_item("x", "a", &document, None)
                .await?
                .status()
                .status_code()
        ),
        201
    );
    assert_eq!(
        u16::from(
            items
                .upsert_item("x", "a", &document, None)
                .await?
                .status()
                .status_code()
        ),
        200
    );
    assert_eq!(emulator.stats().documents, 1);
    Ok(())
}

#[tokio::test]
async fn malformed_items_are_refused() -> Outcome {
    let emulator = server(2);
    let client = client(&emulator).await?;
    let items = container(&client, "items", PartitionKeyDefinition::from("/pk")).await?;
    assert_eq!(
        status(
            items
                .create_item("x", "a", &json!({"id": "a", "pk": "other"}), None)
                .await
        ),
        400
    );
    assert_eq!(
        status(items.create_item("x", "a", &json!({"pk": "x"}), None).await),
        400
    );
    assert_eq!(
        status(
            items
                .create_item("x", "a", &json!({"id": 5, "pk": "x"}), None)
                .await
        ),
        400
    );
    assert_eq!(
        status(
            items
                .create_item("x", "a/b", &json!({"id": "a/b", "pk": "x"}), None)
                .await
        ),
        400
    );
    assert_eq!(
        status(items.create_item("x", "a", &json!(["a"]), None).await),
        400
    );
    assert_eq!(
        status(
            items
                .create_item("x", "a", &json!({"id": "a", "pk": {"x": 1}}), None)
                .await
        ),
        400
    );
    let large = json!({"id": "a", "pk": "x", "text": "x".repeat(2 * 1024 * 1024)});
    assert_eq!(status(items.create_item("x", "a", &large, None).await), 413);
    let nearly = json!({"id": "a", "pk": "x", "text": "x".repeat(2 * 1024 * 1024 - 100)});
    items.create_item("x", "a", &nearly, None).await?;
    assert_eq!(emulator.stats().documents, 1);
    Ok(())
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() -> Outcome {
    let emulator = server(4);
    let client = client(&emulator).await?;
    let items = container(&client, "items", PartitionKeyDefinition::from("/pk")).await?;
    let batch = TransactionalBatch::new("x")
        .create_item(json!({"id": "a", "pk": "x", "v": 1}))?
        .upsert_item(json!({"id": "b", "pk": "x", "v": 1}), None)?
        .replace_item("a", json!({"id": "a", "pk": "x", "v": 2}), None)?
        .read_item("a", None)
        .delete_item("b", None);
    let response = items.execute_transactional_batch(batch, None).await?;
    let results = response.into_model()?;
    let codes: Vec<u16> = results
        .results()
        .iter()
        .map(|result| result.status_code())
        .collect();
    assert_eq!(codes, [201, 201, 200, 200, 204]);
    let read: Value =
        serde_json::from_str(results.results()[3].resource_body().expect("a body").get())?;
    assert_eq!(read["v"], 2);
    assert_eq!(emulator.stats().documents, 1);

    let failing = TransactionalBatch::new("x")
        .create_item(json!({"id": "c", "pk": "x"}))?
        .create_item(json!({"id": "a", "pk": "x"}))?
        .delete_item("a", None);
    let response = items.execute_transactional_batch(failing, None).await?;
    assert_eq!(u16::from(response.status().status_code()), 207);
    let codes: Vec<u16> = response
        .into_model()?
        .results()
        .iter()
        .map(|result| result.status_code())
        .collect();
    assert_eq!(codes, [424, 409, 424]);
    assert_eq!(status(items.read_item("x", "c", None).await), 404);

    let stale = BatchUpsertOptions::default().with_precondition(Precondition::if_match("nonsense"));
    let conditional =
        TransactionalBatch::new("x").upsert_item(json!({"id": "a", "pk": "x"}), Some(stale))?;
    let response = items.execute_transactional_batch(conditional, None).await?;
    assert_eq!(response.into_model()?.results()[0].status_code(), 412);

    let mut many = TransactionalBatch::new("x");
    for index in 0..101 {
        many = many.create_item(json!({"id": format!("m{index}"), "pk": "x"}))?;
    }
    assert_eq!(
        status(items.execute_transactional_batch(many, None).await),
        400
    );
    let elsewhere = TransactionalBatch::new("x").create_item(json!({"id": "z", "pk": "y"}))?;
    assert_eq!(
        status(items.execute_transactional_batch(elsewhere, None).await),
        400
    );
    assert_eq!(emulator.stats().documents, 1);
    Ok(())
}

#[tokio::test]
async fn databases_and_containers_have_a_life_cycle() -> Outcome {
    let emulator = server(3);
    let client = client(&emulator).await?;
    client.create_database("one", None).await?;
    assert_eq!(status(client.create_database("one", None).await), 409);
    let database = client.database_client("one");
    let properties = ContainerProperties::new("c", PartitionKeyDefinition::from("/pk"));
    database.create_container(properties.clone(), None).await?;
    assert_eq!(
        status(database.create_container(properties.clone(), None).await),
        409
    );
    let items = database.container_client("c", None).await?;
    assert_eq!(items.read_feed_ranges(None).await?.len(), 3);
    let read = items.read(None).await?.into_model()?;
    assert_eq!(read.id, "c");
    let throughput = items.read_throughput(None).await?.expect("an offer");
    assert_eq!(throughput.throughput(), Some(400));

    items.delete(None).await?;
    assert_eq!(status(items.read(None).await), 404);
    assert_eq!(status(items.read_item("x", "a", None).await), 404);
    database.create_container(properties, None).await?;
    database.delete(None).await?;
    assert_eq!(status(client.database_client("one").read(None).await), 404);
    assert_eq!(emulator.stats().containers, 0);
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_refused() -> Outcome {
    let emulator = server(1);
    let wrong = client_with_key(&emulator, "d3Jvbmc=").await;
    let refused = match wrong {
        Err(error) => error.to_string(),
        Ok(client) => client
            .create_database("db", None)
            .await
            .expect_err("401")
            .to_string(),
    };
    assert!(refused.contains("401"), "{refused}");
    assert_eq!(emulator.stats().databases, 0);
    Ok(())
}
