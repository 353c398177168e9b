//! The running server: its thread, its socket, and its end.
//!
//! A server has a thread of its own with a tokio runtime of its own, so it can be started from plain code and from
//! inside any other runtime.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::EmulatorConfig;
use crate::connection::accept;
use crate::faults::{FaultEngine, FaultPlan, FaultRule};
use crate::http::auth::Authorizer;
use crate::http::service::Service;
use crate::seed;
use crate::store::{Account, Container, Environment, Journal, Limits, OpenError};

/// Stack of a serving thread: enough for the deepest tree that the query parser lets through.
const STACK_BYTES: usize = 32 * 1024 * 1024;

/// Longest time that the end of a server waits for its requests.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server did not start. Its text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A field of the configuration is out of range.
    #[error("{0}")]
    Config(String),
    /// Another program listens on the port.
    #[error(
        "port {port} on {host} is already in use: choose another with --port, or 0 for a free one"
    )]
    PortInUse {
        /// Address that was asked for.
        host: String,
        /// Port that was asked for.
        port: u16,
    },
    /// The socket could not be opened.
    #[error("cannot listen on {host} port {port}: {source}")]
    Listen {
        /// Address that was asked for.
        host: String,
        /// Port that was asked for.
        port: u16,
        /// Reason of the operating system.
        source: std::io::Error,
    },
    /// The seed file could not be read, or asks for what the server refuses.
    #[error("seed file {}: {problem}", file.display())]
    Seed {
        /// The file.
        file: PathBuf,
        /// Place in the file, and what is wrong there.
        problem: String,
    },
    /// The data directory could not be opened.
    #[error(transparent)]
    Data(#[from] OpenError),
    /// The server's thread or runtime could not be created.
    #[error("cannot start the server's threads: {0}")]
    Threads(std::io::Error),
}

/// A fault rule has a value out of range. Its text names the rule by its index, the field and its range.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

/// A partition cannot be split, merged or limited as asked. Its text names it and says why not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TopologyError(String);

/// What a server holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmulatorStats {
    /// Databases.
    pub databases: usize,
    /// Containers.
    pub containers: usize,
    /// Documents.
    pub documents: usize,
    /// Memory of documents and their indexes, in bytes, about.
    pub bytes: usize,
    /// Requests answered, refused ones included.
    pub requests: u64,
}

/// An embedded server. Dropping it stops it.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    endpoint: String,
    key: String,
    service: Arc<Service>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Starts a server and returns when it listens and holds what its seed file names.
    ///
    /// # Errors
    /// [`StartError`], if the configuration or the seed file is wrong or the port is taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidefeed_emulator::{Emulator, EmulatorConfig};
    ///
    /// let emulator = Emulator::start(EmulatorConfig { partitions: 2, ..Default::default() })?;
    /// assert!(emulator.endpoint().starts_with("http://127.0.0.1:"));
    /// # Ok::<(), tidefeed_emulator::StartError>(())
    /// ```
    pub fn start(config: EmulatorConfig) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let refused = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::PortInUse {
                host: config.host.clone(),
                port: config.port,
            },
            _ => StartError::Listen {
                host: config.host.clone(),
                port: config.port,
                source,
            },
        };
        let ip: IpAddr = config
            .host
            .parse()
            .map_err(|_| StartError::Config("host is not an IP address".to_owned()))?;
        let listener = std::net::TcpListener::bind((ip, config.port)).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let endpoint = format!("http://{address}");
        let service = Arc::new(service(&config, endpoint.clone())?);
        let runtime = runtime(config.worker_threads).map_err(StartError::Threads)?;
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&service);
        let thread = std::thread::Builder::new()
            .name("cosmos-server".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, served) => {}
                        _ = stopped => {}
                    }
                });
                // Requests end before the server does, and with them their hold on the data directory.
                runtime.shutdown_timeout(STOP_TIMEOUT);
            })
            .map_err(StartError::Threads)?;
        Ok(Self {
            address,
            endpoint,
            key: config.key,
            service,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Base address, `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Account key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Puts fault rules in force in place of the ones before, which releases the requests that those froze. The same
    /// `seed` and the same requests in the same order meet the same faults.
    ///
    /// # Errors
    /// [`FaultError`], if a rule has a value out of range; then the rules before stay in force.
    ///
    /// # Examples
    ///
    /// ```
    /// use tidefeed_emulator::{Emulator, FaultAction, FaultOperation, FaultRule};
    ///
    /// let emulator = Emulator::start(Default::default())?;
    /// let lost = FaultRule::new(FaultAction::DropAfter).on(&[FaultOperation::Writes]).times(1);
    /// emulator.set_faults(7, vec![lost])?;
    /// assert_eq!(emulator.fault_hits(), [0]);
    /// emulator.clear_faults();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_faults(&self, seed: u64, rules: Vec<FaultRule>) -> Result<(), FaultError> {
        let plan = FaultPlan { seed, rules };
        self.service.faults.set(plan).map_err(FaultError)
    }

    /// Takes all fault rules back and releases the requests that they froze.
    pub fn clear_faults(&self) {
        self.service.faults.clear();
    }

    /// How many requests each rule hit, in the order of the rules.
    pub fn fault_hits(&self) -> Vec<u64> {
        let hits = |engine: &FaultEngine| engine.rules().map(|(_, hits)| hits).collect();
        self.service.faults.inspect(hits)
    }

    /// The partition key range ids of a container's partitions, in key order.
    ///
    /// # Errors
    /// [`TopologyError`], if there is no such container.
    pub fn partitions(&self, database: &str, container: &str) -> Result<Vec<u32>, TopologyError> {
        let container = self.container(database, container)?;
        let ids = container
            .map()
            .partitions()
            .iter()
            .map(|partition| partition.id)
            .collect();
        Ok(ids)
    }

    /// Splits a partition of a container in the middle of its keys; returns the partition key range ids of the children.
    ///
    /// # Errors
    /// [`TopologyError`], if there is no such partition or it has only one key.
    pub fn split(
        &self,
        database: &str,
        container: &str,
        range: u32,
    ) -> Result<[u32; 2], TopologyError> {
        let container = self.container(database, container)?;
        container.split(range, None).map_err(TopologyError)
    }

    /// Merges two neighbouring partitions of a container; returns the partition key range id of the new one.
    ///
    /// # Errors
    /// [`TopologyError`], if one of them does not exist or they are not neighbours.
    pub fn merge(
        &self,
        database: &str,
        container: &str,
        ranges: [u32; 2],
    ) -> Result<u32, TopologyError> {
        let [a, b] = ranges;
        let container = self.container(database, container)?;
        container.merge(a, b).map_err(TopologyError)
    }

    /// Limits one partition of a container to `ru_per_s` in place of its share of the container's throughput, whether
    /// throughput is enforced or not; `None` gives it its share again. Other offers leave the limit as it is; it ends with
    /// the partition, at a split or merge, and with the server.
    ///
    /// # Errors
    /// [`TopologyError`], if there is no such partition, or `ru_per_s` is not above 0 and at most 1,000,000.
    ///
    /// # Examples
    ///
    /// ```
    /// # use tidefeed_emulator::Emulator;
    /// # let emulator = Emulator::start(Default::default())?;
    /// let error = emulator.limit_partition("shop", "orders", 2, Some(100.0)).unwrap_err();
    /// assert_eq!(error.to_string(), "container orders of shop does not exist");
    /// # Ok::<(), tidefeed_emulator::StartError>(())
    /// ```
    pub fn limit_partition(
        &self,
        database: &str,
        container: &str,
        range: u32,
        ru_per_s: Option<f64>,
    ) -> Result<(), TopologyError> {
        let container = self.container(database, container)?;
        container
            .limit_partition(range, ru_per_s)
            .map_err(TopologyError)
    }

    fn container(&self, database: &str, name: &str) -> Result<Arc<Container>, TopologyError> {
        let found = self.service.account.database(database);
        found
            .and_then(|database| database.container(name))
            .ok_or_else(|| TopologyError(format!("container {name} of {database} does not exist")))
    }

    /// Moves the server's clock forward, at most to 50 years ahead of the system's.
    pub fn advance_clock(&self, by: Duration) {
        self.service.clock.advance(by);
    }

    /// What the server holds and did. Costs a look at every partition.
    pub fn stats(&self) -> EmulatorStats {
        let mut stats = EmulatorStats {
            requests: self.service.requests(),
            ..EmulatorStats::default()
        };
        for database in self.service.account.databases() {
            stats.databases += 1;
            for container in database.containers() {
                stats.containers += 1;
                for partition in container.map().partitions() {
                    partition.inspect(|shard| {
                        stats.documents += shard.len();
                        stats.bytes += shard.footprint();
                    });
                }
            }
        }
        stats
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may be gone already; then there is nothing to stop.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What answers the requests of a server: everything but its socket.
pub(crate) fn service(config: &EmulatorConfig, endpoint: String) -> Result<Service, StartError> {
    let authorizer = Authorizer::new(&config.key)
        .ok_or_else(|| StartError::Config("key is not base64".to_owned()))?
        .with_entra_token(config.entra_token.clone());
    let clock = Arc::new(Clock::default());
    let account = account(config, &clock)?;
    let service = Service::new(account, endpoint, authorizer, clock);
    if let Some(file) = &config.seed_file {
        seed::load(&service, file).map_err(|problem| StartError::Seed {
            file: file.clone(),
            problem,
        })?;
    }
    Ok(service)
}

fn account(config: &EmulatorConfig, clock: &Arc<Clock>) -> Result<Account, OpenError> {
    let build = |salt| {
        Account::new(Arc::new(Environment {
            clock: Arc::clone(clock),
            journal: Default::default(),
            limits: Limits {
                partitions: config.partitions,
                throughput: config.throughput,
                retention: config.retention,
                split_at_bytes: config.split_at_bytes,
            },
            salt,
        }))
    };
    match &config.data {
        Some(directory) => Journal::open(directory, config.fsync, build),
        None => Ok(build(crate::ids::salt())),
    }
}

fn runtime(worker_threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    if worker_threads <= 1 {
        // On one thread a request never changes threads between socket and store.
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
}
