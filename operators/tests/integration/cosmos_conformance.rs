//! The Cosmos DB adapter on the embedded server against the checks that every adapter must pass.

use std::num::NonZeroU32;
use std::sync::Arc;

use futures::FutureExt;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosReader,
    CosmosTarget, FeedConfig,
};

use super::conformance::{self, PAGE_SIZE, Subject};

async fn subject(account: &Account, name: &str) -> Subject {
    let spec = ContainerSpec::new("conformance", name, "/pk");
    let container = Container::create_if_absent(account, &spec).await.unwrap();
    let feed = FeedConfig {
        page_size: NonZeroU32::new(PAGE_SIZE).unwrap(),
        ..FeedConfig::default()
    };
    let reader = CosmosReader::new(container.clone());
    let target = CosmosTarget::open(container.clone(), BulkConfig::default()).await;
    let target = target.unwrap();
    Subject {
        feed: Arc::new(CosmosFeed::new(container, feed).unwrap()),
        target: Arc::new(target),
        contents: Box::new(move || {
            let reader = reader.clone();
            async move { reader.documents().await.unwrap() }.boxed()
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_the_embedded_server() {
    let emulator = Emulator::start(EmulatorConfig {
        partitions: 3,
        ..EmulatorConfig::default()
    })
    .unwrap();
    let config = AccountConfig::with_key(emulator.endpoint(), emulator.key());
    let account = Account::connect(&config).await.unwrap();
    conformance::run_all(|name| subject(&account, name)).await;
}
