//! Sources and sinks in Azure Cosmos DB.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidefeed_operators::cosmos::{self as adapter, TokenCredential};
use tidefeed_operators::dead_letter::{DeadLetters, LetterBox, Redeliver};
use tidefeed_operators::feed::ChangeFeed;
use tidefeed_operators::progress::ProgressMarks;
use tidefeed_operators::target::Target;
use tidefeed_runtime::{Error, ErrorKind, Fence, Result};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::config::{
    AccountConfig, DeadLettersConfig, JobConfig, ProgressConfig, SinkConfig, SourceConfig,
};
use crate::connect::Connect;

/// The containers of the Cosmos DB accounts of a job. Each account is connected to when its first container is opened.
pub struct Cosmos {
    /// By name; the default account has none.
    accounts: BTreeMap<Option<String>, OneAccount>,
    /// By sink.
    classifiers: BTreeMap<String, adapter::Classifier>,
}

struct OneAccount {
    config: adapter::AccountConfig,
    /// Brought by the job's code.
    credential: Option<Arc<dyn TokenCredential>>,
    connected: OnceCell<adapter::Account>,
}

impl Cosmos {
    /// Every account that the configuration's containers are in, as whom that says; keys are in the environment or in files.
    ///
    /// # Errors
    /// `Config` when an account is not in the configuration, an endpoint is missing or malformed, or a key is not there.
    pub fn of_job(config: &JobConfig) -> Result<Self> {
        let used = config.containers();
        Self::of_accounts(config, used.iter().map(|used| used.account))
    }

    /// These accounts of the configuration.
    pub(crate) fn of_accounts<'a>(
        config: &JobConfig,
        names: impl Iterator<Item = Option<&'a str>>,
    ) -> Result<Self> {
        let mut accounts = BTreeMap::new();
        for name in names.collect::<BTreeSet<_>>() {
            let account = OneAccount::from_config(config.account_named(name)?);
            let account = account.map_err(|error| match name {
                Some(name) => error.wrap(format!("account {name}")),
                None => error,
            })?;
            accounts.insert(name.map(str::to_owned), account);
        }
        Ok(Cosmos {
            accounts,
            classifiers: BTreeMap::new(),
        })
    }

    /// The default account of a job's configuration, and no other, as whom that says; a key is in the environment or in a file.
    ///
    /// # Errors
    /// `Config` when the endpoint is missing or malformed, or the key is not there.
    pub fn from_config(config: &AccountConfig) -> Result<Self> {
        OneAccount::from_config(config).map(Self::of)
    }

    /// The default account of a job's configuration as a Microsoft Entra identity that the job's code brings;
    /// [`auth`](AccountConfig::auth) is not used.
    ///
    /// # Errors
    /// `Config` when the endpoint is missing.
    pub fn with_credential(
        config: &AccountConfig,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self> {
        Ok(Self::of(OneAccount::of(place(config)?, Some(credential))))
    }

    /// The account at `endpoint`, with its key.
    ///
    /// # Errors
    /// `Config` when the endpoint or the key is malformed.
    pub fn new(endpoint: &str, key: &str) -> Result<Self> {
        let config = adapter::AccountConfig::with_key(endpoint, key);
        config.validate()?;
        Ok(Self::of(OneAccount::of(config, None)))
    }

    /// The same, and the default account of `other` under this name, in place of what was known by it: for identities that the
    /// job's code brings.
    pub fn with_account(mut self, name: &str, mut other: Cosmos) -> Self {
        let default = other.accounts.remove(&None);
        self.accounts
            .extend(default.map(|account| (Some(name.to_owned()), account)));
        self
    }

    /// The same containers, with another table of what a status of the service means for the writes of this sink: success, another
    /// try, a refusal of the document, or the end of the job.
    pub fn with_classifier(mut self, sink: &str, table: adapter::Classifier) -> Self {
        self.classifiers.insert(sink.to_owned(), table);
        self
    }

    fn of(account: OneAccount) -> Self {
        Cosmos {
            accounts: BTreeMap::from([(None, account)]),
            classifiers: BTreeMap::new(),
        }
    }

    async fn account(&self, name: &Option<String>) -> Result<&adapter::Account> {
        let account = self.accounts.get(name).ok_or_else(|| {
            let name = name.as_deref().unwrap_or("(default)");
            let why = format!("account {name} was not given to this job: use Cosmos::of_job, or Cosmos::with_account");
            Error::new(ErrorKind::Config, why)
        })?;
        account.connect().await
    }
}

impl OneAccount {
    fn of(
        config: adapter::AccountConfig,
        credential: Option<Arc<dyn TokenCredential>>,
    ) -> OneAccount {
        OneAccount {
            config,
            credential,
            connected: OnceCell::new(),
        }
    }

    fn from_config(config: &AccountConfig) -> Result<Self> {
        let place = place(config)?;
        let credential = match config.identity() {
            Some(identity) => identity,
            None => adapter::Credential::Key(config.key()?),
        };
        let config = adapter::AccountConfig {
            credential,
            ..place
        };
        config.validate()?;
        Ok(Self::of(config, None))
    }

    async fn connect(&self) -> Result<&adapter::Account> {
        let connect = async || match self.credential.clone() {
            Some(credential) => adapter::Account::connect_with(&self.config, credential).await,
            None => adapter::Account::connect(&self.config).await,
        };
        self.connected.get_or_try_init(connect).await
    }
}

/// Where the account is.
fn place(config: &AccountConfig) -> Result<adapter::AccountConfig> {
    if config.endpoint.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "no Cosmos DB account: set account.endpoint in the configuration, or use --endpoint URL",
        ));
    }
    let place = adapter::AccountConfig {
        endpoint: config.endpoint.clone(),
        preferred_regions: config.preferred_regions.clone(),
        ..adapter::AccountConfig::default()
    };
    place.validate_place()?;
    Ok(place)
}

impl Cosmos {
    /// The container of a sink, which must be there, for letters that are tried again while `fence` is open.
    pub(crate) async fn redelivery(
        &self,
        name: &str,
        config: &SinkConfig,
        fence: Fence,
    ) -> Result<Arc<dyn Redeliver>> {
        let account = self.account(&config.account).await?;
        let container = adapter::Container::open_as(account, &config.container()).await;
        let container = container.map_err(|error| error.wrap(format!("sink {name}")))?;
        Ok(Arc::new(adapter::Redelivery::new(container, fence)))
    }

    /// The dead letters of a job in a container, which must be there.
    pub(crate) async fn existing_letters(
        &self,
        job: &str,
        place: &DeadLettersConfig,
    ) -> Result<Arc<dyn LetterBox>> {
        let account = self.account(&place.account).await?;
        let container = adapter::Container::open_as(account, &place.spec()).await;
        let container = container.map_err(|error| error.wrap("dead letters"))?;
        Ok(Arc::new(adapter::ContainerDeadLetters::new(container, job)))
    }
}

#[async_trait]
impl Connect for Cosmos {
    async fn source(&self, name: &str, config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>> {
        let account = self.account(&config.account).await?;
        let container = adapter::Container::open(account, &config.database, &config.container)
            .await
            .map_err(|error| error.wrap(format!("source {name}")))?;
        let defaults = adapter::FeedConfig::default();
        let feed = adapter::FeedConfig {
            mode: config.mode,
            page_size: NonZeroU32::new(config.page_size).unwrap_or(defaults.page_size),
            ru_per_second: config.ru_per_second.and_then(NonZeroU32::new),
            deleted: config.deleted.clone(),
            on_expired: config.on_expired,
            keep_system_properties: config.kept_properties(),
            fields: config.kept_fields(),
            ..defaults
        };
        Ok(Arc::new(adapter::CosmosFeed::new(container, feed)?))
    }

    async fn sink(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn Target>> {
        let account = self.account(&config.account).await?;
        let spec = config.container();
        let container = match config.create {
            true => adapter::Container::create_if_absent(account, &spec).await,
            false => adapter::Container::open_as(account, &spec).await,
        };
        let container = container.map_err(|error| error.wrap(format!("sink {name}")))?;
        advise(&container).await;
        let defaults = adapter::BulkConfig::default();
        let bulk = adapter::BulkConfig {
            policy: config.policy,
            throttled_share: config.throttled_share,
            budget: config.budget,
            priority: config.priority,
            throughput_bucket: config.throughput_bucket,
            max_connections: NonZeroUsize::new(config.max_in_flight)
                .unwrap_or(defaults.max_connections),
            ambiguous_settle: Duration::from_millis(config.settle_ms),
            fault_settle: Duration::from_millis(config.settle_ms).min(defaults.fault_settle),
            on_poison: match config.dead_letters_per_minute {
                Some(per_minute) => adapter::Poison::DeadLetter { per_minute },
                None => adapter::Poison::Fail,
            },
            ..defaults
        };
        let table = self.classifiers.get(name).cloned().unwrap_or_default();
        let target = adapter::CosmosTarget::open_with(container, bulk, table).await;
        let target = target.map_err(|error| error.wrap(format!("sink {name}")))?;
        Ok(Arc::new(target))
    }

    async fn dead_letters(
        &self,
        job: &str,
        place: &DeadLettersConfig,
    ) -> Result<Arc<dyn DeadLetters>> {
        let account = self.account(&place.account).await?;
        let container = adapter::Container::create_if_absent(account, &place.spec()).await;
        let container = container.map_err(|error| error.wrap("dead letters"))?;
        Ok(Arc::new(adapter::ContainerDeadLetters::new(container, job)))
    }

    async fn progress(&self, job: &str, place: &ProgressConfig) -> Result<Arc<dyn ProgressMarks>> {
        let account = self.account(&place.account).await?;
        let container = adapter::Container::create_if_absent(account, &place.spec()).await;
        let container = container.map_err(|error| error.wrap("progress"))?;
        let progress = adapter::ContainerProgress::open(&container, job, place.settle()).await;
        Ok(Arc::new(progress.map_err(|error| error.wrap("progress"))?))
    }
}

/// How long a start waits for a document to give advice on. It reads one document of each feed range at most, which
/// takes milliseconds; a container that throttles its readers is not worth waiting for.
const ADVICE_TIMEOUT: Duration = Duration::from_secs(1);

/// Says whether writes could be cheaper, going by a document that the container holds. Advice is never worth an error.
async fn advise(container: &adapter::Container) {
    if let Ok(Ok(Some(sample))) = timeout(ADVICE_TIMEOUT, adapter::sample(container)).await {
        container.advise(&sample);
    }
}
