//! The whole contents of a container, to check a view against what it should be.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytes::Bytes;
use serde_json::Value;
use tidefeed_runtime::{Context, ErrorKind, FeedRangeId, Record, Result};

use super::container::Container;
use super::feed::{CosmosFeed, FeedConfig};
use crate::feed::{ChangeFeed, Start};

/// Reads all documents of a container.
///
/// It reads the change feed from its beginning, which in LatestVersion mode holds every document that exists. What changes
/// while it reads may be seen before or after the change, so compare only when nobody writes.
#[derive(Clone, Debug)]
pub struct CosmosReader {
    feed: CosmosFeed,
}

impl CosmosReader {
    /// Reads `container`.
    pub fn new(container: Container) -> Self {
        let feed = CosmosFeed::new(container, FeedConfig::default())
            .expect("the default configuration keeps no system property");
        CosmosReader { feed }
    }

    /// Every document without its system properties, by key: the JSON array of its partition key values and its id.
    ///
    /// # Errors
    /// When the container cannot be read.
    pub async fn documents(&self) -> Result<BTreeMap<String, Value>> {
        let mut documents = BTreeMap::new();
        self.for_each(|key, body| {
            let document = serde_json::from_slice(body)
                .context(ErrorKind::Data, || format!("document {key} is no JSON"))?;
            documents.insert(key.to_owned(), document);
            Ok(())
        })
        .await?;
        Ok(documents)
    }

    /// Calls `each` with the key and the JSON of every document, without keeping them.
    ///
    /// # Errors
    /// When the container cannot be read, and what `each` returns.
    pub async fn for_each(&self, mut each: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
        for range in self.feed.ranges().await? {
            for_each_stored(&self.feed, &range, |record| {
                let key = String::from_utf8_lossy(&record.key);
                each(&key, &record.body.unwrap_or_default())
            })
            .await?;
        }
        Ok(())
    }
}

/// Calls `each` with every document of a range, up to where its feed says for the first time that there is nothing more.
///
/// # Errors
/// When the range cannot be read, and what `each` returns.
pub(crate) async fn for_each_stored(
    feed: &CosmosFeed,
    range: &FeedRangeId,
    mut each: impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    let mut pages = feed.open(range, Start::Beginning).await?;
    loop {
        let page = pages.next_page().await?;
        page.records.into_iter().try_for_each(&mut each)?;
        if page.caught_up {
            return Ok(());
        }
    }
}

/// One document of a container without its system properties, `None` if it holds none.
///
/// # Errors
/// When the container cannot be read.
pub async fn sample(container: &Container) -> Result<Option<Bytes>> {
    let one = FeedConfig {
        page_size: NonZeroU32::MIN,
        ..FeedConfig::default()
    };
    let feed = CosmosFeed::new(container.clone(), one)?;
    for range in feed.ranges().await? {
        let mut pages = feed.open(&range, Start::Beginning).await?;
        let records = pages.next_page().await?.records;
        if let Some(body) = records.into_iter().find_map(|record| record.body) {
            return Ok(Some(body));
        }
    }
    Ok(None)
}
