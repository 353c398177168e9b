//! A server with a certificate that nobody has signed: only the SDK gets through to it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, Action, BulkConfig, BulkWriter, Container, ContainerSpec, CosmosReader, Write,
};
use tokio::time::timeout;

use super::faults::{FaultyServer, Kind, Verdict};

const DEADLINE: Duration = Duration::from_secs(60);

fn upsert(partition: usize, id: usize) -> Write {
    let pk = format!("p{partition}");
    let body: Bytes = json!({"id": id.to_string(), "pk": pk}).to_string().into();
    Write::new(
        json!([pk]).to_string(),
        id.to_string(),
        Action::Upsert(body),
    )
}

/// The ranges were read over our own connection, which refuses the certificate, so a writer could not even be opened.
#[tokio::test]
async fn a_writer_reads_its_ranges_through_the_sdk() {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let server = FaultyServer::start_self_signed(emulator).await;
    let account = Account::connect(&server.account()).await.unwrap();
    let spec = ContainerSpec::new("shop", "orders", "/pk");
    let container = Container::create_if_absent(&account, &spec).await.unwrap();
    let writer = BulkWriter::open(&container, BulkConfig::default());
    let writer = timeout(DEADLINE, writer).await.expect("in time").unwrap();
    // The service says once that the first range has gone, so that the map is read again.
    let mut said = false;
    server.script(move |kind| match kind {
        Kind::Batch { .. } if !said => {
            said = true;
            Verdict::Refuse {
                status: 410,
                sub_status: 1002,
                retry_after_ms: None,
            }
        }
        _ => Verdict::Pass,
    });
    let writes = (0..200).map(|n| upsert(n % 20, n)).collect();
    let receipt = writer.submit(writes).await.unwrap();
    let summary = timeout(DEADLINE, receipt).await.expect("in time").unwrap();
    assert_eq!(summary.written, 200, "{summary:?}");
    assert!(
        server.batches().len() >= 20,
        "one for each partition key at least"
    );
    assert!(server.overlaps().is_empty());
    let documents = CosmosReader::new(container).documents().await.unwrap();
    assert_eq!(documents.len(), 200);
    let metrics = writer.metrics();
    assert!(
        metrics.partitions.len() >= 4,
        "{:?}",
        metrics.partitions.keys()
    );
    writer.close().await.unwrap();
}
