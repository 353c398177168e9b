//! What a source is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use tidefeed_operators::decode::DecodeErrors;
use tidefeed_operators::files::{ColumnType, Format};
use tidefeed_runtime::Result;

use super::account::Variable;
use super::place::FileNames;
use super::within;

/// What to read: a container (`database`, `container`), files (`files`), or documents that producers post (`listen`). A key that
/// belongs to another of the three is an error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The account, a name of `[accounts]`; default `[account]`.
    #[serde(default)]
    pub account: Option<String>,
    /// The database.
    #[serde(default)]
    pub database: String,
    /// The container.
    #[serde(default)]
    pub container: String,
    /// Files: paths, relative to the folder that the job runs in, and patterns with `*`, `?`, `[..]` and, for any folders, `**`;
    /// a text or a list. They are read one after the other in the order of their names: the
    /// [rules](tidefeed_operators::files).
    #[serde(default)]
    pub files: Option<FileNames>,
    /// Of files, `"jsonl"` or `"csv"`; default by the end of each name: `.jsonl`, `.ndjson`, `.csv`, perhaps with `.gz` or `.zst`.
    #[serde(default)]
    pub format: Option<Format>,
    /// Of files, the types of columns of CSV, as `{ cents = "integer" }`: `"string"` (default), `"integer"`, `"number"` or
    /// `"boolean"`.
    #[serde(default)]
    pub types: BTreeMap<String, ColumnType>,
    /// Of files: go on polling for appended lines and new files. Default false: the source ends with the last file there is.
    #[serde(default)]
    pub follow: bool,
    /// Of files: read them at the same time. Default false. It promises that no key is in two files.
    #[serde(default)]
    pub partitioned: bool,
    /// The address to listen on for posted documents, as `"127.0.0.1:8090"`: the [requests and
    /// answers](tidefeed_operators::ingest).
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Of posts, the path of the requests; default `/ingest`.
    #[serde(default)]
    pub path: Option<String>,
    /// Of posts, the environment variable that holds the bearer token of the producers. Needed unless `listen` is a loopback
    /// address.
    #[serde(default)]
    pub token_env: Option<Variable>,
    /// Of posts, the largest body of a request, bytes; default 4194304, 1024 to 268435456. Larger lets producers send more at
    /// once. A guess.
    #[serde(default)]
    pub max_body_bytes: Option<u64>,
    /// Of posts, bytes of requests that are not durable yet; default 33554432, `max_body_bytes` to 68719476736. Beyond that requests
    /// are answered with 429. Larger bears longer waits for the checkpoint store, for as much more memory. A guess.
    #[serde(default)]
    pub max_unsealed_bytes: Option<u64>,
    /// Of posts, how long a request waits to become durable, milliseconds; default 30000, 1 to 3600000. Then it is answered with 503.
    #[serde(default)]
    pub answer_ms: Option<u64>,
    /// Of files and posts, the fields that identify a document; default `["/id"]`. A container has its own.
    #[serde(default)]
    pub key: Option<Vec<String>>,
    /// Where a fresh run starts: `beginning` (default) or `now`. A resumed run ignores it.
    #[serde(default)]
    pub start: StartAt,
    /// Documents asked for in a page, a hint; default 1000, 1 to 10000. Larger makes fewer requests; a page always holds
    /// whole transactions, so it can be larger than the hint. Default: what the service's own connectors use.
    #[serde(default = "default_page_size")]
    pub page_size: u32,
    /// First delay before an idle feed range is asked again, milliseconds; default 10, 1 to `poll_max_ms`. Smaller lowers
    /// latency; larger costs fewer request units, about 2 for each question.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
    /// The least number of feed ranges that are read at once, over all workers; default: the number of workers, 1 to 4096. A
    /// container with fewer partitions is read in parts of them. More let more workers read and decode; each costs an own
    /// question when it is idle.
    #[serde(default)]
    pub feed_ranges: Option<u32>,
    /// How often to look for partitions that have split, milliseconds; default 60000, 10 to 3600000. A reader that meets a split
    /// looks at once, and reads on meanwhile; this only finds those that it has not met. Default: half of what the service's
    /// Spark connector takes.
    #[serde(default = "default_refresh_ms")]
    pub refresh_ms: u64,
    /// What to do with a document that does not decode as the job's type: `fail` (default) ends the run before anything of its
    /// epoch is durable; `skip` counts it, `dead_letters` keeps it with the reason. Skipped or kept, the collection is as if the
    /// document were not there, until a version comes that decodes.
    #[serde(default)]
    pub on_decode_error: DecodeErrors,
    /// The most such dead letters in a minute, for each worker, before the run ends; default 100. More mean that the job's type is
    /// wrong and not the documents. Default: a guess.
    #[serde(default = "default_letters")]
    pub dead_letters_per_minute: u32,
    /// The delay doubles while the range stays idle, up to this, milliseconds; default 1000, at most 3600000.
    #[serde(default = "default_poll_max_ms")]
    pub poll_max_ms: u64,
}

/// Where a fresh run starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// At the first change that the service still has.
    #[default]
    Beginning,
    /// At the changes made from now on.
    Now,
}

fn default_page_size() -> u32 {
    1000
}
fn default_poll_ms() -> u64 {
    10
}
fn default_letters() -> u32 {
    100
}
fn default_refresh_ms() -> u64 {
    60_000
}
fn default_poll_max_ms() -> u64 {
    1000
}

impl SourceConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// `Config`, naming the key and what is allowed.
    pub(super) fn validate(&self, name: &str) -> Result<()> {
        self.validate_place(name)?;
        let key = |key: &str| format!("source.{name}.{key}");
        let (hour, ms) = (3_600_000, "milliseconds");
        let page_size = self.page_size.into();
        let least = self.feed_ranges.unwrap_or(1).into();
        within(&key("feed_ranges"), least, 1, 4096, "feed ranges")?;
        within(&key("refresh_ms"), self.refresh_ms, 10, hour, ms)?;
        within(&key("page_size"), page_size, 1, 10_000, "documents")?;
        within(&key("poll_max_ms"), self.poll_max_ms, 1, hour, ms)?;
        within(&key("poll_ms"), self.poll_ms, 1, self.poll_max_ms, ms)
    }
}
