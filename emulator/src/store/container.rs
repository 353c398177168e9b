//! A container: its definition, its physical partitions and the counters behind its ids.
//!
//! Whoever reads or writes documents first takes [`Container::map`], and keeps it while it works: splits, merges and a new
//! time to live wait for that, so a partition that was found stays what it is, and so does what was made of a document.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hyper::header::HeaderValue;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::document::{Rendering, Version};
use super::environment::{Environment, MAX_PARTITION_THROUGHPUT, StoreError};
use super::history::ChangeKind;
use super::journal::Event;
use super::map::PartitionMap;
use super::partition::Partition;
use super::shard::{Shard, Stamp};
use super::transaction::{Mutation, Transaction};
use super::unique::UniqueKeys;
use crate::ids::{self, Sequence};
use crate::json::Members;
use crate::partition_key::PartitionKeyDefinition;

/// The property by which a document overrides the container's time to live.
const TTL_PROPERTY: &str = "ttl";

/// Expiries that are journaled at once: any number may be due.
const EXPIRIES_PER_RECORD: usize = 1_000;

/// No time to live at all, not even a document's own.
const TTL_OFF: i64 = i64::MIN;

/// Properties that the server adds to a container.
const SYSTEM_PROPERTIES: [&str; 7] = [
    "_rid",
    "_self",
    "_docs",
    "_sprocs",
    "_triggers",
    "_udfs",
    "_conflicts",
];

/// One container of a database.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// Name of its database.
    pub database: String,
    /// Number in the account.
    pub number: u32,
    /// Resource id as text.
    pub rid: String,
    /// `dbs/{rid}/colls/{rid}/`.
    pub self_link: String,
    /// `dbs/{name}/colls/{name}` and the resource id, which some clients use to keep session tokens: as header values,
    /// because every reply carries them.
    pub owner: [HeaderValue; 2],
    /// How documents are placed.
    pub key: PartitionKeyDefinition,
    /// What no two documents of a logical partition may share.
    pub unique: UniqueKeys,
    /// What documents share on output.
    pub rendering: Rendering,
    /// Numbers of documents.
    pub rids: Sequence,
    /// Numbers of entity tags.
    pub etags: Sequence,
    environment: Arc<Environment>,
    properties: RwLock<Value>,
    /// Held while the properties are replaced.
    replacing: Mutex<()>,
    default_ttl: AtomicI64,
    /// Seconds that AllVersionsAndDeletes can be read back.
    retention: AtomicU64,
    map: RwLock<PartitionMap>,
    /// Throughput of the whole container in RU/s, if it is limited.
    throughput: Mutex<Option<f64>>,
    /// A partition that has grown too large: its id and one.
    overgrown: AtomicU64,
}

/// Where a container is created.
pub struct Site<'a> {
    /// Name of the database.
    pub database: &'a str,
    /// Resource id of the database.
    pub database_rid: [u8; 4],
    /// Number of the container in the account.
    pub number: u32,
    /// What it shares with others.
    pub environment: Arc<Environment>,
}

/// What a container's properties say about its documents.
pub struct Definition {
    /// Its name.
    pub id: String,
    /// How documents are placed.
    pub key: PartitionKeyDefinition,
    /// What no two documents of a logical partition may share.
    pub unique: UniqueKeys,
    /// Client's properties, checked and completed.
    pub properties: Value,
}

impl Definition {
    /// Reads a container's properties.
    ///
    /// # Errors
    /// One clause that names what is wrong.
    pub fn from_properties(properties: Value) -> Result<Self, String> {
        Ok(Self {
            id: properties["id"].as_str().unwrap_or_default().to_owned(),
            key: PartitionKeyDefinition::from_json(&properties["partitionKey"])?,
            unique: UniqueKeys::from_json(&properties["uniqueKeyPolicy"])?,
            properties,
        })
    }
}

impl Container {
    /// Creates a container. `etag` is the number behind its entity tag.
    pub fn new(
        site: Site<'_>,
        definition: Definition,
        map: PartitionMap,
        etag: u64,
        now: u32,
    ) -> Self {
        let bytes = ids::container_rid(site.database_rid, site.number);
        let rid = ids::rid_text(&bytes);
        let self_link = format!("dbs/{}/colls/{rid}/", ids::rid_text(&site.database_rid));
        let Definition {
            id,
            key,
            unique,
            mut properties,
        } = definition;
        let system = [
            json!(rid),
            json!(self_link),
            json!("docs/"),
            json!("sprocs/"),
            json!("triggers/"),
            json!("udfs/"),
            json!("conflicts/"),
        ];
        for (name, value) in SYSTEM_PROPERTIES.into_iter().zip(system) {
            properties[name] = value;
        }
        let salt = site.environment.salt;
        let container = Self {
            owner: [format!("dbs/{}/colls/{id}", site.database), rid.clone()].map(header_value),
            rendering: Rendering {
                container_rid: bytes,
                self_prefix: format!("{self_link}docs/").into_boxed_str(),
                salt,
            },
            id,
            database: site.database.to_owned(),
            number: site.number,
            rid,
            self_link,
            key,
            unique,
            rids: Sequence::default(),
            etags: Sequence::default(),
            environment: site.environment,
            properties: RwLock::new(Value::Null),
            replacing: Mutex::default(),
            default_ttl: AtomicI64::new(TTL_OFF),
            retention: AtomicU64::new(0),
            map: RwLock::new(map),
            throughput: Mutex::new(None),
            overgrown: AtomicU64::new(0),
        };
        container.set_properties(properties, etag, now);
        container
    }

    /// What the container shares with others.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The container as clients read it.
    pub fn properties(&self) -> Value {
        self.properties.read().clone()
    }

    /// Replaces the client's part of the properties.
    ///
    /// # Errors
    /// [`StoreError::Journal`].
    pub fn replace(&self, properties: Value, now: u32) -> Result<(), StoreError> {
        let _in_order = self.replacing.lock();
        let etag = self.etags.next();
        self.environment.journal(|| {
            vec![Event::ContainerReplaced {
                container: self.number,
                properties: properties.clone(),
                etag,
                ts: now,
            }]
        })?;
        self.replace_properties(properties, etag, now);
        Ok(())
    }

    /// Puts properties in force that the journal knows.
    pub(super) fn replace_properties(&self, mut properties: Value, etag: u64, now: u32) {
        {
            let current = self.properties.read();
            for name in SYSTEM_PROPERTIES {
                properties[name] = current[name].clone();
            }
        }
        self.set_properties(properties, etag, now);
    }

    fn set_properties(&self, mut properties: Value, etag: u64, now: u32) {
        self.etags.reach(etag);
        let tag = ids::etag(self.rendering.salt, etag);
        properties["_etag"] = json!(format!("\"{}\"", String::from_utf8_lossy(&tag)));
        properties["_ts"] = json!(now);
        let ttl = properties["defaultTtl"].as_i64().unwrap_or(TTL_OFF);
        let minutes = properties["changeFeedPolicy"]["retentionDuration"].as_u64();
        *self.properties.write() = properties;
        let default = self.environment.limits.retention.as_secs();
        let retention = minutes
            .filter(|minutes| *minutes > 0)
            .map(|minutes| minutes.saturating_mul(60));
        self.retention
            .store(retention.unwrap_or(default), Ordering::Relaxed);
        if retention.is_some() {
            // The journal need not be told: this follows from the properties.
            self.map().start_history();
        }
        // Alone with the partitions: a write that has read the old time to live is done, or begins with the new one.
        let map = self.map.write();
        if self.default_ttl.swap(ttl, Ordering::Relaxed) != ttl {
            for partition in map.partitions() {
                let mut shard = partition.shard.write();
                shard.reset_expiries(|version| self.ttl_of_version(version));
                partition.note_expiry(&shard);
            }
        }
    }

    /// The partitions. Keep the guard while you work with one.
    pub fn map(&self) -> RwLockReadGuard<'_, PartitionMap> {
        // A request may take the map again while it holds it, and a split may wait in between.
        self.map.read_recursive()
    }

    /// Tag of the partition map: it changes when partitions split or merge.
    pub fn map_etag(&self) -> String {
        format!("\"{}-{}\"", self.rid, self.map().version())
    }

    /// Opens a partition for reading.
    ///
    /// # Errors
    /// 429 if its throughput is used up; a journal that fails.
    pub fn reader<'a>(
        &self,
        partition: &'a Partition,
    ) -> Result<RwLockReadGuard<'a, Shard>, StoreError> {
        self.admit(partition)?;
        self.expire(partition)?;
        Ok(partition.shard.read())
    }

    /// Opens a partition for writing.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub fn begin<'a>(&'a self, partition: &'a Partition) -> Result<Transaction<'a>, StoreError> {
        self.admit(partition)?;
        self.expire(partition)?;
        let now = self.environment.clock.now_seconds();
        Ok(Transaction::new(
            self,
            partition,
            partition.shard.write(),
            now,
        ))
    }

    /// Asks whether a call, or one more operation of it, may run on a partition.
    ///
    /// # Errors
    /// [`StoreError::Throttled`].
    pub fn admit(&self, partition: &Partition) -> Result<(), StoreError> {
        partition
            .admit(|| self.environment.clock.now_millis())
            .map_err(|retry_after_ms| StoreError::Throttled { retry_after_ms })
    }

    /// Makes changes durable, then visible.
    pub(super) fn apply(
        &self,
        partition: &Partition,
        shard: &mut Shard,
        mutations: Vec<Mutation>,
    ) -> Result<(), StoreError> {
        if let Some(journal) = self.environment.journal.get() {
            journal.write(self.number, partition.id, &mutations)?;
        }
        for mutation in mutations {
            mutation.apply(shard);
        }
        // Whoever asked for the history once may never read it.
        self.trim(shard);
        partition.note_expiry(shard);
        if let Some(most) = self.environment.limits.split_at_bytes
            && shard.footprint() as u64 > most
        {
            self.overgrown
                .store(u64::from(partition.id) + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes what has expired, each document under an LSN of its own, at the second in which it expired.
    fn expire(&self, partition: &Partition) -> Result<(), StoreError> {
        let due = partition.next_expiry.load(Ordering::Relaxed);
        if due == u64::from(super::document::NEVER) {
            return Ok(());
        }
        let now = self.environment.clock.now_seconds();
        if due > u64::from(now) {
            return Ok(());
        }
        let mut shard = partition.shard.write();
        let mut stamp = shard.stamp();
        let mut mutations = shard
            .expired(now)
            .into_iter()
            .map(|(expiry, epk, id)| {
                stamp = Stamp {
                    lsn: stamp.lsn + 1,
                    ts: stamp.ts.max(expiry),
                };
                Mutation::Remove {
                    epk,
                    id,
                    kind: ChangeKind::Expire,
                    stamp,
                }
            })
            .peekable();
        while mutations.peek().is_some() {
            let some = mutations.by_ref().take(EXPIRIES_PER_RECORD).collect();
            self.apply(partition, &mut shard, some)?;
        }
        Ok(())
    }

    /// Seconds that a document with the property `ttl` of this value lives; `None` for ever.
    ///
    /// # Errors
    /// One clause, if the value is none that the property may have.
    pub fn ttl(&self, own: Option<&str>) -> Result<Option<u32>, String> {
        let default = self.default_ttl.load(Ordering::Relaxed);
        if default == TTL_OFF {
            return Ok(None);
        }
        let seconds = match own {
            None => default,
            Some(text) => text
                .parse()
                .ok()
                .filter(|ttl| *ttl == -1 || (1..=i64::from(i32::MAX)).contains(ttl))
                .ok_or_else(|| {
                    format!("the ttl {text} is invalid: use a positive number of seconds, or -1")
                })?,
        };
        Ok(u32::try_from(seconds).ok())
    }

    /// Whether something follows from a document's text besides its place.
    pub(super) fn needs_text(&self) -> bool {
        self.default_ttl.load(Ordering::Relaxed) != TTL_OFF || !self.unique.is_empty()
    }

    fn ttl_of_version(&self, version: &Version) -> Option<u32> {
        let text = version.to_json_text();
        let members = Members::parse(&text).ok()?;
        let own = members.find(TTL_PROPERTY).map(|raw| raw.get());
        self.ttl(own).ok().flatten()
    }

    /// See [`Self::ttl`], for a document that is about to be written.
    ///
    /// # Errors
    /// As there.
    pub fn ttl_of(&self, members: &Members<'_>) -> Result<Option<u32>, String> {
        self.ttl(members.find(TTL_PROPERTY).map(|raw| raw.get()))
    }

    /// Records every change from now on, for AllVersionsAndDeletes: in all partitions or, if that fails, in none, because
    /// a merged partition can only be read back if both its parts were recorded.
    ///
    /// # Errors
    /// [`StoreError::Journal`].
    pub fn start_history(&self) -> Result<(), StoreError> {
        let map = self.map();
        if map.is_recording() {
            return Ok(());
        }
        self.environment.journal(|| {
            vec![Event::HistoryStarted {
                container: self.number,
            }]
        })?;
        map.start_history();
        Ok(())
    }

    /// Drops the part of a partition's history that is past its retention.
    pub fn trim_history(&self, partition: &Partition) {
        self.trim(&mut partition.shard.write());
    }

    fn trim(&self, shard: &mut Shard) {
        if shard.history().is_recording() {
            let retention = self.retention.load(Ordering::Relaxed);
            let now = u64::from(self.environment.clock.now_seconds());
            let horizon = now.saturating_sub(retention) as u32;
            shard.history_mut().retain_since(horizon);
        }
    }

    /// Tells clients that name one of these partitions to look for others, or takes that back.
    pub fn set_moving(&self, ids: &[u32], moving: bool) {
        let map = self.map();
        for partition in ids.iter().filter_map(|id| map.by_id(*id)) {
            partition.set_moving(moving);
        }
    }

    /// Splits a partition at the hash `at`, or in the middle of its keys; returns the children's ids.
    ///
    /// # Errors
    /// One clause, if there is no such partition or it cannot be split there.
    pub fn split(&self, id: u32, at: Option<u128>) -> Result<[u32; 2], String> {
        let mut map = self.map.write();
        let at = map.split_point(id, at)?;
        self.journal(Event::Split {
            container: self.number,
            partition: id,
            at: format!("{at:032X}"),
        })?;
        let children = map
            .split(id, at)
            .ok_or_else(|| format!("partition key range {id} does not exist"))?;
        self.share_throughput(&map);
        Ok(children)
    }

    /// Merges two neighbouring partitions; returns the new one's id.
    ///
    /// # Errors
    /// One clause, if one of them does not exist or they are not neighbours.
    pub fn merge(&self, a: u32, b: u32) -> Result<u32, String> {
        let mut map = self.map.write();
        map.check_merge(a, b)?;
        self.journal(Event::Merged {
            container: self.number,
            partitions: [a, b],
        })?;
        let id = map
            .merge(a, b)
            .ok_or_else(|| format!("partition key ranges {a} and {b} are not neighbours"))?;
        self.share_throughput(&map);
        Ok(id)
    }

    /// Splits a partition that has grown too large. To be called between requests.
    pub fn settle(&self) {
        let overgrown = self.overgrown.swap(0, Ordering::Relaxed);
        let Some(id) = overgrown.checked_sub(1) else {
            return;
        };
        let id = id as u32;
        let middle = self
            .map()
            .by_id(id)
            .and_then(|partition| partition.inspect(Shard::median_head));
        // A single logical partition cannot be divided.
        if let Some(middle) = middle
            && let Err(error) = self.split(id, Some(middle))
        {
            tracing::debug!(container = self.id, partition = id, error, "cannot split");
        }
    }

    /// Sets the throughput of the container in RU/s; `None` for no limit. Partitions that would get more than the service
    /// allows one are split.
    pub fn set_throughput(&self, throughput: Option<f64>) {
        *self.throughput.lock() = throughput;
        if let Some(total) = throughput {
            let wanted = (total / MAX_PARTITION_THROUGHPUT).ceil() as usize;
            loop {
                let widest = {
                    let map = self.map();
                    if map.partitions().len() >= wanted {
                        break;
                    }
                    map.widest()
                };
                if widest.is_none_or(|id| self.split(id, None).is_err()) {
                    break;
                }
            }
        }
        self.share_throughput(&self.map());
    }

    fn share_throughput(&self, map: &PartitionMap) {
        let share = self
            .throughput
            .lock()
            .map(|total| total / map.partitions().len() as f64);
        let now = self.environment.clock.now_millis();
        for partition in map.partitions() {
            partition.limit(share, now);
        }
    }

    fn journal(&self, event: Event) -> Result<(), String> {
        let outcome = self.environment.journal(|| vec![event]);
        outcome.map_err(|error| error.to_string())
    }
}

/// A name as a header value; what no header can carry is percent-encoded.
fn header_value(text: String) -> HeaderValue {
    let encoded = || utf8_percent_encode(&text, CONTROLS).to_string();
    HeaderValue::try_from(&text)
        .or_else(|_| HeaderValue::try_from(encoded()))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}
