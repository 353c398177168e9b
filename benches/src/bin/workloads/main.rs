//! The workloads that other systems are compared on, as Tidefeed jobs: JSON lines in, a view out.
//!
//! ```text
//! workloads w2 --data DIR --workers 2 --checkpoint DIR --out FILE
//! ```
//!
//! The data are order events; `benches/peers` makes them, and has the same workloads for other systems. Each job reads all there is,
//! keeps its view in memory, as the others keep or print theirs, and ends when what it read is committed. The time from when its workers
//! run, which is before they read, to that is printed as `ENGINE_S=`, the time before that as `START_S=`, and what it read as `EVENTS=`. The view is written to a file of lines separated by tabs, to be compared with the reference.

mod options;
mod rows;
mod views;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::MemoryContainer;
use tidefeed::target::Target;
use tidefeed::{CheckpointStore, Connect, Job};
use tidefeed_benches::Outcome;

use options::{Checkpoint, Options};

/// What the shipped programs have.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The one container that views are written to.
#[derive(Clone)]
struct Kept(MemoryContainer);

#[async_trait]
impl Connect for Kept {
    async fn source(&self, name: &str, _: &SourceConfig) -> tidefeed::Result<Arc<dyn ChangeFeed>> {
        let why = format!("source {name} is of files");
        Err(tidefeed::Error::new(tidefeed::ErrorKind::Config, why))
    }

    async fn sink(&self, _: &str, _: &SinkConfig) -> tidefeed::Result<Arc<dyn Target>> {
        Ok(Arc::new(self.0.clone()))
    }
}

fn main() -> ExitCode {
    match Options::of(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workloads: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Outcome {
    let kept = Kept(MemoryContainer::new(Default::default()));
    let config = JobConfig::parse(&options.config())?;
    let workload = options.workload;
    let starts = Instant::now();
    let store = match &options.checkpoint {
        Checkpoint::Off => CheckpointStore::volatile("workloads"),
        Checkpoint::Directory(directory) => CheckpointStore::local(directory, "workloads")?,
    };
    let job = Job::new("workloads", config, kept.clone(), move |flow| {
        workload.build(flow)
    });
    let running = job.checkpoint_store(store).start()?;
    let runs = Instant::now();
    running.finish_when_caught_up();
    let status = running.join()?;
    let took = runs.elapsed();
    let contents = kept.0.contents();
    std::fs::write(&options.out, workload.lines(contents.values())?)?;
    println!("START_S={:.3}", (runs - starts).as_secs_f64());
    println!("ENGINE_S={:.3}", took.as_secs_f64());
    println!("EVENTS={}", status.changes_read);
    Ok(())
}
