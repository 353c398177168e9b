//! Where checkpoints are: a directory, or the URL of a prefix in an object store.
//!
//! | location | store |
//! |---|---|
//! | `path/to/folder`, `file:///path/to/folder` | a local directory |
//! | `s3://bucket/prefix`, `s3a://…` | Amazon S3, or a store that speaks its protocol |
//! | `az://container/prefix`, `abfs://…`, `abfss://…`, `azure://…`, `adl://…` | Azure Blob Storage |
//! | `abfss://container@account.dfs.core.windows.net/prefix` | the same, with the account |
//! | `https://account.blob.core.windows.net/container/prefix` | the same |
//! | `https://s3.region.amazonaws.com/bucket/prefix` | Amazon S3, with the region |
//! | `memory:///` | this process; for tests only, because nothing outlives the store |
//!
//! Credentials come from [`Settings`](super::Settings), which the environment fills: never from the URL, which is printed
//! and logged. A URL with a password, a query or a fragment is refused, and none of those is repeated.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;

use object_store::ObjectStoreScheme;
use object_store::path::Path;
use url::Url;

use crate::{Context, Error, ErrorKind, Result};

/// A directory or the URL of an object store. `Display` prints nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A local directory.
    Directory(PathBuf),
    /// A prefix in an object store.
    Remote(RemoteLocation),
}

/// The URL of an object store. Made by parsing a [`Location`].
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteLocation {
    pub(super) url: Url,
    pub(super) scheme: ObjectStoreScheme,
    /// What comes before the job's name in the names of objects.
    pub(super) prefix: Path,
}

impl RemoteLocation {
    /// Whether the store is in this process alone.
    pub(super) fn in_memory(&self) -> bool {
        self.scheme == ObjectStoreScheme::Memory
    }
}

impl From<&FilePath> for Location {
    fn from(directory: &FilePath) -> Self {
        Location::Directory(directory.to_owned())
    }
}

impl FromStr for Location {
    type Err = Error;

    /// What has `://` in it is a URL, everything else a directory.
    ///
    /// # Errors
    /// `Config` for a URL that is malformed, has an unknown scheme, names no bucket or container, or holds credentials.
    fn from_str(text: &str) -> Result<Self> {
        if !text.contains("://") {
            return Ok(Location::Directory(text.into()));
        }
        // The text is not repeated: it could hold a secret.
        let url = Url::parse(text).context(
            ErrorKind::Config,
            || "the URL of the checkpoints is malformed: write it like s3://bucket/prefix",
        )?;
        check_no_credentials(&url)?;
        if url.scheme() == "file" {
            let directory = url.to_file_path().map_err(|()| {
                refused(format!(
                    "{} is no directory of this machine: write file:///path",
                    shown(&url)
                ))
            })?;
            return Ok(Location::Directory(directory));
        }
        check_named(&url)?;
        let unknown = || {
            refused(format!(
                "{} is no store for checkpoints: use a directory, s3://bucket/prefix or az://container/prefix",
                shown(&url)
            ))
        };
        let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| unknown())?;
        use ObjectStoreScheme::{AmazonS3, Memory, MicrosoftAzure};
        if !matches!(scheme, AmazonS3 | MicrosoftAzure | Memory) {
            return Err(unknown());
        }
        Ok(Location::Remote(RemoteLocation {
            url,
            scheme,
            prefix,
        }))
    }
}

fn check_no_credentials(url: &Url) -> Result<()> {
    let user = !url.username().is_empty() && !container_is_user(url);
    if user || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(refused(format!(
            "the URL of the checkpoints, {}, has more than bucket and prefix in it: remove user name, password, query \
             and fragment, and give credentials in the environment",
            shown(url)
        )));
    }
    Ok(())
}

/// Whether what stands where the user name does is the container: `abfss://container@account.dfs.core.windows.net`.
fn container_is_user(url: &Url) -> bool {
    matches!(url.scheme(), "az" | "abfs" | "abfss")
}

fn check_named(url: &Url) -> Result<()> {
    let host = url.host_str().unwrap_or_default();
    let what = match url.scheme() {
        "s3" | "s3a" if host.is_empty() => "bucket",
        "az" | "adl" | "azure" | "abfs" | "abfss" if host.is_empty() => "container",
        // With these hosts the path begins with it.
        "https" if url.path() == "/" && host.contains(".core.windows.net") => "container",
        "https" if url.path() == "/" && host.starts_with("s3.") => "bucket",
        _ => return Ok(()),
    };
    let before = if host.is_empty() { "" } else { "/" };
    Err(refused(format!(
        "{0} names no {what}: write {1}://{host}{before}{what}/prefix",
        shown(url),
        url.scheme()
    )))
}

fn refused(why: String) -> Error {
    Error::new(ErrorKind::Config, why)
}

/// The URL without what could be secret.
fn shown(url: &Url) -> String {
    let container = match container_is_user(url) && !url.username().is_empty() {
        true => format!("{}@", url.username()),
        false => String::new(),
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let path = url.path().trim_end_matches('/');
    format!("{}://{container}{host}{port}{path}", url.scheme())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(directory) => write!(f, "{}", directory.display()),
            Location::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

impl fmt::Display for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

impl fmt::Debug for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteLocation({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> RemoteLocation {
        match text.parse().unwrap() {
            Location::Remote(remote) => remote,
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn directories_are_paths_and_file_urls() {
        for text in ["checkpoint", "/var/lib/job", "c:/job", "s3:/bucket"] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location, Location::Directory(text.into()), "{text}");
        }
        let location: Location = "file:///var/lib/my%20job".parse().unwrap();
        assert_eq!(location, Location::Directory("/var/lib/my job".into()));
    }

    #[test]
    fn urls_name_a_store_and_a_prefix() {
        use ObjectStoreScheme::{AmazonS3, Memory, MicrosoftAzure};
        for (text, scheme, prefix) in [
            ("s3://bucket/a/b", AmazonS3, "a/b"),
            ("s3a://bucket", AmazonS3, ""),
            ("https://s3.eu-west-1.amazonaws.com/bucket/a", AmazonS3, "a"),
            ("az://container/a/", MicrosoftAzure, "a"),
            ("abfs://container/a", MicrosoftAzure, "a"),
            (
                "abfss://c@account.dfs.core.windows.net/a",
                MicrosoftAzure,
                "a",
            ),
            (
                "https://account.blob.core.windows.net/c/a",
                MicrosoftAzure,
                "a",
            ),
            ("memory:///a", Memory, "a"),
        ] {
            let location = remote(text);
            assert_eq!(location.scheme, scheme, "{text}");
            assert_eq!(location.prefix.as_ref(), prefix, "{text}");
            assert_eq!(location.to_string(), text.trim_end_matches('/'));
        }
    }

    #[test]
    fn other_urls_are_refused_with_what_to_write() {
        for (text, says) in [
            (
                "s3:///prefix",
                "s3:///prefix names no bucket: write s3://bucket/prefix",
            ),
            (
                "az://",
                "az:// names no container: write az://container/prefix",
            ),
            (
                "https://account.blob.core.windows.net",
                "https://account.blob.core.windows.net names no container: \
                 write https://account.blob.core.windows.net/container/prefix",
            ),
            (
                "gs://bucket/a",
                "gs://bucket/a is no store for checkpoints: \
                 use a directory, s3://bucket/prefix or az://container/prefix",
            ),
            ("https://example.com/a", "is no store for checkpoints"),
            ("ftp://example.com/a", "is no store for checkpoints"),
            ("://bucket", "malformed"),
            ("file://host/path", "write file:///path"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        for text in [
            "s3://hidden@bucket/a",
            "s3://key:hidden@bucket/a",
            "az://container/a?sig=hidden",
            "az://container/a#hidden",
            "https://account.blob.core.windows.net/c/a?sv=1&sig=hidden",
            "abfss://c:hidden@account.dfs.core.windows.net/a",
            "file://hidden@host/path",
            "s3://key:hidden@bucket:port/a",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
        }
    }
}
