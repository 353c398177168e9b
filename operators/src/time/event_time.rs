//! Event time: when what a document tells of has happened, as the document says.
//!
//! It is read from one field of the JSON as it was sent, beside what the job's type makes of it. A document without the field, or with
//! something else in it, and one that was removed, have no event time: they move no watermark, and are counted.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidefeed_runtime::{Error, ErrorKind, Records, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::document::{fields_of, values_at};

/// The property in which Cosmos DB keeps when a document was written, in seconds.
pub const TIMESTAMP_PROPERTY: &str = "_ts";

/// How event time is read, and what a watermark makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventTimeConfig {
    /// The field that holds it, as `/placed_at` or `/order/placed_at`. `/_ts` is when Cosmos DB wrote the document.
    pub path: String,
    /// What is in the field; default: milliseconds, and seconds of `/_ts`.
    #[serde(default)]
    pub unit: Option<TimeUnit>,
    /// How far a document may be behind the newest one of its feed range without being late, milliseconds; default 5000, at most a
    /// week. Larger waits longer for every window; smaller makes more documents late. Default: a guess.
    #[serde(default = "default_out_of_orderness_ms")]
    pub out_of_orderness_ms: u64,
    /// How long a feed range must have had nothing to count as idle, milliseconds; default 60000, 1 to a week. Larger lets a quiet range
    /// hold the watermark for longer; smaller makes what it then brings late. It is noticed when the range is asked next, up to
    /// `poll_max_ms` later. Default: a guess.
    #[serde(default = "default_idle_after_ms")]
    pub idle_after_ms: u64,
}

/// What a field holds that is a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// A number of milliseconds since the UNIX epoch.
    Milliseconds,
    /// A number of seconds since the UNIX epoch, perhaps with a fraction.
    Seconds,
    /// A text as in RFC 3339, `2026-01-31T00:00:00.000Z`.
    Rfc3339,
}

fn default_out_of_orderness_ms() -> u64 {
    5_000
}
fn default_idle_after_ms() -> u64 {
    60_000
}

const WEEK_MS: u64 = 7 * 24 * 3_600_000;

impl EventTimeConfig {
    /// Checks every value against its range. `section` is where it is configured, for example `source.orders`.
    ///
    /// # Errors
    /// `Config`, naming the key and what is allowed.
    pub fn compile(&self, section: &str) -> Result<EventTime> {
        let path = fields_of(&format!("{section}.event_time.path"), &self.path)?;
        let bounded = [
            ("out_of_orderness_ms", self.out_of_orderness_ms, 0),
            ("idle_after_ms", self.idle_after_ms, 1),
        ];
        for (key, value, least) in bounded {
            if !(least..=WEEK_MS).contains(&value) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "{section}.event_time.{key} is {value}: allowed are {least} to {WEEK_MS} milliseconds"
                    ),
                ));
            }
        }
        let unit = self.unit.unwrap_or(match self.is_timestamp() {
            true => TimeUnit::Seconds,
            false => TimeUnit::Milliseconds,
        });
        Ok(EventTime {
            path: [path],
            unit,
            out_of_orderness_ms: self.out_of_orderness_ms,
            idle_after: Duration::from_millis(self.idle_after_ms),
        })
    }

    /// The top-level property that holds it.
    pub fn property(&self) -> &str {
        let path = self.path.trim_start_matches('/');
        path.split_once('/').map_or(path, |(first, _)| first)
    }

    /// Whether it is when Cosmos DB wrote the document, which is then kept in what is read.
    pub fn is_timestamp(&self) -> bool {
        self.path.strip_prefix('/') == Some(TIMESTAMP_PROPERTY)
    }
}

/// An [`EventTimeConfig`] that is ready to be used.
#[derive(Clone, Debug)]
pub struct EventTime {
    path: [Vec<String>; 1],
    unit: TimeUnit,
    out_of_orderness_ms: u64,
    idle_after: Duration,
}

/// What some records say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// No earlier time is expected after them, milliseconds since the UNIX epoch; 0 if none has a time.
    pub at_ms: u64,
    /// Documents without event time.
    pub without: u64,
}

impl EventTime {
    /// How long a range must have had nothing to count as idle.
    pub fn idle_after(&self) -> Duration {
        self.idle_after
    }

    /// What these records of a feed range say.
    pub fn of(&self, records: &Records) -> Found {
        let mut found = Found::default();
        for body in records.iter().filter_map(|record| record.body) {
            match self.time_ms(body) {
                Some(time_ms) => found.at_ms = found.at_ms.max(time_ms),
                None => found.without += 1,
            }
        }
        found.at_ms = found.at_ms.saturating_sub(self.out_of_orderness_ms);
        found
    }

    fn time_ms(&self, body: &[u8]) -> Option<u64> {
        let (mut values, _) = values_at(body, &self.path, &[]).ok()?;
        match (values.pop()??, self.unit) {
            (Value::Number(number), unit @ (TimeUnit::Milliseconds | TimeUnit::Seconds)) => {
                let scale = if unit == TimeUnit::Seconds { 1_000 } else { 1 };
                match number.as_u64() {
                    Some(whole) => whole.checked_mul(scale),
                    // Negative ones become 0: before 1970 is as good as never.
                    None => number.as_f64().map(|number| (number * scale as f64) as u64),
                }
            }
            (Value::String(text), TimeUnit::Rfc3339) => {
                let time = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
                Some(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &str, unit: Option<TimeUnit>) -> EventTimeConfig {
        EventTimeConfig {
            path: path.to_owned(),
            unit,
            out_of_orderness_ms: 100,
            idle_after_ms: 1_000,
        }
    }

    fn found(config: &EventTimeConfig, bodies: &[&str]) -> (u64, u64) {
        let time = config.compile("source.s").expect("valid");
        let record = |body: &&str| tidefeed_runtime::Record {
            key: "k".into(),
            body: Some((*body).to_owned().into()),
        };
        let found = time.of(&bodies.iter().map(record).collect());
        (found.at_ms, found.without)
    }

    #[test]
    fn the_newest_time_counts_less_what_may_be_out_of_order() {
        let ms = config("/at", None);
        assert_eq!(found(&ms, &[]), (0, 0));
        let bodies = [r#"{"at":1500,"x":[1]}"#, r#"{"at":1200}"#];
        assert_eq!(found(&ms, &bodies), (1_400, 0));
        assert_eq!(found(&ms, &[r#"{"at":50}"#]), (0, 0));
        assert_eq!(found(&ms, &[r#"{"at":1500.75}"#]), (1_400, 0));
        let deep = config("/order/at", None);
        assert_eq!(found(&deep, &[r#"{"order":{"at":700},"at":9}"#]), (600, 0));
    }

    #[test]
    fn units_are_what_the_configuration_says() {
        let seconds = config("/at", Some(TimeUnit::Seconds));
        assert_eq!(found(&seconds, &[r#"{"at":3}"#]), (2_900, 0));
        assert_eq!(found(&seconds, &[r#"{"at":3.5}"#]), (3_400, 0));
        let written = config("/_ts", None);
        assert!(written.is_timestamp());
        assert_eq!(found(&written, &[r#"{"_ts":3}"#]), (2_900, 0));
        let text = config("/at", Some(TimeUnit::Rfc3339));
        let bodies = [
            r#"{"at":"1970-01-01T00:00:02.5Z"}"#,
            r#"{"at":"1970-01-01T01:00:02+01:00"}"#,
        ];
        assert_eq!(found(&text, &bodies), (2_400, 0));
        assert_eq!(found(&text, &[r#"{"at":"1969-01-01T00:00:02Z"}"#]), (0, 0));
    }

    #[test]
    fn a_document_without_a_time_is_counted_and_moves_nothing() {
        let ms = config("/at", None);
        let bodies = [
            r#"{"at":"1970-01-01T00:00:02Z"}"#,
            r#"{"at":null}"#,
            r#"{"other":7}"#,
            "no JSON",
            r#"{"at":1500}"#,
        ];
        assert_eq!(found(&ms, &bodies), (1_400, 4));
        let text = config("/at", Some(TimeUnit::Rfc3339));
        assert_eq!(found(&text, &[r#"{"at":1500}"#]), (0, 1));
        let seconds = config("/at", Some(TimeUnit::Seconds));
        assert_eq!(found(&seconds, &[r#"{"at":18446744073709551615}"#]), (0, 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |config: EventTimeConfig| {
            let error = config.compile("source.s").expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Config);
            error.report()
        };
        assert!(refused(config("at", None)).contains("source.s.event_time.path"));
        let never_idle = EventTimeConfig {
            idle_after_ms: 0,
            ..config("/at", None)
        };
        assert!(refused(never_idle).contains("source.s.event_time.idle_after_ms is 0"));
    }
}
