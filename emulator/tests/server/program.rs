//! The program: its flags, its ready line, and what it says when it does not start.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::common::Outcome;

fn program(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidefeed-emulator"));
    command
        .args(flags)
        .env_remove("COSMOS_KEY")
        .env_remove("COSMOS_PORT");
    command
}

/// How a program that must not start ends, and what it says.
fn refused(flags: &[&str]) -> (Option<i32>, String) {
    let mut child = program(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout");
    // Nothing is read when it ends, or the ready line when it does not.
    let read = BufReader::new(stdout).read_line(&mut line);
    if !line.is_empty() {
        child.kill().expect("it ends");
    }
    let output = child.wait_with_output().expect("it ended");
    assert!(read.is_ok() && line.is_empty(), "{flags:?}: {line}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// A running program, which ends with its test.
struct Running {
    child: Child,
    port: u16,
    stderr: ChildStderr,
}

impl Running {
    fn start(flags: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = program(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("stdout")?).read_line(&mut line)?;
        let stderr = child.stderr.take().ok_or("stderr")?;
        let address = line.trim().strip_prefix("listening on http://");
        let port = address.and_then(|address| address.rsplit(':').next()?.parse().ok());
        Ok(Self {
            child,
            port: port.ok_or_else(|| format!("no ready line: {line:?}"))?,
            stderr,
        })
    }

    /// Status of the server, as its admin API tells it.
    fn status(&self) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
        use std::io::Write;
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.write_all(
            b"GET /_emulator/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )?;
        let mut reply = String::new();
        socket.read_to_string(&mut reply)?;
        let (_, body) = reply.split_once("\r\n\r\n").ok_or("no body")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Ends the program; what it said on stderr.
    fn end(mut self) -> std::io::Result<String> {
        self.child.kill()?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        Ok(said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, or a test failed before: nothing more to do about either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_ready_line_comes_when_the_seed_is_there() -> Outcome {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("program.json");
    let documents: Vec<String> = (0..500)
        .map(|id| format!(r#"{{"id":"{id}","pk":{id}}}"#))
        .collect();
    let text = format!(
        r#"{{"databases":[{{"id":"d","containers":[{{"id":"c","partitionKey":"/pk","documents":[{}]}}]}}]}}"#,
        documents.join(",")
    );
    std::fs::write(&path, text)?;
    let file = path.to_str().ok_or("a path")?;
    let running = Running::start(&["--port", "0", "--partitions", "2", "--seed-file", file])?;
    let status = running.status()?;
    let container = &status["databases"][0]["containers"][0];
    assert_eq!(container["documents"], 500);
    assert_eq!(container["partitions"].as_array().map(Vec::len), Some(2));
    assert_eq!(running.end()?, "", "nothing to say");
    Ok(())
}

#[test]
fn a_bad_seed_file_is_one_line() -> Outcome {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("program-bad.json");
    std::fs::write(&path, r#"{"databases":[{"id":""}]}"#)?;
    let file = path.to_str().ok_or("a path")?;
    let (code, said) = refused(&["--port", "0", "--seed-file", file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.starts_with(&format!("error: seed file {file}: database : 400 ")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    Ok(())
}

#[test]
fn flags_out_of_range_are_named() {
    for (flags, code, expected) in [
        (
            &["--partitions", "0"][..],
            1,
            "error: partitions is 0, but must be 1 to 1000",
        ),
        (
            &["--threads", "65"],
            1,
            "error: worker_threads is 65, but must be 1 to 64",
        ),
        (
            &["--throughput", "0"],
            1,
            "error: throughput is 0, but must be 1 to 1000000",
        ),
        (
            &["--split-at-bytes", "10"],
            1,
            "error: split_at_bytes is 10, but must be at least 1024",
        ),
        (
            &["--retention-seconds", "0"],
            1,
            "error: retention is 0ns, but must be a second or more",
        ),
        (
            &["--data", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")],
            1,
            "error: data is a file, but must be a directory",
        ),
        (
            &["--host", "localhost"],
            1,
            "error: host localhost is not an IP address",
        ),
        (&["--key", "?"], 1, "error: key is not base64"),
        (
            &["--data", "d", "--fsync", "never"],
            2,
            "must be interval or always",
        ),
        (&["--fsync", "always"], 2, "--data"),
        (
            &["--throughput", "many"],
            2,
            "invalid value 'many' for '--throughput",
        ),
        (&["--explode"], 2, "unexpected argument '--explode'"),
    ] {
        let mut all = vec!["--port", "0"];
        all.extend_from_slice(flags);
        let (found, said) = refused(&all);
        assert_eq!(found, Some(code), "{flags:?}: {said}");
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
}

#[test]
fn an_open_address_is_warned_about() -> Outcome {
    let open = Running::start(&["--port", "0", "--host", "0.0.0.0"])?;
    assert!(open.status()?["databases"].is_array());
    let said = open.end()?;
    assert!(
        said.starts_with("warning: listening on 0.0.0.0, which is not loopback"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    Ok(())
}
