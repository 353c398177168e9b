//! The account: databases and their containers by name, and the throughput offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Value, json};

use super::container::{Container, Site};
use crate::ids::{self, Sequence};
use crate::partition_key::PartitionKeyDefinition;

/// The root of everything that is stored.
#[derive(Debug)]
pub struct Account {
    partitions: usize,
    salt: u32,
    numbers: Sequence,
    databases: RwLock<BTreeMap<String, Arc<Database>>>,
    offers: RwLock<BTreeMap<String, Offer>>,
}

/// One database.
#[derive(Debug)]
pub struct Database {
    /// Its name.
    pub id: String,
    /// Resource id as text.
    pub rid: String,
    bytes: [u8; 4],
    etag: String,
    ts: u32,
    containers: RwLock<BTreeMap<String, Arc<Container>>>,
}

/// Provisioned throughput of a container or database. It is remembered, not enforced.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Resource id of the offer.
    pub id: String,
    /// Resource id of what it belongs to.
    pub resource_rid: String,
    /// Self link of what it belongs to.
    pub resource_link: String,
    /// The `content` property.
    pub content: Value,
    /// Entity tag.
    pub etag: String,
    /// Seconds since 1970.
    pub ts: u32,
}

impl Account {
    /// An empty account whose containers get `partitions` physical partitions.
    pub fn new(partitions: usize) -> Self {
        Self {
            partitions,
            salt: ids::salt(),
            numbers: Sequence::default(),
            databases: RwLock::default(),
            offers: RwLock::default(),
        }
    }

    /// A database by name or resource id.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        let databases = self.databases.read();
        databases
            .get(name)
            .or_else(|| databases.values().find(|database| database.rid == name))
            .cloned()
    }

    /// All databases by name.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        self.databases.read().values().cloned().collect()
    }

    /// Creates a database; `None` if the name is taken.
    pub fn create_database(&self, id: &str, now: u32) -> Option<Arc<Database>> {
        let mut databases = self.databases.write();
        if databases.contains_key(id) {
            return None;
        }
        let number = self.numbers.next();
        let bytes = ids::database_rid(number as u32);
        let database = Arc::new(Database {
            id: id.to_owned(),
            rid: ids::rid_text(&bytes),
            bytes,
            etag: self.tag(),
            ts: now,
            containers: RwLock::default(),
        });
        databases.insert(id.to_owned(), Arc::clone(&database));
        Some(database)
    }

    /// Deletes a database with its containers.
    pub fn delete_database(&self, database: &Database) -> bool {
        let removed = self.databases.write().remove(&database.id).is_some();
        let links: Vec<String> = database
            .containers()
            .iter()
            .map(|container| container.rid.clone())
            .collect();
        self.offers.write().retain(|_, offer| {
            offer.resource_rid != database.rid && !links.contains(&offer.resource_rid)
        });
        removed
    }

    /// Creates a container; `None` if the name is taken.
    pub fn create_container(
        &self,
        database: &Database,
        id: &str,
        key: PartitionKeyDefinition,
        properties: Value,
        now: u32,
    ) -> Option<Arc<Container>> {
        let mut containers = database.containers.write();
        if containers.contains_key(id) {
            return None;
        }
        let site = Site {
            database: &database.id,
            database_rid: database.bytes,
            number: self.numbers.next() as u32,
            salt: self.salt,
            partitions: self.partitions,
            now,
        };
        let container = Arc::new(Container::new(&site, id.to_owned(), key, properties));
        containers.insert(id.to_owned(), Arc::clone(&container));
        Some(container)
    }

    /// Deletes a container.
    pub fn delete_container(&self, database: &Database, container: &Container) -> bool {
        let removed = database.containers.write().remove(&container.id).is_some();
        self.offers
            .write()
            .retain(|_, offer| offer.resource_rid != container.rid);
        removed
    }

    /// Adds the throughput of a resource.
    pub fn add_offer(&self, resource_rid: &str, resource_link: &str, content: Value, now: u32) {
        let id = ids::rid_text(&(self.numbers.next() as u32 | 0x4000_0000).to_be_bytes()[1..]);
        let offer = Offer {
            id: id.clone(),
            resource_rid: resource_rid.to_owned(),
            resource_link: resource_link.to_owned(),
            content,
            etag: self.tag(),
            ts: now,
        };
        self.offers.write().insert(id, offer);
    }

    /// All offers.
    pub fn offers(&self) -> Vec<Offer> {
        self.offers.read().values().cloned().collect()
    }

    /// One offer by its id.
    pub fn offer(&self, id: &str) -> Option<Offer> {
        self.offers.read().get(id).cloned()
    }

    /// Replaces the content of an offer.
    pub fn replace_offer(&self, id: &str, content: Value, now: u32) -> Option<Offer> {
        let tag = self.tag();
        let mut offers = self.offers.write();
        let offer = offers.get_mut(id)?;
        offer.content = content;
        offer.etag = tag;
        offer.ts = now;
        Some(offer.clone())
    }

    fn tag(&self) -> String {
        let tag = ids::etag(self.salt, self.numbers.next());
        format!("\"{}\"", String::from_utf8_lossy(&tag))
    }
}

impl Database {
    /// A container by name or resource id.
    pub fn container(&self, name: &str) -> Option<Arc<Container>> {
        let containers = self.containers.read();
        containers
            .get(name)
            .or_else(|| containers.values().find(|container| container.rid == name))
            .cloned()
    }

    /// All containers by name.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.read().values().cloned().collect()
    }

    /// The database as clients read it.
    pub fn properties(&self) -> Value {
        json!({
            "id": self.id,
            "_rid": self.rid,
            "_self": format!("dbs/{}/", self.rid),
            "_etag": self.etag,
            "_colls": "colls/",
            "_users": "users/",
            "_ts": self.ts,
        })
    }

    /// The entity tag, with quotes.
    pub fn etag(&self) -> &str {
        &self.etag
    }
}

impl Offer {
    /// The offer as clients read it.
    pub fn properties(&self) -> Value {
        json!({
            "id": self.id,
            "_rid": self.id,
            "_self": format!("offers/{}/", self.id),
            "_etag": self.etag,
            "_ts": self.ts,
            "offerVersion": "V2",
            "offerType": "Invalid",
            "resource": self.resource_link,
            "offerResourceId": self.resource_rid,
            "content": self.content,
        })
    }
}
