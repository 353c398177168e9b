//! Servers in processes of their own, so that their memory and their thread are only their own.
//!
//! Such a process is this program with one argument more. It reads lines from its standard input and serves until that
//! ends, which it does with the benchmark, however that ends.

use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_emulator::{Emulator, EmulatorConfig, WELL_KNOWN_KEY};
use tidefeed_operators::cosmos::{Account, AccountConfig};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Outcome;
use crate::cpu::processor_time;
use crate::memory::resident_bytes;
use crate::noop_server::{self, Recording};

/// The argument that makes a benchmark the embedded server, perhaps with a throughput behind it; see [`serve_if_asked`].
const SERVE: &str = "--serve";
/// The argument that makes it the server that does nothing.
const SERVE_NOOP: &str = "--serve-noop";

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub struct ServerProcess {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    process: u32,
    endpoint: String,
    key: String,
}

/// What an embedded server counts itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ServerStats {
    /// Documents that it holds.
    pub documents: usize,
    /// Memory of documents and their indexes, in bytes, about.
    pub bytes: usize,
}

/// Call early in `main`. In a server process it serves and then returns true: there is nothing more to do.
///
/// # Errors
/// When the server does not start.
pub fn serve_if_asked() -> Outcome<bool> {
    match std::env::args().nth(1).as_deref() {
        Some(SERVE) => serve_embedded(std::env::args().nth(2))?,
        Some(SERVE_NOOP) => serve_noop()?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Answers each line of the standard input with the server's counts.
fn serve_embedded(throughput: Option<String>) -> Outcome {
    let emulator = Emulator::start(EmulatorConfig {
        throughput: throughput.map(|text| text.parse()).transpose()?,
        ..EmulatorConfig::default()
    })?;
    println!("{} {}", emulator.endpoint(), emulator.key());
    for line in std::io::stdin().lines() {
        line?;
        let stats = emulator.stats();
        let stats = ServerStats {
            documents: stats.documents,
            bytes: stats.bytes,
        };
        println!("{}", serde_json::to_string(&stats)?);
    }
    Ok(())
}

/// The first line of the standard input is the recording.
fn serve_noop() -> Outcome {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let recording: Recording = serde_json::from_str(&line)?;
    std::thread::spawn(|| {
        // The end of the input is the end of the benchmark.
        let _ = std::io::stdin().lines().count();
        std::process::exit(0);
    });
    noop_server::serve(recording, |endpoint| {
        println!("{endpoint} {WELL_KNOWN_KEY}")
    })
}

impl ServerProcess {
    /// Starts an embedded server with the defaults: four partitions, one thread.
    ///
    /// # Errors
    /// When the process does not start or does not say where it listens.
    pub async fn start() -> Outcome<Self> {
        Self::start_as(&[SERVE], None).await
    }

    /// The same, with throughput enforced: a container that is created without any gets so many request units per second.
    ///
    /// # Errors
    /// When the process does not start or does not say where it listens.
    pub async fn start_limited(ru_per_s: u32) -> Outcome<Self> {
        Self::start_as(&[SERVE, &ru_per_s.to_string()], None).await
    }

    /// Starts a server that does nothing but repeat a recording, on one thread.
    ///
    /// # Errors
    /// When the process does not start or does not say where it listens.
    pub async fn start_noop(recording: &Recording) -> Outcome<Self> {
        Self::start_as(&[SERVE_NOOP], Some(serde_json::to_string(recording)?)).await
    }

    async fn start_as(arguments: &[&str], first_line: Option<String>) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let process = child.id().ok_or("the server ended at once")?;
        let mut stdin = child.stdin.take().ok_or("the server has no input")?;
        let stdout = child.stdout.take().ok_or("the server has no output")?;
        if let Some(line) = first_line {
            stdin.write_all(format!("{line}\n").as_bytes()).await?;
        }
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let (endpoint, key) = line
            .trim()
            .split_once(' ')
            .ok_or("the server did not start")?;
        Ok(ServerProcess {
            process,
            endpoint: endpoint.to_owned(),
            key: key.to_owned(),
            stdin,
            stdout,
            _child: child,
        })
    }

    /// A client of it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn account(&self) -> Outcome<Account> {
        let config = AccountConfig::with_key(&self.endpoint, &self.key);
        Ok(Account::connect(&config).await?)
    }

    /// Base address, `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// The account key, base64.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What an embedded server holds now.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn stats(&mut self) -> Outcome<ServerStats> {
        self.stdin.write_all(b"stats\n").await?;
        let mut line = String::new();
        self.stdout.read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    /// What it has used of the processor so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Outcome<Duration> {
        processor_time(self.process)
    }

    /// Its resident memory now, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Outcome<u64> {
        resident_bytes(self.process)
    }
}
