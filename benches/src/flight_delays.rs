//! Runs of the `flight-delays` program as it is shipped, in a process of its own.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::memory::peak_resident_bytes;
use crate::process::LIBRARY_BACKTRACES;

const PROGRAM: &str = "flight-delays";
/// How often the peak of a run's memory is looked at; what comes in the last moment before its end is not seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The program, built.
#[derive(Clone, Debug)]
pub struct FlightDelays {
    program: PathBuf,
    directory: PathBuf,
}

/// The figures of one run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the program itself says.
    pub summary: Summary,
    /// The most resident memory that its process had, in bytes: server, player, job and verification together.
    pub peak_rss_bytes: u64,
}

/// The part of the program's summary that is used here.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// Flights of the data.
    pub flights: u64,
    /// Writes to the source container.
    pub writes: u64,
    /// Changes that the job read; a document that is written twice between two reads is one change.
    pub changes_read: u64,
    /// From the first write to the commit of the last change, in seconds.
    pub elapsed_s: f64,
    /// `changes_read` in `elapsed_s`.
    pub changes_per_s: f64,
    /// True when every row of every view is right.
    pub verified: bool,
}

impl Summary {
    /// Microseconds for each change.
    pub fn us_per_change(&self) -> f64 {
        1e6 / self.changes_per_s
    }

    /// Microseconds for each write to the source container. The number of writes is the same in every run; that of changes
    /// is not.
    pub fn us_per_write(&self) -> f64 {
        self.elapsed_s * 1e6 / self.writes as f64
    }
}

/// Whether the environment of a run asks for backtraces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backtraces {
    /// Neither of panics nor of errors.
    Off,
    /// `RUST_BACKTRACE=1`, as many have it; the program must be none the slower.
    Asked,
}

impl FlightDelays {
    /// Builds the program in release mode and finds it; runs leave their files in `directory`.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn build(workspace: &Path, target: &Path, directory: &Path) -> Outcome<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let built = Command::new(cargo)
            .current_dir(workspace)
            .args(["build", "--release", "--bin", PROGRAM])
            .args(["--message-format", "json-render-diagnostics"])
            .arg("--target-dir")
            .arg(target)
            .stderr(Stdio::inherit())
            .output()
            .await?;
        if !built.status.success() {
            return Err(format!("{PROGRAM} cannot be built").into());
        }
        let program = executable(&String::from_utf8(built.stdout)?);
        Ok(FlightDelays {
            program: program.ok_or("cargo does not say where it put the program")?,
            directory: directory.to_owned(),
        })
    }

    /// One run over the built-in month, or over the flights of a file. The run must find every row of its views right.
    ///
    /// # Errors
    /// When it fails or its views are wrong; the text names the file with what it printed.
    pub async fn run(&self, flights: Option<&Path>, backtraces: Backtraces) -> Outcome<Run> {
        let (log, summary) = (
            self.directory.join("run.log"),
            self.directory.join("summary.json"),
        );
        let mut command = Command::new(&self.program);
        command
            .arg("--summary-json")
            .arg(&summary)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .kill_on_drop(true);
        if let Some(file) = flights {
            command.arg("--flights").arg(file);
        }
        match backtraces {
            Backtraces::Off => command
                .env_remove("RUST_BACKTRACE")
                .env(LIBRARY_BACKTRACES, "0"),
            Backtraces::Asked => command
                .env("RUST_BACKTRACE", "1")
                .env_remove(LIBRARY_BACKTRACES),
        };
        let mut child = command.spawn()?;
        let peak_rss_bytes = watch(&mut child).await?;
        let status = child.wait().await?;
        if !status.success() {
            return Err(format!("{PROGRAM} ended with {status}: see {}", log.display()).into());
        }
        let summary: Summary = serde_json::from_slice(&std::fs::read(&summary)?)?;
        if !summary.verified {
            return Err(format!("the views are wrong: see {}", log.display()).into());
        }
        Ok(Run {
            summary,
            peak_rss_bytes,
        })
    }
}

/// The path of the program among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|message| message["target"]["name"] == PROGRAM && message["executable"].is_string())
        .and_then(|message| Some(PathBuf::from(message["executable"].as_str()?)))
}

/// Waits for the end of a run; returns the peak of its memory.
async fn watch(child: &mut Child) -> Outcome<u64> {
    let process = child.id().ok_or("the run ended at once")?;
    let mut peak = 0;
    while tokio::time::timeout(LOOK_EVERY, child.wait())
        .await
        .is_err()
    {
        // A process that is just ending has no memory any more.
        peak = peak_resident_bytes(process).unwrap_or(peak).max(peak);
    }
    Ok(peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tidefeed"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"flight-delays"},"executable":"/t/release/flight-delays"}
{"reason":"build-finished","success":true}"#;
        let found = executable(messages).expect("a path");
        assert_eq!(found, Path::new("/t/release/flight-delays"));
        assert_eq!(executable("no JSON"), None);
    }
}
