//! Credentials and settings of object stores.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Credentials and settings of object stores, by the names of their environment variables. `Debug` prints the names alone.
///
/// Every variable that the crate `object_store` knows counts. The usual ones are, for S3, `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` and `AWS_REGION`, and `AWS_ENDPOINT_URL` and `AWS_ALLOW_HTTP` for stores that
/// are not Amazon's; for Azure, `AZURE_STORAGE_ACCOUNT_NAME` with `AZURE_STORAGE_ACCOUNT_KEY` or `AZURE_STORAGE_SAS_TOKEN`, or
/// with `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_CLIENT_SECRET`. Without credentials the identity of the machine is
/// asked for. Files as `~/.aws/credentials` are not read. `AWS_TIMEOUT` and `AZURE_TIMEOUT` bound one request, as `30 s`,
/// which is the default: larger lets larger objects through on slow lines, smaller notices a dead server sooner.
#[derive(Clone)]
pub struct Settings {
    variables: BTreeMap<String, String>,
    /// How long a request that does not get through is tried again; default 60 s (guess). Longer rides out longer outages;
    /// shorter lets a supervisor notice them sooner.
    pub retry_for: Duration,
}

impl Settings {
    /// The variables of this process. One that is not UTF-8 is left out.
    pub fn from_env() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// These variables instead of the environment's. Those that begin with neither `AWS_` nor `AZURE_` are left out.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let known = |name: &str| name.starts_with("AWS_") || name.starts_with("AZURE_");
        Settings {
            variables: variables
                .into_iter()
                .filter(|(name, _)| known(name))
                .collect(),
            retry_for: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings{:?}", self.variables.keys())
    }
}

#[cfg(feature = "cloud")]
impl Settings {
    /// The variables that begin with `prefix`, as a builder of `object_store` names them: in lower case.
    pub(super) fn keys<'a>(
        &'a self,
        prefix: &'static str,
    ) -> impl Iterator<Item = (String, &'a str)> {
        self.variables
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// `text` with the value of every variable replaced by its name.
    pub(super) fn redact(&self, mut text: String) -> String {
        // Shorter values, as `true`, are no secrets, and would replace words of the message.
        for (name, value) in self.variables.iter().filter(|(_, value)| value.len() >= 8) {
            text = text.replace(value.as_str(), &format!("${name}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_never_printed() {
        let of = |name: &str| (name.to_owned(), "hidden-hidden".to_owned());
        let settings = Settings::new([of("AWS_SECRET_ACCESS_KEY"), of("PATH")]);
        assert_eq!(
            format!("{settings:?}"),
            "Settings[\"AWS_SECRET_ACCESS_KEY\"]"
        );
        #[cfg(feature = "cloud")]
        assert_eq!(
            settings.redact("a hidden-hidden b".to_owned()),
            "a $AWS_SECRET_ACCESS_KEY b"
        );
    }
}
