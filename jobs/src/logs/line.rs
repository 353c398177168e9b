//! An event as its line is made from it.

use std::error::Error;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::scrub::scrubbed;

/// What is logged of an event.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) at_ms: u64,
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) message: String,
    /// In the order in which the code has them.
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// Of this crate, now.
    pub(super) fn new(level: Level, message: impl Into<String>) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        Line {
            at_ms: u64::try_from(at.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            level,
            target: "tidefeed".to_owned(),
            message: scrubbed(message.into()),
            fields: Vec::new(),
        }
    }

    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut line = Line::new(*metadata.level(), "");
        metadata.target().clone_into(&mut line.target);
        event.record(&mut line);
        line
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(other, _)| *other == name)
    }

    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name(), value.into()));
    }

    fn add_text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = scrubbed(text),
            // Of lines that came through the log crate.
            "log.target" => self.target = text,
            name if name.starts_with("log.") => {}
            _ => self.add(field, scrubbed(text)),
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Seconds to the millisecond, and request units to their last digit.
        self.add(field, (value * 1000.0).round() / 1000.0);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.add(field, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add_text(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, format!("{value:?}"));
    }
}
