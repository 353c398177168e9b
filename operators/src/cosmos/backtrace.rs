//! Keeps `RUST_BACKTRACE` from making the SDK capture backtraces.
//!
//! The SDK's core builds an error value for a response header that is absent, and captures a backtrace in it when the
//! environment asks for backtraces. The standard library decides that once, at the first capture, from `RUST_LIB_BACKTRACE`
//! and then `RUST_BACKTRACE`; there is no call to change it, and setting a variable of the own process is unsafe once other
//! threads may read the environment. So the process starts itself anew with the variable set. Backtraces of panics are not
//! affected: those look at `RUST_BACKTRACE` alone.
//!
//! With version 1.0.0 of the SDK that is about one capture a request, and one more for a request that fails; the bench
//! `cosmos_rates` shows no difference above its noise with and without. Versions that capture more often lose more, so this
//! is a precaution, and worth another look whenever the SDK changes.

use std::ffi::OsStr;

const PANICS: &str = "RUST_BACKTRACE";
const ERRORS: &str = "RUST_LIB_BACKTRACE";

/// Call first in `main`, before threads and output. When `RUST_BACKTRACE` is set and `RUST_LIB_BACKTRACE` is not, the process
/// replaces itself by the same program with the same arguments and `RUST_LIB_BACKTRACE=0`; it keeps its process id, so whoever
/// supervises it sees nothing. Otherwise, and where that is not possible, it does nothing.
///
/// To have backtraces in errors all the same, set `RUST_LIB_BACKTRACE=1`.
pub fn disable_library_backtraces() {
    let panics = std::env::var_os(PANICS);
    let errors = std::env::var_os(ERRORS);
    if slows_down(panics.as_deref(), errors.as_deref()) {
        restart();
    }
}

fn slows_down(panics: Option<&OsStr>, errors: Option<&OsStr>) -> bool {
    errors.is_none() && panics.is_some_and(|value| value != "0")
}

#[cfg(unix)]
fn restart() {
    use std::os::unix::process::CommandExt;

    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut command = std::process::Command::new(program);
    if let Some(name) = name {
        command.arg0(name);
    }
    // The variable is set in the new program, so this happens once. `exec` returns only when it fails, for example because
    // the file was replaced; then the program runs on, slower.
    let _error = command.args(arguments).env(ERRORS, "0").exec();
}

#[cfg(not(unix))]
fn restart() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backtraces_that_nobody_asked_errors_for_are_switched_off() {
        let slow = |panics: Option<&str>, errors: Option<&str>| {
            slows_down(panics.map(OsStr::new), errors.map(OsStr::new))
        };
        assert!(slow(Some("1"), None));
        assert!(slow(Some("full"), None));
        assert!(
            slow(Some(""), None),
            "the standard library reads empty as yes"
        );
        assert!(!slow(Some("0"), None));
        assert!(!slow(None, None));
        assert!(!slow(Some("1"), Some("0")), "the restarted process");
        assert!(!slow(Some("1"), Some("1")), "somebody wants them");
    }
}
