//! A Cosmos DB account: address, credentials, and the one client that everything in a process shares.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::Url;
use azure_data_cosmos::options::{
    BinaryEncodingOptions, ConnectionPoolOptions, ContentResponseOnWrite, OperationOptions,
    OperationOptionsBuilder, Region, ServerCertificateValidation, ThrottlingRetryOptionsBuilder,
    UserAgentSuffix,
};
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosError, CosmosRuntime, RoutingStrategy,
};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::account_config::AccountConfig;
use super::backoff::BackoffConfig;
use super::driver::{self, CosmosDriver};
use super::failure::Failure;
use super::retry::Retry;

/// A connected account. Clones share one client.
///
/// Must be used inside a tokio runtime: the SDK keeps background tasks there.
#[derive(Clone, Debug)]
pub struct Account {
    client: CosmosClient,
    url: Url,
    /// What reads change feeds; made when the first one is.
    driver: Arc<OnceCell<Arc<CosmosDriver>>>,
    pool: ConnectionPoolOptions,
    identity: Identity,
    /// Whether requests that are not the SDK's can reach the account.
    direct: bool,
    preferred_regions: Vec<String>,
    connect_timeout: Duration,
}

/// Who is asking. It is never printed.
#[derive(Clone)]
pub(crate) enum Identity {
    /// Whoever has the account key.
    Key(Secret),
    /// A Microsoft Entra identity.
    Entra(Arc<dyn TokenCredential>),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Identity::Key(_) => "Key(..)",
            Identity::Entra(_) => "Entra(..)",
        })
    }
}

impl Account {
    /// Connects and checks that the account answers and takes the credentials.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a malformed endpoint or key, or when the environment lacks what an identity needs;
    /// [`ErrorKind::Unreachable`] when nothing answers within `connect_timeout`; [`ErrorKind::Denied`] when the credential is
    /// refused, or an identity gets no token.
    pub async fn connect(config: &AccountConfig) -> Result<Account> {
        config.validate()?;
        Self::connect_as(config, config.identity()?).await
    }

    /// [`connect`](Self::connect) as a Microsoft Entra identity, for example a managed one; `config.credential` is not used. It
    /// needs a data plane role such as "Cosmos DB Built-in Data Contributor". With that alone, databases and containers cannot
    /// be created, and their throughput cannot be read.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        config: &AccountConfig,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Account> {
        config.validate_place()?;
        Self::connect_as(config, Identity::Entra(credential)).await
    }

    async fn connect_as(config: &AccountConfig, identity: Identity) -> Result<Account> {
        let url = config.url()?;
        let deadline = Instant::now() + config.connect_timeout;
        let pool = connection_pool(config)?;
        let proxy_allowed = pool.proxy_allowed();
        if !proxy_allowed {
            // The SDK keeps trying for minutes when nothing listens; a bare connection finds out at once.
            probe(&url, deadline).await?;
        }
        let runtime = CosmosRuntime::builder()
            .with_connection_pool(pool.clone())
            .with_default_operation_options(operation_defaults())
            .with_user_agent_suffix(user_agent())
            .build()
            .await
            .map_err(|error| {
                Failure::of(&error).into_error("cannot set up the Cosmos DB client")
            })?;
        let regions = config.preferred_regions.iter().cloned().map(Region::from);
        let reference = match &identity {
            Identity::Key(key) => {
                AccountReference::with_authentication_key(url.clone().into(), key.clone())
            }
            Identity::Entra(credential) => {
                AccountReference::with_credential(url.clone().into(), credential.clone())
            }
        };
        let build = CosmosClient::builder()
            .with_runtime(runtime)
            // Documents come and go as JSON text; the binary encoding would have to decode them first.
            .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(false))
            .build(
                reference,
                RoutingStrategy::PreferredRegions(regions.collect()),
            );
        let client = timeout_at(deadline, build)
            .await
            .map_err(|_| silent(url.as_str(), config.connect_timeout))?
            .map_err(|error| refused(url.as_str(), &identity, Failure::of(&error)))?;
        let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        Ok(Account {
            client,
            driver: Arc::default(),
            pool,
            identity,
            // A proxy, and certificates that nobody has signed, are the SDK's.
            direct: !proxy_allowed && (url.scheme() == "http" || !is_here),
            url,
            preferred_regions: config.preferred_regions.clone(),
            connect_timeout: config.connect_timeout,
        })
    }

    /// The account's URL.
    pub fn endpoint(&self) -> &str {
        self.url.as_str()
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn preferred_regions(&self) -> &[String] {
        &self.preferred_regions
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Whether requests that are not the SDK's can reach the account.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn client(&self) -> &CosmosClient {
        &self.client
    }

    /// The client that reads change feeds.
    pub(super) async fn driver(&self) -> Result<Arc<CosmosDriver>, CosmosError> {
        let url = self.url.clone();
        let connect = || {
            let account = match &self.identity {
                Identity::Key(key) => driver::AccountReference::with_account_key(url, key.clone()),
                Identity::Entra(credential) => {
                    driver::AccountReference::with_credential(url, credential.clone())
                }
            };
            let regions = self.preferred_regions.iter().cloned().map(Region::from);
            driver::connect(
                account,
                self.pool.clone(),
                user_agent(),
                operation_defaults(),
                regions.collect(),
            )
        };
        self.driver.get_or_try_init(connect).await.cloned()
    }

    /// Runs a request about databases and containers, and repeats it while it fails in passing, for `connect_timeout` in
    /// all. `Ok(Err(..))` is a failure that the caller may have a better name for.
    pub(crate) async fn control<T, F>(
        &self,
        what: &str,
        mut request: impl FnMut() -> F,
    ) -> Result<Result<T, Failure>>
    where
        F: Future<Output = Result<T, CosmosError>>,
    {
        let deadline = Instant::now() + self.connect_timeout;
        let mut retry = Retry::new(BackoffConfig::default());
        loop {
            let failure = match timeout_at(deadline, request()).await {
                Ok(Ok(answer)) => return Ok(Ok(answer)),
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => return Err(silent(self.endpoint(), self.connect_timeout).wrap(what)),
            };
            if failure.disposition == super::Disposition::Denied {
                return Err(refused(self.endpoint(), &self.identity, failure));
            }
            if !failure.is_passing() {
                return Ok(Err(failure));
            }
            let wait = retry.wait_after(&failure, &what);
            if Instant::now() + wait >= deadline {
                return Err(failure.into_error(format!("{what} failed for too long")));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn connection_pool(config: &AccountConfig) -> Result<ConnectionPoolOptions> {
    ConnectionPoolOptions::builder()
        .with_is_http2_allowed(config.http2)
        // Local emulators come with certificates that nobody has signed. Other hosts are always checked.
        .with_server_certificate_validation(ServerCertificateValidation::RequiredUnlessEmulator)
        .build()
        .map_err(|error| {
            Failure::of(&error).into_error("the AZURE_COSMOS_ environment is not usable")
        })
}

fn user_agent() -> UserAgentSuffix {
    UserAgentSuffix::try_from("tidefeed").expect("the suffix is short and plain")
}

/// What holds for every request unless it says otherwise.
fn operation_defaults() -> OperationOptions {
    let no_retries = ThrottlingRetryOptionsBuilder::new().with_max_retry_count(0);
    OperationOptionsBuilder::new()
        // We pace and retry throttled requests ourselves, see the module's head.
        .with_throttling_retry_options(no_retries.build())
        .with_content_response_on_write(ContentResponseOnWrite::Disabled)
        .build()
}

async fn probe(url: &Url, deadline: Instant) -> Result<()> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(443);
    // Brackets belong to the URL, not to the address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let unreachable = || format!("cannot reach {url}: check the address, and that the server runs");
    match timeout_at(deadline, TcpStream::connect((host, port))).await {
        Ok(connected) => connected
            .map(drop)
            .context(ErrorKind::Unreachable, unreachable),
        Err(_) => Err(Error::new(ErrorKind::Unreachable, unreachable())
            .with_source("no connection within connect_timeout")),
    }
}

fn silent(endpoint: &str, waited: Duration) -> Error {
    Error::new(
        ErrorKind::Unreachable,
        format!(
            "{endpoint} did not answer within {waited:?}: check that it is a Cosmos DB account"
        ),
    )
}

fn refused(endpoint: &str, identity: &Identity, failure: Failure) -> Error {
    let context = match (failure.kind(), identity) {
        (ErrorKind::Denied, Identity::Key(_)) if failure.is_unauthorized() => {
            format!("{endpoint} refused the key: check COSMOS_KEY")
        }
        (ErrorKind::Denied, Identity::Key(_)) => {
            format!("{endpoint} denied access: check its firewall and the key's rights")
        }
        (ErrorKind::Denied, Identity::Entra(_)) => {
            format!(
                "{endpoint} denied access: check the identity's role assignment and the account's firewall"
            )
        }
        _ => format!("cannot connect to {endpoint}"),
    };
    failure.into_error(context)
}
