//! The running server: its thread, its socket, and its end.
//!
//! A server has a thread of its own with a tokio runtime of its own, so it can be started from plain code and from
//! inside any other runtime. HTTP/1.1 and HTTP/2 without TLS (prior knowledge) share the port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::EmulatorConfig;
use crate::http::auth::Authorizer;
use crate::http::dispatch::Service;
use crate::store::{Account, Environment, Limits};

/// Largest request body that is read: the item limit, and room for escapes.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Stack of a serving thread: enough for the deepest tree that the query parser lets through.
const STACK_BYTES: usize = 32 * 1024 * 1024;

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
    /// The server's thread or runtime could not be created.
    #[error("cannot start the server's threads: {0}")]
    Threads(std::io::Error),
}

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
    /// Starts a server and returns when it listens.
    ///
    /// # Errors
    /// [`StartError`], if the configuration is wrong or the port is taken.
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
        let authorizer = Authorizer::new(&config.key)
            .ok_or_else(|| StartError::Config("key is not base64".to_owned()))?;
        let service = Arc::new(Service::new(account(&config), endpoint.clone(), authorizer));

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
                runtime.shutdown_background();
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

fn account(config: &EmulatorConfig) -> Account {
    Account::new(Arc::new(Environment {
        clock: Arc::new(Clock::default()),
        journal: Default::default(),
        limits: Limits {
            partitions: config.partitions,
            throughput: None,
            retention: std::time::Duration::from_secs(7 * 86_400),
            split_at_bytes: None,
        },
        salt: crate::ids::salt(),
    }))
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

async fn accept(listener: std::net::TcpListener, service: Arc<Service>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot register the socket"),
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give connections time to close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .pipeline_flush(true);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(1_000);
            let answer = service_fn(move |request| answer(Arc::clone(&service), request));
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "a connection ended with an error");
            }
        });
    }
}

async fn answer(
    service: Arc<Service>,
    request: Request<Incoming>,
) -> Result<hyper::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Some(collected.to_bytes()),
        Err(_) => None,
    };
    Ok(service.answer(&parts, body))
}
