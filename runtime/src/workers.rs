//! Starts timely's worker threads and takes them down again, also when one of them fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use timely::communication::Config as CommunicationConfig;
use timely::worker::{Config as WorkerConfig, Worker};

use crate::bridge::panic_message;
use crate::{Error, ErrorKind, Ledger, Result};

/// How long a worker with nothing to do sleeps before it looks whether the run has ended. Everything that makes work wakes
/// it sooner.
const PARK: Duration = Duration::from_millis(50);

/// Runs `build` on each of `workers` threads of this process, then steps the dataflows until they are complete or the run
/// ends.
///
/// timely would wait for ever for a worker that has panicked; here the panic becomes the run's failure, and every
/// worker abandons its dataflows.
///
/// # Errors
/// The failure that ended the run, whoever reported it to the ledger.
pub fn run_workers<F>(workers: usize, ledger: &Ledger, build: F) -> Result<()>
where
    F: Fn(&mut Worker) -> Result<()> + Send + Sync + 'static,
{
    let config = timely::Config {
        communication: match workers {
            0 | 1 => CommunicationConfig::Thread,
            n => CommunicationConfig::Process(n),
        },
        worker: WorkerConfig::default(),
    };
    let shared = ledger.clone();
    let guards = timely::execute(config, move |worker| {
        let run = AssertUnwindSafe(|| step_to_end(worker, &shared, &build));
        match catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.fail(error),
            Err(panic) => shared.fail(Error::internal(format!(
                "worker {} panicked: {}",
                worker.index(),
                panic_message(panic.as_ref())
            ))),
        }
        // A worker that leaves a dataflow behind would be stepped by timely until that is complete.
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    })
    .map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("cannot start the worker threads: {error}"),
        )
    })?;
    for result in guards.join() {
        if let Err(error) = result {
            ledger.fail(Error::internal(format!(
                "a worker thread ended badly: {error}"
            )));
        }
    }
    ledger.take_failure().map_or(Ok(()), Err)
}

fn step_to_end<F>(worker: &mut Worker, ledger: &Ledger, build: &F) -> Result<()>
where
    F: Fn(&mut Worker) -> Result<()>,
{
    build(worker)?;
    while worker.has_dataflows() && !ledger.stopped() {
        worker.step_or_park(Some(PARK));
    }
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
        let error = run_workers(2, &ledger, |worker| {
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
