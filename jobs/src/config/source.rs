//! What a source is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, de};
use tidefeed_operators::cosmos::{FeedMode, OnExpired, SoftDelete};
use tidefeed_operators::decode::DecodeErrors;
use tidefeed_operators::feed::{Start, check_fields};
use tidefeed_operators::files::{ColumnType, Format};
use tidefeed_operators::time::event_time::{EventTimeConfig, TIMESTAMP_PROPERTY};
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::account::Variable;
use super::place::FileNames;
use super::within;
use crate::rfc3339::parse_time;

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
    /// Of files: read them at the same time, with `follow` those too that appear. Default false. It promises that no key is in two
    /// files.
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
    /// The top-level properties of a document that are kept, as `["id", "amount"]`; default: all. What is kept is sealed, compressed and
    /// decoded, so a job that reads three of twenty runs faster, with a smaller checkpoint. Name every property that the job's types
    /// name; that of `event_time` and `keep_system_properties` are kept besides. A later run that keeps others starts over with
    /// `--fresh`, as what was not kept is in no checkpoint. Not of posts.
    #[serde(default)]
    pub fields: Option<Vec<String>>,
    /// What the feed carries: `latest_version` (default), the newest version of each document; or `all_versions_and_deletes`, every
    /// version, deletes and expiries, from a container with continuous backup or a retention in its change feed policy. A job
    /// keeps its mode: with another one it starts over, `--fresh`.
    #[serde(default)]
    pub mode: FeedMode,
    /// Where a fresh run starts: `beginning` (default), `now`, or a point in time as in RFC 3339, `2026-01-31T00:00:00Z`,
    /// which Cosmos DB finds to about 5 seconds. A resumed run ignores it. Now is when the feed range is opened, for
    /// every part of it. With `all_versions_and_deletes`, the beginning loads the latest versions and then follows the changes;
    /// a point in time is not possible.
    #[serde(default)]
    pub start: StartAt,
    /// Which documents count as deleted, as `latest_version` carries no deletes; default none. `{ path = "/isDeleted" }`: those in
    /// which the property is there and neither `false` nor `null`. `{ path = "/state", value = "closed" }`: those in which it is
    /// this. Whoever deletes sets the property, and a `ttl` of some hours, so that the service removes the document when every
    /// reader has seen it. It counts for what is read from then on: after a change of it, start over with `--fresh`. A condition
    /// on several properties is a `filter` on the collection in the job's code.
    #[serde(default)]
    pub deleted: Option<SoftDelete>,
    /// With `all_versions_and_deletes`, what becomes of a position that is older than the retention, so that changes are lost
    /// for good: `fail` (default), the run ends; or `reload`, the job starts over as with `--fresh`, all its sources with it.
    #[serde(default)]
    pub on_expired: OnExpired,
    /// Documents asked for in a page, a hint; default 1000, 1 to 10000. Larger makes fewer requests; a page always holds
    /// whole transactions, so it can be larger than the hint. Where the service finds a page too large, or takes too long for it,
    /// a feed range asks for half, and slowly for more again. Default: what the service's own connectors use.
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
    /// Spark connector takes. Of files that are `partitioned` and followed, how often to look for new ones.
    #[serde(default = "default_refresh_ms")]
    pub refresh_ms: u64,
    /// When what a document tells of has happened, for watermarks; default: it is not read. `{ path = "/placed_ms" }`, with `unit =
    /// "milliseconds"` (default), `"seconds"` or `"rfc3339"`; `/_ts` is when Cosmos DB wrote the document, in seconds. Also
    /// `out_of_orderness_ms` and `idle_after_ms`, as [`EventTimeConfig`] says.
    #[serde(default)]
    pub event_time: Option<EventTimeConfig>,
    /// Properties of the service to leave in the documents, of `_rid`, `_self`, `_etag`, `_attachments`, `_ts` and `_lsn`; default
    /// none, and `_ts` if event time is read there. It counts for what is read from then on.
    #[serde(default)]
    pub keep_system_properties: Vec<String>,
    /// What to do with a document that does not decode as the job's type: `fail` (default) ends the run before anything of its
    /// epoch is durable; `skip` counts it, `dead_letters` keeps it with the reason. Skipped or kept, the collection is as if the
    /// document were not there, until a version comes that decodes.
    #[serde(default)]
    pub on_decode_error: DecodeErrors,
    /// The most such dead letters in a minute, for each worker, before the run ends; default 100. More mean that the job's type is
    /// wrong and not the documents. Default: a guess.
    #[serde(default = "default_letters")]
    pub dead_letters_per_minute: u32,
    /// The delay doubles while the range stays idle, up to this, milliseconds; default 1000, at most 3600000. Each delay is up
    /// to a quarter shorter, at random, so that ranges do not ask all at once.
    #[serde(default = "default_poll_max_ms")]
    pub poll_max_ms: u64,
    /// Request units per second that reading may cost, shared by the ranges that this process reads; default none, 1 to
    /// 10000000. Smaller leaves more for others; too small, and the feed is read slower than it is written.
    #[serde(default)]
    pub ru_per_second: Option<u32>,
}

/// Where a fresh run starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first change that the service still has.
    #[default]
    Beginning,
    /// At the changes made from now on.
    Now,
    /// At the changes made at this time or later.
    Time(SystemTime),
}

impl From<StartAt> for Start {
    fn from(start: StartAt) -> Self {
        match start {
            StartAt::Beginning => Start::Beginning,
            StartAt::Now => Start::Now,
            StartAt::Time(time) => Start::Time(time),
        }
    }
}

impl<'de> Deserialize<'de> for StartAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "beginning" => Ok(StartAt::Beginning),
            "now" => Ok(StartAt::Now),
            _ => parse_time(&text).map(StartAt::Time).map_err(|_| {
                let expected = "\"beginning\", \"now\" or a time like \"2026-01-31T00:00:00Z\"";
                de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
            }),
        }
    }
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
    /// What it reads, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match (&self.files, self.listen) {
            (Some(_), _) => "files",
            (None, Some(_)) => "http",
            (None, None) => "cosmos",
        }
    }

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
        within(&key("poll_ms"), self.poll_ms, 1, self.poll_max_ms, ms)?;
        if let Some(ru) = self.ru_per_second {
            let units = "request units per second";
            within(&key("ru_per_second"), ru.into(), 1, 10_000_000, units)?;
        }
        check_fields(&key("fields"), self.fields.as_deref())?;
        if let Some(time) = &self.event_time {
            time.compile(&format!("source.{name}"))?;
        }
        if let Some(deleted) = &self.deleted {
            let name = |error: Error| error.wrap(format!("source.{name}"));
            deleted.validate().map_err(name)?;
        }
        self.validate_mode(name)
    }

    /// Properties of the service to leave in the documents.
    pub(crate) fn kept_properties(&self) -> Vec<String> {
        let mut kept = self.keep_system_properties.clone();
        let timestamp = self
            .event_time
            .as_ref()
            .is_some_and(|time| time.is_timestamp());
        if timestamp && !kept.iter().any(|name| name == TIMESTAMP_PROPERTY) {
            kept.push(TIMESTAMP_PROPERTY.to_owned());
        }
        kept
    }

    /// The properties of a document that are kept, in a fixed order; `None` keeps all.
    pub(crate) fn kept_fields(&self) -> Option<Vec<String>> {
        let event_time = self.event_time.as_ref().map(EventTimeConfig::property);
        let besides = event_time.map(str::to_owned).into_iter();
        let besides = besides.chain(self.keep_system_properties.iter().cloned());
        let named = self.fields.as_ref()?.iter().cloned();
        let kept: BTreeSet<String> = named.chain(besides).collect();
        Some(kept.into_iter().collect())
    }

    fn validate_mode(&self, name: &str) -> Result<()> {
        let refused = match (self.mode, self.start, self.on_expired) {
            (FeedMode::AllVersionsAndDeletes, StartAt::Time(_), _) => {
                "start: all versions and deletes cannot be read from a point in time: use \"beginning\" or \"now\""
            }
            (FeedMode::LatestVersion, _, OnExpired::Reload) => {
                "on_expired: only positions of mode \"all_versions_and_deletes\" expire: leave it out"
            }
            _ => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Config,
            format!("source.{name}.{refused}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(lines: &str) -> Result<SourceConfig, String> {
        let text = format!("database = \"d\"\ncontainer = \"c\"\n{lines}");
        let config: SourceConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        let valid = config.validate("orders").map_err(|error| error.report());
        valid.map(|()| config)
    }

    #[test]
    fn a_start_is_a_word_or_a_time() {
        let start = |text: &str| source(&format!("start = \"{text}\"")).map(|config| config.start);
        assert_eq!(start("beginning"), Ok(StartAt::Beginning));
        assert_eq!(start("now"), Ok(StartAt::Now));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_817_600);
        assert_eq!(start("2026-01-31T00:00:00Z"), Ok(StartAt::Time(at)));
        assert_eq!(start("2026-01-31T01:00:00+01:00"), Ok(StartAt::Time(at)));
        for wrong in ["later", "2026-01-31", "2026-01-31T00:00:00"] {
            let error = start(wrong).expect_err(wrong);
            assert!(error.contains("2026-01-31T00:00:00Z"), "{error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let all = "mode = \"all_versions_and_deletes\"\n";
        assert!(source(&format!("{all}on_expired = \"reload\"")).is_ok());
        for (lines, says) in [
            (
                format!("{all}start = \"2026-01-31T00:00:00Z\""),
                "source.orders.start",
            ),
            (
                "on_expired = \"reload\"".to_owned(),
                "source.orders.on_expired",
            ),
            (
                "ru_per_second = 0".to_owned(),
                "source.orders.ru_per_second",
            ),
            ("deleted = { path = \"gone\" }".to_owned(), "deleted.path"),
            (
                "deleted = { path = \"/a\", value = [1] }".to_owned(),
                "deleted.value",
            ),
            ("mode = \"full\"".to_owned(), "all_versions_and_deletes"),
            (
                "event_time = { path = \"at\" }".to_owned(),
                "source.orders.event_time.path",
            ),
            (
                "event_time = { path = \"/at\", idle_after_ms = 0 }".to_owned(),
                "source.orders.event_time.idle_after_ms",
            ),
            (
                "event_time = { path = \"/at\", unit = \"days\" }".to_owned(),
                "rfc3339",
            ),
        ] {
            let error = source(&lines).expect_err(&lines);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_timestamp_stays_where_event_time_is_read_from_it() {
        let kept = |lines: &str| source(lines).expect("valid").kept_properties();
        assert_eq!(kept(""), [""; 0]);
        assert_eq!(kept("event_time = { path = \"/at\" }"), [""; 0]);
        let timestamp = "event_time = { path = \"/_ts\", unit = \"seconds\" }\n";
        assert_eq!(kept(timestamp), ["_ts"]);
        let both = format!("{timestamp}keep_system_properties = [\"_etag\", \"_ts\"]");
        assert_eq!(kept(&both), ["_etag", "_ts"]);
    }

    #[test]
    fn what_else_is_read_of_a_document_is_kept() {
        let kept = |lines: &str| source(lines).expect("valid").kept_fields();
        assert_eq!(kept(""), None);
        let lines = "fields = [\"id\", \"b\", \"id\"]\n";
        assert_eq!(kept(lines), Some(vec!["b".to_owned(), "id".to_owned()]));
        let more = format!(
            "{lines}keep_system_properties = [\"_etag\"]\nevent_time = {{ path = \"/at/ms\" }}"
        );
        assert_eq!(kept(&more).expect("some"), ["_etag", "at", "b", "id"]);
        let error = source("fields = []").expect_err("none");
        assert!(
            error.starts_with("source.orders.fields is empty"),
            "{error}"
        );
    }

    #[test]
    fn a_mark_may_be_any_value() {
        let deleted = |value: &str| {
            let lines = format!("deleted = {{ path = \"/a\", value = {value} }}");
            source(&lines)
                .expect("valid")
                .deleted
                .and_then(|deleted| deleted.value)
        };
        assert_eq!(deleted("true"), Some(true.into()));
        assert_eq!(deleted("3"), Some(3.into()));
        assert_eq!(deleted("\"x\""), Some("x".into()));
    }
}
