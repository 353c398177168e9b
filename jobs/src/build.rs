//! Builds a job's dataflow: once to see what it uses, and on every worker to run it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use tidefeed_runtime::committer::CommitSender;
use tidefeed_runtime::dataflow::{commit, ticks};
use tidefeed_runtime::{EpochConfig, Error, Result, run_workers};
use timely::dataflow::operators::Concatenate;
use timely::worker::Worker;

use crate::flow::{Flow, WorkerParts};
use crate::plan::Plan;
use crate::running::Shared;

/// Builds the job's code once, without running it, to see what it uses.
pub(crate) fn plan<F>(build: &Arc<F>) -> Result<Plan>
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    let build = Arc::clone(build);
    timely::execute_directly(move |worker| {
        let plan = Rc::new(RefCell::new(Plan::default()));
        let built =
            worker.dataflow::<u64, _, _>(|scope| build(&mut Flow::plan(scope, Rc::clone(&plan))));
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        built.map(|()| plan.take())
    })
}

/// Runs the dataflow on its workers to its end.
pub(crate) fn run_dataflow<F>(
    workers: Vec<WorkerParts>,
    epoch: EpochConfig,
    shared: &Shared,
    commits: CommitSender,
    build: Arc<F>,
) -> Result<()>
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    let (ledger, resumed) = (shared.ledger.clone(), shared.resumed.clone());
    let count = workers.len();
    let parts: Mutex<Vec<_>> = Mutex::new(workers.into_iter().map(Some).collect());
    run_workers(count, &shared.ledger, move |worker: &mut Worker| {
        let mine = parts.lock().get_mut(worker.index()).and_then(Option::take);
        let mine = mine.ok_or_else(|| Error::internal("a worker was built twice"))?;
        worker.dataflow::<u64, _, _>(|scope| {
            let ticks = ticks(scope, &epoch, resumed.replayed_through, ledger.clone());
            let mut flow = Flow::run(scope, ticks, mine);
            build(&mut flow)?;
            let reports = scope.concatenate(flow.finish()?);
            commit(reports, resumed.clone(), ledger.clone(), commits.clone());
            Ok(())
        })
    })
}
