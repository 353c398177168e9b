//! The whole contents of a container, to check a view against what it should be.

use std::collections::BTreeMap;

use serde_json::Value;
use tidefeed_runtime::{Context, ErrorKind, Result};

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
        for range in self.feed.ranges().await? {
            let mut pages = self.feed.open(&range, Start::Beginning).await?;
            loop {
                let page = pages.next_page().await?;
                for record in page.records {
                    let key = String::from_utf8_lossy(&record.key).into_owned();
                    let body = record.body.unwrap_or_default();
                    let document = serde_json::from_slice(&body)
                        .context(ErrorKind::Data, || format!("document {key} is no JSON"))?;
                    documents.insert(key, document);
                }
                if page.caught_up {
                    break;
                }
            }
        }
        Ok(documents)
    }
}
