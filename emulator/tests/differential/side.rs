//! One of the two servers, driven by a script through the SDK.

use std::collections::HashMap;

use azure_data_cosmos::{CosmosClient, CosmosError};
use tidefeed_emulator::Emulator;

use crate::Fallible;
use crate::container::Container;
use crate::keys::Shape;
use crate::oracle::Oracle;
use crate::outcome::{Note, Outcome};
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
        match operation.action {
            Action::Split(ordinal) => return self.split(operation.shape, ordinal).await,
            Action::Merge(ordinal) => return self.merge(operation.shape, ordinal).await,
            _ => {}
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
            } => {
                container
                    .follow((*scope, *start), *page, *pages, step)
                    .await
            }
            Action::Odd(odd) => container.odd(*odd).await,
            Action::Ranges => container.bounds().await,
            Action::Split(_) | Action::Merge(_) => Err("handled above".into()),
        }
    }

    async fn split(&mut self, shape: Shape, ordinal: usize) -> Fallible<Outcome> {
        let container = self.containers.get_mut(&shape).ok_or("no container")?;
        let place = ordinal % container.partitions.len();
        let partition = container.partitions[place];
        let children = match &self.side.server {
            Server::Ours(emulator) => {
                Vec::from(emulator.split(&self.database, shape.name(), partition)?)
            }
            Server::Oracle(oracle) => {
                oracle
                    .split(&self.database, shape.name(), partition)
                    .await?
            }
        };
        container.reshaped(place..=place, children);
        Ok(Outcome::Reshaped)
    }

    async fn merge(&mut self, shape: Shape, ordinal: usize) -> Fallible<Outcome> {
        let container = self.containers.get_mut(&shape).ok_or("no container")?;
        if container.partitions.len() < 2 {
            return Ok(Outcome::Reshaped);
        }
        let left = ordinal % (container.partitions.len() - 1);
        let (a, b) = (container.partitions[left], container.partitions[left + 1]);
        let child = match &self.side.server {
            Server::Ours(emulator) => emulator.merge(&self.database, shape.name(), [a, b])?,
            Server::Oracle(oracle) => oracle.merge(&self.database, shape.name(), a, b).await?,
        };
        container.reshaped(left..=left + 1, vec![child]);
        container.merged();
        Ok(Outcome::Reshaped)
    }
}

fn failed(error: &CosmosError) -> Outcome {
    let status = error.status();
    Outcome::Failed {
        status: u16::from(status.status_code()),
        sub: status.sub_status().map_or(0, |sub| sub.value()),
        text: Note(error.to_string()),
    }
}
