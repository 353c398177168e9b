//! Where an account is, and who is asking.

use std::fmt;
use std::time::Duration;

use azure_core::credentials::Secret;
use azure_core::http::Url;
use serde::Deserialize;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::account::Identity;
use super::entra;

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

    /// Checks all but the credential.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the field.
    pub fn validate_place(&self) -> Result<()> {
        self.url()?;
        if self.connect_timeout.is_zero() {
            return Err(config("connect_timeout must be longer than zero"));
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> Result<Url> {
        let endpoint = self.endpoint.trim();
        if endpoint.is_empty() {
            return Err(config(
                "endpoint is empty: it must be the account's URL, https://NAME.documents.azure.com/",
            ));
        }
        // What has anything in it but host, port and path is not repeated: it may be a connection string with the key.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.-_[]".contains(&byte);
        let shown = match endpoint.bytes().all(plain) {
            true => format!("endpoint {endpoint:?}"),
            false => "endpoint".to_owned(),
        };
        let url = Url::parse(endpoint).map_err(|_| {
            config(format!(
                "{shown} is no URL: it must look like https://NAME.documents.azure.com/"
            ))
        })?;
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare || url.query().is_some() || url.fragment().is_some() {
            return Err(config(
                "endpoint has more than a host in it: remove user name, password, query and fragment, and give the key in the environment",
            ));
        }
        match (url.scheme(), url.host_str()) {
            ("https", Some(_)) => Ok(url),
            ("http", Some("localhost" | "127.0.0.1" | "[::1]")) => Ok(url),
            ("http", Some(_)) => Err(config(format!(
                "{shown} must use https: plain http is only for servers on this machine"
            ))),
            _ => Err(config(format!(
                "{shown} is not usable: it must look like https://NAME.documents.azure.com/"
            ))),
        }
    }

    pub(crate) fn identity(&self) -> Result<Identity> {
        match &self.credential {
            Credential::Key(key) => key.secret().map(Identity::Key),
            of_entra => entra::credential(of_entra).map(Identity::Entra),
        }
    }
}

fn config(context: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, context)
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
                AccountConfig::with_key("https://u:c2VjcmV0@example.com/", "c2VjcmV0"),
                "more than a host in it",
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
