//! The official Python and JavaScript SDKs drive the server over HTTP.
//!
//! The scripts are in `clients/python` and `clients/js`; each test here runs one script against a server of its own, so
//! that moving the server's clock or splitting a partition disturbs no other test. The SDKs are installed under the
//! target directory, pinned with all that they need, once per change of the pins (see `install`).

mod install;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use install::{Installation, command, execute, skipped, stop};
use tidefeed_emulator::{Emulator, EmulatorConfig, WELL_KNOWN_KEY};

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
    /// Its SDK.
    sdk: &'static Installation,
    /// The command that runs a script, without the script's name.
    run: &'static [&'static str],
}

const PYTHON: Language = Language {
    name: "python",
    extension: "py",
    sdk: &install::PYTHON,
    run: &["venv/bin/python", "-B"],
};

const JS: Language = Language {
    name: "js",
    extension: "mjs",
    sdk: &install::NODE,
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
    let script = |path: &Path| path.extension().is_some_and(|e| e == language.extension);
    language.sdk.make(&source, &home, script)?;
    Ok(home)
}
