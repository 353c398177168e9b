//! A container as it should be: created if it is not there, compared if it is.
//!
//! - Creating is idempotent. Whoever comes second, after another run or after a lost answer of its own, finds the
//!   container there, and what is there counts.
//! - An existing container is never changed. Another partition key is an error, because nothing could be written; any
//!   other difference is one warning that names what is and what was asked for.
//! - Only what a specification says is compared. What it leaves out is the account's choice.
//!
//! Limits: creating a container, and reading its throughput, need rights over the account that a role for data does not give.
//! Without them a missing container is an error, and the throughput of an existing one is not compared.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;

use azure_data_cosmos::CosmosError;
use azure_data_cosmos::clients::ContainerClient;
use azure_data_cosmos::models::{
    ContainerProperties, PartitionKeyDefinition, ThroughputProperties, TimeToLive,
};
use azure_data_cosmos::options::CreateContainerOptions;
use serde::Deserialize;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::account::Account;
use super::indexing::Indexing;
use super::partition_key::PartitionKeyPaths;

/// A container as it should be.
///
/// ```
/// use tidefeed_operators::cosmos::{ContainerSpec, Throughput};
///
/// let spec = ContainerSpec {
///     partition_key: vec!["/tenant".into(), "/user".into()],
///     throughput_ru: Some(Throughput::Autoscale(4000)),
///     ..ContainerSpec::new("shop", "orders", "/tenant")
/// };
/// spec.validate()?;
/// # Ok::<(), tidefeed_runtime::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// The database's name.
    pub database: String,
    /// The container's name.
    pub container: String,
    /// One to three paths, for example `["/origin"]`; with two or three the key is hierarchical. Cannot be changed once the
    /// container exists.
    pub partition_key: Vec<String>,
    /// Request units per second. Default none, which leaves it to the account: serverless, or the database's shared
    /// throughput, or 400.
    #[serde(default)]
    pub throughput_ru: Option<Throughput>,
    /// When documents expire. Default none: never, whatever they say themselves.
    #[serde(default)]
    pub default_ttl: Option<DefaultTtl>,
    /// What of a document is indexed. Default none, which leaves it to the service: everything.
    #[serde(default)]
    pub indexing: Option<Indexing>,
}

/// Request units per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Throughput {
    /// So many at any time: 400 to 1,000,000 in steps of 100, the service's limits.
    Manual(u32),
    /// Up to so many, and a tenth of them at least: 1,000 to 1,000,000 in steps of 1,000, the service's limits.
    Autoscale(u32),
}

/// When documents expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultTtl {
    /// Only those that have a `ttl` of their own, in seconds.
    PerDocument,
    /// So many seconds after their last write, unless they have a `ttl` of their own; 1 to 2147483647. A view does not know of
    /// it: what has expired stays in the view, and is written again when its row changes or the sink is rebuilt.
    Seconds(u32),
}

/// Most request units per second of a container, unless the account's limits were raised.
const MAX_THROUGHPUT_RU: u32 = 1_000_000;

impl Throughput {
    fn validate(self) -> Result<()> {
        let (kind, ru, least, step) = match self {
            Throughput::Manual(ru) => ("manual", ru, 400, 100),
            Throughput::Autoscale(ru) => ("autoscale", ru, 1000, 1000),
        };
        if (least..=MAX_THROUGHPUT_RU).contains(&ru) && ru % step == 0 {
            return Ok(());
        }
        Err(config(format!(
            "throughput_ru.{kind} is {ru}: it must be {least} to {MAX_THROUGHPUT_RU} RU/s in steps of {step}"
        )))
    }

    fn properties(self) -> ThroughputProperties {
        match self {
            Throughput::Manual(ru) => ThroughputProperties::manual(ru.into()),
            Throughput::Autoscale(ru) => ThroughputProperties::autoscale(ru.into(), None),
        }
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Throughput::Manual(ru) => write!(f, "{ru} RU/s"),
            Throughput::Autoscale(ru) => write!(f, "autoscale up to {ru} RU/s"),
        }
    }
}

impl DefaultTtl {
    fn validate(self) -> Result<()> {
        match self {
            DefaultTtl::Seconds(seconds) if !(1..=i32::MAX as u32).contains(&seconds) => {
                Err(config(format!(
                    "default_ttl.seconds is {seconds}: it must be 1 to {}",
                    i32::MAX
                )))
            }
            _ => Ok(()),
        }
    }

    fn time_to_live(self) -> TimeToLive {
        match self {
            DefaultTtl::PerDocument => TimeToLive::NoDefault,
            DefaultTtl::Seconds(seconds) => TimeToLive::Seconds(seconds),
        }
    }
}

impl ContainerSpec {
    /// A container with one partition key path, and what the account gives for the rest.
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
            default_ttl: None,
            indexing: None,
        }
    }

    /// Checks everything against the service's limits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the field.
    pub fn validate(&self) -> Result<()> {
        for (field, name) in [("database", &self.database), ("container", &self.container)] {
            if name.is_empty() || name.contains(['/', '\\', '?', '#']) {
                return Err(config(format!(
                    "{field} {name:?} is not a possible name: it must not be empty or contain / \\ ? #"
                )));
            }
        }
        PartitionKeyPaths::new(self.partition_key.clone())?;
        for (at, path) in self.partition_key.iter().enumerate() {
            if self.partition_key[..at].contains(path) {
                return Err(config(format!(
                    "partition_key names {path} twice: name each level once"
                )));
            }
        }
        if let Some(throughput) = self.throughput_ru {
            throughput.validate()?;
        }
        if let Some(ttl) = self.default_ttl {
            ttl.validate()?;
        }
        if let Some(indexing) = &self.indexing {
            indexing.validate()?;
        }
        if self.default_ttl.is_some() && self.indexing == Some(Indexing::None) {
            return Err(config(
                "default_ttl needs an index and indexing is \"none\": exclude the path \"/*\" instead, which indexes nothing else",
            ));
        }
        Ok(())
    }

    fn properties(&self) -> ContainerProperties {
        let paths = self.partition_key.iter().cloned().map(Cow::Owned).collect();
        // More than one path makes it hierarchical.
        let key = PartitionKeyDefinition::new(paths);
        let mut properties = ContainerProperties::new(self.container.clone(), key);
        if let Some(ttl) = self.default_ttl {
            properties = properties.with_default_ttl(ttl.time_to_live());
        }
        if let Some(indexing) = &self.indexing {
            properties = properties.with_indexing_policy(indexing.policy());
        }
        properties
    }
}

/// What a container has been given, as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provisioned {
    /// Nobody asked, or we may not know.
    Unknown,
    /// It has none of its own: it shares its database's, or the account is serverless.
    NoneOfItsOwn,
    Own(Throughput),
}

/// How the container differs from what the specification asks for; `None` if it does not. The partition key is not part of
/// this: see [`check_partition_key`].
pub(crate) fn differences(
    spec: &ContainerSpec,
    found: &ContainerProperties,
    provisioned: Provisioned,
) -> Option<String> {
    let mut differences = Vec::new();
    let mut differs = |field: &str, is: String, asked: String| {
        differences.push(format!("{field} is {is} and not {asked}"));
    };
    if let Some(asked) = spec.throughput_ru {
        match provisioned {
            Provisioned::Own(own) if own != asked => {
                differs("throughput_ru", own.to_string(), asked.to_string());
            }
            Provisioned::NoneOfItsOwn => {
                let is = "none of its own".to_owned();
                differs("throughput_ru", is, asked.to_string());
            }
            Provisioned::Own(_) | Provisioned::Unknown => {}
        }
    }
    let asked = spec.default_ttl.map(DefaultTtl::time_to_live);
    if let Some(asked) = asked.filter(|asked| *asked != found.default_ttl) {
        differs(
            "default_ttl",
            ttl_text(&found.default_ttl),
            ttl_text(&asked),
        );
    }
    let policy = found.indexing_policy.as_ref();
    if let (Some(asked), Some(policy)) = (&spec.indexing, policy)
        && !asked.is_in(policy)
    {
        differs(
            "indexing",
            Indexing::of(policy).to_string(),
            asked.to_string(),
        );
    }
    (!differences.is_empty()).then(|| differences.join("; "))
}

fn ttl_text(ttl: &TimeToLive) -> String {
    match ttl {
        TimeToLive::Seconds(seconds) => format!("{seconds} s"),
        TimeToLive::NoDefault => "per document".to_owned(),
        _ => "off".to_owned(),
    }
}

/// # Errors
/// [`ErrorKind::Config`] when the container's partition key is not the one asked for, naming both.
pub(crate) fn check_partition_key(spec: &ContainerSpec, found: &[String]) -> Result<()> {
    if found == spec.partition_key {
        return Ok(());
    }
    Err(config(format!(
        "container {}/{} is partitioned by {}, not by {}: configure its real key, or another container",
        spec.database,
        spec.container,
        found.join(", "),
        spec.partition_key.join(", ")
    )))
}

/// Creates the container, and its database first, as far as they are not there.
pub(crate) async fn create(account: &Account, spec: &ContainerSpec) -> Result<()> {
    let client = account.client();
    let database = &spec.database;
    unless_there(account, &format!("creating database {database}"), || {
        client.create_database(database, None)
    })
    .await?;
    let properties = spec.properties();
    let options = spec.throughput_ru.map(|throughput| {
        CreateContainerOptions::default().with_throughput(throughput.properties())
    });
    let what = format!("creating container {database}/{}", spec.container);
    unless_there(account, &what, || async {
        client
            .database_client(database.clone())
            .create_container(properties.clone(), options.clone())
            .await
    })
    .await
}

/// Creates something. That it exists already is as good: another run was faster, or our own first try came through.
async fn unless_there<T, F>(
    account: &Account,
    what: &str,
    mut create: impl FnMut() -> F,
) -> Result<()>
where
    F: Future<Output = std::result::Result<T, CosmosError>>,
{
    match account.control(what, &mut create).await? {
        Err(failure) if failure.status != 409 => Err(failure.into_error(format!("{what} failed"))),
        _ => Ok(()),
    }
}

/// The throughput of an existing container.
///
/// # Errors
/// When the account does not answer. That we may not know is no error.
pub(crate) async fn throughput_of(
    account: &Account,
    client: &ContainerClient,
    what: &str,
) -> Result<Provisioned> {
    let answer = account.control(what, || client.read_throughput(None)).await;
    let properties = match answer {
        Ok(Ok(properties)) => properties,
        Ok(Err(failure)) => {
            tracing::debug!(what, cause = %failure.message, "the throughput is not known");
            return Ok(Provisioned::Unknown);
        }
        Err(error) if error.kind() == ErrorKind::Denied => {
            tracing::debug!(what, cause = %error.report(), "the throughput is not known");
            return Ok(Provisioned::Unknown);
        }
        Err(error) => return Err(error),
    };
    Ok(properties.map_or(Provisioned::NoneOfItsOwn, |properties| own(&properties)))
}

fn own(properties: &ThroughputProperties) -> Provisioned {
    // An offer that scales by itself also says where it is just now.
    let autoscale = properties.autoscale_maximum().map(|ru| (ru, true));
    let found = autoscale.or(properties.throughput().map(|ru| (ru, false)));
    match found.and_then(|(ru, scales)| Some((u32::try_from(ru).ok()?, scales))) {
        Some((ru, true)) => Provisioned::Own(Throughput::Autoscale(ru)),
        Some((ru, false)) => Provisioned::Own(Throughput::Manual(ru)),
        None => Provisioned::Unknown,
    }
}

fn config(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, context)
}

#[cfg(test)]
mod tests;
