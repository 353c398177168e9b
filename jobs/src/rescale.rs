//! Going on in another shape: `JOB rescale`, and what the run that it asks does.
//!
//! 1. `rescale` leaves a request in the checkpoint, which any process can reach that reaches the checkpoint.
//! 2. Process 0 finds it within [`LOOK_EVERY`]. The run reads no more, commits what it has read, gives the checkpoint back and
//!    ends; process 0 with [`RESHAPED`], all others with 0.
//! 3. Whoever watches over the processes starts them in the new shape: the supervisor of `--processes` does, and a run of one
//!    process does so itself if it is to remain one. Elsewhere (several hosts, Kubernetes) it is for whoever started them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use tidefeed_runtime::checkpoint::CheckpointStore;
use tidefeed_runtime::checkpoint::request::{Shape, ask_for_shape, asked_of, holder, shape_now};
use tidefeed_runtime::{Error, ErrorKind, Generation, Result};
use tokio::time::Instant;

use crate::inspection::block_on;
use crate::running::Shared;

/// The name of the subcommand.
pub(crate) const RESCALE: &str = "rescale";

/// The exit code of a run that was asked to go on in another shape, and has not done so itself.
pub(crate) const RESHAPED: u8 = 11;

/// How often a run looks whether it was asked, which costs one request to the store. A guess.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the one that has asked looks whether the run has ended.
const LOOK_FOR_THE_END: Duration = Duration::from_millis(200);

/// The subcommand.
pub(crate) fn command() -> Command {
    Command::new(RESCALE)
        .about("Let the run that lives commit and end, and go on with another number of --workers or --processes")
        .arg(
            Arg::new("to-processes")
                .long("processes")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=256))
                .help("The number of processes [default: as now]"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("S")
                .value_parser(value_parser!(u64))
                .default_value("300")
                .help("Seconds to wait for the end of the run"),
        )
}

/// Asks, and waits until the run has ended.
///
/// # Errors
/// As [`ask_for_shape`]; `Unreachable` when the run does not end in time, which it may do later.
pub(crate) fn run(matches: &ArgMatches, store: &CheckpointStore) -> Result<ExitCode> {
    let timeout = matches.get_one::<u64>("timeout").copied();
    let timeout = Duration::from_secs(timeout.unwrap_or_default());
    block_on(async {
        let now = shape_now(store).await?;
        let workers = matches.get_one::<usize>("workers");
        let shape = Shape {
            processes: *matches
                .get_one::<u32>("to-processes")
                .unwrap_or(&now.processes),
            workers: workers.map_or(now.workers, |workers| {
                u32::try_from(*workers).unwrap_or(u32::MAX)
            }),
        };
        let generation = ask_for_shape(store, shape).await?;
        println!("generation {generation} is asked to commit and to end, for {shape}");
        let deadline = Instant::now() + timeout;
        while holder(store).await? == Some(generation) {
            if Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    format!(
                        "generation {generation} has not ended within {timeout:?}: see what it says, or stop it"
                    ),
                ));
            }
            tokio::time::sleep(LOOK_FOR_THE_END).await;
        }
        println!("generation {generation} has ended");
        Ok(ExitCode::SUCCESS)
    })
}

/// Looks for a request until the run ends, and drains it when there is one.
pub(crate) async fn heed(store: CheckpointStore, generation: Generation, shared: Shared) {
    let mut end = shared.ledger.end();
    tokio::select! {
        shape = asked(&store, generation) => {
            tracing::info!(event = "rescale", processes = shape.processes, workers = shape.workers, "asked to go on as {shape}: committing what is read, and ending");
            // Nobody else sets it.
            let _ = shared.asked.set(shape);
            shared.ledger.drain();
        }
        // An error means that the ledger is gone, and with it the run.
        _ = end.wait_for(|ended| *ended) => {}
    }
}

async fn asked(store: &CheckpointStore, generation: Generation) -> Shape {
    loop {
        match asked_of(store, generation).await {
            Ok(Some(shape)) => return shape,
            Ok(None) => {}
            Err(error) => tracing::debug!(error = %error.report(), "cannot look for a request"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
