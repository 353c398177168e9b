//! Where the program `shop` runs: containers in an embedded server, a configuration file, a checkpoint directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidefeed::target::{DocumentWrite, Target};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{
    Account, AccountConfig, Container, ContainerSpec, CosmosReader, CosmosTarget, Throughput,
};
use tokio::runtime::{Builder, Runtime};

use crate::views::{Contents, OrderDocument, SINKS};
use crate::{config_text, config_text_with};

/// Of the checkpoint: a directory that a lock keeps for one run. What a killed run had on the wire is carried out by a
/// server in the same machine long before this time is over.
pub const LOCAL: &str = "settle_ms = 50";

/// A database of a server, a configuration and a checkpoint directory. The server can have other places too.
pub struct Place {
    server: Arc<Emulator>,
    database: String,
    directory: TempDir,
    runtime: Runtime,
    account: Account,
    orders: CosmosTarget,
}

impl Place {
    /// A place of its own in a new server.
    ///
    /// # Panics
    /// When the server does not start.
    pub fn new() -> Self {
        let server = Emulator::start(EmulatorConfig::default()).expect("a free port");
        Place::within(&Arc::new(server), "shop", LOCAL)
    }

    /// A database with an empty container of orders in a server. `checkpoint` are lines of the configuration.
    ///
    /// # Panics
    /// When the server does not answer.
    pub fn within(server: &Arc<Emulator>, database: &str, checkpoint: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (account, orders) = runtime.block_on(async {
            let config = AccountConfig::with_key(server.endpoint(), server.key());
            let account = Account::connect(&config).await.expect("connected");
            let spec = ContainerSpec {
                // Not enforced; what a writer starts with.
                throughput_ru: Some(Throughput::Manual(40_000)),
                ..ContainerSpec::new(database, "orders", "/region")
            };
            let orders = Container::create_if_absent(&account, &spec).await;
            let orders = CosmosTarget::open(orders.expect("created"), Default::default()).await;
            (account, orders.expect("opened"))
        });
        let place = Place {
            server: Arc::clone(server),
            database: database.to_owned(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            runtime,
            account,
            orders,
        };
        place.configure(checkpoint);
        place
    }

    /// Gives the next runs these lines about the checkpoint.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure(&self, checkpoint: &str) {
        let config = config_text(&self.database, checkpoint);
        std::fs::write(self.config(), config).expect("written");
    }

    /// Gives the next runs another source of orders, and these lines about the checkpoint.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure_source(&self, source: &str, checkpoint: &str) {
        let config = config_text_with(source, &self.database, checkpoint);
        std::fs::write(self.config(), config).expect("written");
    }

    /// Adds lines about the last sink.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure_last_sink(&self, lines: &str) {
        let text = std::fs::read_to_string(self.config()).expect("a configuration");
        std::fs::write(self.config(), text + lines).expect("written");
    }

    /// Adds lines about the source.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure_orders(&self, lines: &str) {
        let text = std::fs::read_to_string(self.config()).expect("a configuration");
        let text = text.replacen("[source.orders]\n", &format!("[source.orders]\n{lines}"), 1);
        std::fs::write(self.config(), text).expect("written");
    }

    /// The database of all containers.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Splits or merges partitions of the orders: which, is drawn. There are twelve at most, and two at least.
    ///
    /// # Panics
    /// When the server does not know the container.
    pub fn change_partitions(&self, random: &mut fastrand::Rng) {
        let server = self.server();
        let of = (self.database.as_str(), "orders");
        let ids = server
            .partitions(of.0, of.1)
            .expect("the container is there");
        let at = random.usize(..ids.len());
        // A partition with one key cannot be split; then nothing changes.
        let _ = match ids.get(at + 1) {
            Some(next) if ids.len() > 2 && (ids.len() >= 12 || random.bool()) => {
                server.merge(of.0, of.1, [ids[at], *next]).map(|_| ())
            }
            _ => server.split(of.0, of.1, ids[at]).map(|_| ()),
        };
    }

    /// The server.
    pub fn server(&self) -> &Arc<Emulator> {
        &self.server
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("shop.toml")
    }

    /// The folder of the job in the checkpoint directory.
    pub fn checkpoint(&self) -> PathBuf {
        self.directory.path().join("checkpoint/shop")
    }

    /// The program at this place. `executable` is for the caller to know: cargo tells only tests where it is.
    pub fn program(&self, executable: &str, workers: usize) -> Command {
        let mut program = Command::new(executable);
        program
            .arg("--config")
            .arg(self.config())
            .arg("--checkpoint")
            .arg(self.directory.path().join("checkpoint"))
            .args(["--endpoint", self.server.endpoint()])
            .args(["--workers", &workers.to_string()])
            .env("COSMOS_KEY", self.server.key())
            // Nothing but what ends a run: a warning of a request that failed a few times is not to be counted as one.
            .env("RUST_LOG", "error");
        program
    }

    /// Writes documents of orders, and returns how many requests that took.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write(&self, documents: Vec<OrderDocument>) -> u64 {
        self.apply(documents.into_iter().map(upsert).collect())
    }

    /// The same, but documents that say that they are deleted go from the container.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write_and_delete(&self, documents: Vec<OrderDocument>) -> u64 {
        let write = |document: OrderDocument| match document.deleted {
            true => DocumentWrite::delete(partition_key(&document), document.order.id),
            false => upsert(document),
        };
        self.apply(documents.into_iter().map(write).collect())
    }

    /// Carries out writes of orders, and returns how many requests that took.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn apply(&self, batch: Vec<DocumentWrite>) -> u64 {
        let applied = self.runtime.block_on(self.orders.apply(batch));
        applied.expect("the orders are written").requests
    }

    /// What each view's container holds.
    ///
    /// # Panics
    /// When a container cannot be read.
    pub fn found(&self) -> Contents {
        let sinks = SINKS.map(|(sink, _)| sink);
        let found = |sink: &str| (sink.to_owned(), self.contents(sink));
        sinks.into_iter().map(found).collect()
    }

    /// What a sink's container holds.
    ///
    /// # Panics
    /// When the container cannot be read.
    pub fn contents(&self, sink: &str) -> BTreeMap<String, Value> {
        self.runtime.block_on(async {
            let container = Container::open(&self.account, &self.database, sink).await;
            let reader = CosmosReader::new(container.expect("the container exists"));
            reader.documents().await.expect("readable")
        })
    }
}

impl Default for Place {
    fn default() -> Self {
        Place::new()
    }
}

fn partition_key(document: &OrderDocument) -> String {
    json!([document.order.region]).to_string()
}

fn upsert(document: OrderDocument) -> DocumentWrite {
    let body = serde_json::to_vec(&document).expect("JSON");
    DocumentWrite::upsert(partition_key(&document), document.order.id, body)
}

/// The rows in which two sets of views differ, a few of each view; empty when they are equal.
pub fn differences(found: &Contents, expected: &Contents) -> Vec<String> {
    let mut differences = Vec::new();
    for (sink, expected) in expected {
        let found = &found[sink];
        let keys = found
            .keys()
            .chain(expected.keys().filter(|key| !found.contains_key(*key)));
        let different = keys.filter(|key| found.get(*key) != expected.get(*key));
        differences.extend(different.take(5).map(|key| {
            let (found, expected) = (found.get(key), expected.get(key));
            format!("{sink} {key}: found {found:?}, expected {expected:?}")
        }));
    }
    differences
}
