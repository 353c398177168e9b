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

/// Writes a time, milliseconds since the UNIX epoch. One beyond the year 9999 cannot be written so, and stays a number.
pub(crate) fn written_time(at_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    let Ok(at) = at else {
        return format!("{at_ms} ms");
    };
    let (hour, minute, second, ms) = at.to_hms_milli();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", at.date())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_time_that_was_written_reads_back() {
        assert_eq!(written_time(0), "1970-01-01T00:00:00.000Z");
        for at_ms in [1, 1_709_164_799_999, 1_769_817_600_500, 253_402_300_799_999] {
            let read = parse_time(&written_time(at_ms)).expect("a time");
            assert_eq!(read, UNIX_EPOCH + Duration::from_millis(at_ms));
        }
        assert_eq!(written_time(253_402_300_800_000), "253402300800000 ms");
        assert!(written_time(u64::MAX).ends_with(" ms"));
    }
}
