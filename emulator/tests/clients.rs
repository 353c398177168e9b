//! The official Python and JavaScript SDKs drive the server over HTTP.
//!
//! The scripts are in `clients/python` and `clients/js`; each test here runs one script against a server of its own, so
//! that moving the server's clock or splitting a partition disturbs no other test. The SDKs are installed under the
//! target directory, pinned with all that they need, once per change of the pins.
//!
//! A missing interpreter fails the tests. `TIDEFEED_SKIP_CLIENTS=1` is the only way to leave them out, and it says so.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tidefeed_emulator::{Emulator, EmulatorConfig, WELL_KNOWN_KEY};

/// Set to `1` to leave these tests out.
const SKIP: &str = "TIDEFEED_SKIP_CLIENTS";
/// Longest an installation may take.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);
/// Longest a script may take.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(120);

macro_rules! scripts {
    ($($module:ident: $language:expr, [$($name:ident),* $(,)?];)*) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                super::passes(&$language, stringify!($name));
            })*
        })*
    };
}

scripts! {
    python: super::PYTHON, [
        all_versions, batch, change_feed, items, patch, queries, throughput, ttl_and_unique_keys,
    ];
    js: super::JS, [
        all_versions, batch, bulk, change_feed, items, patch, queries, query_plans, throughput,
        ttl_and_unique_keys,
    ];
}

/// What differs between the languages.
struct Language {
    /// Directory of the scripts and the pins.
    name: &'static str,
    extension: &'static str,
    /// Files that say what is installed.
    pins: &'static [&'static str],
    /// Programs that must be there, with the argument that prints their version.
    needs: &'static [&'static str],
    /// What to install if one is missing.
    advice: &'static str,
    /// Commands that install, run in the installation directory in this order.
    install: &'static [&'static [&'static str]],
    /// The command that runs a script, without the script's name.
    run: &'static [&'static str],
}

const PYTHON: Language = Language {
    name: "python",
    extension: "py",
    pins: &["requirements.txt"],
    needs: &["python3"],
    advice: "install Python 3.10 or newer with its venv module",
    install: &[
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
    run: &["venv/bin/python", "-B"],
};

const JS: Language = Language {
    name: "js",
    extension: "mjs",
    pins: &["package.json", "package-lock.json"],
    needs: &["node", "npm"],
    advice: "install Node.js 20 or newer with npm",
    install: &[&[
        "npm",
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]],
    run: &["node", "--test-reporter=spec"],
};

#[test]
fn the_program_serves_like_the_library() {
    if skipped("python/items.py with the program") {
        return;
    }
    let mut program = Program(
        Command::new(env!("CARGO_BIN_EXE_tidefeed-emulator"))
            .args(["--port", "0"])
            .env_remove("COSMOS_KEY")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts"),
    );
    let mut line = String::new();
    let output = program.0.stdout.take().expect("its output is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    let endpoint = line.trim_end().strip_prefix("listening on ").expect(&line);
    run(&PYTHON, "items", endpoint, WELL_KNOWN_KEY);
}

/// The running program. Dropping it ends it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

/// Runs one script against a new server, and panics with its output unless it succeeds.
fn passes(language: &Language, script: &str) {
    if skipped(&format!(
        "{}/{script}.{}",
        language.name, language.extension
    )) {
        return;
    }
    let server = Emulator::start(EmulatorConfig::default()).expect("the server starts");
    run(language, script, server.endpoint(), server.key());
}

fn skipped(title: &str) -> bool {
    let skip = std::env::var_os(SKIP).is_some_and(|value| value == "1");
    if skip {
        // Past the capture of the test harness, which would hide it: a skip must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED {title}: {SKIP}=1 is set");
    }
    skip
}

fn run(language: &Language, script: &str, endpoint: &str, key: &str) {
    let file = format!("{script}.{}", language.extension);
    let title = format!("{}/{file}", language.name);
    let home = installed(language).unwrap_or_else(|problem| panic!("{title}: {problem}"));
    let finished = execute(
        command(language.run, &home)
            .arg(&file)
            .env("COSMOS_ENDPOINT", endpoint)
            .env("COSMOS_KEY", key),
        SCRIPT_DEADLINE,
    );
    match finished {
        Ok((status, _)) if status.success() => {}
        Ok((status, output)) => panic!("{title} ended with {status}\n{output}"),
        Err(problem) => panic!("{title}: {problem}"),
    }
}

/// The directory in which the language's SDK is installed and its scripts are, made ready if need be.
fn installed(language: &Language) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(language.name);
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("clients")
        .join(language.name);
    let io = |error: std::io::Error| format!("cannot prepare {}: {error}", home.display());

    let wanted = stamp(language, &source)?;
    fs::create_dir_all(&home).map_err(io)?;
    // Tests of this and of other processes want the same directory: the first makes it, the others wait.
    let lock = File::create(home.with_extension("lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    let stamp_file = home.join("installed");
    if fs::read_to_string(&stamp_file).ok().as_deref() != Some(&wanted) {
        fs::remove_dir_all(&home).map_err(io)?;
        fs::create_dir_all(&home).map_err(io)?;
        copy(&source, &home, |_| true).map_err(io)?;
        for step in language.install {
            let (status, output) = execute(&mut command(step, &home), INSTALL_DEADLINE)?;
            if !status.success() {
                return Err(format!(
                    "{} ended with {status}; {}\n{output}",
                    step.join(" "),
                    advice(language)
                ));
            }
        }
        fs::write(&stamp_file, wanted).map_err(io)?;
    }
    let is_script = |path: &Path| path.extension().is_some_and(|e| e == language.extension);
    copy(&source, &home, is_script).map_err(io)?;
    Ok(home)
}

fn advice(language: &Language) -> String {
    format!(
        "{}, or set {SKIP}=1 to skip the tests with other languages' SDKs",
        language.advice
    )
}

/// A hash of what is to be installed, and with what.
fn stamp(language: &Language, source: &Path) -> Result<String, String> {
    let mut hash = Sha256::new();
    for program in language.needs {
        let version = Command::new(program)
            .arg("--version")
            .output()
            .map_err(|error| format!("cannot run {program} ({error}): {}", advice(language)))?;
        hash.update(&version.stdout);
    }
    for pin in language.pins {
        let path = source.join(pin);
        hash.update(fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Ok(format!("{:x}", hash.finalize()))
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

fn command(words: &[&str], directory: &Path) -> Command {
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
fn execute(command: &mut Command, deadline: Duration) -> Result<(ExitStatus, String), String> {
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

fn stop(child: &mut Child) {
    // It may have ended by itself meanwhile; then there is nothing to stop.
    let _ = child.kill();
    let _ = child.wait();
}
