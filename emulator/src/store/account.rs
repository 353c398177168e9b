//! The account: databases and their containers by name, and the throughput offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::container::{Container, Definition, Site};
use super::environment::{Environment, StoreError};
use super::journal::{Event, as_text};
use super::map::PartitionMap;
use crate::ids::{self, Sequence};

/// Number behind the entity tag of a new container.
const FIRST_TAG: u64 = 1;

/// The root of everything that is stored.
///
/// Locks are taken in the order databases, containers, offers, and held while a change is journaled and made.
#[derive(Debug)]
pub struct Account {
    environment: Arc<Environment>,
    numbers: Sequence,
    databases: RwLock<BTreeMap<String, Arc<Database>>>,
    offers: RwLock<BTreeMap<String, Offer>>,
    /// Held while offers are put in force, so that the newest is the last.
    enforcing: Mutex<()>,
}

/// One database.
#[derive(Debug)]
pub struct Database {
    /// Its name.
    pub id: String,
    /// Resource id as text.
    pub rid: String,
    /// Number in the account.
    pub number: u32,
    etag: String,
    ts: u32,
    containers: RwLock<BTreeMap<String, Arc<Container>>>,
}

/// Provisioned throughput of a container or database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// Resource id of the offer.
    pub id: String,
    /// Resource id of what it belongs to.
    pub resource_rid: String,
    /// Self link of what it belongs to.
    pub resource_link: String,
    /// The `content` property.
    #[serde(with = "as_text")]
    pub content: Value,
    /// Entity tag.
    pub etag: String,
    /// Seconds since 1970.
    pub ts: u32,
}

impl Offer {
    /// The throughput that is enforced, in RU/s: for autoscale its ceiling.
    pub fn throughput(&self) -> Option<f64> {
        let settings = &self.content["offerAutopilotSettings"];
        settings["maxThroughput"]
            .as_f64()
            .or_else(|| self.content["offerThroughput"].as_f64())
    }
}

impl Account {
    /// An empty account.
    pub fn new(environment: Arc<Environment>) -> Self {
        Self {
            environment,
            numbers: Sequence::default(),
            databases: RwLock::default(),
            offers: RwLock::default(),
            enforcing: Mutex::default(),
        }
    }

    /// What everything in the account shares.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Numbers of databases, containers, offers and tags.
    pub fn numbers(&self) -> &Sequence {
        &self.numbers
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

    /// Creates a database, with throughput if there is `content` for an offer; `None` if the name is taken.
    ///
    /// # Errors
    /// [`StoreError::Journal`].
    pub fn create_database(
        &self,
        id: &str,
        content: Option<Value>,
        now: u32,
    ) -> Result<Option<Arc<Database>>, StoreError> {
        let mut databases = self.databases.write();
        if databases.contains_key(id) {
            return Ok(None);
        }
        let number = self.numbers.next() as u32;
        let database = Arc::new(Database::new(id, number, self.tag(), now));
        let link = format!("dbs/{}/", database.rid);
        let offer = content.map(|content| self.offer_for(&database.rid, &link, content, now));
        let created = Event::DatabaseCreated {
            id: id.to_owned(),
            number,
            etag: database.etag.clone(),
            ts: now,
        };
        self.create(created, offer)?;
        databases.insert(id.to_owned(), Arc::clone(&database));
        Ok(Some(database))
    }

    /// Puts back a database that the journal knows.
    pub(super) fn restore_database(
        &self,
        id: &str,
        number: u32,
        etag: String,
        ts: u32,
    ) -> Arc<Database> {
        self.numbers.reach(u64::from(number));
        self.numbers.reach(ids::etag_number(&etag).unwrap_or(0));
        let database = Arc::new(Database::new(id, number, etag, ts));
        let mut databases = self.databases.write();
        databases.insert(id.to_owned(), Arc::clone(&database));
        database
    }

    /// Deletes a database with its containers; false if it is gone already.
    ///
    /// # Errors
    /// [`StoreError::Journal`].
    pub fn delete_database(&self, database: &Database) -> Result<bool, StoreError> {
        let mut databases = self.databases.write();
        if databases
            .get(&database.id)
            .is_none_or(|known| known.rid != database.rid)
        {
            return Ok(false);
        }
        let containers = database.containers();
        let mut offers = self.offers.write();
        self.environment.journal(|| {
            vec![Event::DatabaseDeleted {
                number: database.number,
            }]
        })?;
        databases.remove(&database.id);
        offers.retain(|_, offer| {
            offer.resource_rid != database.rid
                && !containers
                    .iter()
                    .any(|container| container.rid == offer.resource_rid)
        });
        Ok(true)
    }

    /// Creates a container, with throughput of its own if there is `content` for an offer; `None` if the name is taken.
    ///
    /// # Errors
    /// [`StoreError::Journal`]; [`StoreError::DatabaseGone`] if the database was deleted since it was found.
    pub fn create_container(
        &self,
        database: &Database,
        definition: Definition,
        content: Option<Value>,
        now: u32,
    ) -> Result<Option<Arc<Container>>, StoreError> {
        // Kept until the end, so that the journal does not create in a database that it has deleted.
        let databases = self.databases.read();
        if databases
            .get(&database.id)
            .is_none_or(|known| known.rid != database.rid)
        {
            return Err(StoreError::DatabaseGone);
        }
        let mut containers = database.containers.write();
        if containers.contains_key(&definition.id) {
            return Ok(None);
        }
        let number = self.numbers.next() as u32;
        let partitions = self.environment.limits.partitions;
        let created = Event::ContainerCreated {
            database: database.number,
            number,
            partitions,
            properties: definition.properties.clone(),
            ts: now,
        };
        let map = PartitionMap::even(partitions);
        let container = self.build_container(database, number, definition, map, FIRST_TAG, now);
        let (rid, link) = (&container.rid, &container.self_link);
        let offer = content.map(|content| self.offer_for(rid, link, content, now));
        self.create(created, offer)?;
        containers.insert(container.id.clone(), Arc::clone(&container));
        drop(containers);
        self.enforce(database, &container);
        Ok(Some(container))
    }

    /// Makes a new resource durable with its offer, and the offer known.
    fn create(&self, created: Event, offer: Option<Offer>) -> Result<(), StoreError> {
        let mut offers = self.offers.write();
        self.environment.journal(|| {
            let offer = offer.clone().map(Event::OfferSet);
            std::iter::once(created).chain(offer).collect()
        })?;
        offers.extend(offer.map(|offer| (offer.id.clone(), offer)));
        Ok(())
    }

    /// Puts back a container that the journal knows.
    pub(super) fn restore_container(
        &self,
        database: &Database,
        number: u32,
        definition: Definition,
        map: PartitionMap,
        ts: u32,
    ) -> Arc<Container> {
        self.numbers.reach(u64::from(number));
        let etag = definition.properties["_etag"].as_str();
        let etag = etag.and_then(ids::etag_number).unwrap_or(FIRST_TAG);
        let container = self.build_container(database, number, definition, map, etag, ts);
        let mut containers = database.containers.write();
        containers.insert(container.id.clone(), Arc::clone(&container));
        container
    }

    fn build_container(
        &self,
        database: &Database,
        number: u32,
        definition: Definition,
        map: PartitionMap,
        etag: u64,
        now: u32,
    ) -> Arc<Container> {
        let site = Site {
            database: &database.id,
            database_rid: ids::database_rid(database.number),
            number,
            environment: Arc::clone(&self.environment),
        };
        Arc::new(Container::new(site, definition, map, etag, now))
    }

    /// Deletes a container; false if it is gone already.
    ///
    /// # Errors
    /// [`StoreError::Journal`].
    pub fn delete_container(
        &self,
        database: &Database,
        container: &Container,
    ) -> Result<bool, StoreError> {
        let mut containers = database.containers.write();
        if containers
            .get(&container.id)
            .is_none_or(|known| known.rid != container.rid)
        {
            return Ok(false);
        }
        let mut offers = self.offers.write();
        self.environment.journal(|| {
            vec![Event::ContainerDeleted {
                container: container.number,
            }]
        })?;
        containers.remove(&container.id);
        offers.retain(|_, offer| offer.resource_rid != container.rid);
        Ok(true)
    }

    fn offer_for(
        &self,
        resource_rid: &str,
        resource_link: &str,
        content: Value,
        now: u32,
    ) -> Offer {
        Offer {
            id: ids::rid_text(&(self.numbers.next() as u32 | 0x4000_0000).to_be_bytes()[1..]),
            resource_rid: resource_rid.to_owned(),
            resource_link: resource_link.to_owned(),
            content,
            etag: self.tag(),
            ts: now,
        }
    }

    /// All offers.
    pub fn offers(&self) -> Vec<Offer> {
        self.offers.read().values().cloned().collect()
    }

    /// The offer of a database or container.
    pub fn offer_of(&self, resource_rid: &str) -> Option<Offer> {
        let offers = self.offers.read();
        let mut offers = offers.values();
        offers
            .find(|offer| offer.resource_rid == resource_rid)
            .cloned()
    }

    /// One offer by its id.
    pub fn offer(&self, id: &str) -> Option<Offer> {
        self.offers.read().get(id).cloned()
    }

    /// Replaces the content of an offer.
    ///
    /// # Errors
    /// [`StoreError::Journal`].
    pub fn replace_offer(
        &self,
        id: &str,
        content: Value,
        now: u32,
    ) -> Result<Option<Offer>, StoreError> {
        let offer = {
            let mut offers = self.offers.write();
            let Some(known) = offers.get_mut(id) else {
                return Ok(None);
            };
            let mut offer = known.clone();
            offer.content = content;
            offer.etag = self.tag();
            offer.ts = now;
            self.environment
                .journal(|| vec![Event::OfferSet(offer.clone())])?;
            known.clone_from(&offer);
            offer
        };
        for database in self.databases() {
            for container in database.containers() {
                if [&database.rid, &container.rid].contains(&&offer.resource_rid) {
                    self.enforce(&database, &container);
                }
            }
        }
        Ok(Some(offer))
    }

    /// Puts back an offer that the journal knows.
    pub(super) fn restore_offer(&self, offer: Offer) {
        self.numbers
            .reach(ids::etag_number(&offer.etag).unwrap_or(0));
        self.offers.write().insert(offer.id.clone(), offer);
    }

    /// Limits every container to its throughput, if throughput is enforced: after a restart, when all are known.
    pub fn enforce_all(&self) {
        for database in self.databases() {
            for container in database.containers() {
                self.enforce(&database, &container);
            }
        }
    }

    /// Limits a container to its throughput, if throughput is enforced. One without throughput of its own is limited to
    /// all of its database's.
    fn enforce(&self, database: &Database, container: &Container) {
        if self.environment.limits.throughput.is_none() {
            return;
        }
        let _newest_last = self.enforcing.lock();
        let own = self.offer_of(&container.rid);
        let offer = own.or_else(|| self.offer_of(&database.rid));
        container.set_throughput(offer.and_then(|offer| offer.throughput()));
    }

    fn tag(&self) -> String {
        let tag = ids::etag(self.environment.salt, self.numbers.next());
        format!("\"{}\"", String::from_utf8_lossy(&tag))
    }
}

impl Database {
    fn new(id: &str, number: u32, etag: String, ts: u32) -> Self {
        Self {
            id: id.to_owned(),
            rid: ids::rid_text(&ids::database_rid(number)),
            number,
            etag,
            ts,
            containers: RwLock::default(),
        }
    }

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

    /// Seconds since 1970 of its last change.
    pub fn ts(&self) -> u32 {
        self.ts
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
