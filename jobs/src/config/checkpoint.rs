//! Where and when checkpoints are written.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tidefeed_runtime::checkpoint::{CheckpointStore, LeaseConfig, Location};
use tidefeed_runtime::{CommitConfig, Error, ErrorKind, Result};

/// Where and when checkpoints are written.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// The directory. This or `url` is needed, there is no default; `--checkpoint` overrides both.
    pub directory: Option<PathBuf>,
    /// The URL of a prefix in an object store, as `s3://bucket/prefix` or `az://container/prefix`; see [`Location`] for all
    /// forms. Credentials come from the environment: see [`Settings`](tidefeed_runtime::checkpoint::Settings).
    pub url: Option<String>,
    /// See [`CommitConfig::interval_ms`].
    pub interval_ms: Option<u64>,
    /// See [`CommitConfig::retain`].
    pub retain: Option<usize>,
    /// See [`CommitConfig::compact_min_bytes`].
    pub compact_min_bytes: Option<u64>,
    /// Whether runs on other machines may use the same place, as on a file system over the network: then a lease that is
    /// renewed in the checkpoint decides who runs, not the lock of a file. Default false; with a URL it is always so.
    pub shared: bool,
    /// See [`LeaseConfig::duration`], in milliseconds; default 10000, 100 to 3600000.
    pub lease_ms: Option<u64>,
    /// See [`LeaseConfig::settle`], in milliseconds; default 10000, at most 3600000.
    pub settle_ms: Option<u64>,
}

/// Shows no URL that is refused: it may have a secret in it.
impl fmt::Debug for CheckpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CheckpointConfig {
            directory,
            url,
            interval_ms,
            retain,
            compact_min_bytes,
            shared,
            lease_ms,
            settle_ms,
        } = self;
        let sound = |url: &String| url.parse::<Location>().is_ok();
        let url = url.as_ref().map(|url| match sound(url) {
            true => url.as_str(),
            false => "(malformed, not shown)",
        });
        f.debug_struct("CheckpointConfig")
            .field("directory", directory)
            .field("url", &url)
            .field("interval_ms", interval_ms)
            .field("retain", retain)
            .field("compact_min_bytes", compact_min_bytes)
            .field("shared", shared)
            .field("lease_ms", lease_ms)
            .field("settle_ms", settle_ms)
            .finish()
    }
}

impl CheckpointConfig {
    /// Where the checkpoints are; `None` if neither directory nor URL is set.
    ///
    /// # Errors
    /// `Config` if both are set, or the URL names no store.
    pub fn location(&self) -> Result<Option<Location>> {
        match (&self.directory, &self.url) {
            (Some(_), Some(_)) => Err(Error::new(
                ErrorKind::Config,
                "checkpoint.directory and checkpoint.url are both set: remove one of the two",
            )),
            (Some(directory), None) => Ok(Some(Location::Directory(directory.clone()))),
            (None, Some(url)) if !url.contains("://") => Err(Error::new(
                ErrorKind::Config,
                "checkpoint.url is no URL: write it like s3://bucket/prefix, or use checkpoint.directory",
            )),
            (None, Some(url)) => url.parse().map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The same as text, without secrets: a URL that has any is refused.
    pub(crate) fn shown(&self) -> String {
        match self.location() {
            Ok(Some(location)) => location.to_string(),
            _ => String::new(),
        }
    }

    /// Sets where the checkpoints are, whatever was set before: a URL if it has `://` in it, else a directory.
    pub fn set_location(&mut self, place: &OsStr) {
        let url = place.to_str().filter(|text| text.contains("://"));
        self.directory = url.is_none().then(|| PathBuf::from(place));
        self.url = url.map(str::to_owned);
    }

    /// The committer's part of it.
    pub fn commit(&self) -> CommitConfig {
        let default = CommitConfig::default();
        CommitConfig {
            interval_ms: self.interval_ms.unwrap_or(default.interval_ms),
            retain: self.retain.unwrap_or(default.retain),
            compact_min_bytes: self.compact_min_bytes.unwrap_or(default.compact_min_bytes),
        }
    }

    /// The store at the configured place, for the job of this name.
    ///
    /// # Errors
    /// `Config` when no place is configured, or it is none.
    pub(crate) fn open(&self, job: &str) -> Result<CheckpointStore> {
        let location = self.location()?.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no place for checkpoints: set checkpoint.directory or checkpoint.url in the configuration, or use \
                 --checkpoint",
            )
        })?;
        let store = CheckpointStore::open(&location, job)?;
        Ok(match self.shared {
            true => store.shared(),
            false => store,
        })
    }

    /// The lease's part of it.
    pub fn lease(&self) -> LeaseConfig {
        let default = LeaseConfig::default();
        LeaseConfig {
            duration: self
                .lease_ms
                .map_or(default.duration, Duration::from_millis),
            settle: self.settle_ms.map_or(default.settle, Duration::from_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::JobConfig;

    use super::*;

    #[test]
    fn checkpoints_are_in_one_place() {
        let location = |text: &str| {
            let config = JobConfig::parse(&format!("[checkpoint]\n{text}")).expect("parses");
            config.validate().and(config.checkpoint.location())
        };
        let url = location("url = \"s3://bucket/a\"").expect("a place");
        assert_eq!(url.expect("set").to_string(), "s3://bucket/a");
        assert_eq!(location("").expect("none"), None);
        for (text, says) in [
            (
                "directory = \"x\"\nurl = \"s3://bucket/a\"",
                "checkpoint.directory and checkpoint.url are both set",
            ),
            ("url = \"bucket/a\"", "checkpoint.url is no URL"),
            ("url = \"ftp://bucket/a\"", "ftp://bucket/a is no store"),
        ] {
            let report = location(text).expect_err("wrong").report();
            assert!(report.starts_with(says), "{report}");
        }
    }

    #[test]
    fn the_command_line_sets_one_place() {
        let mut checkpoint = CheckpointConfig::default();
        for place in ["a/b", "s3://bucket/a", "c"] {
            checkpoint.set_location(OsStr::new(place));
            let location = checkpoint.location().expect("one place").expect("set");
            assert_eq!(location.to_string(), place);
        }
    }
}
