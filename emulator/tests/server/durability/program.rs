//! The server as a program over a directory.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tidefeed_emulator::WELL_KNOWN_KEY;

use crate::common::raw::Raw;

/// An empty directory for one test; it is left behind if the test fails.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> std::io::Result<Self> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("durability-{}-{name}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// The only journal.
    pub fn journal(&self) -> PathBuf {
        let mut journals: Vec<PathBuf> = std::fs::read_dir(&self.0)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
            .collect();
        assert_eq!(journals.len(), 1, "{journals:?}");
        journals.remove(0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Scratch space; whoever runs the tests may have removed it.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn command(directory: &Directory, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefeed-emulator"));
    command
        .args(["--port", "0", "--data"])
        .arg(&directory.0)
        .args(flags)
        .env_remove("COSMOS_KEY")
        .env_remove("COSMOS_PORT")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a program that must not start.
pub fn refused(directory: &Directory) -> Output {
    let output = command(directory, &[]).spawn().and_then(|mut child| {
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.is_empty() {
            child.kill()?;
        }
        assert_eq!(line, "", "it started");
        child.wait_with_output()
    });
    output.expect("the program runs")
}

/// A running program, which is killed at the end of its test.
pub struct Program {
    child: Child,
    port: u16,
}

impl Program {
    pub fn start(directory: &Directory, flags: &[&str]) -> Self {
        Self::spawn(command(directory, flags))
    }

    /// Starts a program without a directory.
    pub fn start_in_memory() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidefeed-emulator"));
        command
            .args(["--port", "0"])
            .env_remove("COSMOS_KEY")
            .env_remove("COSMOS_PORT")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::spawn(command)
    }

    /// Starts a program that cannot write files larger than `kilobytes`.
    pub fn start_on_small_disk(directory: &Directory, kilobytes: u64) -> Self {
        let program = command(directory, &[]);
        let mut shell = Command::new("bash");
        shell
            .arg("-c")
            // Ignored, so that a write that goes too far fails and does not kill.
            .arg(format!(
                "trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\""
            ))
            .arg(program.get_program())
            .args(program.get_args())
            .env_remove("COSMOS_KEY")
            .env_remove("COSMOS_PORT")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::spawn(shell)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout"))
            .read_line(&mut line)
            .expect("a line");
        let port = line
            .trim()
            .strip_prefix("listening on http://127.0.0.1:")
            .and_then(|port| port.parse().ok());
        let Some(port) = port else {
            let output = child.wait_with_output().expect("it ended");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("no ready line but {line:?}, and {said}");
        };
        Self { child, port }
    }

    pub fn connect(&self) -> Raw {
        Raw::connect_to(self.port, WELL_KNOWN_KEY).expect("a connection")
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ended");
    }

    /// Asks it to end; its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let sent = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .expect("the signal is sent");
        assert!(sent.success());
        self.child.wait().expect("it ended").code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates database `db` and container `items` with a partition key `/pk` and `more` properties.
pub fn prepare(raw: &mut Raw, more: Value) {
    let made = raw.call("POST", "/dbs", &[], br#"{"id":"db"}"#).unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    let mut container =
        serde_json::json!({"id": "items", "partitionKey": {"paths": ["/pk"], "kind": "Hash"}});
    for (name, value) in more.as_object().expect("an object") {
        container[name] = value.clone();
    }
    let body = container.to_string();
    let made = raw
        .call("POST", "/dbs/db/colls", &[], body.as_bytes())
        .unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
}
