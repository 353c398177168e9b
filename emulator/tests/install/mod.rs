//! Installs programs of other languages for tests, pinned with all that they need, below the target directory.
//!
//! An installation is made once per change of its pins, by whichever test or process comes first. A missing interpreter
//! fails the tests. `TIDEFEED_SKIP_CLIENTS=1` is the only way to leave them out, and it says so.
//!
//! The tests of the checkpoint stores include this file too.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Set to `1` to leave these tests out.
const SKIP: &str = "TIDEFEED_SKIP_CLIENTS";
/// Longest an installation may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// Something to install.
pub struct Installation {
    /// Files that say what is installed.
    pub pins: &'static [&'static str],
    /// Programs that must be there, with the argument that prints their version.
    pub needs: &'static [&'static str],
    /// What to install if one is missing.
    pub advice: &'static str,
    /// Commands that install, run in the installation directory in this order.
    pub steps: &'static [&'static [&'static str]],
}

/// Python packages of `requirements.txt`, in an environment of their own in `venv`.
pub const PYTHON: Installation = Installation {
    pins: &["requirements.txt"],
    needs: &["python3"],
    advice: "install Python 3.10 or newer with its venv module",
    steps: &[
        &["python3", "-m", "venv", "venv"],
        &[
            "venv/bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--requirement",
            "requirements.txt",
        ],
    ],
};

/// Node packages of `package-lock.json`.
pub const NODE: Installation = Installation {
    pins: &["package.json", "package-lock.json"],
    needs: &["node", "npm"],
    advice: "install Node.js 20 or newer with npm",
    steps: &[&[
        "npm",
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]],
};

/// Whether the test with this title is to be left out; says so if it is.
pub fn skipped(title: &str) -> bool {
    let skip = std::env::var_os(SKIP).is_some_and(|value| value == "1");
    if skip {
        // Past the capture of the test harness, which would hide it: a skip must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED {title}: {SKIP}=1 is set");
    }
    skip
}

impl Installation {
    /// Makes `home` a copy of `source` with everything installed, unless it is one already. Then copies the files that are
    /// `scripts`, which may change without a new installation.
    pub fn make(
        &self,
        source: &Path,
        home: &Path,
        scripts: impl Fn(&Path) -> bool,
    ) -> Result<(), String> {
        let io = |error: std::io::Error| format!("cannot prepare {}: {error}", home.display());

        let wanted = self.stamp(source)?;
        fs::create_dir_all(home).map_err(io)?;
        // Tests of this and of other processes want the same directory: the first makes it, the others wait.
        let lock = File::create(home.with_extension("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let stamp_file = home.join("installed");
        if fs::read_to_string(&stamp_file).ok().as_deref() != Some(&wanted) {
            fs::remove_dir_all(home).map_err(io)?;
            fs::create_dir_all(home).map_err(io)?;
            copy(source, home, |_| true).map_err(io)?;
            for step in self.steps {
                let (status, output) = execute(&mut command(step, home), DEADLINE)?;
                if !status.success() {
                    return Err(format!(
                        "{} ended with {status}; {}\n{output}",
                        step.join(" "),
                        self.advice()
                    ));
                }
            }
            fs::write(&stamp_file, wanted).map_err(io)?;
        }
        copy(source, home, scripts).map_err(io)
    }

    fn advice(&self) -> String {
        format!(
            "{}, or set {SKIP}=1 to skip the tests that need it",
            self.advice
        )
    }

    /// What is to be installed, and with what.
    fn stamp(&self, source: &Path) -> Result<String, String> {
        let mut stamp = String::new();
        for program in self.needs {
            let version = Command::new(program)
                .arg("--version")
                .output()
                .map_err(|error| format!("cannot run {program} ({error}): {}", self.advice()))?;
            stamp.push_str(&String::from_utf8_lossy(&version.stdout));
        }
        for pin in self.pins {
            let path = source.join(pin);
            let text = fs::read_to_string(&path);
            stamp.push_str(&text.map_err(|error| format!("{}: {error}", path.display()))?);
        }
        Ok(stamp)
    }
}

/// Copies the files of a directory that are wanted, each only if it differs.
fn copy(from: &Path, to: &Path, wanted: impl Fn(&Path) -> bool) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file() && wanted(&path)) else {
            continue;
        };
        let (text, target) = (fs::read(&path)?, to.join(name));
        // Another process may be running the old file: do not touch it without need.
        if fs::read(&target).ok().as_ref() != Some(&text) {
            fs::write(target, text)?;
        }
    }
    Ok(())
}

/// A command with a directory to run in; one that is part of an installation is named relative to it.
pub fn command(words: &[&str], directory: &Path) -> Command {
    // A program of the installation is named relative to it, and a relative program is looked for in our own directory.
    let program = match words[0].contains('/') {
        true => directory.join(words[0]),
        false => words[0].into(),
    };
    let mut command = Command::new(program);
    command
        .args(&words[1..])
        .current_dir(directory)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("no_proxy", "127.0.0.1,localhost")
        .stdin(Stdio::null());
    command
}

/// Runs a command; returns how it ended and what it wrote, or why it did not end.
pub fn execute(command: &mut Command, deadline: Duration) -> Result<(ExitStatus, String), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("cannot run {name}: {error}");
    let (mut output, writer) = std::io::pipe().map_err(failed)?;
    let mut child = command
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer)
        .spawn()
        .map_err(failed)?;
    // The command holds the pipe's other end: without letting go of it the output would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, chunks) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let (text, ended) = collect(&chunks, Instant::now() + deadline);
    if !ended {
        stop(&mut child);
        return Err(format!(
            "{name} did not end within {deadline:?}; so far it wrote\n{text}"
        ));
    }
    let status = child.wait().map_err(failed)?;
    Ok((status, text))
}

/// Everything that comes until the end of the output, or until the deadline; and whether it ended.
fn collect(chunks: &mpsc::Receiver<Vec<u8>>, deadline: Instant) -> (String, bool) {
    let mut bytes = Vec::new();
    let ended = loop {
        match chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => bytes.extend(chunk),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

/// Ends a process and waits for its end.
pub fn stop(child: &mut Child) {
    // It may have ended by itself meanwhile; then there is nothing to stop.
    let _ = child.kill();
    let _ = child.wait();
}
