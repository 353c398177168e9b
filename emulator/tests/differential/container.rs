//! A container of a script in one server, and what its client learned about it.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use azure_data_cosmos::PartitionKey;
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::feed::{FeedRange, FeedScope};
use azure_data_cosmos::options::ReadFeedRangesOptions;
use serde_json::{Value, json};

use crate::Fallible;
use crate::feeds::Reader;
use crate::keys::{self, Shape, partition_key};
use crate::outcome::{self, Ids, Outcome};
use crate::script::{Scope, Start, Tag};

const FOREIGN_TAG: &str = "\"00000000-0000-0000-0000-000000000000\"";

/// A container and what is known about it.
pub struct Container {
    pub client: ContainerClient,
    pub shape: Shape,
    /// Readers of its change feed.
    pub readers: HashMap<(Scope, Start), Reader>,
    /// Partition key range ids in key order.
    pub partitions: Vec<u32>,
    /// Most intervals that a reader's token can have: a merge of partitions does not merge them.
    pub pieces: usize,
    /// Whether partitions were split or merged.
    pub reshaped: bool,
    /// Whether partitions were merged.
    pub merged: bool,
    /// Ranges when it was created.
    ranges: Vec<FeedRange>,
    /// Number of each entity tag in the order of appearance, and the operation that wrote it.
    tags: HashMap<String, (usize, usize)>,
    /// Tags of each item, oldest first.
    histories: HashMap<(String, String), Vec<String>>,
    /// Newest tag of each item that exists.
    live: HashMap<(String, String), String>,
}

impl Container {
    /// What is known about a new container.
    pub async fn new(client: ContainerClient, shape: Shape) -> Fallible<Self> {
        let ranges = read_ranges(&client).await?;
        Ok(Self {
            client,
            shape,
            readers: HashMap::new(),
            partitions: (0..ranges.len() as u32).collect(),
            pieces: ranges.len(),
            reshaped: false,
            merged: false,
            ranges,
            tags: HashMap::new(),
            histories: HashMap::new(),
            live: HashMap::new(),
        })
    }

    /// Notes that partitions gave way to others.
    pub fn reshaped(&mut self, places: RangeInclusive<usize>, children: Vec<u32>) {
        self.pieces += children.len() - 1;
        self.partitions.splice(places, children);
        self.reshaped = true;
    }

    /// Notes that partitions were merged: how readers find what they have not found yet is then free.
    pub fn merged(&mut self) {
        self.merged = true;
        self.readers.values_mut().for_each(Reader::may_repeat);
    }

    /// Ids of the items in a scope that were written after an operation, as its change feed must give them.
    pub fn written_since(&self, scope: Scope, since: Option<usize>) -> Fallible<Ids> {
        let keys = self.keys_in(scope)?;
        let mut found: Vec<(&str, usize, &str)> = Vec::new();
        for ((key, id), tag) in &self.live {
            let written = self.writer(tag).ok_or("a tag without an operation")?;
            if keys.contains(key) && since.is_none_or(|since| written > since) {
                found.push((key, written, id));
            }
        }
        found.sort_unstable();
        let mut ids = Ids::new();
        for (key, _, id) in found {
            ids.entry(key.to_owned()).or_default().push(id.to_owned());
        }
        Ok(ids)
    }

    /// Canonical texts of the partition keys in a scope.
    fn keys_in(&self, scope: Scope) -> Fallible<BTreeSet<String>> {
        let definition = self.shape.properties().partition_key;
        let mut keys = BTreeSet::new();
        for index in 0..self.shape.keys().len() {
            let (key, text) = self.key(index)?;
            let inside = match scope {
                Scope::Key(only) => index == only,
                Scope::Prefix(prefix) => text.starts_with(&keys::prefix_text(prefix)),
                Scope::Range(ordinal) => {
                    let range = &self.ranges[ordinal % self.ranges.len()];
                    let place = FeedRange::for_partition(key, &definition);
                    range.min_inclusive() <= place.min_inclusive()
                        && place.min_inclusive() < range.max_exclusive()
                }
                Scope::Full => true,
            };
            if inside {
                keys.insert(text);
            }
        }
        Ok(keys)
    }

    /// Number of a tag, if it was seen.
    pub fn number(&self, tag: &str) -> Option<usize> {
        self.tags.get(tag).map(|(number, _)| *number)
    }

    /// The operation that wrote a tag, if it was seen.
    pub fn writer(&self, tag: &str) -> Option<usize> {
        self.tags.get(tag).map(|(_, step)| *step)
    }

    /// Number of the newest version of an item that exists.
    pub fn newest(&self, key: &str, id: &str) -> Option<usize> {
        let tag = self.live.get(&(key.to_owned(), id.to_owned()))?;
        self.number(tag)
    }

    /// Notes a tag.
    pub fn learn(&mut self, tag: &str, step: usize) {
        let next = self.tags.len();
        self.tags.entry(tag.to_owned()).or_insert((next, step));
    }

    /// Notes that an item has a new version.
    pub fn written(&mut self, key: &str, id: &str, tag: &str, step: usize) {
        let item = (key.to_owned(), id.to_owned());
        self.histories
            .entry(item.clone())
            .or_default()
            .push(tag.to_owned());
        self.live.insert(item, tag.to_owned());
        self.learn(tag, step);
    }

    /// Notes that an item is gone.
    pub fn deleted(&mut self, key: &str, id: &str) {
        self.live.remove(&(key.to_owned(), id.to_owned()));
    }

    /// The tag that a script means.
    pub fn tag(&self, key: &str, id: &str, tag: Tag) -> String {
        let history = self.histories.get(&(key.to_owned(), id.to_owned()));
        let nth_last = |n: usize| history.and_then(|tags| tags.iter().rev().nth(n)).cloned();
        match tag {
            Tag::Current => nth_last(0),
            Tag::Stale => nth_last(1),
            Tag::Foreign => None,
            Tag::Any => Some("*".to_owned()),
        }
        .unwrap_or_else(|| FOREIGN_TAG.to_owned())
    }

    /// A document or row in canonical form.
    pub fn canonical(&self, value: Value) -> Value {
        outcome::canonical(value, &|tag| self.number(tag))
    }

    /// A partition key for the SDK, and as canonical text.
    pub fn key(&self, key: usize) -> Fallible<(PartitionKey, String)> {
        let parts = self.shape.keys()[key];
        let mut item = json!({});
        keys::place(self.shape, parts, &mut item);
        Ok((
            partition_key(parts)?,
            self.shape.key_of(&self.canonical(item)),
        ))
    }

    /// A scope for the SDK.
    pub fn scope(&self, scope: Scope) -> Fallible<FeedScope> {
        Ok(match scope {
            Scope::Key(key) => FeedScope::partition(self.key(key)?.0),
            Scope::Prefix(key) => {
                FeedScope::partition(partition_key(&self.shape.keys()[key][..1])?)
            }
            Scope::Range(ordinal) => {
                FeedScope::range(self.ranges[ordinal % self.ranges.len()].clone())
            }
            Scope::Full => FeedScope::full_container(),
        })
    }

    /// The bounds of the physical partitions.
    pub async fn bounds(&self) -> Fallible<Outcome> {
        let ranges = read_ranges(&self.client).await?;
        let bounds = ranges.iter().map(|range| {
            let (min, max) = (range.min_inclusive(), range.max_exclusive());
            (min.to_hex(), max.to_hex())
        });
        Ok(Outcome::Ranges(bounds.collect()))
    }
}

async fn read_ranges(container: &ContainerClient) -> Fallible<Vec<FeedRange>> {
    let options = ReadFeedRangesOptions::default().with_force_refresh(true);
    let mut ranges = container.read_feed_ranges(Some(options)).await?;
    ranges.sort_by(|a, b| a.min_inclusive().cmp(b.min_inclusive()));
    Ok(ranges)
}
