//! What a source is told.

use serde::Deserialize;
use tidefeed_runtime::Result;

use super::within;

/// One container to read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The account, a name of `[accounts]`; default `[account]`.
    #[serde(default)]
    pub account: Option<String>,
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
