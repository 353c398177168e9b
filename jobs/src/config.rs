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

mod account;
mod checkpoint;
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
use tidefeed_runtime::{Context, EpochConfig, Error, ErrorKind, LoadConfig, Result};

pub use account::{AccountConfig, Auth};
pub use checkpoint::CheckpointConfig;
pub use progress::ProgressConfig;
pub use sink::SinkConfig;
pub use source::{SourceConfig, StartAt};

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
    /// The container of the progress documents; default none: there are no such documents.
    pub progress: Option<ProgressConfig>,
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
        self.account.validate()?;
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

    /// Two sinks on one container would overwrite each other, and a sink on a source's container would feed itself. Dead letters
    /// and progress documents in either would be taken for its documents.
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
        let progress = self.progress.iter();
        let progress = progress.map(|p| ("progress".to_owned(), (&p.database, &p.container)));
        for (sink, container) in sinks.chain(letters).chain(progress) {
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
