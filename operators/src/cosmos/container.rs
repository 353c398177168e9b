//! A container: opened or created, with its partition key checked.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::{
    ContainerProperties, PartitionKeyDefinition, ThroughputProperties,
};
use azure_data_cosmos::options::CreateContainerOptions;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::account::Account;
use super::backoff::BackoffConfig;
use super::failure::Failure;
use super::partition_key::PartitionKeyPaths;
use super::retry::Retry;
use super::status::Disposition;

/// A container as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// The database's name.
    pub database: String,
    /// The container's name.
    pub container: String,
    /// One to three paths, for example `["/origin"]`. Cannot be changed once the container exists.
    pub partition_key: Vec<String>,
    /// Request units per second to create the container with. Default none, which leaves it to the account: serverless, or
    /// the database's shared throughput, or 400. An existing container keeps what it has.
    #[serde(default)]
    pub throughput_ru: Option<NonZeroU32>,
}

impl ContainerSpec {
    /// A container with one partition key path and the account's own throughput.
    pub fn new(
        database: impl Into<String>,
        container: impl Into<String>,
        partition_key: impl Into<String>,
    ) -> Self {
        ContainerSpec {
            database: database.into(),
            container: container.into(),
            partition_key: vec![partition_key.into()],
            throughput_ru: None,
        }
    }

    /// Checks names and paths.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the field.
    pub fn validate(&self) -> Result<()> {
        for (field, name) in [("database", &self.database), ("container", &self.container)] {
            if name.is_empty() || name.contains(['/', '\\', '?', '#']) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "{field} {name:?} is not a possible name: it must not be empty or contain / \\ ? #"
                    ),
                ));
            }
        }
        PartitionKeyPaths::new(self.partition_key.clone()).map(drop)
    }
}

/// An existing container. Clones share everything.
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

struct Inner {
    account: Account,
    client: ContainerClient,
    database: String,
    name: String,
    keys: PartitionKeyPaths,
    definition: PartitionKeyDefinition,
}

impl Container {
    /// Opens a container that exists.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] naming the database or the container; [`ErrorKind::Denied`]; [`ErrorKind::Unreachable`].
    pub async fn open(account: &Account, database: &str, container: &str) -> Result<Container> {
        match Self::find(account, database, container).await? {
            Some(found) => Ok(found),
            None if !database_exists(account, database).await? => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "database {database} does not exist in {}: create it or correct its name",
                    account.endpoint()
                ),
            )),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "container {database}/{container} does not exist in {}: create it or correct its name",
                    account.endpoint()
                ),
            )),
        }
    }

    /// Opens a container, and creates it and its database first if they do not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the container exists with another partition key, naming both, or when the specification
    /// is malformed; otherwise as [`open`](Self::open).
    pub async fn create_if_absent(account: &Account, spec: &ContainerSpec) -> Result<Container> {
        spec.validate()?;
        if let Some(found) = Self::find(account, &spec.database, &spec.container).await? {
            found.check_partition_key(spec)?;
            return Ok(found);
        }
        create_database(account, &spec.database).await?;
        create_container(account, spec).await?;
        // Another run may have created it in between, with another key: what exists counts.
        Self::open_as(account, spec).await
    }

    /// Opens a container that exists and is to have this partition key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when its partition key is another, naming both; otherwise as [`open`](Self::open).
    pub async fn open_as(account: &Account, spec: &ContainerSpec) -> Result<Container> {
        spec.validate()?;
        let found = Self::open(account, &spec.database, &spec.container).await?;
        found.check_partition_key(spec)?;
        Ok(found)
    }

    async fn find(account: &Account, database: &str, name: &str) -> Result<Option<Container>> {
        let what = format!("opening container {database}/{name}");
        let answer = account
            .control(&what, || async {
                let client = account
                    .client()
                    .database_client(database.to_owned())
                    .container_client(name.to_owned(), None)
                    .await?;
                let properties: ContainerProperties = client.read(None).await?.into_model()?;
                Ok((client, properties))
            })
            .await?;
        let (client, properties) = match answer {
            Ok(found) => found,
            Err(failure) if is_missing(&failure) => return Ok(None),
            Err(failure) => return Err(failure.into_error(format!("{what} failed"))),
        };
        let paths = properties
            .partition_key
            .paths()
            .iter()
            .map(|path| path.to_string())
            .collect();
        Ok(Some(Container {
            inner: Arc::new(Inner {
                account: account.clone(),
                client,
                database: database.to_owned(),
                name: name.to_owned(),
                keys: PartitionKeyPaths::new(paths)?,
                definition: properties.partition_key,
            }),
        }))
    }

    fn check_partition_key(&self, spec: &ContainerSpec) -> Result<()> {
        if self.partition_key_paths() == spec.partition_key {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "container {self} is partitioned by {}, not by {}: configure its real key, or another container",
                self.partition_key_paths().join(", "),
                spec.partition_key.join(", ")
            ),
        ))
    }

    /// The paths of the partition key.
    pub fn partition_key_paths(&self) -> &[String] {
        self.inner.keys.paths()
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.inner.database
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn client(&self) -> &ContainerClient {
        &self.inner.client
    }

    pub(crate) fn account(&self) -> &Account {
        &self.inner.account
    }

    pub(crate) fn partition_key_definition(&self) -> &PartitionKeyDefinition {
        &self.inner.definition
    }

    pub(crate) fn keys(&self) -> &PartitionKeyPaths {
        &self.inner.keys
    }

    /// Writes one document, as a data loader does. Passing faults are retried without limit.
    ///
    /// `partition_key` is a JSON array such as `["EWR"]`.
    ///
    /// # Errors
    /// What no retry can mend: [`ErrorKind::Rejected`], [`ErrorKind::Denied`], [`ErrorKind::NotFound`].
    pub async fn upsert(
        &self,
        partition_key: &str,
        id: &str,
        document: &impl Serialize,
    ) -> Result<()> {
        let key = self.inner.keys.parse(partition_key)?;
        let body = serde_json::value::to_raw_value(document).context(ErrorKind::Data, || {
            format!("document {id} cannot be written as JSON")
        })?;
        let mut retry = Retry::new(BackoffConfig::default());
        loop {
            let sent = self
                .client()
                .upsert_item(key.clone(), id, &body, None)
                .await;
            let failure = match sent {
                Ok(_) => return Ok(()),
                Err(error) => Failure::of(&error),
            };
            if !failure.is_passing() {
                return Err(failure.into_error(format!("cannot write document {id} to {self}")));
            }
            tokio::time::sleep(retry.wait_after(&failure, self)).await;
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.inner.database, self.inner.name)
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Container({self}, {:?})", self.partition_key_paths())
    }
}

fn is_missing(failure: &Failure) -> bool {
    matches!(
        failure.disposition,
        Disposition::NoDocument | Disposition::NoContainer
    )
}

fn already_exists(failure: &Failure) -> bool {
    failure.status == 409
}

async fn database_exists(account: &Account, database: &str) -> Result<bool> {
    let what = format!("reading database {database}");
    let answer = account
        .control(&what, || async {
            account
                .client()
                .database_client(database.to_owned())
                .read(None)
                .await
                .map(drop)
        })
        .await?;
    match answer {
        Ok(()) => Ok(true),
        Err(failure) if is_missing(&failure) => Ok(false),
        Err(failure) => Err(failure.into_error(format!("{what} failed"))),
    }
}

async fn create_database(account: &Account, database: &str) -> Result<()> {
    if database_exists(account, database).await? {
        return Ok(());
    }
    let what = format!("creating database {database}");
    let answer = account
        .control(&what, || async {
            account
                .client()
                .create_database(database, None)
                .await
                .map(drop)
        })
        .await?;
    match answer {
        Err(failure) if !already_exists(&failure) => {
            Err(failure.into_error(format!("{what} failed")))
        }
        _ => Ok(()),
    }
}

async fn create_container(account: &Account, spec: &ContainerSpec) -> Result<()> {
    let what = format!("creating container {}/{}", spec.database, spec.container);
    let paths = spec.partition_key.iter().cloned().map(Cow::Owned).collect();
    let properties =
        ContainerProperties::new(spec.container.clone(), PartitionKeyDefinition::new(paths));
    let options = spec.throughput_ru.map(|ru| {
        CreateContainerOptions::default()
            .with_throughput(ThroughputProperties::manual(u64::from(ru.get())))
    });
    let answer = account
        .control(&what, || async {
            account
                .client()
                .database_client(spec.database.clone())
                .create_container(properties.clone(), options.clone())
                .await
                .map(drop)
        })
        .await?;
    match answer {
        Err(failure) if !already_exists(&failure) => {
            Err(failure.into_error(format!("{what} failed")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_and_keys_are_refused() {
        ContainerSpec::new("flights", "live", "/origin")
            .validate()
            .unwrap();
        for spec in [
            ContainerSpec::new("", "live", "/origin"),
            ContainerSpec::new("flights", "a/b", "/origin"),
            ContainerSpec::new("flights", "live", "origin"),
        ] {
            assert_eq!(spec.validate().unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
