//! One of the two servers, driven by a script through the SDK.

use std::collections::HashMap;

use azure_data_cosmos::{CosmosClient, CosmosError};
use serde_json::Value;
use tidefeed_emulator::Emulator;

use crate::Fallible;
use crate::container::Container;
use crate::keys::Shape;
use crate::oracle::Oracle;
use crate::outcome::{Note, Outcome};
use crate::raw::Raw;
use crate::script::{Action, Operation};

/// How partitions of a server are reshaped.
pub enum Server {
    Ours(Emulator),
    Oracle(Oracle),
}

/// A server and a client for it.
pub struct Side {
    pub server: Server,
    pub client: CosmosClient,
}

/// A script's containers in a server.
pub struct Session<'a> {
    side: &'a Side,
    database: String,
    containers: HashMap<Shape, Container>,
}

impl<'a> Session<'a> {
    /// Creates a database with a container of each shape.
    pub async fn open(side: &'a Side, database: String) -> Fallible<Self> {
        side.client.create_database(&database, None).await?;
        let owner = side.client.database_client(database.clone());
        let mut containers = HashMap::new();
        for shape in Shape::ALL {
            owner.create_container(shape.properties(), None).await?;
            let client = owner.container_client(shape.name(), None).await?;
            containers.insert(*shape, Container::new(client, *shape).await?);
        }
        Ok(Self {
            side,
            database,
            containers,
        })
    }

    /// Deletes the database.
    pub async fn close(self) -> Fallible {
        let owner = self.side.client.database_client(self.database.clone());
        owner.delete(None).await?;
        Ok(())
    }

    /// Carries out an operation, the `step`-th of its script. An error of the SDK is an outcome, any other is not.
    pub async fn perform(&mut self, step: usize, operation: &Operation) -> Fallible<Outcome> {
        match self.attempt(step, operation).await {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                let error = error.downcast::<CosmosError>()?;
                Ok(failed(&error))
            }
        }
    }

    async fn attempt(&mut self, step: usize, operation: &Operation) -> Fallible<Outcome> {
        if let Action::Split(ordinal) = operation.action {
            return self.split(operation.shape, ordinal).await;
        }
        let container = self
            .containers
            .get_mut(&operation.shape)
            .ok_or("no container")?;
        match &operation.action {
            Action::Write(write) => container.write(write, step).await,
            Action::Read {
                key,
                id,
                if_none_match,
            } => container.read(*key, id, *if_none_match, step).await,
            Action::Delete { key, id, if_match } => container.delete(*key, id, *if_match).await,
            Action::Batch { key, steps } => container.batch(*key, steps, step).await,
            Action::Query { scope, query, page } => container.query(*scope, query, *page).await,
            Action::Follow {
                scope,
                start,
                page,
                pages,
            } => container.follow((*scope, *start), *page, *pages).await,
            Action::Odd(odd) => container.odd(*odd).await,
            Action::Ranges => container.bounds().await,
            Action::Split(_) => Err("handled above".into()),
        }
    }

    async fn split(&mut self, shape: Shape, ordinal: usize) -> Fallible<Outcome> {
        let container = self.containers.get_mut(&shape).ok_or("no container")?;
        let place = ordinal % container.partitions.len();
        let partition = container.partitions[place];
        let children = match &self.side.server {
            Server::Oracle(oracle) => {
                oracle
                    .split(&self.database, shape.name(), partition)
                    .await?
            }
            Server::Ours(emulator) => split_ours(emulator, &self.database, shape, partition)?,
        };
        container.partitions.splice(place..=place, children);
        Ok(Outcome::Reshaped)
    }
}

/// Splits a partition of the server under test through its control endpoint.
fn split_ours(
    emulator: &Emulator,
    database: &str,
    shape: Shape,
    partition: u32,
) -> Fallible<Vec<u32>> {
    let path = format!(
        "/_emulator/dbs/{database}/colls/{}/ranges/{partition}/split",
        shape.name()
    );
    let reply = Raw::connect(emulator)?.send("POST", &path, &[], b"")?;
    if !(200..300).contains(&reply.status) {
        return Err(format!("{path}: {} {}", reply.status, reply.text()).into());
    }
    let children = reply.json()["children"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let number = |child: &Value| child.as_str().and_then(|id| id.parse().ok());
    let children: Vec<u32> = children.iter().filter_map(number).collect();
    if children.len() != 2 {
        return Err(format!("{path}: two children expected: {}", reply.text()).into());
    }
    Ok(children)
}

fn failed(error: &CosmosError) -> Outcome {
    let status = error.status();
    Outcome::Failed {
        status: u16::from(status.status_code()),
        sub: status.sub_status().map_or(0, |sub| sub.value()),
        text: Note(error.to_string()),
    }
}
