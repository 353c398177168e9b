//! Where the metrics are pushed.

use serde::Deserialize;
use tidefeed_runtime::{Error, ErrorKind, Result};

/// A collector of OpenTelemetry that takes the metrics by OTLP over HTTP. Only programs that are built with the feature `otlp` push.
/// See `docs/metrics.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// The collector, as `http://127.0.0.1:4318`, to which `/v1/metrics` is added; default what the environment says in
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, or with its path in `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`, else none. Headers for it are in
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub endpoint: Option<String>,
}

impl OtlpConfig {
    /// Checks that the program can do what is asked of it.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.endpoint.is_some() && !cfg!(feature = "otlp") {
            return Err(Error::new(
                ErrorKind::Config,
                "otlp.endpoint is set, and this program cannot push: build it with the feature otlp of tidefeed, or remove it",
            ));
        }
        Ok(())
    }
}
