//! Starts timely's worker threads and takes them down again, also when one of them fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use timely::communication::Config as CommunicationConfig;
use timely::communication::allocator::AllocatorBuilder;
use timely::execute::execute_from;
use timely::worker::{Config as WorkerConfig, Worker};

use crate::bridge::panic_message;
use crate::cluster::Mesh;
use crate::{Error, Ledger, Result, observe};

/// How long a worker with nothing to do sleeps before it looks whether the run has ended. Everything that makes work wakes
/// it sooner.
const PARK: Duration = Duration::from_millis(50);

/// Runs `build` on each of `workers` threads of this process, then steps the dataflows until they are complete or the run
/// ends. With a `mesh` they are workers of one dataflow with those of the other processes.
///
/// timely would wait for ever for a worker that has panicked; here the panic becomes the run's failure, and every
/// worker abandons its dataflows.
///
/// # Errors
/// The failure that ended the run, whoever reported it to the ledger.
pub fn run_workers<F>(workers: usize, mesh: Option<Mesh>, ledger: &Ledger, build: F) -> Result<()>
where
    F: Fn(&mut Worker) -> Result<()> + Send + Sync + 'static,
{
    let Some(mesh) = mesh else {
        run_on(threads(workers)?, ledger, build);
        return ended(ledger);
    };
    let (allocators, comms) = mesh.allocators(workers.max(1))?;
    run_on(allocators, ledger, build);
    comms.end(ledger);
    ended(ledger)
}

/// The same on threads of this process between which everything is exchanged in the form in which it goes to other processes.
///
/// # Errors
/// As [`run_workers`].
pub fn run_encoded_workers<F>(workers: usize, ledger: &Ledger, build: F) -> Result<()>
where
    F: Fn(&mut Worker) -> Result<()> + Send + Sync + 'static,
{
    run_on(
        allocators(CommunicationConfig::ProcessBinary(workers))?,
        ledger,
        build,
    );
    ended(ledger)
}

fn ended(ledger: &Ledger) -> Result<()> {
    ledger.take_failure().map_or(Ok(()), Err)
}

/// Runs the workers to their end. What fails is the ledger's.
fn run_on<F>(allocators: Vec<AllocatorBuilder>, ledger: &Ledger, build: F)
where
    F: Fn(&mut Worker) -> Result<()> + Send + Sync + 'static,
{
    let (shared, here) = (ledger.clone(), allocators.len());
    let started = execute_from(
        allocators,
        Box::new(()),
        WorkerConfig::default(),
        move |worker| {
            let run = AssertUnwindSafe(|| step_to_end(worker, here, &shared, &build));
            match catch_unwind(run) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => shared.fail(error),
                Err(panic) => shared.fail(panicked(worker.index(), &panic_message(panic.as_ref()))),
            }
            // A worker that leaves a dataflow behind would be stepped by timely until that is complete.
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        },
    );
    let guards = match started {
        Ok(guards) => guards,
        Err(error) => return ledger.fail(cannot_start(error)),
    };
    for result in guards.join() {
        if let Err(error) = result {
            ledger.fail(Error::internal(format!(
                "a worker thread ended badly: {error}"
            )));
        }
    }
    if !ledger.stopped() {
        ledger.complete();
    }
}

/// The allocators of workers that are all there are.
fn threads(workers: usize) -> Result<Vec<AllocatorBuilder>> {
    let config = match workers {
        0 | 1 => CommunicationConfig::Thread,
        n => CommunicationConfig::Process(n),
    };
    allocators(config)
}

fn allocators(config: CommunicationConfig) -> Result<Vec<AllocatorBuilder>> {
    let (allocators, _nothing) = config.try_build().map_err(cannot_start)?;
    Ok(allocators)
}

fn cannot_start(error: String) -> Error {
    Error::internal(format!("cannot start the worker threads: {error}"))
}

fn panicked(worker: usize, message: &str) -> Error {
    let advice = match message.contains("bincode") {
        false => "",
        true => {
            ": a type that the job exchanges cannot travel between processes; \
             leave out serde's flatten, untagged, tag and skip_serializing_if in it"
        }
    };
    Error::internal(format!("worker {worker} panicked: {message}{advice}"))
}

fn step_to_end<F>(worker: &mut Worker, here: usize, ledger: &Ledger, build: &F) -> Result<()>
where
    F: Fn(&mut Worker) -> Result<()>,
{
    let marks = ledger.worker(worker.index());
    marks.build();
    // Before anything is built: what is built before is in no log.
    observe::register(worker, here, ledger.operator_figures());
    build(worker)?;
    while worker.has_dataflows() && !ledger.stopped() {
        marks.step();
        worker.step_or_park(Some(PARK));
    }
    marks.leave();
    Ok(())
}

#[cfg(test)]
mod tests {
    use timely::dataflow::operators::generic::operator::source;

    use super::*;
    use crate::Epoch;

    #[test]
    fn a_panic_on_one_worker_ends_all_with_its_message() {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        let error = run_workers(2, None, &ledger, |worker| {
            let index = worker.index();
            worker.dataflow::<u64, _, _>(|scope| {
                // Holds its capability for ever, so the dataflow never completes by itself.
                source::<_, timely::container::CapacityContainerBuilder<Vec<u64>>, _, _>(
                    scope,
                    "Hold",
                    |cap, _| {
                        move |_output| {
                            let _held = &cap;
                            assert!(index == 0, "injected");
                        }
                    },
                );
            });
            Ok(())
        })
        .expect_err("the run must fail");
        assert_eq!(error.report(), "worker 1 panicked: injected");
    }
}
