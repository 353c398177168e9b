//! Which account a job uses, and as whom.

use serde::Deserialize;
use tidefeed_operators::cosmos::Credential;
use tidefeed_runtime::{Error, ErrorKind, Result};

/// Which account, and where its key is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// The account's URL, for example `https://example.documents.azure.com`. Plain http is for loopback only.
    pub endpoint: String,
    /// Who the job is: `"key"` (default), `"managed_identity"`, `"workload_identity"` or `"developer_tools"`.
    pub auth: Auth,
    /// The environment variable that holds the account key; default `COSMOS_KEY`. The key itself is never in a file.
    pub key_env: String,
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

impl Default for AccountConfig {
    fn default() -> Self {
        AccountConfig {
            endpoint: String::new(),
            auth: Auth::Key,
            key_env: "COSMOS_KEY".to_owned(),
            client_id: None,
            preferred_regions: Vec::new(),
        }
    }
}

impl AccountConfig {
    /// Checks what goes together.
    ///
    /// # Errors
    /// `Config`, naming the key and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Config, what));
        let takes_client_id = matches!(self.auth, Auth::ManagedIdentity | Auth::WorkloadIdentity);
        match &self.client_id {
            Some(_) if !takes_client_id => {
                return wrong(
                    "account.client_id is set: it goes with account.auth = \"managed_identity\" or \"workload_identity\" only",
                );
            }
            Some(id) if id.trim().is_empty() => {
                return wrong(
                    "account.client_id is empty: leave it out, or set it to the identity's client id",
                );
            }
            _ => {}
        }
        let regions = &self.preferred_regions;
        if regions.iter().any(|region| region.trim().is_empty()) {
            return wrong(
                "account.preferred_regions has an empty name: each must be a region such as \"West Europe\"",
            );
        }
        Ok(())
    }

    /// What goes to the account with each request; `None` for the key, which is in the environment.
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
                "account.client_id is set: it goes with account.auth =",
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
                "preferred_regions = [\"\"]",
                "account.preferred_regions has an empty name",
            ),
        ] {
            let report = account(text).expect_err("wrong").report();
            assert!(report.starts_with(says), "{text}: {report}");
        }
    }
}
