//! The oracle: the emulator that the Azure SDK for Rust tests itself with, in this process and without a socket.
//!
//! It lives behind the driver's feature `__internal_in_memory_emulator`, which promises no stability. Everything that
//! touches it is in this file, so that an upgrade of the SDK has one place to look at.

use std::sync::Arc;
use std::time::Duration;

use azure_data_cosmos::models::PartitionKeyDefinition;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosRuntimeBuilder, RoutingStrategy,
};
use azure_data_cosmos_driver::in_memory_emulator::{
    ContainerConfig, InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion,
};
use tidefeed_emulator::WELL_KNOWN_KEY;

use crate::Fallible;

/// Address of the only region. Nothing listens there: requests never leave the process.
const ENDPOINT: &str = "https://oracle.emulator.local";

const REGION: &str = "East US";

/// The SDK's emulator.
pub struct Oracle {
    emulator: Arc<InMemoryEmulatorHttpClient>,
}

impl Oracle {
    /// An empty account with one region.
    pub fn start() -> Fallible<Self> {
        let region = VirtualRegion::new(REGION, ENDPOINT.parse()?);
        let config = VirtualAccountConfig::new(vec![region])?;
        Ok(Self {
            emulator: Arc::new(InMemoryEmulatorHttpClient::try_new(config)?),
        })
    }

    /// A client whose transport is the emulator.
    pub async fn client(&self) -> Fallible<CosmosClient> {
        let runtime = CosmosRuntimeBuilder::from(self.emulator.runtime_builder())
            .build()
            .await?;
        let endpoint: AccountEndpoint = ENDPOINT.parse()?;
        let account =
            AccountReference::with_authentication_key(endpoint, WELL_KNOWN_KEY.to_owned());
        Ok(CosmosClient::builder()
            .with_runtime(runtime)
            .build(account, RoutingStrategy::ProximityTo(REGION.into()))
            .await?)
    }

    /// Creates a container with a number of partitions, which the wire cannot ask for.
    pub fn create_container(
        &self,
        database: &str,
        container: &str,
        key: PartitionKeyDefinition,
        partitions: u32,
    ) -> Fallible {
        let config = ContainerConfig::new()
            .with_partition_count(partitions)
            .build()?;
        let store = self.emulator.store();
        store.create_container_with_config(database, container, key, config);
        Ok(())
    }

    /// Splits a partition in the middle of its key interval; the numbers of its children, in key order.
    pub async fn split(
        &self,
        database: &str,
        container: &str,
        partition: u32,
    ) -> Fallible<Vec<u32>> {
        let store = self.emulator.store();
        let middle = store.midpoint_split_epk(database, container, partition)?;
        Ok(store
            .split_partition_and_wait(database, container, partition, middle, Duration::ZERO)
            .await?)
    }

    /// Merges two neighbours; the number of the result.
    pub async fn merge(
        &self,
        database: &str,
        container: &str,
        left: u32,
        right: u32,
    ) -> Fallible<u32> {
        Ok(self
            .emulator
            .store()
            .merge_partitions_and_wait(database, container, left, right, Duration::ZERO)
            .await?)
    }
}
