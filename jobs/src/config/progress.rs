//! Where readers learn how far the views are.

use std::time::Duration;

use serde::Deserialize;
use tidefeed_operators::cosmos::{ContainerProgress, ContainerSpec};
use tidefeed_runtime::Result;

use super::within;

/// A container for the progress documents of this job and perhaps of others, partitioned by `/id`; created if it does not exist.
///
/// There is a document for each sink, `{"id":"JOB.SINK","job":..,"sink":..,"epoch":N,"committed_ms":..}`: the sink's container
/// holds every change through epoch N, and perhaps parts of later ones. It is written after each commit, or as often as the
/// container takes it; fewer commits (`checkpoint.interval_ms`) cost fewer request units here. While a sink is rebuilt, and
/// before its first commit, it has none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressConfig {
    /// The account, a name of `[accounts]`; default `[account]`.
    #[serde(default)]
    pub account: Option<String>,
    /// The database.
    pub database: String,
    /// The container. It belongs to no source and no sink.
    pub container: String,
    /// How long a write whose answer was lost may still take effect, in milliseconds; default 10000, at most 3600000. See
    /// [`SinkConfig::settle_ms`](super::SinkConfig::settle_ms).
    #[serde(default = "super::sink::default_settle_ms")]
    pub settle_ms: u64,
}

impl ProgressConfig {
    /// The container as it should be.
    pub(crate) fn spec(&self) -> ContainerSpec {
        ContainerProgress::spec(&self.database, &self.container)
    }

    pub(crate) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    pub(super) fn validate(&self) -> Result<()> {
        within(
            "progress.settle_ms",
            self.settle_ms,
            0,
            3_600_000,
            "milliseconds",
        )?;
        self.spec()
            .validate()
            .map_err(|error| error.wrap("progress"))
    }
}
