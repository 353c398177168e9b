//! One container to write, and how.

use serde::Deserialize;
use tidefeed_operators::cosmos::{
    Budget, BulkConfig, ContainerSpec, DefaultTtl, Indexing, Policy, Priority, Throughput,
};
use tidefeed_operators::moves::Moves;
use tidefeed_operators::one_row::DuplicateRows;
use tidefeed_runtime::{Error, ErrorKind, Result};

/// One container to write.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// The account, a name of `[accounts]`; default `[account]`.
    #[serde(default)]
    pub account: Option<String>,
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
    /// What becomes of rows that share a partition key and an id: they `fail` the run (default), or all but one go to the
    /// `dead_letters`. See [`DuplicateRows`]. Records of a plain stream may share them anyway.
    #[serde(default)]
    pub duplicate_rows: DuplicateRows,
    /// A document that Cosmos DB refuses for good goes to the dead letters, so many in a minute at most. More end the run, as
    /// something is wrong with all of them then. Default none: the first ends the run.
    pub dead_letters_per_minute: Option<u32>,
    /// Put the epoch of its last change into each document that is written, as `"_epoch"`: milliseconds since 1970, growing from
    /// change to change. Default false. Documents get it when they are next written, so switching it on writes nothing anew.
    #[serde(default)]
    pub stamp_epoch: bool,
}

impl SinkConfig {
    /// Checks what belongs together.
    pub(super) fn validate(&self) -> Result<()> {
        let to_letters = self.duplicate_rows == DuplicateRows::DeadLetters;
        if to_letters && self.dead_letters_per_minute.is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                "duplicate_rows is \"dead_letters\" and dead_letters_per_minute is not set: say how many are bearable",
            ));
        }
        self.container().validate()
    }

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
pub(super) fn default_settle_ms() -> u64 {
    10_000
}

#[cfg(test)]
mod tests {
    use crate::config::JobConfig;

    use super::*;

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
                "duplicate_rows = \"dead_letters\"",
                "sink.v: duplicate_rows is \"dead_letters\" and",
            ),
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
}
