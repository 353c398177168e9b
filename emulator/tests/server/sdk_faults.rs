//! Faults on command as the official SDK meets them, over HTTP/2.

use std::time::{Duration, Instant};

use crate::common::{Outcome, client, container, server};
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::PartitionKeyDefinition;
use serde_json::{Value, json};
use tidefeed_emulator::{Emulator, FaultAction, FaultOperation, FaultRule};

async fn prepared() -> Result<(Emulator, ContainerClient), Box<dyn std::error::Error>> {
    let emulator = server(2);
    let client = client(&emulator).await?;
    let items = container(&client, "items", PartitionKeyDefinition::from("/pk")).await?;
    items
        .upsert_item("x", "first", &json!({"id": "first", "pk": "x"}), None)
        .await?;
    Ok((emulator, items))
}

fn upserts(action: FaultAction) -> FaultRule {
    FaultRule::new(action).on(&[FaultOperation::Upsert])
}

#[tokio::test]
async fn throttling_is_absorbed_by_retries() -> Outcome {
    let (emulator, items) = prepared().await?;
    emulator.set_faults(1, vec![upserts(FaultAction::status(429)).times(3)])?;
    let document = json!({"id": "a", "pk": "x"});
    let written = items.upsert_item("x", "a", &document, None).await?;
    assert_eq!(u16::from(written.status().status_code()), 201);
    assert_eq!(emulator.fault_hits(), [3]);
    Ok(())
}

#[tokio::test]
async fn a_delay_is_waited_for() -> Outcome {
    let (emulator, items) = prepared().await?;
    emulator.set_faults(1, vec![upserts(FaultAction::delay(150))])?;
    let start = Instant::now();
    let document = json!({"id": "a", "pk": "x"});
    items.upsert_item("x", "a", &document, None).await?;
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(emulator.fault_hits(), [1]);
    Ok(())
}

#[tokio::test]
async fn a_lost_write_is_repeated_and_finds_what_it_wrote() -> Outcome {
    // The SDK repeats a write whose reply it did not see: 201 if the first try was lost before, 200 and 409 after.
    for (action, upserted, created) in [
        (FaultAction::DropBefore, 201, 201),
        (FaultAction::DropAfter, 200, 409),
    ] {
        let (emulator, items) = prepared().await?;
        let rule = FaultRule::new(action.clone()).on(&[FaultOperation::Writes]);
        let faults = || emulator.set_faults(1, vec![rule.clone().times(1)]);
        faults()?;
        let document = json!({"id": "a", "pk": "x"});
        let written = items.upsert_item("x", "a", &document, None).await?;
        assert_eq!(u16::from(written.status().status_code()), upserted);
        assert_eq!(emulator.fault_hits(), [1], "{action:?}");
        faults()?;
        let document = json!({"id": "b", "pk": "x"});
        let written = items.create_item("x", "b", &document, None).await;
        let status = written.map_or_else(
            |error| error.status().status_code(),
            |reply| reply.status().status_code(),
        );
        assert_eq!(u16::from(status), created, "{action:?}");
        assert_eq!(emulator.fault_hits(), [1], "{action:?}");
        assert_eq!(emulator.stats().documents, 3);
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_read_is_repeated_on_a_new_connection() -> Outcome {
    for action in [FaultAction::DropBefore, FaultAction::DropAfter] {
        let (emulator, items) = prepared().await?;
        let rule = FaultRule::new(action.clone()).on(&[FaultOperation::Read]);
        emulator.set_faults(1, vec![rule.times(1)])?;
        let read: Value = items.read_item("x", "first", None).await?.into_model()?;
        assert_eq!(read["id"], "first", "{action:?}");
        assert_eq!(emulator.fault_hits(), [1], "{action:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_frozen_write_ends_with_its_rule() -> Outcome {
    let (emulator, items) = prepared().await?;
    emulator.set_faults(1, vec![upserts(FaultAction::Freeze)])?;
    let document = json!({"id": "a", "pk": "x"});
    let written = items.upsert_item("x", "a", &document, None);
    tokio::pin!(written);
    let start = Instant::now();
    while emulator.fault_hits() != [1] {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::select! {
            _ = &mut written => panic!("a frozen write was answered"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(emulator.stats().documents, 1);
    emulator.clear_faults();
    written.await?;
    assert_eq!(emulator.stats().documents, 2);
    Ok(())
}
