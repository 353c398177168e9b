//! Random changes of orders, and the orders that are left: the model of the source container.

use std::collections::BTreeMap;

use crate::views::{Contents, Order, OrderDocument, recompute};

/// Orders that ever exist at once. Few enough that most changes meet an order that is there.
const ORDERS: u32 = 400;
const REGIONS: u8 = 7;
const CUSTOMERS: u8 = 12;

/// The source container as it should be.
///
/// The feed carries no deletes, so that a deleted order is a document that says so. A document's region is its partition key:
/// an order that moves to another one is a new document there, and a deleted one where it was.
pub struct Orders {
    random: fastrand::Rng,
    /// By region and id.
    documents: BTreeMap<(String, String), OrderDocument>,
    /// The region of each order that is not deleted, by id.
    regions: BTreeMap<String, String>,
}

impl Orders {
    /// No orders yet; what comes is drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Orders {
            random: fastrand::Rng::with_seed(seed),
            documents: BTreeMap::new(),
            regions: BTreeMap::new(),
        }
    }

    /// Changes some orders. Returns the documents to write, each once, in no particular order.
    pub fn change(&mut self, changes: usize) -> Vec<OrderDocument> {
        let mut changed = BTreeMap::new();
        for _ in 0..changes {
            for document in self.change_one() {
                let key = (document.order.region.clone(), document.order.id.clone());
                self.documents.insert(key.clone(), document.clone());
                changed.insert(key, document);
            }
        }
        changed.into_values().collect()
    }

    /// A new order, another amount, another customer, another region, or a deletion.
    fn change_one(&mut self) -> Vec<OrderDocument> {
        let id = format!("o{}", self.random.u32(0..ORDERS));
        let there = self
            .regions
            .get(&id)
            .map(|region| (region.clone(), id.clone()));
        let Some(there) = there.and_then(|key| self.documents.get(&key).cloned()) else {
            return vec![self.place_order(id)];
        };
        let deleted = OrderDocument {
            deleted: true,
            ..there.clone()
        };
        let mut order = there.order;
        match self.random.u8(0..10) {
            0 | 1 => {
                self.regions.remove(&id);
                return vec![deleted];
            }
            2 => {
                let moved = self.place_order(id);
                let stays = moved.order.region == deleted.order.region;
                return if stays {
                    vec![moved]
                } else {
                    vec![deleted, moved]
                };
            }
            3 | 4 => order.customer = self.customer(),
            _ => order.cents = self.cents(),
        }
        vec![OrderDocument {
            order,
            deleted: false,
        }]
    }

    fn place_order(&mut self, id: String) -> OrderDocument {
        let region = format!("r{}", self.random.u8(0..REGIONS));
        self.regions.insert(id.clone(), region.clone());
        let order = Order {
            id,
            region,
            customer: self.customer(),
            cents: self.cents(),
        };
        OrderDocument {
            order,
            deleted: false,
        }
    }

    fn customer(&mut self) -> String {
        format!("c{}", self.random.u8(0..CUSTOMERS))
    }

    fn cents(&mut self) -> i64 {
        self.random.i64(1..1000)
    }

    /// What each view should hold.
    pub fn expected(&self) -> Contents {
        let live = self.documents.values().filter(|document| !document.deleted);
        recompute(live.map(|document| &document.order))
    }
}
