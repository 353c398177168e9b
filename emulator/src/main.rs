//! The server as a program.

use std::process::ExitCode;

use clap::Parser;
use tidefeed_emulator::{Emulator, EmulatorConfig, WELL_KNOWN_KEY};

/// An embedded Azure Cosmos DB server over HTTP on loopback. Data lives in memory and ends with the process.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// TCP port; 0 takes a free one.
    #[arg(long, default_value_t = 8081, env = "COSMOS_PORT")]
    port: u16,
    /// IP address to listen on.
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
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = EmulatorConfig {
        host: options.host,
        port: options.port,
        partitions: options.partitions,
        key: options.key,
        worker_threads: options.threads,
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
        let emulator = Emulator::start(config)?;
        println!("listening on {}", emulator.endpoint());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
