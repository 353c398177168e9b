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

use super::document::Rendering;
use super::environment::{Environment, StoreError};
use super::expiry::TTL_OFF;
use super::journal::Event;
use super::map::PartitionMap;
use super::partition::Partition;
use super::shard::Shard;
use super::transaction::{Mutation, Transaction};
use super::unique::UniqueKeys;
use crate::ids::{self, Sequence};
use crate::partition_key::PartitionKeyDefinition;

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
    pub(super) environment: Arc<Environment>,
    properties: RwLock<Value>,
    /// Held while the properties are replaced.
    replacing: Mutex<()>,
    pub(super) default_ttl: AtomicI64,
    /// Seconds that AllVersionsAndDeletes can be read back.
    retention: AtomicU64,
    pub(super) map: RwLock<PartitionMap>,
    /// Throughput of the whole container in RU/s, if it is limited.
    pub(super) throughput: Mutex<Option<f64>>,
    /// A partition that has grown too large: its id and one.
    pub(super) overgrown: AtomicU64,
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
}

/// A name as a header value; what no header can carry is percent-encoded.
fn header_value(text: String) -> HeaderValue {
    let encoded = || utf8_percent_encode(&text, CONTROLS).to_string();
    HeaderValue::try_from(&text)
        .or_else(|_| HeaderValue::try_from(encoded()))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}
