//! The server as a program.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidefeed_emulator::{Emulator, EmulatorConfig, FsyncPolicy, WELL_KNOWN_KEY};

/// An embedded Azure Cosmos DB server over HTTP on loopback. Data lives in memory, and with --data on disk too.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// TCP port; 0 takes a free one.
    #[arg(long, default_value_t = 8081, env = "COSMOS_PORT")]
    port: u16,
    /// IP address to listen on. Anything but loopback opens the server to the network.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Physical partitions of every container (1 to 1000).
    #[arg(long, default_value_t = 4)]
    partitions: usize,
    /// Threads that serve requests (1 to 64).
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Account key, base64 [default: the emulators' public key].
    #[arg(long, env = "COSMOS_KEY", default_value = WELL_KNOWN_KEY, hide_default_value = true, hide_env_values = true)]
    key: String,
    /// Entra token that is accepted beside the key, as it is [default: none].
    #[arg(long, env = "COSMOS_ENTRA_TOKEN", hide_env_values = true)]
    entra_token: Option<String>,
    /// Enforce throughput, with this many RU/s (1 to 1000000) for a container that is created without an offer
    /// [default: offers are remembered, not enforced].
    #[arg(long, value_name = "RU/S")]
    throughput: Option<u32>,
    /// Directory in which data survives the process [default: data lives in memory].
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// When writes reach the disk, with --data: interval (soon after the reply) or always (before it).
    #[arg(
        long,
        default_value = "interval",
        value_name = "POLICY",
        requires = "data"
    )]
    fsync: FsyncPolicy,
    /// How far back the change feed mode AllVersionsAndDeletes reaches.
    #[arg(long, default_value_t = 604_800, value_name = "SECONDS")]
    retention_seconds: u64,
    /// Split a partition in two when it has grown to this many bytes (at least 1024) [default: never].
    #[arg(long, value_name = "BYTES")]
    split_at_bytes: Option<u64>,
    /// JSON file with what to create before listening: {"databases":[{"id":"d","containers":[{"id":"c",
    /// "partitionKey":"/pk","documents":[{"id":"1","pk":"a"}]}]}]}. What exists already stays as it is.
    #[arg(long, value_name = "FILE")]
    seed_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = EmulatorConfig {
        host: options.host,
        port: options.port,
        partitions: options.partitions,
        key: options.key,
        entra_token: options.entra_token,
        worker_threads: options.threads,
        throughput: options.throughput,
        data: options.data,
        fsync: options.fsync,
        retention: Duration::from_secs(options.retention_seconds),
        split_at_bytes: options.split_at_bytes,
        seed_file: options.seed_file,
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: EmulatorConfig) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // Listen for signals first: whoever waits for the ready line may send one at once.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        config.validate()?;
        if !config.is_loopback_only() {
            eprintln!(
                "warning: listening on {}, which is not loopback: whoever reaches this port and knows the key can \
                 read and change everything, without encryption",
                config.host
            );
        }
        let emulator = Emulator::start(config)?;
        println!("listening on {}", emulator.endpoint());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
