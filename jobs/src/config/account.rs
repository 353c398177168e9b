//! Which accounts a job uses, and as whom.
//!
//! A key is in the environment or in a file of its own, never here. What stands where no secret belongs may be one all the
//! same, a key in place of the variable that holds it or a whole connection string as the endpoint, so neither errors nor
//! `Debug` repeat what is malformed.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use tidefeed_operators::cosmos::{AccountKey, Credential};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

/// Which account, and where its key is.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// The account's URL, for example `https://example.documents.azure.com`. Plain http is for loopback only.
    pub endpoint: String,
    /// Who the job is: `"key"` (default), `"managed_identity"`, `"workload_identity"` or `"developer_tools"`.
    pub auth: Auth,
    /// The environment variable that holds the account key; default `COSMOS_KEY`. The key itself is never in this file.
    pub key_env: String,
    /// A file that holds the account key and nothing else, as a mounted secret is, in place of `key_env`; default none. It is
    /// read when the job starts.
    pub key_file: Option<PathBuf>,
    /// The client id of a user-assigned managed identity, or of a workload identity; default none: the system-assigned one,
    /// or that of the pod's environment.
    pub client_id: Option<String>,
    /// Regions to use, best first, as `["West Europe"]`; default empty: the account's own order. Writes go to the best region
    /// that takes any.
    pub preferred_regions: Vec<String>,
}

/// Who a job is for its account. All but the key are Microsoft Entra identities: they need a data plane role such as "Cosmos DB
/// Built-in Data Contributor". With that alone, databases and containers cannot be created, and their throughput cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Whoever has the account key.
    #[default]
    Key,
    /// The managed identity of the Azure service or virtual machine that the job runs on.
    ManagedIdentity,
    /// The identity of the Kubernetes service account that the job runs under.
    WorkloadIdentity,
    /// Whoever has logged in with `az` or `azd` on this machine: for development.
    DeveloperTools,
}

const DEFAULT_KEY_ENV: &str = "COSMOS_KEY";

impl fmt::Debug for AccountConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccountConfig {
            endpoint,
            auth,
            key_env,
            key_file,
            client_id,
            preferred_regions,
        } = self;
        f.debug_struct("AccountConfig")
            .field("endpoint", &shown(endpoint, is_plain_url(endpoint)))
            .field("auth", auth)
            .field("key_env", &shown(key_env, is_variable(key_env)))
            .field("key_file", key_file)
            .field("client_id", client_id)
            .field("preferred_regions", preferred_regions)
            .finish()
    }
}

/// Whether the text has nothing in it but what scheme, host, port and path are made of.
fn is_plain_url(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.-_[]".contains(&byte);
    text.bytes().all(plain)
}

/// The name of an environment variable. `Debug` does not show what can be none: it may be what belongs into the variable.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Variable(pub String);

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(shown(&self.0, is_variable(&self.0)))
    }
}

fn shown(text: &str, sound: bool) -> &str {
    match sound {
        true => text,
        false => "(malformed, not shown)",
    }
}

/// Whether the text can be the name of an environment variable. No account key can: it ends with `==`.
pub(super) fn is_variable(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Default for AccountConfig {
    fn default() -> Self {
        AccountConfig {
            endpoint: String::new(),
            auth: Auth::Key,
            key_env: DEFAULT_KEY_ENV.to_owned(),
            key_file: None,
            client_id: None,
            preferred_regions: Vec::new(),
        }
    }
}

impl AccountConfig {
    /// Checks what goes together. `section` is where it stands, `account` or `accounts.NAME`.
    ///
    /// # Errors
    /// `Config`, naming the key and what is allowed.
    pub(super) fn validate(&self, section: &str) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Config, format!("{section}.{what}")));
        if !is_variable(&self.key_env) {
            return wrong(
                "key_env is no name of an environment variable: the key itself belongs into that variable, or into the file of key_file",
            );
        }
        if self.key_file.is_some() && self.key_env != DEFAULT_KEY_ENV {
            return wrong("key_env and key_file are both set: remove one of the two");
        }
        if self.key_file.is_some() && self.auth != Auth::Key {
            return wrong("key_file is set: it goes with auth = \"key\" only");
        }
        let takes_client_id = matches!(self.auth, Auth::ManagedIdentity | Auth::WorkloadIdentity);
        match &self.client_id {
            Some(_) if !takes_client_id => {
                return wrong(
                    "client_id is set: it goes with auth = \"managed_identity\" or \"workload_identity\" only",
                );
            }
            Some(id) if id.trim().is_empty() => {
                return wrong(
                    "client_id is empty: leave it out, or set it to the identity's client id",
                );
            }
            _ => {}
        }
        let regions = &self.preferred_regions;
        if regions.iter().any(|region| region.trim().is_empty()) {
            return wrong(
                "preferred_regions has an empty name: each must be a region such as \"West Europe\"",
            );
        }
        Ok(())
    }

    /// The account key, from its file or the environment.
    ///
    /// # Errors
    /// `Config` when it is not there.
    pub(crate) fn key(&self) -> Result<AccountKey> {
        let key = match &self.key_file {
            Some(file) => std::fs::read_to_string(file).context(ErrorKind::Config, || {
                format!(
                    "no account key: cannot read {} for the key of {}",
                    file.display(),
                    self.endpoint
                )
            })?,
            None => std::env::var(&self.key_env).map_err(|_| {
                Error::new(
                    ErrorKind::Config,
                    format!(
                        "no account key: set the environment variable {} to the key of {}",
                        self.key_env, self.endpoint
                    ),
                )
            })?,
        };
        Ok(AccountKey::new(key))
    }

    /// What goes to the account with each request; `None` for the key, which is elsewhere.
    pub(crate) fn identity(&self) -> Option<Credential> {
        let client_id = self.client_id.clone();
        match self.auth {
            Auth::Key => None,
            Auth::ManagedIdentity => Some(Credential::ManagedIdentity { client_id }),
            Auth::WorkloadIdentity => Some(Credential::WorkloadIdentity { client_id }),
            Auth::DeveloperTools => Some(Credential::DeveloperTools),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::JobConfig;

    use super::*;

    fn account(text: &str) -> Result<AccountConfig> {
        let config = JobConfig::parse(&format!("[account]\n{text}"))?;
        config.validate().map(|()| config.account)
    }

    #[test]
    fn an_account_says_who_the_job_is() {
        assert_eq!(account("").expect("sound").identity(), None);
        let client_id = Some("a-b".to_owned());
        for (text, expected) in [
            (
                "auth = \"managed_identity\"\nclient_id = \"a-b\"",
                Credential::ManagedIdentity {
                    client_id: client_id.clone(),
                },
            ),
            (
                "auth = \"managed_identity\"",
                Credential::ManagedIdentity { client_id: None },
            ),
            (
                "auth = \"workload_identity\"\nclient_id = \"a-b\"",
                Credential::WorkloadIdentity { client_id },
            ),
            ("auth = \"developer_tools\"", Credential::DeveloperTools),
        ] {
            let account = account(text).expect("sound");
            assert_eq!(account.identity(), Some(expected), "{text}");
        }
        let regions = account("preferred_regions = [\"West Europe\", \"North Europe\"]");
        let regions = regions.expect("sound").preferred_regions;
        assert_eq!(regions, ["West Europe", "North Europe"]);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (text, says) in [
            (
                "auth = \"password\"",
                "line 2: unknown variant `password`, expected one of `key`",
            ),
            (
                "client_id = \"a\"",
                "account.client_id is set: it goes with auth =",
            ),
            (
                "auth = \"developer_tools\"\nclient_id = \"a\"",
                "account.client_id is set",
            ),
            (
                "auth = \"managed_identity\"\nclient_id = \" \"",
                "account.client_id is empty",
            ),
            (
                "key_env = \"MY_KEY\"\nkey_file = \"/run/secrets/cosmos\"",
                "account.key_env and key_file are both set",
            ),
            (
                "auth = \"managed_identity\"\nkey_file = \"/run/secrets/cosmos\"",
                "account.key_file is set: it goes with auth =",
            ),
            (
                "preferred_regions = [\"\"]",
                "account.preferred_regions has an empty name",
            ),
        ] {
            let report = account(text).expect_err("wrong").report();
            assert!(report.starts_with(says), "{text}: {report}");
        }
    }

    #[test]
    fn a_key_may_be_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        std::fs::write(&file, "c2VjcmV0\n").expect("written");
        let mut config = AccountConfig {
            endpoint: "https://x.documents.azure.com".to_owned(),
            key_file: Some(file.clone()),
            ..AccountConfig::default()
        };
        config.validate("account").expect("sound");
        assert_eq!(config.key().expect("a key"), AccountKey::new("c2VjcmV0"));
        config.key_file = Some(folder.path().join("none"));
        let report = config.key().expect_err("no file").report();
        let none = folder.path().join("none");
        let says = format!("no account key: cannot read {}", none.display());
        assert!(report.starts_with(&says), "{report}");
    }

    /// Keys and passwords where none belongs are neither repeated in errors nor shown by `Debug`.
    #[test]
    fn misplaced_secrets_are_not_repeated() {
        const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";
        for text in [
            "[account]\nkey_env = \"{}\"",
            "[account]\nkey = \"{}\"",
            "[account]\nendpoint = \"AccountEndpoint=https://x.documents.azure.com;AccountKey={};\"",
            "[account]\nendpoint = \"https://{}@x.documents.azure.com\"",
            "[account]\nendpoint = \"https://u:{}@x.documents.azure.com\"",
            "[account]\nendpoint = \"https://x.documents.azure.com/?key={}\"",
            "[accounts.b]\nkey_env = \"{}\"",
            "[accounts.b]\nkey = \"{}\"",
            "[accounts.b]\nendpoint = \"https://u:{}@x.documents.azure.com\"",
            "[source.s]\nlisten = \"127.0.0.1:1\"\ntoken_env = \"{}\"",
            "[checkpoint]\nurl = \"s3://u:{}@bucket/prefix\"",
            "[checkpoint]\nurl = \"https://x.blob.core.windows.net/c/p?sig={}\"",
        ] {
            let sink = "\n[sink.v]\naccount = \"b\"\ndatabase = \"d\"\ncontainer = \"v\"\n\
                        [sink.w]\ndatabase = \"d\"\ncontainer = \"w\"\n";
            let (other, endpoint) = (
                "\n[accounts.b]\n",
                "\n[account]\nendpoint = \"https://y\"\n",
            );
            let mut text = text.replace("{}", SECRET) + sink;
            for section in [other, endpoint] {
                let head = section.lines().nth(1).expect("two lines");
                if !text.contains(head) {
                    text += section;
                }
            }
            let config = match JobConfig::parse(&text) {
                Ok(config) => config,
                Err(error) => {
                    assert!(!error.report().contains(SECRET), "{}", error.report());
                    continue;
                }
            };
            assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
            let refused = config.validate().and(crate::Cosmos::of_job(&config));
            let Err(error) = refused else {
                panic!("{text} was taken");
            };
            assert!(!error.report().contains(SECRET), "{}", error.report());
        }
    }
}
