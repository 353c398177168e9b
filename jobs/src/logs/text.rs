//! A line as people read it: when, how grave, which process of which job, where in the code, and what.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;
use tracing::Level;

use super::Known;
use super::line::Line;
use crate::rfc3339::written_time;

/// The line, with its end.
pub(super) fn rendered(line: &Line, known: &Known, colors: bool) -> String {
    let mut text = written_time(line.at_ms);
    let level = line.level.as_str();
    let padded = format!(" {level:>5} ");
    text += &match colors {
        true => format!("\x1b[{}m{padded}\x1b[0m", color(line.level)),
        false => padded,
    };
    if let Some(job) = &known.job {
        text += &one_line(job);
        text += &who(known);
        text.push(' ');
    }
    text += &one_line(&line.target);
    text += ": ";
    text += &one_line(&line.message);
    for (name, value) in &line.fields {
        // The message says the same in words.
        if *name == "event" || known.says(name) {
            continue;
        }
        text += &format!(" {name}={}", shown(value));
    }
    text + "\n"
}

impl Known {
    fn says(&self, name: &str) -> bool {
        match name {
            "job" => self.job.is_some(),
            "process" => self.process.is_some(),
            "generation" => self.generation.is_some(),
            _ => false,
        }
    }
}

/// Which process and generation.
fn who(known: &Known) -> String {
    let mut who = String::new();
    if let Some(process) = known.process {
        // Writing to a string does not fail.
        let _ = write!(who, "process={process}");
    }
    if let Some(generation) = known.generation {
        let _ = write!(who, " generation={generation}");
    }
    match who.is_empty() {
        true => who,
        false => format!("{{{}}}", who.trim_start()),
    }
}

fn shown(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=');
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.clone(),
        false => value.to_string(),
    }
}

/// Ends of lines within would make several of it.
fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(char::is_control) {
        true => text.replace(char::is_control, " ").into(),
        false => text.into(),
    }
}

fn color(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}
