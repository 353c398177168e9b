//! A client that changes everything but documents, and knows what is there.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use crate::common::Random;
use crate::common::raw::Raw;

/// All that is there besides documents.
#[derive(Clone, Debug, Default, PartialEq)]
struct Books {
    databases: BTreeMap<String, Value>,
    /// By database and name.
    containers: BTreeMap<(String, String), Value>,
    /// By what they belong to.
    offers: BTreeMap<String, Value>,
    /// Partition key ranges of `items`, without their LSNs.
    ranges: Vec<Value>,
}

/// What a request changes.
#[derive(Clone, Debug)]
enum Touched {
    Database(String),
    Container(String, String),
    Offer(String),
    Ranges,
}

pub struct Clerk {
    random: Random,
    known: Books,
    touched: Option<Touched>,
    /// The change was acknowledged, with this body.
    reply: Option<Value>,
    tags: HashSet<String>,
}

impl Clerk {
    pub fn new(raw: &mut Raw, seed: u64) -> std::io::Result<Self> {
        Ok(Self {
            random: Random::new(seed + 77),
            known: Books::read(raw)?,
            touched: None,
            reply: None,
            tags: HashSet::new(),
        })
    }

    /// One change. An error is the end of the server.
    pub fn step(&mut self, raw: &mut Raw) -> std::io::Result<()> {
        let change = match self.random.below(9) {
            0..=1 => self.split(),
            2..=3 => self.merge(),
            4 => self.offer(),
            5 => self.database(),
            6..=7 => self.container(),
            _ => self.delete(),
        };
        let Some((touched, method, path, headers, body)) = change else {
            return Ok(());
        };
        self.touched = Some(touched);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let reply = raw.call(method, &path, &headers, body.as_bytes())?;
        assert!(
            [200, 201, 204].contains(&reply.status),
            "{method} {path}: {}",
            reply.text()
        );
        if let Some(tag) = reply.header("etag") {
            // Every container counts its own tags.
            let tag = format!("{tag} of {}", reply.json()["_rid"]);
            assert!(self.tags.insert(tag.clone()), "{tag} was given twice");
        }
        self.reply = Some(reply.json());
        let found = Books::read(raw)?;
        self.compare(found);
        Ok(())
    }

    /// Compares with what is there after a restart.
    pub fn check(&mut self, raw: &mut Raw) {
        let found = Books::read(raw).unwrap();
        self.compare(found);
    }

    fn compare(&mut self, found: Books) {
        let (touched, reply) = (self.touched.take(), self.reply.take());
        if let Some(touched) = touched {
            let rest = |books: &Books| books.without(&touched, &[&self.known, &found]);
            assert_eq!(rest(&found), rest(&self.known), "{touched:?} changed more");
            if let Some(reply) = reply {
                assert_ne!(found, self.known, "{touched:?} was acknowledged");
                if let Some(expected) = found.part(&touched) {
                    assert_eq!(*expected, reply);
                }
            }
        } else {
            assert_eq!(found, self.known);
        }
        found.check();
        self.known = found;
    }

    fn range(&mut self) -> usize {
        self.random.below(self.known.ranges.len())
    }

    fn split(&mut self) -> Option<Change> {
        let index = (self.known.ranges.len() < 9).then(|| self.range())?;
        let id = self.known.ranges[index]["id"].as_str()?;
        let path = format!("/_emulator/dbs/db/colls/items/ranges/{id}/split");
        Some((Touched::Ranges, "POST", path, vec![], Value::Null))
    }

    fn merge(&mut self) -> Option<Change> {
        let index = (self.known.ranges.len() > 2).then(|| self.range())?;
        let pair = self.known.ranges.get(index..index + 2)?;
        let body = json!({"ranges": [pair[0]["id"], pair[1]["id"]]});
        let path = "/_emulator/dbs/db/colls/items/merge".to_owned();
        Some((Touched::Ranges, "POST", path, vec![], body))
    }

    fn offer(&mut self) -> Option<Change> {
        let index = self.random.below(self.known.offers.len());
        let (rid, offer) = self.known.offers.iter().nth(index)?;
        let mut offer = offer.clone();
        offer["content"] = json!({"offerThroughput": 400 + 100 * self.random.below(50)});
        let path = format!("/offers/{}", offer["id"].as_str()?);
        Some((Touched::Offer(rid.clone()), "PUT", path, vec![], offer))
    }

    fn database(&mut self) -> Option<Change> {
        let id = format!("side{}", self.random.below(3));
        let headers = match self.random.below(2) {
            0 => vec![("x-ms-offer-throughput", "1000")],
            _ => vec![],
        };
        let is_new = !self.known.databases.contains_key(&id);
        let body = json!({"id": id});
        is_new.then(|| {
            let path = "/dbs".to_owned();
            (Touched::Database(id), "POST", path, headers, body)
        })
    }

    /// Creates or replaces a container of another database.
    fn container(&mut self) -> Option<Change> {
        let db = format!("side{}", self.random.below(3));
        let id = format!("c{}", self.random.below(3));
        self.known.databases.get(&db)?;
        let mut body = json!({
            "id": id,
            "partitionKey": {"paths": ["/a", "/b"], "kind": "MultiHash", "version": 2},
            "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/u"]}]},
            "defaultTtl": 1 + self.random.below(1_000),
        });
        if self.random.below(3) == 0 {
            body["changeFeedPolicy"] = json!({"retentionDuration": 60});
        }
        let place = (db.clone(), id.clone());
        let (method, path) = match self.known.containers.get(&place) {
            Some(_) => ("PUT", format!("/dbs/{db}/colls/{id}")),
            None => ("POST", format!("/dbs/{db}/colls")),
        };
        Some((Touched::Container(db, id), method, path, vec![], body))
    }

    /// Deletes a container or a database.
    fn delete(&mut self) -> Option<Change> {
        let db = format!("side{}", self.random.below(3));
        self.known.databases.get(&db)?;
        let id = format!("c{}", self.random.below(5));
        if self
            .known
            .containers
            .contains_key(&(db.clone(), id.clone()))
        {
            let path = format!("/dbs/{db}/colls/{id}");
            let touched = Touched::Container(db, id);
            return Some((touched, "DELETE", path, vec![], Value::Null));
        }
        let path = format!("/dbs/{db}");
        Some((Touched::Database(db), "DELETE", path, vec![], Value::Null))
    }
}

/// A request: what it changes, its method, path, headers and body.
type Change = (
    Touched,
    &'static str,
    String,
    Vec<(&'static str, &'static str)>,
    Value,
);

impl Books {
    fn read(raw: &mut Raw) -> std::io::Result<Self> {
        let mut list = |path: &str, name: &str| -> std::io::Result<Vec<Value>> {
            let reply = raw.call("GET", path, &[], b"")?;
            assert_eq!(reply.status, 200, "{}", reply.text());
            Ok(reply.json()[name].as_array().expect(name).clone())
        };
        let text = |value: &Value, name: &str| value[name].as_str().expect(name).to_owned();
        let mut books = Self::default();
        for database in list("/dbs", "Databases")? {
            let db = text(&database, "id");
            for container in list(&format!("/dbs/{db}/colls"), "DocumentCollections")? {
                let place = (db.clone(), text(&container, "id"));
                books.containers.insert(place, container);
            }
            books.databases.insert(db, database);
        }
        for offer in list("/offers", "Offers")? {
            let rid = text(&offer, "offerResourceId");
            let twice = books.offers.insert(rid, offer);
            assert!(twice.is_none(), "{twice:?} is there twice");
        }
        for mut range in list("/dbs/db/colls/items/pkranges", "PartitionKeyRanges")? {
            range["_lsn"] = Value::Null;
            books.ranges.push(range);
        }
        Ok(books)
    }

    /// The part that an acknowledged change has returned.
    fn part(&self, touched: &Touched) -> Option<&Value> {
        match touched {
            Touched::Database(id) => self.databases.get(id),
            Touched::Container(db, id) => self.containers.get(&(db.clone(), id.clone())),
            Touched::Offer(rid) => self.offers.get(rid),
            Touched::Ranges => None,
        }
    }

    /// All but what was touched, before or after.
    fn without(&self, touched: &Touched, both: &[&Self]) -> Self {
        let mut rest = self.clone();
        let mut gone = HashSet::new();
        match touched {
            Touched::Ranges => rest.ranges.clear(),
            Touched::Offer(rid) => drop(rest.offers.remove(rid)),
            Touched::Database(id) => {
                rest.databases.remove(id);
                rest.containers.retain(|(db, _), _| db != id);
                for books in both {
                    let own = books.databases.get(id).into_iter();
                    let inner = books.containers.iter().filter(|((db, _), _)| db == id);
                    let all = own.chain(inner.map(|(_, container)| container));
                    gone.extend(all.map(|one| one["_rid"].to_string()));
                }
            }
            Touched::Container(db, id) => {
                let place = (db.clone(), id.clone());
                rest.containers.remove(&place);
                for books in both {
                    let own = books.containers.get(&place);
                    gone.extend(own.map(|one| one["_rid"].to_string()));
                }
            }
        }
        rest.offers
            .retain(|_, offer| !gone.contains(&offer["offerResourceId"].to_string()));
        rest
    }

    /// Offers belong to something, containers have throughput, ranges tile the keys.
    fn check(&self) {
        for rid in self.offers.keys() {
            let mut all = self.databases.values().chain(self.containers.values());
            assert!(
                all.any(|one| one["_rid"] == **rid),
                "an offer of nothing: {rid}"
            );
        }
        for ((db, id), container) in &self.containers {
            let rids = [&container["_rid"], &self.databases[db]["_rid"]];
            let has_offer = rids
                .iter()
                .any(|rid| self.offers.contains_key(rid.as_str().expect("a rid")));
            assert!(has_offer, "{db}/{id} has no throughput");
        }
        let mut end = json!("");
        for range in &self.ranges {
            assert_eq!(range["minInclusive"], end);
            end = range["maxExclusive"].clone();
        }
        assert_eq!(end, "FF");
    }
}
