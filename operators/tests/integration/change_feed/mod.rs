//! The change feed adapter against the embedded server, beyond what every adapter must do.

mod all_versions;
mod limits;
mod starts;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde_json::Value;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosReader,
    CosmosTarget, DefaultTtl, FeedConfig, FeedMode,
};
use tidefeed_operators::feed::{ChangeFeed, Page, PageStream, Start};
use tidefeed_operators::target::{DocumentWrite, Target};
use tidefeed_runtime::{FeedRangeId, Record, Result};

const DATABASE: &str = "shop";
const CONTAINER: &str = "orders";

/// A container in a server of its own.
struct Place {
    server: Emulator,
    container: Container,
    target: CosmosTarget,
}

impl Place {
    async fn new(config: EmulatorConfig) -> Self {
        let server = Emulator::start(config).unwrap();
        let account = AccountConfig::with_key(server.endpoint(), server.key());
        let account = Account::connect(&account).await.unwrap();
        let spec = ContainerSpec {
            default_ttl: Some(DefaultTtl::PerDocument),
            ..ContainerSpec::new(DATABASE, CONTAINER, "/pk")
        };
        let container = Container::create_if_absent(&account, &spec).await.unwrap();
        let target = CosmosTarget::open(container.clone(), BulkConfig::default()).await;
        Place {
            server,
            container,
            target: target.unwrap(),
        }
    }

    /// With so many partitions.
    async fn with(partitions: usize) -> Self {
        Place::new(EmulatorConfig {
            partitions,
            ..EmulatorConfig::default()
        })
        .await
    }

    fn feed(&self, config: FeedConfig) -> CosmosFeed {
        CosmosFeed::new(self.container.clone(), config).unwrap()
    }

    async fn write(&self, batch: Vec<DocumentWrite>) {
        self.target.apply(batch).await.unwrap();
    }

    /// Writes documents one by one, so that each has a position of its own and pages can be of any size.
    async fn write_each(&self, batch: Vec<DocumentWrite>) {
        for write in batch {
            let document = write.action.document().unwrap();
            let document: Value = serde_json::from_slice(document).unwrap();
            let written = self
                .container
                .upsert(&write.partition_key, &write.id, &document);
            written.await.unwrap();
        }
    }

    async fn documents(&self) -> BTreeMap<String, Value> {
        let reader = CosmosReader::new(self.container.clone());
        reader.documents().await.unwrap()
    }

    /// Splits some partition.
    fn split(&self) {
        let mut ranges = 0..200;
        let split = ranges.any(|range| self.server.split(DATABASE, CONTAINER, range).is_ok());
        assert!(split, "no partition can be split");
    }
}

fn page_size(page_size: u32) -> FeedConfig {
    FeedConfig {
        page_size: NonZeroU32::new(page_size).unwrap(),
        ..FeedConfig::default()
    }
}

fn all_versions() -> FeedConfig {
    FeedConfig {
        mode: FeedMode::AllVersionsAndDeletes,
        ..page_size(5)
    }
}

/// Every range from `start`.
async fn open_all(feed: &CosmosFeed, start: Start) -> Vec<(FeedRangeId, Box<dyn PageStream>)> {
    let mut streams = Vec::new();
    for range in feed.ranges().await.unwrap() {
        let stream = feed.open(&range, start.clone()).await.unwrap();
        streams.push((range, stream));
    }
    streams
}

async fn next(stream: &mut Box<dyn PageStream>) -> Page {
    stream.next_page().await.unwrap()
}

/// Reads until there is nothing more.
async fn read_up(stream: &mut Box<dyn PageStream>) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    while pages.len() < 10_000 {
        let page = stream.next_page().await?;
        let caught_up = page.caught_up;
        pages.push(page);
        if caught_up {
            return Ok(pages);
        }
    }
    panic!("the feed never catches up");
}

async fn records(stream: &mut Box<dyn PageStream>) -> Vec<Record> {
    let pages = read_up(stream).await.unwrap();
    pages.into_iter().flat_map(|page| page.records).collect()
}

fn key(record: &Record) -> String {
    String::from_utf8(record.key.to_vec()).unwrap()
}

fn body(record: &Record) -> Option<Value> {
    let body = record.body.as_ref();
    body.map(|body| serde_json::from_slice(body).unwrap())
}

/// Brings a view in line with records.
fn apply(view: &mut BTreeMap<String, Value>, records: &[Record]) {
    for record in records {
        match body(record) {
            Some(body) => view.insert(key(record), body),
            None => view.remove(&key(record)),
        };
    }
}
