//! The log of a process, on standard error: text for people or JSON for machines, a line for each event that is worth one.
//!
//! The events and their fields are in docs/logs.md, which a test holds to the code. Every line says of which job, process and
//! generation it is, as far as that is known. What looks like a secret in a URL is cut out of whatever is logged.

mod json;
mod line;
mod scrub;
mod text;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tidefeed_runtime::{Error, Generation};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use line::Line;

/// What is logged unless `RUST_LOG` says something else.
const DEFAULT_FILTER: &str = "error,tidefeed=info";

/// Of which job, process and generation the lines are, as far as that is known. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity(Arc<Mutex<Known>>);

#[derive(Clone, Debug, Default)]
struct Known {
    job: Option<String>,
    process: Option<u32>,
    generation: Option<u64>,
}

impl Identity {
    pub(crate) fn of_job(name: &str) -> Self {
        let identity = Self::default();
        identity.0.lock().job = Some(name.to_owned());
        identity
    }

    /// A run begins, which has no generation yet.
    pub(crate) fn begins(&self, process: u32) {
        let mut known = self.0.lock();
        (known.process, known.generation) = (Some(process), None);
    }

    pub(crate) fn has(&self, generation: Generation) {
        self.0.lock().generation = Some(generation.0);
    }

    fn known(&self) -> Known {
        self.0.lock().clone()
    }
}

/// The log of a process.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    format: LogFormat,
    colors: bool,
    identity: Identity,
}

impl Logs {
    /// Begins to log. In a process that logs already, as a test or a program with a subscriber of its own, that one stays.
    pub(crate) fn start(format: LogFormat, identity: Identity) -> Logs {
        let logs = Logs {
            format,
            // Escapes for colours would stand in the log files of whoever collects them.
            colors: std::io::stderr().is_terminal(),
            identity,
        };
        let begun = logs.clone().to(std::io::stderr);
        if begun && format == LogFormat::Json {
            logs.clone().tell_panics();
        }
        logs
    }

    fn to<W>(self, writer: W) -> bool
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let filter = EnvFilter::try_from_default_env();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)))
            .with_writer(writer)
            .event_format(self);
        subscriber.try_init().is_ok()
    }

    /// Says with what the process ends, whatever the filter is.
    pub(crate) fn failed(&self, name: &str, error: &Error) {
        if self.format == LogFormat::Text {
            eprintln!("{name}: {}", error.report());
            return;
        }
        let kind = error.kind();
        let line = Line::new(Level::ERROR, error.report())
            .with("event", "failed")
            .with("kind", format!("{kind:?}").to_lowercase())
            .with("exit_code", kind.exit_code());
        self.say(&line);
    }

    /// A panic is told in the form of the rest.
    fn tell_panics(self) {
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let message = payload.downcast_ref::<&str>().copied();
            let message = message.or_else(|| payload.downcast_ref().map(String::as_str));
            let message = message.unwrap_or("no message");
            let thread = std::thread::current();
            let line = Line::new(Level::ERROR, message)
                .with("event", "panic")
                .with("thread", thread.name().unwrap_or_default());
            let at = panic.location().map(ToString::to_string);
            self.say(&line.with("at", at.unwrap_or_default()));
        }));
    }

    fn say(&self, line: &Line) {
        let text = self.rendered(line);
        // There is nobody left to be told.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn rendered(&self, line: &Line) -> String {
        let known = self.identity.known();
        match self.format {
            LogFormat::Text => text::rendered(line, &known, self.colors),
            LogFormat::Json => json::rendered(line, &known),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Logs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(&self.rendered(&Line::of(event)))
    }
}

#[cfg(test)]
mod tests;
