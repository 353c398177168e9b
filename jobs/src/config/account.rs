//! Which account a job uses.

use serde::Deserialize;

/// Which account, and where its key is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountConfig {
    /// The account's URL, for example `https://example.documents.azure.com`. Plain http is for loopback only.
    pub endpoint: String,
    /// The environment variable that holds the account key; default `COSMOS_KEY`. The key itself is never in a file.
    pub key_env: String,
}

impl Default for AccountConfig {
    fn default() -> Self {
        AccountConfig {
            endpoint: String::new(),
            key_env: "COSMOS_KEY".to_owned(),
        }
    }
}
