//! A container: its definition, its physical partitions and the counters behind its ids.

use parking_lot::RwLock;
use serde_json::{Value, json};

use super::document::Rendering;
use super::partition::Partition;
use crate::epk::{Epk, EpkRange};
use crate::ids::{self, Sequence};
use crate::partition_key::PartitionKeyDefinition;

/// One container of a database.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// Resource id as text.
    pub rid: String,
    /// `dbs/{rid}/colls/{rid}/`.
    pub self_link: String,
    /// `dbs/{name}/colls/{name}`, which some clients use to keep session tokens.
    pub name_link: String,
    /// How documents are placed.
    pub key: PartitionKeyDefinition,
    /// What documents share on output.
    pub rendering: Rendering,
    /// Numbers of documents.
    pub rids: Sequence,
    /// Numbers of entity tags.
    pub etags: Sequence,
    properties: RwLock<Value>,
    partitions: Vec<Partition>,
}

/// Where a container is created.
pub struct Site<'a> {
    /// Name of the database.
    pub database: &'a str,
    /// Resource id of the database.
    pub database_rid: [u8; 4],
    /// Number of the container in the account.
    pub number: u32,
    /// See [`Rendering::salt`].
    pub salt: u32,
    /// How many physical partitions it gets.
    pub partitions: usize,
    /// Seconds since 1970.
    pub now: u32,
}

impl Container {
    /// Creates a container from checked client properties.
    pub fn new(
        site: &Site<'_>,
        id: String,
        key: PartitionKeyDefinition,
        mut properties: Value,
    ) -> Self {
        let bytes = ids::container_rid(site.database_rid, site.number);
        let rid = ids::rid_text(&bytes);
        let self_link = format!("dbs/{}/colls/{rid}/", ids::rid_text(&site.database_rid));
        for (name, value) in [
            ("_rid", json!(rid)),
            ("_self", json!(self_link)),
            ("_docs", json!("docs/")),
            ("_sprocs", json!("sprocs/")),
            ("_triggers", json!("triggers/")),
            ("_udfs", json!("udfs/")),
            ("_conflicts", json!("conflicts/")),
        ] {
            properties[name] = value;
        }
        let partitions = EpkRange::split_evenly(site.partitions)
            .into_iter()
            .enumerate()
            .map(|(index, range)| Partition::new(index as u32, range))
            .collect();
        let container = Self {
            name_link: format!("dbs/{}/colls/{id}", site.database),
            rendering: Rendering {
                container_rid: bytes,
                self_prefix: format!("{self_link}docs/").into_boxed_str(),
                salt: site.salt,
            },
            id,
            rid,
            self_link,
            key,
            rids: Sequence::default(),
            etags: Sequence::default(),
            properties: RwLock::new(properties),
            partitions,
        };
        container.touch(site.now);
        container
    }

    /// The container as clients read it.
    pub fn properties(&self) -> Value {
        self.properties.read().clone()
    }

    /// Replaces the client's part of the properties.
    pub fn replace_properties(&self, mut properties: Value, now: u32) {
        {
            let mut current = self.properties.write();
            for name in [
                "_rid",
                "_self",
                "_docs",
                "_sprocs",
                "_triggers",
                "_udfs",
                "_conflicts",
            ] {
                properties[name] = current[name].take();
            }
            *current = properties;
        }
        self.touch(now);
    }

    fn touch(&self, now: u32) {
        let tag = ids::etag(self.rendering.salt, self.etags.next());
        let mut properties = self.properties.write();
        properties["_etag"] = json!(format!("\"{}\"", String::from_utf8_lossy(&tag)));
        properties["_ts"] = json!(now);
    }

    /// Tag of the partition map: it changes when partitions split or merge.
    pub fn map_etag(&self) -> String {
        format!("\"{}-{}\"", self.rid, self.partitions.len())
    }

    /// Physical partitions in key order.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The partition that owns `epk`.
    pub fn partition_of(&self, epk: &Epk) -> &Partition {
        let after = self
            .partitions
            .partition_point(|partition| epk.cmp_bound(&partition.range.min).is_ge());
        &self.partitions[after.saturating_sub(1)]
    }

    /// The partition with a partition key range id.
    pub fn partition_by_id(&self, id: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.id == id)
    }
}
