//! The environment of a benchmark's own process.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::Outcome;

/// Where the standard library looks for whether errors capture backtraces.
pub const LIBRARY_BACKTRACES: &str = "RUST_LIB_BACKTRACE";

/// Call first in `main`: unless `RUST_LIB_BACKTRACE` is 0, the process starts itself anew with it.
///
/// The SDK captures backtraces in its errors when the environment asks for them, which would be measured along.
///
/// # Errors
/// When the program cannot be started anew.
pub fn without_library_backtraces() -> Outcome {
    if std::env::var_os(LIBRARY_BACKTRACES).as_deref() == Some(OsStr::new("0")) {
        return Ok(());
    }
    // Returns only when it fails.
    let error = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(LIBRARY_BACKTRACES, "0")
        .exec();
    Err(error.into())
}

/// A runtime for the client's side of a benchmark.
///
/// # Errors
/// When its threads cannot be started.
pub fn client_runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
