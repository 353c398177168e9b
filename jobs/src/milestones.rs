//! The lines of the log about a run as a whole.

use std::time::Duration;

use tidefeed_runtime::checkpoint::Resume;
use tidefeed_runtime::{Generation, Ledger, Result};

use crate::cluster::Position;
use crate::plan::Plan;

/// A run begins, from nothing or from what a run before it has left.
pub(crate) fn begins(job: &str, position: Position, workers: usize, plan: &Plan, resume: &Resume) {
    let generation = resume.generation.0;
    let (process, processes) = (position.process, position.processes);
    let (sources, sinks) = (plan.sources.len(), plan.sinks.len());
    let Some(last_sealed) = resume.last_sealed else {
        tracing::info!(
            event = "start",
            job,
            process,
            generation,
            processes,
            workers,
            sources,
            sinks,
            version = env!("CARGO_PKG_VERSION"),
            "a run starts from nothing"
        );
        return;
    };
    tracing::info!(
        event = "resume",
        job,
        process,
        generation,
        processes,
        workers,
        sources,
        sinks,
        version = env!("CARGO_PKG_VERSION"),
        epoch = resume.commit.as_ref().map_or(0, |commit| commit.epoch.0),
        sealed_through = last_sealed.0,
        seals = resume.seals_to_replay(),
        "a run goes on from the checkpoint"
    );
}

/// The run of a process is over, and nothing of it is under way any more.
pub(crate) fn over(
    job: &str,
    process: u32,
    generation: Option<Generation>,
    ledger: &Ledger,
    ran: Duration,
    ended: &Result<()>,
) {
    let figures = ledger.figures();
    tracing::info!(
        event = "shutdown",
        job,
        process,
        generation = generation.map_or(0, |generation| generation.0),
        epoch = ledger.committed_through().0,
        commits = figures.committed,
        seals = figures.sealed,
        ran_s = ran.as_secs_f64(),
        failed = ended.is_err(),
        "the run is over"
    );
}
