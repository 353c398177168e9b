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
use serde::Deserialize;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::backoff::BackoffConfig;
use super::entra;
use super::failure::Failure;
use super::retry::Retry;

/// An account key. It never appears in `Debug`, `Display` or logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AccountKey(String);

impl AccountKey {
    /// Wraps the key as the portal shows it, in base64.
    pub fn new(key: impl Into<String>) -> Self {
        AccountKey(key.into().trim().to_owned())
    }

    fn secret(&self) -> Result<Secret> {
        let AccountKey(key) = self;
        if key.is_empty() {
            return Err(config(
                "the account key is empty: set COSMOS_KEY to the key of the account",
            ));
        }
        match azure_core::base64::decode(key) {
            Ok(_) => Ok(Secret::from(key.clone())),
            // The decoder's own message is left out: it quotes a byte of the key.
            Err(_) => Err(config(
                "the account key is malformed: it must be base64, copied whole from the account",
            )),
        }
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey(..)")
    }
}

/// How to prove who is asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Credential {
    /// Nothing was given yet. Connecting with it is an error that says where to put the key.
    #[default]
    Unset,
    /// The account's primary or secondary key.
    Key(AccountKey),
    /// The managed identity of the Azure service or virtual machine that the program runs on.
    ManagedIdentity {
        /// The client id of a user-assigned identity; without it the system-assigned one.
        #[serde(default)]
        client_id: Option<String>,
    },
    /// The identity of the Kubernetes service account that the program runs under. What else is needed is in the environment,
    /// where the webhook of Azure's workload identity puts it.
    WorkloadIdentity {
        /// The client id; without it that of the environment.
        #[serde(default)]
        client_id: Option<String>,
    },
    /// Whoever has logged in with `az` or `azd` on this machine.
    DeveloperTools,
}

/// Where an account is and how to reach it.
///
/// ```
/// use tidefeed_operators::cosmos::AccountConfig;
///
/// let config = AccountConfig::with_key("https://flights.documents.azure.com/", "c2VjcmV0");
/// config.validate()?;
/// assert!(!format!("{config:?}").contains("c2VjcmV0"));
/// # Ok::<(), tidefeed_runtime::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// The account's URL, `https://NAME.documents.azure.com/`. Plain `http` only for servers on this machine. No default.
    pub endpoint: String,
    /// How to prove who is asking. No default. All but the key are Microsoft Entra identities, see
    /// [`Account::connect_with`] for what they may do.
    pub credential: Credential,
    /// How long to wait for the account to answer at the start. Default 10 s, a guess: larger waits longer for a server
    /// that is still starting, smaller reports a wrong address sooner. Requests after the start are not affected.
    pub connect_timeout: Duration,
    /// Regions to use, best first; empty follows the account's own order. Default empty.
    pub preferred_regions: Vec<String>,
    /// Whether HTTP/2 may be used. Default true. False is for servers that speak only HTTP/1.1.
    pub http2: bool,
}

impl Default for AccountConfig {
    fn default() -> Self {
        AccountConfig {
            endpoint: String::new(),
            credential: Credential::Unset,
            connect_timeout: Duration::from_secs(10),
            preferred_regions: Vec::new(),
            http2: true,
        }
    }
}

impl AccountConfig {
    /// The account at `endpoint` with an account key, and defaults for the rest.
    pub fn with_key(endpoint: impl Into<String>, key: impl Into<String>) -> Self {
        AccountConfig {
            endpoint: endpoint.into(),
            credential: Credential::Key(AccountKey::new(key)),
            ..AccountConfig::default()
        }
    }

    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the field.
    pub fn validate(&self) -> Result<()> {
        self.validate_place()?;
        match &self.credential {
            Credential::Unset => Err(config(
                "no credential: set COSMOS_KEY to the account's key, or put it into the configuration",
            )),
            Credential::Key(key) => key.secret().map(drop),
            Credential::ManagedIdentity { .. }
            | Credential::WorkloadIdentity { .. }
            | Credential::DeveloperTools => Ok(()),
        }
    }

    /// All but the credential.
    fn validate_place(&self) -> Result<()> {
        self.url()?;
        if self.connect_timeout.is_zero() {
            return Err(config("connect_timeout must be longer than zero"));
        }
        Ok(())
    }

    fn url(&self) -> Result<Url> {
        let endpoint = self.endpoint.trim();
        if endpoint.is_empty() {
            return Err(config(
                "endpoint is empty: it must be the account's URL, https://NAME.documents.azure.com/",
            ));
        }
        let url = Url::parse(endpoint).context(ErrorKind::Config, || {
            format!("endpoint {endpoint:?} is no URL: it must look like https://NAME.documents.azure.com/")
        })?;
        match (url.scheme(), url.host_str()) {
            ("https", Some(_)) => Ok(url),
            ("http", Some("localhost" | "127.0.0.1" | "[::1]")) => Ok(url),
            ("http", Some(_)) => Err(config(format!(
                "endpoint {endpoint:?} must use https: plain http is only for servers on this machine"
            ))),
            _ => Err(config(format!(
                "endpoint {endpoint:?} is not usable: it must look like https://NAME.documents.azure.com/"
            ))),
        }
    }

    fn identity(&self) -> Result<Identity> {
        match &self.credential {
            Credential::Key(key) => key.secret().map(Identity::Key),
            of_entra => entra::credential(of_entra).map(Identity::Entra),
        }
    }
}

fn config(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, context)
}

/// A connected account. Clones share one client.
///
/// Must be used inside a tokio runtime: the SDK keeps background tasks there.
#[derive(Clone, Debug)]
pub struct Account {
    client: CosmosClient,
    url: Url,
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
            .with_connection_pool(pool)
            .with_default_operation_options(operation_defaults())
            .with_user_agent_suffix(
                UserAgentSuffix::try_from("tidefeed").expect("the suffix is short and plain"),
            )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_settings_are_named() {
        let cases = [
            (AccountConfig::default(), "endpoint is empty"),
            (AccountConfig::with_key("nonsense", "c2VjcmV0"), "is no URL"),
            (
                AccountConfig::with_key("ftp://x/", "c2VjcmV0"),
                "is not usable",
            ),
            (
                AccountConfig::with_key("http://example.com/", "c2VjcmV0"),
                "must use https",
            ),
            (
                AccountConfig::with_key("https://x.documents.azure.com/", ""),
                "key is empty",
            ),
            (
                AccountConfig::with_key("https://x.documents.azure.com/", "no base64!"),
                "key is malformed",
            ),
            (
                AccountConfig {
                    endpoint: "https://x.documents.azure.com/".into(),
                    ..AccountConfig::default()
                },
                "COSMOS_KEY",
            ),
        ];
        for (config, expected) in cases {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.report().contains(expected), "{}", error.report());
        }
        AccountConfig::with_key("http://127.0.0.1:8081", "c2VjcmV0")
            .validate()
            .unwrap();
        AccountConfig::with_key("http://[::1]:8081", "c2VjcmV0")
            .validate()
            .unwrap();
    }

    #[test]
    fn no_message_holds_the_key() {
        let config = AccountConfig::with_key("https://x.documents.azure.com/", "not*base64*key");
        assert!(!format!("{config:?}").contains("base64"));
        assert!(
            !config
                .validate()
                .unwrap_err()
                .report()
                .contains("not*base64*key")
        );
    }

    #[test]
    fn a_configuration_file_names_the_credential() {
        let config: AccountConfig = serde_json::from_str(
            r#"{"endpoint": "https://x.documents.azure.com/", "credential": {"key": "c2VjcmV0"}}"#,
        )
        .unwrap();
        assert_eq!(
            config.credential,
            Credential::Key(AccountKey::new("c2VjcmV0"))
        );
        assert!(serde_json::from_str::<AccountConfig>(r#"{"endpont": ""}"#).is_err());
        let config: AccountConfig =
            serde_json::from_str(r#"{"credential": {"managed_identity": {"client_id": "a"}}}"#)
                .unwrap();
        let client_id = Some("a".to_owned());
        assert_eq!(config.credential, Credential::ManagedIdentity { client_id });
    }
}
