//! Where sources and sinks get their containers from.

use std::sync::Arc;

use async_trait::async_trait;
use tidefeed_operators::dead_letter::DeadLetters;
use tidefeed_operators::feed::ChangeFeed;
use tidefeed_operators::files::FileFeed;
use tidefeed_operators::ingest::IngestFeed;
use tidefeed_operators::progress::ProgressMarks;
use tidefeed_operators::target::Target;
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::config::{DeadLettersConfig, Place, ProgressConfig, SinkConfig, SourceConfig};

/// What a source reads: its container, which `connect` opens, or what needs nobody to open it.
///
/// # Errors
/// As for a container; `Config` when a bearer token is not in the environment.
pub(crate) async fn source(
    connect: &dyn Connect,
    name: &str,
    config: &SourceConfig,
) -> Result<Arc<dyn ChangeFeed>> {
    let section = format!("source.{name}");
    Ok(match config.place() {
        Place::Container => connect.source(name, config).await?,
        Place::Files => Arc::new(FileFeed::new(&section, config.files_options())?),
        Place::Posts => Arc::new(IngestFeed::new(&section, config.ingest_options(&section)?)?),
    })
}

/// Opens the containers of a job. Jobs use [`crate::Cosmos`]; tests may use containers in memory.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// The change feed of a source's container.
    ///
    /// # Errors
    /// When the account cannot be reached or refuses the key, or the container does not exist.
    async fn source(&self, name: &str, config: &SourceConfig) -> Result<Arc<dyn ChangeFeed>>;

    /// A sink's container, created if the configuration says so. The job closes the target when it ends, so each job needs
    /// one of its own.
    ///
    /// # Errors
    /// As for a source, and when the container's partition key is another.
    async fn sink(&self, name: &str, config: &SinkConfig) -> Result<Arc<dyn Target>>;

    /// The container for dead letters, created if it does not exist. The default says that there can be none.
    ///
    /// # Errors
    /// As for a source.
    async fn dead_letters(
        &self,
        _job: &str,
        place: &DeadLettersConfig,
    ) -> Result<Arc<dyn DeadLetters>> {
        let DeadLettersConfig {
            database,
            container,
            ..
        } = place;
        Err(Error::new(
            ErrorKind::Config,
            format!(
                "dead letters cannot go to {database}/{container}: leave out dead_letters, and they go to the checkpoint"
            ),
        ))
    }

    /// The container for progress documents, created if it does not exist. The default says that there can be none.
    ///
    /// # Errors
    /// As for a source.
    async fn progress(&self, _job: &str, place: &ProgressConfig) -> Result<Arc<dyn ProgressMarks>> {
        let ProgressConfig {
            database,
            container,
            ..
        } = place;
        Err(Error::new(
            ErrorKind::Config,
            format!("progress documents cannot go to {database}/{container}: leave out progress"),
        ))
    }
}
