//! Prepares a run, in whichever process it is: the steps between the plan and the threads (`job.rs`, `cluster.rs`).

use tidefeed_runtime::checkpoint::{self, RunIdentity};
use tidefeed_runtime::cluster::{Follow, Lead, Mesh, Place};
use tidefeed_runtime::stall::Phase;
use tidefeed_runtime::{Context, ErrorKind, Result};

use crate::cluster::{Member, Position, RunPlan, Standing};
use crate::ending::LeaseKeeper;
use crate::job::{Job, opened_only};
use crate::plan::Plan;
use crate::rescale::heed;
use crate::starting::{Checkpoint, Started};
use crate::trial::{sample, try_exchange};

impl Job {
    /// Everything of a run but its threads: alone, or with the processes that it is one of.
    ///
    /// # Errors
    /// Whatever keeps the run from starting. The others have been told, and the checkpoint was given back.
    pub(crate) async fn prepare(
        &self,
        plan: &Plan,
        member: Option<Member>,
    ) -> Result<(Started, Standing, Option<Mesh>)> {
        let position = member.as_ref().map_or(Position::ALONE, Member::position);
        let identity = self.identity(plan, position);
        let lease = self.config.checkpoint.lease();
        let place = |member: Member| {
            let workers = identity.workers_per_process;
            let place = member.place(&self.name, workers, &identity.fingerprint, lease);
            let awaited = self.health.awaited();
            place.map(|place| Place { awaited, ..place })
        };
        match member.filter(|_| position.processes > 1) {
            None => {
                let (started, lease) = self.prepare_run(plan, &identity, position, None).await?;
                Ok((started, Standing::Alone(lease), None))
            }
            Some(member) if position.leads() => {
                self.health.enter(Phase::Assembling);
                let lead = Lead::assemble(place(member)?).await?;
                let prepared = self.prepare_run(plan, &identity, position, Some(&lead));
                let (started, lease) = match prepared.await {
                    Ok(prepared) => prepared,
                    Err(error) => {
                        lead.refuse(&error).await;
                        return Err(error);
                    }
                };
                let mut lead = lead;
                self.health.enter(Phase::Connecting);
                lead.attach(&started.shared.ledger);
                let mesh = lead.mesh(&started.shared.ledger).await;
                self.connected(started, Standing::Lead(lease, lead), mesh)
                    .await
            }
            Some(member) => {
                self.health.enter(Phase::Assembling);
                let mut follow = Follow::join(place(member)?).await?;
                self.health.enter(Phase::Following);
                let started = match self
                    .follow_run(plan, &identity, position, &mut follow)
                    .await
                {
                    Ok(started) => started,
                    Err(error) => {
                        follow.fail(&error).await;
                        return Err(error);
                    }
                };
                self.health.enter(Phase::Connecting);
                follow.attach(&started.shared.ledger);
                let mesh = follow.mesh(&started.shared.ledger).await;
                self.connected(started, Standing::Member(follow), mesh)
                    .await
            }
        }
    }

    /// Everything of a process of a cluster, if it has come to be connected with the others.
    async fn connected(
        &self,
        started: Started,
        standing: Standing,
        mesh: Result<Mesh>,
    ) -> Result<(Started, Standing, Option<Mesh>)> {
        match mesh {
            Ok(mesh) => Ok((started, standing, Some(mesh))),
            Err(error) => {
                started.shared.ledger.stop();
                standing.give_up(&error).await;
                Err(error)
            }
        }
    }

    /// Takes the checkpoint over, decides, and makes the parts of the run. With a `lead` the other processes are told.
    async fn prepare_run(
        &self,
        plan: &Plan,
        identity: &RunIdentity,
        position: Position,
        lead: Option<&Lead>,
    ) -> Result<(Started, LeaseKeeper)> {
        self.health.enter(Phase::Opening);
        let (feeds, targets) = self.connect_all(plan).await?;
        if lead.is_some() {
            try_exchange(&self.build, sample(&feeds, &self.config).await)?;
        }
        let store = self.open_store()?.with_failpoints(self.failpoints.clone());
        self.health.takes_over(&store);
        let options = checkpoint::Options {
            fresh: self.fresh,
            retain_commits: self.config.checkpoint.commit().retain,
            lease: self.config.checkpoint.lease(),
            supervised: position.supervised,
        };
        let taken = checkpoint::take_over(&store, identity, options).await?;
        let opened = opened_only(&targets);
        let found = self.examine(plan, taken.resume(), &feeds, &opened);
        let decided = match found.await {
            Ok((report, decisions)) => {
                let lines = report.to_string();
                lines
                    .lines()
                    .for_each(|line| tracing::info!(event = "plan", "{line}"));
                decisions.rebuild().map(|rebuild| (rebuild, decisions))
            }
            Err(error) => Err(error),
        };
        let (rebuild, decisions) = match decided {
            Ok(decided) => decided,
            Err(error) => {
                // Nothing was begun. The error is what matters.
                let _ = taken.release().await;
                return Err(error);
            }
        };
        let opened = taken.start(rebuild).await?;
        self.health.has_taken_over(opened.generation);
        let ledger = self.ledger(plan, &opened.resume, opened.lease.fence());
        let lease = LeaseKeeper::start(opened.lease, &ledger);
        // Before any other process hears that sinks may write.
        ledger.unsettle();
        let commit = opened.resume.commit.as_ref();
        let sinks = decisions.starts(&identity.fingerprint.sinks, commit);
        let sinks = sinks.into_iter().chain(plan.state_starts()).collect();
        let run_plan = RunPlan { sinks };
        if let Some(lead) = lead {
            let told = serde_json::to_value(&run_plan);
            let told = told.context(ErrorKind::Internal, || "the plan has no JSON form")?;
            lead.begin(opened.generation, ledger.fence(), &told);
        }
        let checkpoint = Checkpoint {
            position,
            store,
            resume: opened.resume,
            seals: opened.seals,
            states: opened.states,
            commits: Some(opened.commits),
        };
        let requests = checkpoint.store.clone();
        let (sinks, made) = (run_plan.sinks, ledger.clone());
        let assembled = self.assemble(plan, ledger, checkpoint, sinks, feeds, targets);
        match assembled.await {
            Ok(started) => {
                let heeding = heed(requests, opened.generation, started.shared.clone());
                started.tasks.spawn("the look for requests", heeding);
                Ok((started, lease))
            }
            Err(error) => {
                made.stop();
                lease.release().await;
                Err(error)
            }
        }
    }

    /// Waits for process 0 to take the checkpoint over and decide, and makes the parts of the run.
    async fn follow_run(
        &self,
        plan: &Plan,
        identity: &RunIdentity,
        position: Position,
        follow: &mut Follow,
    ) -> Result<Started> {
        let begun = follow.begun().await?;
        let run_plan: RunPlan = serde_json::from_value(begun.plan)
            .context(ErrorKind::Config, || "process 0 runs another version")?;
        self.health.enter(Phase::Opening);
        // Not before: process 0 creates what is missing.
        let (feeds, targets) = self.connect_all(plan).await?;
        let store = self.open_store()?.with_failpoints(self.failpoints.clone());
        self.health.takes_over(&store);
        let (generation, process) = (begun.generation, position.process);
        self.health.has_taken_over(generation);
        let joined = checkpoint::join(&store, identity, generation, process, &begun.fence).await?;
        let ledger = self.ledger(plan, &joined.resume, &begun.fence);
        let checkpoint = Checkpoint {
            position,
            store,
            resume: joined.resume,
            seals: joined.seals,
            states: joined.states,
            commits: None,
        };
        let made = ledger.clone();
        let sinks = run_plan.sinks;
        let assembled = self.assemble(plan, ledger, checkpoint, sinks, feeds, targets);
        assembled.await.inspect_err(|_| made.stop())
    }
}
