//! Points in time as people write them.

use std::time::SystemTime;

use tidefeed_runtime::{Context, ErrorKind, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Reads a time as in RFC 3339.
///
/// # Errors
/// `Config` when it is something else.
pub(crate) fn parse_time(text: &str) -> Result<SystemTime> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed.map(SystemTime::from).context(ErrorKind::Config, || {
        format!("{text:?} is no time: write it like 2026-01-31T00:00:00Z")
    })
}
