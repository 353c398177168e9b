//! A server, a client of the official SDK, and a container.
#![allow(dead_code)]

pub mod raw;

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, RoutingStrategy};
use tidefeed_emulator::{Emulator, EmulatorConfig};

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A small deterministic source of numbers.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit)
    }
}

/// A number from the environment.
pub fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// A server with `partitions` physical partitions.
pub fn server(partitions: usize) -> Emulator {
    Emulator::start(EmulatorConfig {
        partitions,
        ..EmulatorConfig::default()
    })
    .unwrap()
}

/// A client with a key of its own.
pub async fn client_with_key(
    emulator: &Emulator,
    key: &str,
) -> Result<CosmosClient, Box<dyn std::error::Error>> {
    let endpoint: AccountEndpoint = emulator.endpoint().parse()?;
    let account = AccountReference::with_authentication_key(endpoint, key.to_owned());
    Ok(CosmosClient::builder()
        .build(
            account,
            RoutingStrategy::ProximityTo("South Central US".into()),
        )
        .await?)
}

/// A client.
pub async fn client(emulator: &Emulator) -> Result<CosmosClient, Box<dyn std::error::Error>> {
    client_with_key(emulator, emulator.key()).await
}

/// A container in a new database `db`.
pub async fn container(
    client: &CosmosClient,
    name: &'static str,
    key: PartitionKeyDefinition,
) -> Result<ContainerClient, Box<dyn std::error::Error>> {
    let _ = client.create_database("db", None).await;
    let database = client.database_client("db");
    database
        .create_container(ContainerProperties::new(name, key), None)
        .await?;
    Ok(database.container_client(name, None).await?)
}
