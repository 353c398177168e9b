//! What the tests of the program share: running it, its flights, and reading what it left in a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{Account, AccountConfig, Container, ContainerSpec, CosmosReader};

/// The program's name for its job, its database, and the folder of its checkpoint.
pub const JOB: &str = "flight-delays";

/// A server in this process, a checkpoint directory, and a file of flights.
pub struct Place {
    pub server: Emulator,
    pub directory: TempDir,
}

impl Place {
    /// An empty server and directory, and these flights.
    pub fn new(flights: &str) -> Self {
        let place = Place {
            server: Emulator::start(EmulatorConfig::default()).expect("a free port"),
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        std::fs::write(place.flights(), flights).expect("written");
        place
    }

    /// The file of flights.
    pub fn flights(&self) -> PathBuf {
        self.directory.path().join("flights.csv")
    }

    /// The checkpoint directory; the first run creates it.
    pub fn checkpoint(&self) -> PathBuf {
        self.directory.path().join("checkpoint")
    }

    /// The file of the last run's figures.
    pub fn summary_file(&self) -> PathBuf {
        self.directory.path().join("summary.json")
    }

    /// The program with this place's server, checkpoint directory and flights.
    pub fn program(&self) -> Command {
        let mut program = program();
        program
            .args(["--endpoint", self.server.endpoint()])
            .arg("--checkpoint")
            .arg(self.checkpoint())
            .arg("--flights")
            .arg(self.flights())
            .arg("--summary-json")
            .arg(self.summary_file())
            .env("COSMOS_KEY", self.server.key());
        program
    }

    /// The figures of the last run.
    pub fn summary(&self) -> Value {
        let text = std::fs::read(self.summary_file()).expect("a summary");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Connects to the server as a client of its own.
    pub async fn account(&self) -> Account {
        let config = AccountConfig::with_key(self.server.endpoint(), self.server.key());
        Account::connect(&config).await.expect("connected")
    }

    /// Every document of one of the job's containers.
    pub async fn documents(&self, container: &str) -> BTreeMap<String, Value> {
        let container = Container::open(&self.account().await, JOB, container).await;
        let reader = CosmosReader::new(container.expect("the container exists"));
        reader.documents().await.expect("readable")
    }

    /// The container of flights, as the program creates it.
    pub async fn source(&self) -> Container {
        let spec = ContainerSpec::new(JOB, "flights", "/partition");
        let container = Container::create_if_absent(&self.account().await, &spec).await;
        container.expect("created")
    }
}

/// The program without options, and without settings of whoever runs the tests.
pub fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_flight-delays"));
    program
        .env_remove("COSMOS_KEY")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    program
}

/// True for what the program prints on standard error while all is well.
pub fn is_progress(line: &str) -> bool {
    line.contains(" written, ")
        || line.starts_with("resuming the writes after ")
        || line.contains(" INFO tidefeed")
}

/// The flights of January 2013 as CSV.
pub fn january() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights-2013-01.csv.zst");
    let bytes = std::fs::read(file).expect("the package has its data");
    let text = zstd::decode_all(&bytes[..]).expect("compressed with zstd");
    String::from_utf8(text).expect("UTF-8")
}

/// The header and the first flights of January 2013.
pub fn first_flights(count: usize) -> String {
    january().split_inclusive('\n').take(count + 1).collect()
}

/// Runs a future on a runtime of its own.
pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}
