//! The embedded server in a process of its own, so that its memory is only its own.
//!
//! The process is this program with one argument more; it serves until its standard input ends, which it does with the
//! benchmark, however that ends.

use std::io::Read;
use std::process::Stdio;

use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{Account, AccountConfig};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::memory::resident_bytes;

/// The argument that makes a benchmark the server; see [`serve_if_asked`].
const SERVE: &str = "--serve";

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub struct ServerProcess {
    _child: Child,
    process: u32,
    endpoint: String,
    key: String,
}

/// Call early in `main`. In the server process it serves and then returns true: there is nothing more to do.
///
/// # Errors
/// When the server does not start.
pub fn serve_if_asked() -> Outcome<bool> {
    if !std::env::args().any(|argument| argument == SERVE) {
        return Ok(false);
    }
    let emulator = Emulator::start(EmulatorConfig::default())?;
    println!("{} {}", emulator.endpoint(), emulator.key());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(true)
}

impl ServerProcess {
    /// Starts one with the defaults: four partitions, one thread.
    ///
    /// # Errors
    /// When the process does not start or does not say where it listens.
    pub async fn start() -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let process = child.id().ok_or("the server ended at once")?;
        let stdout = child.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        let (endpoint, key) = line
            .trim()
            .split_once(' ')
            .ok_or("the server did not start")?;
        Ok(ServerProcess {
            process,
            endpoint: endpoint.to_owned(),
            key: key.to_owned(),
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

    /// Host and port.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// The account key, base64.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its resident memory now, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Outcome<u64> {
        resident_bytes(self.process)
    }
}
