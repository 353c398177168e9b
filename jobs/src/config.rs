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
//! [accounts.archive]
//! endpoint = "https://archive.documents.azure.com"
//! key_file = "/run/secrets/archive"
//!
//! [sink.carrier_days]
//! account = "archive"        # without it: [account]
//! database = "aviation"
//! container = "carrier_days"
//!
//! [source.returns]
//! files = "returns/*.jsonl"  # or listen = "127.0.0.1:8090": documents that producers post
//! key = ["/order", "/id"]
//!
//! [checkpoint]
//! directory = "checkpoint"   # or url = "s3://bucket/prefix", with the credentials from the environment
//! ```

mod account;
mod checkpoint;
mod http;
mod log;
mod otlp;
mod place;
mod progress;
mod sink;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tidefeed_operators::cosmos::{ContainerDeadLetters, ContainerSpec};
pub use tidefeed_operators::cosmos::{
    DefaultTtl, FeedMode, Indexing, OnExpired, SoftDelete, Throughput,
};
pub use tidefeed_operators::moves::Moves;
pub use tidefeed_operators::one_row::DuplicateRows;
pub use tidefeed_operators::time::event_time::{EventTimeConfig, TimeUnit};
use tidefeed_runtime::{Context, EpochConfig, Error, ErrorKind, LoadConfig, Result};

pub use account::{AccountConfig, Auth, Variable};
pub use checkpoint::CheckpointConfig;
pub use http::{HttpConfig, TOKEN_VARIABLE};
pub(crate) use http::{ListenAt, Token};
pub use log::{LogConfig, LogFormat};
pub use otlp::OtlpConfig;
pub use place::{FileNames, Place};
pub use progress::ProgressConfig;
pub use sink::SinkConfig;
pub use source::{SourceConfig, StartAt};

/// Everything that a job can be told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobConfig {
    /// Worker threads; default 1, 1 to 256. More than the machine has cores gains nothing.
    pub workers: Workers,
    /// The Cosmos DB account of whatever names no other.
    pub account: AccountConfig,
    /// Other accounts, each by the name that `account = "NAME"` of a source, a sink, `dead_letters` or `progress` gives.
    pub accounts: BTreeMap<String, AccountConfig>,
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
    /// The container of the progress documents; default none: there are no such documents.
    pub progress: Option<ProgressConfig>,
    /// Where the job tells how it is; default nowhere.
    pub http: HttpConfig,
    /// How the job logs; default text.
    pub log: LogConfig,
    /// Where the metrics are pushed; default nowhere.
    pub otlp: OtlpConfig,
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

/// A container for the dead letters of this job and perhaps of others, partitioned by `/sink`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersConfig {
    /// The account, a name of `[accounts]`; default `[account]`.
    #[serde(default)]
    pub account: Option<String>,
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
        self.account.validate("account")?;
        for (name, account) in &self.accounts {
            account.validate(&format!("accounts.{name}"))?;
        }
        self.epoch.validate()?;
        self.load.validate()?;
        self.http.validate()?;
        self.otlp.validate()?;
        self.checkpoint.commit().validate()?;
        self.checkpoint.location()?;
        let lease = self.checkpoint.lease();
        let millis = |duration: Duration| duration.as_millis() as u64;
        let (ms, hour) = ("milliseconds", 3_600_000);
        within("checkpoint.lease_ms", millis(lease.duration), 100, hour, ms)?;
        within("checkpoint.settle_ms", millis(lease.settle), 0, hour, ms)?;
        within("workers", self.workers.0 as u64, 1, 256, "threads")?;
        for (name, source) in &self.source {
            source.validate(name)?;
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
            let sound = sink.validate();
            sound.map_err(|error| error.wrap(format!("sink.{name}")))?;
        }
        if let Some(letters) = &self.dead_letters {
            let sound = letters.spec().validate();
            sound.map_err(|error| error.wrap("dead_letters"))?;
        }
        if let Some(progress) = &self.progress {
            progress.validate()?;
        }
        self.check_containers()
    }

    /// The account of this name, the default one for none.
    ///
    /// # Errors
    /// `Config` when there is none of that name, naming those there are.
    pub(crate) fn account_named(&self, name: Option<&str>) -> Result<&AccountConfig> {
        let Some(name) = name else {
            return Ok(&self.account);
        };
        self.accounts.get(name).ok_or_else(|| {
            let there: Vec<_> = self.accounts.keys().map(String::as_str).collect();
            let there = match there.is_empty() {
                true => "the configuration has no such sections".to_owned(),
                false => format!("there are {}", there.join(", ")),
            };
            Error::new(
                ErrorKind::Config,
                format!("account is {name:?}, and there is no [accounts.{name}]: {there}"),
            )
        })
    }

    /// The containers of the job, in the order in which they are checked: what uses each, and where it is.
    pub(crate) fn containers(&self) -> Vec<ContainerUse<'_>> {
        let sources = self.source.iter();
        let sources = sources.filter(|(_, s)| s.place() == Place::Container);
        let sources = sources.map(|(name, s)| {
            let user = format!("source.{name}");
            ContainerUse::new(user, &s.account, &s.database, &s.container)
        });
        let sinks = self.sink.iter().map(|(name, s)| {
            let user = format!("sink.{name}");
            ContainerUse::new(user, &s.account, &s.database, &s.container)
        });
        let letters = self.dead_letters.iter().map(|l| {
            ContainerUse::new(
                "dead_letters".to_owned(),
                &l.account,
                &l.database,
                &l.container,
            )
        });
        let progress = self.progress.iter().map(|p| {
            ContainerUse::new("progress".to_owned(), &p.account, &p.database, &p.container)
        });
        sources
            .chain(sinks)
            .chain(letters)
            .chain(progress)
            .collect()
    }

    /// Two sinks on one container would overwrite each other, and a sink on a source's container would feed itself. Dead letters
    /// and progress documents in either would be taken for its documents. Two names of one account are one account.
    fn check_containers(&self) -> Result<()> {
        let mut users: BTreeMap<_, String> = BTreeMap::new();
        for used in self.containers() {
            let account = self.account_named(used.account);
            let account = account.map_err(|error| error.wrap(used.user.clone()))?;
            let endpoint = account.endpoint.trim().trim_end_matches('/');
            let place = (endpoint.to_ascii_lowercase(), used.database, used.container);
            let reads = used.user.starts_with("source.");
            let other = users.insert(place, used.user.clone());
            // Several sources may read one container.
            if let (Some(other), false) = (other, reads) {
                let ContainerUse {
                    user,
                    database,
                    container,
                    ..
                } = used;
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "{user} writes to {database}/{container}, which {other} uses already: give it a container of its own"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A container and what uses it.
pub(crate) struct ContainerUse<'a> {
    /// The section of the configuration.
    pub(crate) user: String,
    /// The account's name; the default account for none.
    pub(crate) account: Option<&'a str>,
    pub(crate) database: &'a str,
    pub(crate) container: &'a str,
}

impl<'a> ContainerUse<'a> {
    fn new(
        user: String,
        account: &'a Option<String>,
        database: &'a str,
        container: &'a str,
    ) -> Self {
        ContainerUse {
            user,
            account: account.as_deref(),
            database,
            container,
        }
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
        let missing = JobConfig::parse("[source.flights]\ndatabase = \"a\"\n").expect("parses");
        let missing = missing.validate().expect_err("no container").report();
        assert!(
            missing.starts_with("source.flights has no container"),
            "{missing}"
        );
        let wrong =
            report("[source.flights]\ndatabase = \"a\"\ncontainer = \"b\"\nstart = \"later\"\n");
        assert!(
            wrong.contains("\"later\"") && wrong.contains("\"beginning\""),
            "{wrong}"
        );
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
            let config =
                JobConfig::parse(&(other.clone() + &letters.replace("dead_letters", "progress")));
            let report = config
                .expect("parses")
                .validate()
                .expect_err("two users")
                .report();
            let says = format!("progress writes to d/x, which {user} uses already");
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
    fn an_account_is_known_by_its_name_and_a_container_by_its_account() {
        let head = "[account]\nendpoint = \"https://a/\"\n[accounts.b]\nendpoint = \"https://b\"\n\
                    [accounts.same]\nendpoint = \"https://A\"\n[source.s]\ndatabase = \"d\"\ncontainer = \"x\"\n";
        let sink = |account: &str| {
            let sink = format!("[sink.v]\n{account}\ndatabase = \"d\"\ncontainer = \"x\"\n");
            JobConfig::parse(&(head.to_owned() + &sink)).expect("parses")
        };
        let other = sink("account = \"b\"");
        other.validate().expect("another account");
        let used: Vec<_> = other.containers().iter().map(|used| used.account).collect();
        assert_eq!(used, [None, Some("b")]);
        let report = |account| sink(account).validate().expect_err("refused").report();
        assert!(report("account = \"same\"").contains("which source.s uses already"));
        assert!(report("").contains("which source.s uses already"));
        assert_eq!(
            report("account = \"c\""),
            "sink.v: account is \"c\", and there is no [accounts.c]: there are b, same"
        );
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
