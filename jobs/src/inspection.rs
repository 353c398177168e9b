//! What the commands that look at a checkpoint share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction};
use indicatif::HumanDuration;
use serde::Serialize;
use tidefeed_runtime::{Context, ErrorKind, Result};

/// `--json`, for a command and those below it.
pub(crate) fn json_flag() -> Arg {
    Arg::new("json")
        .long("json")
        .global(true)
        .action(ArgAction::SetTrue)
        .help("Print the result as JSON")
}

/// Runs a command on a runtime of its own.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context(ErrorKind::Internal, || "cannot start the I/O threads")?;
    tokio.block_on(command)
}

/// How long ago a moment was, by this machine's clock.
pub(crate) fn age(at_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as u64);
    let age = Duration::from_millis(now_ms.saturating_sub(at_ms));
    format!("{} ago", HumanDuration(age))
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .context(ErrorKind::Internal, || "cannot write the result as JSON")?;
    println!("{text}");
    Ok(())
}
