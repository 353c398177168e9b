//! A container: opened or created, and compared with what it should be.

use std::fmt;
use std::sync::{Arc, OnceLock};

use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::{ContainerProperties, PartitionKeyDefinition};
use serde::Serialize;
use tidefeed_runtime::{Context, Error, ErrorKind, Fence, Result};
use tokio::sync::OnceCell;

use super::account::Account;
use super::driver::FeedClient;
use super::failure::Failure;
use super::indexing::advice;
use super::partition_key::PartitionKeyPaths;
use super::point::send;
use super::provision::{
    self, ContainerSpec, Provisioned, check_partition_key, differences, throughput_of,
};
use super::status::Disposition;

/// An existing container. Clones share everything.
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

struct Inner {
    account: Account,
    client: ContainerClient,
    /// Made when a change feed is read for the first time.
    feed_client: OnceCell<FeedClient>,
    database: String,
    name: String,
    keys: PartitionKeyPaths,
    properties: ContainerProperties,
    advised: OnceLock<()>,
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

    /// Opens a container, and creates it and its database first if they do not exist. Safe beside others that do the same. One
    /// that exists is left as it is; see the fields of [`ContainerSpec`] for what is compared.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the container exists with another partition key, naming both, or when the specification
    /// is malformed; otherwise as [`open`](Self::open).
    pub async fn create_if_absent(account: &Account, spec: &ContainerSpec) -> Result<Container> {
        spec.validate()?;
        let found = match Self::find(account, &spec.database, &spec.container).await? {
            Some(found) => found,
            None => {
                provision::create(account, spec).await?;
                Self::open(account, &spec.database, &spec.container).await?
            }
        };
        // Also of what was just created: another run may have been faster, and what exists counts.
        found.check(account, spec).await?;
        Ok(found)
    }

    /// Opens a container that exists and is to be like this.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when its partition key is another, naming both; otherwise as [`open`](Self::open).
    pub async fn open_as(account: &Account, spec: &ContainerSpec) -> Result<Container> {
        spec.validate()?;
        let found = Self::open(account, &spec.database, &spec.container).await?;
        found.check(account, spec).await?;
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
                feed_client: OnceCell::new(),
                database: database.to_owned(),
                name: name.to_owned(),
                keys: PartitionKeyPaths::new(paths)?,
                properties,
                advised: OnceLock::new(),
            }),
        }))
    }

    /// The partition key must be the one asked for; any other difference is one warning.
    async fn check(&self, account: &Account, spec: &ContainerSpec) -> Result<()> {
        check_partition_key(spec, self.partition_key_paths())?;
        let provisioned = match spec.throughput_ru {
            Some(_) => {
                let what = format!("reading the throughput of {self}");
                throughput_of(account, self.client(), &what).await?
            }
            None => Provisioned::Unknown,
        };
        if let Some(differences) = differences(spec, self.properties(), provisioned) {
            tracing::warn!(
                event = "container_differs",
                container = %self,
                "container {self} is left as it is: {differences}"
            );
        }
        Ok(())
    }

    /// Logs once for all clones whether the container's indexing policy makes writes of documents like `sample` dear.
    pub fn advise(&self, sample: &[u8]) {
        self.inner.advised.get_or_init(|| {
            let policy = self.properties().indexing_policy.as_ref();
            let hint = policy
                .zip(serde_json::from_slice(sample).ok())
                .and_then(|(policy, sample)| advice(policy, &sample));
            if let Some(hint) = hint {
                tracing::info!(event = "container_advice", container = %self, "container {self}: {hint}");
            }
        });
    }

    /// Whether [`advise`](Self::advise) has been asked.
    pub(crate) fn is_advised(&self) -> bool {
        self.inner.advised.get().is_some()
    }

    /// What the container was when it was opened.
    pub(crate) fn properties(&self) -> &ContainerProperties {
        &self.inner.properties
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

    /// For its change feed.
    ///
    /// # Errors
    /// When the container cannot be reached; the next call tries again.
    pub(crate) async fn feed_client(&self) -> Result<&FeedClient, Failure> {
        let Inner {
            account,
            database,
            name,
            ..
        } = self.inner.as_ref();
        let open = || async {
            let driver = account.driver().await?;
            FeedClient::open(driver, database, name).await
        };
        let client = self.inner.feed_client.get_or_try_init(open).await;
        client.map_err(|error| Failure::of(&error))
    }

    pub(crate) fn account(&self) -> &Account {
        &self.inner.account
    }

    pub(crate) fn partition_key_definition(&self) -> &PartitionKeyDefinition {
        &self.inner.properties.partition_key
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
        let write = || self.client().upsert_item(key.clone(), id, &body, None);
        let written = send(self, &Fence::unlimited(), write).await?;
        let failed = || format!("cannot write document {id} to {self}");
        written
            .map(drop)
            .map_err(|failure| failure.into_error(failed()))
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
