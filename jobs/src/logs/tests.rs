use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

type Buffer = Arc<Mutex<Vec<u8>>>;

struct Sink(Buffer);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logs(format: LogFormat) -> Logs {
    Logs {
        format,
        colors: false,
        identity: Identity::of_job("shop"),
    }
}

/// What `does` logs.
fn logged(logs: &Logs, does: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let sink = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_writer(move || Sink(sink.clone()))
        .event_format(logs.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, does);
    let bytes = buffer.lock().clone();
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_line_of_json_is_flat_and_says_whose_it_is() {
    let logs = logs(LogFormat::Json);
    let text = logged(&logs, || {
        tracing::warn!(event = "early", "no \"run\" yet\nat all");
        logs.identity.begins(1);
        logs.identity.has(Generation(7));
        let error = "no https://a/b?sig=secret";
        tracing::info!(event = "x", epoch = 5u64, took_s = 1.23456, %error, list = ?[1], generation = 9u64, "said");
        tracing::debug!("not at this level");
    });
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["message"], "no \"run\" yet\nat all");
    assert_eq!(
        (&lines[0]["job"], &lines[0]["level"]),
        (&"shop".into(), &"WARN".into())
    );
    assert_eq!(lines[0].get("generation"), None);
    let at = lines[0]["timestamp"].as_str().expect("a time");
    assert_eq!((at.len(), at.ends_with('Z')), (24, true), "{at}");
    let mut second = lines[1].clone();
    second
        .as_object_mut()
        .expect("an object")
        .remove("timestamp");
    let expected = serde_json::json!({
        "level": "INFO", "target": "tidefeed::logs::tests", "message": "said", "job": "shop", "process": 1,
        "event": "x", "epoch": 5, "took_s": 1.235, "error": "no https://a/b?***", "list": "[1]", "generation": 9,
    });
    assert_eq!(second, expected);
    // No member twice.
    assert_eq!(text.matches("\"generation\"").count(), 1);
}

#[test]
fn a_line_of_text_is_one_line() {
    let logs = logs(LogFormat::Text);
    let text = logged(&logs, || {
        tracing::info!(event = "x", "first");
        logs.identity.begins(0);
        logs.identity.has(Generation(3));
        tracing::error!(
            event = "y",
            job = "shop",
            range = "00-FF",
            why = "a b",
            "two\nlines"
        );
    });
    let after_time: Vec<&str> = text.lines().map(|line| &line[25..]).collect();
    assert_eq!(
        after_time,
        [
            " INFO shop tidefeed::logs::tests: first",
            "ERROR shop{process=0 generation=3} tidefeed::logs::tests: two lines range=00-FF why=\"a b\"",
        ]
    );
}

#[test]
fn the_end_of_a_process_is_in_the_form_of_the_rest() {
    let error = Error::new(tidefeed_runtime::ErrorKind::Fenced, "another run");
    let line = Line::new(Level::ERROR, error.report()).with("event", "failed");
    let text = logs(LogFormat::Json).rendered(&line);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&value["event"], &value["message"]),
        (&"failed".into(), &"another run".into())
    );
}

/// An event as the code or the documentation has it: its level and its fields.
type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The arguments of a macro, from behind its opening bracket.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    let mut arguments = vec![String::new()];
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().expect("one").push(c);
    }
    let trimmed = arguments.iter().map(|one| one.trim().to_owned());
    trimmed.filter(|one| !one.is_empty()).collect()
}

/// What is logged at `info` and above. Each must have a name.
fn in_code() -> Events {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let mut files = Vec::new();
    for folder in ["runtime/src", "operators/src", "jobs/src"] {
        sources(&root.join(folder), &mut files);
    }
    let mut events = Events::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("text");
        let text = text.split("#[cfg(test)]\nmod tests {").next().expect("one");
        let macros = [
            "use tracing::info",
            "use tracing::warn",
            "use tracing::error",
        ];
        assert!(
            !macros.iter().any(|one| text.contains(one)),
            "{path:?} hides its lines"
        );
        for level in ["error", "warn", "info"] {
            for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                let arguments = arguments(call);
                let event = arguments
                    .iter()
                    .find_map(|one| one.strip_prefix("event = \""));
                let event = event
                    .unwrap_or_else(|| panic!("a line of {path:?} has no event: {arguments:?}"));
                let fields = arguments.iter().take_while(|one| !one.starts_with('"'));
                let field = |one: &String| {
                    let name = one.split('=').next().expect("one").trim();
                    name.trim_start_matches(['%', '?']).to_owned()
                };
                let (levels, all) = events
                    .entry(event.trim_end_matches('"').to_owned())
                    .or_default();
                levels.insert(level.to_owned());
                all.extend(fields.map(field).filter(|name| name != "event"));
            }
        }
    }
    // Written without the filter.
    let known = |fields: [&str; 2]| fields.map(str::to_owned).into();
    events.insert(
        "failed".to_owned(),
        (["error".to_owned()].into(), known(["kind", "exit_code"])),
    );
    events.insert(
        "panic".to_owned(),
        (["error".to_owned()].into(), known(["thread", "at"])),
    );
    events
}

fn in_documentation() -> Events {
    let quoted = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let page = include_str!("../../../docs/logs.md");
    let lines = page.lines().filter(|line| line.starts_with("| `"));
    let event = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        (
            name,
            (
                cells[2].split(", ").map(str::to_owned).collect(),
                quoted(cells[3]),
            ),
        )
    };
    lines.map(event).collect()
}

#[test]
fn the_documentation_has_all_events_with_their_fields() {
    let (code, told) = (in_code(), in_documentation());
    for (event, found) in &code {
        assert_eq!(told.get(event), Some(found), "{event} in docs/logs.md");
    }
    let names = |events: &Events| events.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&code), names(&told));
}
