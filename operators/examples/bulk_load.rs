//! Writes documents in bulk, without any dataflow.
//!
//! ```text
//! cargo run --release -p tidefeed-operators --example bulk_load -- [DOCUMENTS]
//! ```
//!
//! Into an embedded server of its own, or into the account at `COSMOS_ENDPOINT` with the key `COSMOS_KEY`: there it creates
//! the container `bulk-load/orders` if it does not exist, and leaves it behind.

use std::time::Instant;

use serde::Serialize;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, BulkConfig, BulkWriter, Container, ContainerSpec,
};

#[derive(Serialize)]
struct Order {
    id: String,
    customer: String,
    total: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let documents: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 200_000,
    };
    // It runs until the end of the program.
    let server;
    let account = match std::env::var("COSMOS_ENDPOINT") {
        Ok(endpoint) => AccountConfig::with_key(endpoint, std::env::var("COSMOS_KEY")?),
        Err(_) => {
            server = Emulator::start(EmulatorConfig::default())?;
            AccountConfig::with_key(server.endpoint(), server.key())
        }
    };
    let account = Account::connect(&account).await?;
    let spec = ContainerSpec::new("bulk-load", "orders", "/customer");
    let orders = Container::create_if_absent(&account, &spec).await?;

    let writer = BulkWriter::open(&orders, BulkConfig::default()).await?;
    let started = Instant::now();
    for number in 0..documents {
        let order = Order {
            id: format!("order-{number}"),
            customer: format!("customer-{}", number % 10_000),
            total: number as f64 / 100.0,
        };
        // Waits only while there is no room. The receipt that it returns can be awaited, or dropped as here.
        writer.upsert(&order).await?;
    }
    let metrics = writer.metrics();
    let summary = writer.close().await?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} documents in {seconds:.1} s, {:.0}/s, for {:.0} RU; {} refused; {} requests to {} partitions, {} throttled",
        summary.written,
        summary.written as f64 / seconds,
        summary.charge_ru,
        summary.dead,
        summary.requests,
        metrics.partitions.len(),
        summary.throttled,
    );
    Ok(())
}
