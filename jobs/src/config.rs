//! A job's configuration: TOML, with secrets from the environment.
//!
//! ```toml
//! workers = 2
//!
//! [account]
//! endpoint = "https://example.documents.azure.com"   # the key comes from the environment, variable COSMOS_KEY
//!
//! [source.flights]
//! database = "aviation"
//! container = "flights"
//!
//! [sink.carrier_delays]
//! database = "aviation"
//! container = "carrier_delays"
//! partition_key = ["/id"]
//!
//! [checkpoint]
//! directory = "checkpoint"   # or url = "s3://bucket/prefix", with the credentials from the environment
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidefeed_operators::cosmos::{
    Budget, BulkConfig, ContainerDeadLetters, ContainerSpec, Policy, Priority,
};
pub use tidefeed_operators::cosmos::{DefaultTtl, Indexing, Throughput};
pub use tidefeed_operators::moves::Moves;
use tidefeed_runtime::checkpoint::{CheckpointStore, LeaseConfig, Location};
use tidefeed_runtime::{CommitConfig, Context, EpochConfig, Error, ErrorKind, LoadConfig, Result};

/// Everything that a job can be told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobConfig {
    /// Worker threads; default 1, 1 to 256. More than the machine has cores gains nothing.
    pub workers: Workers,
    /// The Cosmos DB account of all sources and sinks.
    pub account: AccountConfig,
    /// Sources by the name that the job's code uses.
    pub source: BTreeMap<String, SourceConfig>,
    /// Sinks by the name that the job's code uses.
    pub sink: BTreeMap<String, SinkConfig>,
    /// How often epochs are minted and how far they may run ahead.
    pub epoch: EpochConfig,
    /// How much of the checkpoint may wait in memory while a run starts.
    pub load: LoadConfig,
    /// Where and when checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// The container of the dead letters; default none: they are in the checkpoint.
    pub dead_letters: Option<DeadLettersConfig>,
}

/// A number of worker threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Workers(pub usize);

impl Default for Workers {
    fn default() -> Self {
        Workers(1)
    }
}

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

/// One container to read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The database.
    pub database: String,
    /// The container.
    pub container: String,
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

/// One container to write.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// The database.
    pub database: String,
    /// The container.
    pub container: String,
    /// The paths of the container's partition key, one to three; default `["/id"]`.
    #[serde(default = "default_partition_key")]
    pub partition_key: Vec<String>,
    /// Create database and container if they do not exist; default true. An existing container is never changed: its
    /// partition key must be the one above, and a difference in what follows is a warning.
    #[serde(default = "default_true")]
    pub create: bool,
    /// The container's request units per second, `{ manual = 400 }` or `{ autoscale = 4000 }`; see [`Throughput`]. Default
    /// none: serverless, or the database's shared throughput, or 400, as the account has it.
    #[serde(default)]
    pub throughput_ru: Option<Throughput>,
    /// When documents expire, `{ seconds = 86400 }` or `"per_document"`; see [`DefaultTtl`]. Default none: never.
    #[serde(default)]
    pub default_ttl: Option<DefaultTtl>,
    /// What of a document is indexed, `"none"` or `{ paths = { included = ["/total/?"], excluded = ["/*"] } }`; see
    /// [`Indexing`]. Default none: everything. Less makes writes cheaper.
    #[serde(default)]
    pub indexing: Option<Indexing>,
    /// Requests under way at once for each process; default 16, 1 to 1000. At most 4 of them go to one physical partition, and
    /// the pace of each adapts to what it takes, so larger helps with many partitions only.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: usize,
    /// How long a write whose answer was lost may still take effect, in milliseconds; default 10000, at most 3600000. Until then
    /// its document gets no other content. Above the 5 s for which Cosmos DB works on a request; less is for servers that
    /// are known to be faster.
    #[serde(default = "default_settle_ms")]
    pub settle_ms: u64,
    /// Which requests carry the writes; default `bulk`. See [`Policy`].
    #[serde(default)]
    pub policy: Policy,
    /// The share of requests that may be throttled, above 0 and below 1; default 0.012. See [`BulkConfig::throttled_share`].
    #[serde(default = "default_throttled_share")]
    pub throttled_share: f64,
    /// What each process may use of the container's throughput, as `{ ru_per_s = 400.0 }` or `{ fraction = 0.5 }`; default all
    /// that it gets.
    pub budget: Option<Budget>,
    /// How Cosmos DB ranks the writes among others on the container, `high` or `low`; default its default.
    pub priority: Option<Priority>,
    /// The container's throughput bucket that pays, 1 to 5; default none.
    pub throughput_bucket: Option<u8>,
    /// How a row is written whose partition key changes: `in_order` (default) or `unordered`. See [`Moves`].
    #[serde(default)]
    pub moves: Moves,
    /// A document that Cosmos DB refuses for good goes to the dead letters, so many in a minute at most. More end the run, as
    /// something is wrong with all of them then. Default none: the first ends the run.
    pub dead_letters_per_minute: Option<u32>,
}

impl SinkConfig {
    /// The container as it should be.
    pub(crate) fn container(&self) -> ContainerSpec {
        ContainerSpec {
            database: self.database.clone(),
            container: self.container.clone(),
            partition_key: self.partition_key.clone(),
            throughput_ru: self.throughput_ru,
            default_ttl: self.default_ttl,
            indexing: self.indexing.clone(),
        }
    }
}

/// A container for the dead letters of this job and perhaps of others, partitioned by `/sink`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersConfig {
    /// The database.
    pub database: String,
    /// The container. It belongs to no source and no sink.
    pub container: String,
}

impl DeadLettersConfig {
    /// The container as it should be.
    pub(crate) fn spec(&self) -> ContainerSpec {
        ContainerDeadLetters::spec(&self.database, &self.container)
    }
}

/// Where and when checkpoints are written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
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

fn default_page_size() -> u32 {
    1000
}
fn default_poll_ms() -> u64 {
    10
}
fn default_poll_max_ms() -> u64 {
    1000
}
fn default_partition_key() -> Vec<String> {
    vec!["/id".to_owned()]
}
fn default_true() -> bool {
    true
}
fn default_max_in_flight() -> usize {
    16
}
fn default_throttled_share() -> f64 {
    BulkConfig::default().throttled_share
}
fn default_settle_ms() -> u64 {
    10_000
}

impl JobConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// `Config`, naming the file, the line and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context(ErrorKind::Config, || {
            format!(
                "cannot read the configuration {}: name it with --config FILE",
                path.display()
            )
        })?;
        Self::parse(&text).map_err(|error| error.wrap(path.display().to_string()))
    }

    /// Reads a configuration from text.
    ///
    /// # Errors
    /// `Config`, naming the line and the key, and what is allowed there.
    pub fn parse(text: &str) -> Result<Self> {
        let config: JobConfig = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                1 + text[..span.start.min(text.len())].matches('\n').count()
            });
            Error::new(
                ErrorKind::Config,
                format!("line {line}: {}", error.message().replace('\n', " ")),
            )
        })?;
        Ok(config)
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// `Config`, naming the key and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.epoch.validate()?;
        self.load.validate()?;
        self.checkpoint.commit().validate()?;
        self.checkpoint.location()?;
        let lease = self.checkpoint.lease();
        let millis = |duration: Duration| duration.as_millis() as u64;
        let (ms, hour) = ("milliseconds", 3_600_000);
        within("checkpoint.lease_ms", millis(lease.duration), 100, hour, ms)?;
        within("checkpoint.settle_ms", millis(lease.settle), 0, hour, ms)?;
        within("workers", self.workers.0 as u64, 1, 256, "threads")?;
        for (name, source) in &self.source {
            within(
                &format!("source.{name}.page_size"),
                source.page_size.into(),
                1,
                10_000,
                "documents",
            )?;
            within(
                &format!("source.{name}.poll_max_ms"),
                source.poll_max_ms,
                1,
                3_600_000,
                "milliseconds",
            )?;
            within(
                &format!("source.{name}.poll_ms"),
                source.poll_ms,
                1,
                source.poll_max_ms,
                "milliseconds",
            )?;
        }
        for (name, sink) in &self.sink {
            within(
                &format!("sink.{name}.max_in_flight"),
                sink.max_in_flight as u64,
                1,
                1000,
                "requests",
            )?;
            within(
                &format!("sink.{name}.settle_ms"),
                sink.settle_ms,
                0,
                3_600_000,
                "milliseconds",
            )?;
            let sound = sink.container().validate();
            sound.map_err(|error| error.wrap(format!("sink.{name}")))?;
        }
        if let Some(letters) = &self.dead_letters {
            let sound = letters.spec().validate();
            sound.map_err(|error| error.wrap("dead_letters"))?;
        }
        self.check_containers()
    }

    /// Two sinks on one container would overwrite each other, and a sink on a source's container would feed itself. Dead letters
    /// in either would be taken for its documents.
    fn check_containers(&self) -> Result<()> {
        let sources = self
            .source
            .iter()
            .map(|(name, s)| (format!("source.{name}"), (&s.database, &s.container)));
        let sinks = self
            .sink
            .iter()
            .map(|(name, s)| (format!("sink.{name}"), (&s.database, &s.container)));
        let mut users: BTreeMap<_, String> =
            sources.map(|(user, container)| (container, user)).collect();
        let letters = self.dead_letters.iter();
        let letters = letters.map(|l| ("dead_letters".to_owned(), (&l.database, &l.container)));
        for (sink, container) in sinks.chain(letters) {
            if let Some(other) = users.insert(container, sink.clone()) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "{sink} writes to {}/{}, which {other} uses already: give it a container of its own",
                        container.0, container.1
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn within(key: &str, value: u64, least: u64, most: u64, unit: &str) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("{key} is {value}: allowed is {least} to {most} {unit}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_gets_the_defaults() {
        let text = "[source.flights]\ndatabase = \"a\"\ncontainer = \"b\"\n[sink.v]\ndatabase = \"a\"\ncontainer = \"v\"\n";
        let config = JobConfig::parse(text).expect("valid");
        assert_eq!(
            (config.workers.0, config.source["flights"].page_size),
            (1, 1000)
        );
        assert_eq!(config.sink["v"].partition_key, ["/id"]);
        assert!(config.sink["v"].create);
        config.validate().expect("defaults are in range");
    }

    #[test]
    fn unknown_and_wrong_keys_are_named_with_what_is_allowed() {
        let report = |text: &str| JobConfig::parse(text).expect_err("wrong").report();
        let unknown = report("[checkpoint]\ndirectory = \"x\"\n[epoch]\nmin = 3\n");
        assert!(
            unknown.starts_with("line 4: unknown field `min`, expected one of `min_ms`"),
            "{unknown}"
        );
        let missing = report("[source.flights]\ndatabase = \"a\"\n");
        assert!(missing.contains("missing field `container`"), "{missing}");
        let wrong =
            report("[source.flights]\ndatabase = \"a\"\ncontainer = \"b\"\nstart = \"later\"\n");
        assert!(
            wrong.contains("`later`") && wrong.contains("`beginning`"),
            "{wrong}"
        );
    }

    #[test]
    fn a_sink_says_what_its_container_is_to_be() {
        let sink = |text: &str| {
            let head = "[sink.v]\ndatabase = \"a\"\ncontainer = \"v\"\n";
            let config = JobConfig::parse(&(head.to_owned() + text)).expect("parses");
            config.validate().map(|()| config.sink["v"].container())
        };
        let text = "partition_key = [\"/tenant\", \"/id\"]\nthroughput_ru = { autoscale = 4000 }\n\
                    default_ttl = { seconds = 60 }\nindexing = { paths = { excluded = [\"/*\"] } }\n";
        let expected = ContainerSpec {
            database: "a".into(),
            container: "v".into(),
            partition_key: vec!["/tenant".into(), "/id".into()],
            throughput_ru: Some(Throughput::Autoscale(4000)),
            default_ttl: Some(DefaultTtl::Seconds(60)),
            indexing: Some(Indexing::Paths {
                included: Vec::new(),
                excluded: vec!["/*".into()],
            }),
        };
        assert_eq!(sink(text).expect("sound"), expected);
        let sparse = sink("default_ttl = \"per_document\"\n").expect("sound");
        assert_eq!(sparse.default_ttl, Some(DefaultTtl::PerDocument));
        assert_eq!(sparse.indexing, None);
        for (text, says) in [
            (
                "throughput_ru = { manual = 450 }",
                "sink.v: throughput_ru.manual is 450: it must be 400 to",
            ),
            (
                "partition_key = [\"/a\", \"b\"]",
                "sink.v: partition key path \"b\"",
            ),
            (
                "indexing = \"none\"\ndefault_ttl = \"per_document\"",
                "sink.v: default_ttl needs an index",
            ),
        ] {
            let report = sink(text).expect_err("wrong").report();
            assert!(report.starts_with(says), "{report}");
        }
    }

    #[test]
    fn a_container_has_one_user() {
        let part = |kind: &str, name: &str, container: &str| {
            format!("[{kind}.{name}]\ndatabase = \"d\"\ncontainer = \"{container}\"\n")
        };
        for (other, user) in [
            (part("sink", "a", "x"), "sink.a"),
            (part("source", "a", "x"), "source.a"),
        ] {
            let letters = "[dead_letters]\ndatabase = \"d\"\ncontainer = \"x\"\n";
            let config = JobConfig::parse(&(other.clone() + letters)).expect("parses");
            let report = config.validate().expect_err("two users").report();
            let says = format!("dead_letters writes to d/x, which {user} uses already");
            assert!(report.starts_with(&says), "{report}");
            let config = JobConfig::parse(&(other + &part("sink", "b", "x"))).expect("parses");
            let report = config.validate().expect_err("two users").report();
            assert!(
                report.starts_with(&format!("sink.b writes to d/x, which {user} uses")),
                "{report}"
            );
        }
    }

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

    #[test]
    fn values_out_of_range_are_named() {
        let text = "[source.f]\ndatabase = \"a\"\ncontainer = \"b\"\npoll_ms = 5000\n";
        let error = JobConfig::parse(text)
            .expect("parses")
            .validate()
            .expect_err("too long");
        assert_eq!(
            error.report(),
            "source.f.poll_ms is 5000: allowed is 1 to 1000 milliseconds"
        );
    }
}
