//! The throughput of an embedded server, from outside: what was used, and what there is.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Outcome;
use crate::documents::DATABASE;
use crate::raw_http::RawClient;
use crate::server::ServerProcess;

/// One container of a server.
pub struct Control {
    client: RawClient,
    container: String,
}

/// A physical partition, as the server counts it.
#[derive(Clone, Debug, Deserialize)]
pub struct Partition {
    /// Partition key range id.
    pub id: u32,
    /// First of the hashes that belong to it, in hexadecimal digits.
    pub min: String,
    /// Documents in it.
    pub documents: u64,
    /// Request units that were used since the server started.
    pub request_units: f64,
}

impl Control {
    /// Of a container that exists.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn connect(server: &ServerProcess, container: &str) -> Outcome<Self> {
        Ok(Control {
            client: RawClient::connect(server)?,
            container: format!("/dbs/{DATABASE}/colls/{container}"),
        })
    }

    /// The partitions in the order of their hashes, and when they were looked at.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn partitions(&mut self) -> Outcome<(Instant, Vec<Partition>)> {
        #[derive(Deserialize)]
        struct Container {
            partitions: Vec<Partition>,
        }
        let path = format!("/_emulator{}", self.container);
        let reply = self.client.send("GET", &path, &[], &[])?;
        let at = Instant::now();
        reply.expect(&[200])?;
        let container: Container = serde_json::from_slice(&reply.body)?;
        Ok((at, container.partitions))
    }

    /// Gives the container so many request units per second. They are there when this returns.
    ///
    /// # Errors
    /// When the server refuses, or the container has no throughput of its own.
    pub fn provision(&mut self, ru_per_s: u32) -> Outcome {
        let container = self.client.send("GET", &self.container, &[], &[])?;
        container.expect(&[200])?;
        let container: Value = serde_json::from_slice(&container.body)?;
        let offers = self.client.send("GET", "/offers", &[], &[])?;
        offers.expect(&[200])?;
        let offers: Value = serde_json::from_slice(&offers.body)?;
        let offers = offers["Offers"].as_array().ok_or("no offers")?;
        let own = |offer: &&Value| offer["offerResourceId"] == container["_rid"];
        let mut offer = offers.iter().find(own).ok_or("no offer")?.clone();
        offer["content"] = json!({"offerThroughput": ru_per_s});
        let path = format!("/offers/{}", offer["id"].as_str().unwrap_or_default());
        let body = offer.to_string();
        let reply = self.client.send("PUT", &path, &[], body.as_bytes())?;
        reply.expect(&[200])
    }

    /// Limits one partition in place of its share of the container's throughput.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn limit(&mut self, partition: u32, ru_per_s: f64) -> Outcome {
        let path = format!("/_emulator{}/ranges/{partition}/throughput", self.container);
        let body = json!({"ru_per_s": ru_per_s}).to_string();
        let reply = self.client.send("PUT", &path, &[], body.as_bytes())?;
        reply.expect(&[204])
    }
}
