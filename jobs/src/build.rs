//! Builds a job's dataflow: once to see what it uses, and on every worker to run it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use tidefeed_operators::arranged::watch_arrangements;
use tidefeed_runtime::cluster::Mesh;
use tidefeed_runtime::committer::CommitSender;
use tidefeed_runtime::dataflow::{commit, ticks};
use tidefeed_runtime::{EpochConfig, Error, Result, run_workers};
use timely::dataflow::operators::Concatenate;
use timely::worker::Worker;

use crate::flow::{Flow, WorkerParts};
use crate::graph::{self, Graph};
use crate::plan::Plan;
use crate::running::Shared;

/// A job's code. It is not a type parameter of what runs it: that would be compiled again for every job.
pub(crate) type Build = Arc<dyn for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync>;

/// Builds the job's code once, without running it, to see what it uses and what each sink depends on.
pub(crate) fn plan(build: &Build) -> Result<Plan> {
    let build = Arc::clone(build);
    timely::execute_directly(move |worker| {
        let plan = Rc::new(RefCell::new(Plan::default()));
        let graph = Graph::record(worker);
        let built =
            worker.dataflow::<u64, _, _>(|scope| build(&mut Flow::plan(scope, Rc::clone(&plan))));
        graph::flush(worker);
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        let mut plan = built.map(|()| plan.take())?;
        plan.see(&graph.borrow())?;
        Ok(plan)
    })
}

/// Runs the dataflow on its workers to its end. `first` is the number of the first of them, in a cluster.
pub(crate) fn run_dataflow(
    workers: Vec<WorkerParts>,
    first: usize,
    mesh: Option<Mesh>,
    epoch: EpochConfig,
    shared: &Shared,
    commits: CommitSender,
    build: Build,
) -> Result<()> {
    let (ledger, resumed) = (shared.ledger.clone(), shared.resumed.clone());
    let count = workers.len();
    let parts: Mutex<Vec<_>> = Mutex::new(workers.into_iter().map(Some).collect());
    run_workers(count, mesh, &shared.ledger, move |worker: &mut Worker| {
        let here = worker.index().checked_sub(first);
        let mut parts = parts.lock();
        let mine = here.and_then(|here| parts.get_mut(here)?.take());
        drop(parts);
        let mine = mine.ok_or_else(|| Error::internal("a worker was built twice"))?;
        watch_arrangements(worker, &ledger);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use differential_dataflow::operators::{CountTotal, Iterate};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(
        Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
    )]
    struct Row {
        id: String,
    }

    fn graphs<F>(build: F) -> BTreeMap<String, String>
    where
        F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
    {
        plan(&(Arc::new(build) as Build)).expect("plans").graphs
    }

    fn row(id: &str) -> Row {
        Row { id: id.to_owned() }
    }

    #[test]
    fn a_sink_depends_on_its_own_operators_only() {
        let plain = graphs(|flow| {
            let rows = flow.change_feed::<Row>("rows")?;
            let counts = rows.count_total().map(|(row, _)| row);
            flow.upsert("counts", counts)
        });
        let with_another_view = graphs(|flow| {
            let rows = flow.change_feed::<Row>("rows")?;
            flow.upsert("other", rows.clone().filter(|row| row.id.is_empty()))?;
            flow.upsert("counts", rows.count_total().map(|(row, _)| row))
        });
        assert_eq!(with_another_view["counts"], plain["counts"]);
        assert_ne!(with_another_view["other"], plain["counts"]);
        let with_a_filter = graphs(|flow| {
            let rows = flow.change_feed::<Row>("rows")?;
            let counts = rows.filter(|row| row.id.is_empty()).count_total();
            flow.upsert("counts", counts.map(|(row, _)| row))
        });
        assert_ne!(with_a_filter["counts"], plain["counts"]);
        let of_another_source = graphs(|flow| {
            let rows = flow.change_feed::<Row>("lines")?;
            flow.upsert("counts", rows.count_total().map(|(row, _)| row))
        });
        assert_ne!(of_another_source["counts"], plain["counts"]);
    }

    #[test]
    fn a_table_changes_the_sinks_that_use_it() {
        let with = |table: &'static str| {
            graphs(move |flow| {
                let rows = flow.change_feed::<Row>("rows")?;
                let table = flow.table("table", &[row(table)])?;
                flow.upsert("joined", rows.clone().concat(table))?;
                flow.upsert("plain", rows)
            })
        };
        let (one, two) = (with("one"), with("two"));
        assert_ne!(one["joined"], two["joined"]);
        assert_eq!(one["plain"], two["plain"]);
        assert_eq!(one, with("one"));
    }

    #[test]
    fn what_happens_inside_an_iteration_counts() {
        let with = |filters: usize| {
            graphs(move |flow| {
                let rows = flow.change_feed::<Row>("rows")?;
                let settled = rows.iterate(|_, rows| {
                    (0..filters).fold(rows, |rows, _| rows.filter(|row| !row.id.is_empty()))
                });
                flow.upsert("settled", settled)
            })
        };
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }
}
