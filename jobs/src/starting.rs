//! Makes the parts of a run, which [`Job::start`] sets going.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tidefeed_operators::dead_letter::{DeadLetters, StoredDeadLetters};
use tidefeed_operators::decode::DecodeErrors;
use tidefeed_operators::progress::ProgressMarks;
use tidefeed_runtime::bridge::Tasks;
use tidefeed_runtime::checkpoint::{CheckpointStore, CommitWriter, Resume, SealWriter};
use tidefeed_runtime::committer::CommitSender;
use tidefeed_runtime::dataflow::{Resumed, SinkStart};
use tidefeed_runtime::loader::Loads;
use tidefeed_runtime::sealer::Dues;
use tidefeed_runtime::states::StateWriter;
use tidefeed_runtime::{Epoch, Fence, Ledger, Result, committer, loader, sealer};
use tokio::sync::mpsc;

use crate::cluster::Position;
use crate::flow::WorkerParts;
use crate::job::{Feeds, Job, Targets};
use crate::milestones;
use crate::plan::Plan;
use crate::progress::{Beginning, Follower, Following};
use crate::running::Shared;
use crate::status::Counted;
use crate::wire::Wiring;

/// Everything that a start has made.
pub(crate) struct Started {
    pub(crate) shared: Shared,
    /// Not shared: the committer ends when the last sender, which is the commit operator's, is gone.
    pub(crate) commits: CommitSender,
    pub(crate) workers: Vec<WorkerParts>,
    pub(crate) loader: Background,
    pub(crate) sealer: Background,
    /// In process 0.
    pub(crate) committer: Option<Background>,
    pub(crate) states: Background,
    /// What to write before any sink does, who follows the commits, and how that is ended.
    pub(crate) progress: Option<(Beginning, Background, Following)>,
    pub(crate) position: Position,
    pub(crate) tasks: Tasks,
    pub(crate) targets: Targets,
}

/// A checkpoint that this run has taken over, and which of its processes this is.
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    pub(crate) store: CheckpointStore,
    pub(crate) resume: Resume,
    pub(crate) seals: SealWriter,
    pub(crate) states: SealWriter,
    /// In process 0.
    pub(crate) commits: Option<CommitWriter>,
}

pub(crate) type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Job {
    pub(crate) fn ledger(&self, plan: &Plan, resume: &Resume, fence: &Fence) -> Ledger {
        let commit = resume.commit.as_ref();
        let committed = commit.map_or(Epoch(0), |commit| commit.epoch);
        let last = resume.last_sealed.unwrap_or(committed);
        let ledger =
            Ledger::fenced(committed, last, fence.clone()).with_failpoints(self.failpoints.clone());
        let known = |source: &String| resume.tokens.contains_key(source);
        if commit.is_some_and(|commit| !commit.loading) && plan.sources.keys().all(known) {
            ledger.complete_load(committed);
        }
        ledger
    }

    /// Makes the parts of the run, which nobody has started yet.
    pub(crate) async fn assemble(
        &self,
        plan: &Plan,
        ledger: Ledger,
        checkpoint: Checkpoint,
        sinks: BTreeMap<String, SinkStart>,
        feeds: Feeds,
        targets: Targets,
    ) -> Result<Started> {
        let Checkpoint {
            position,
            store,
            resume,
            seals,
            states,
            commits: commit_writer,
        } = checkpoint;
        let workers = self.config.workers.0;
        milestones::begins(&self.name, position, workers, plan, &resume);
        let (parts, parts_received) = mpsc::unbounded_channel();
        let (mut commits, commits_received) = mpsc::unbounded_channel();
        let resumed = Resumed {
            commit: resume.commit.clone(),
            tokens: resume.tokens.clone(),
            marks: resume.marks.clone(),
            replayed_through: resume.last_sealed.unwrap_or(Epoch(0)),
            sinks,
        };
        let shared = Shared {
            ledger: ledger.clone(),
            sources: plan
                .sources
                .keys()
                .map(|name| (name.clone(), Arc::default()))
                .collect(),
            sinks: plan
                .sinks
                .keys()
                .map(|name| (name.clone(), Arc::default()))
                .collect(),
            traffic: targets
                .iter()
                .filter_map(|(name, target)| Some((name.clone(), target.traffic()?)))
                .collect(),
            resumed,
            asked: Arc::default(),
        };
        // Of what nobody can ask for nothing is kept.
        ledger.operator_figures().switch(self.config.http.is_on());
        let mut wiring = Wiring::new(&self.config, &shared, parts, position);
        let tasks = Tasks::new(tokio::runtime::Handle::current(), ledger.clone());
        let letters = self.dead_letters(&store, ledger.fence()).await?;
        for (name, feed) in feeds {
            wiring.source(&name, feed, letters.as_ref(), &tasks).await?;
        }
        if wiring.nothing_to_load() {
            ledger.complete_load(ledger.committed_through());
        }
        for (name, target) in &targets {
            target.guard(ledger.fence());
            if let Some(letters) = &letters {
                target.keep_dead_letters(name, letters.clone());
            }
            wiring.sink(name, target, letters.as_ref(), &tasks)?;
        }
        let mut progress = None;
        let place = match position.leads() {
            true => self.progress(ledger.fence()).await?,
            false => None,
        };
        if let Some(place) = place {
            let sinks = &shared.resumed.sinks;
            let sinks = sinks.iter().filter(|(name, _)| targets.contains_key(*name));
            let sinks = sinks.map(|(name, start)| (name.clone(), start.clone()));
            let sinks = sinks.collect();
            let beginning = Beginning::new(&place, &sinks, resume.commit.as_ref());
            let (requests, asked) = mpsc::unbounded_channel();
            let committer = std::mem::replace(&mut commits, requests);
            let sinks = sinks.into_keys().collect();
            let (follower, following) =
                Follower::run(place, ledger.clone(), sinks, asked, committer);
            progress = Some((beginning, Box::pin(follower) as Background, following));
        }
        let mut state_writer = StateWriter::default();
        for name in plan.states.keys() {
            wiring.state(name, &mut state_writer);
        }
        let filters = plan.temporal_filters;
        let (due_sender, dues) = Dues::of(filters, self.config.workers.0);
        if filters > 0 {
            wiring.time(filters, &due_sender);
        }
        let (workers, outlets) = wiring.finish();
        let parts_per_epoch = self.config.workers.0 * plan.sources.len();
        let load_config = self.config.load.clone();
        let load_ledger = ledger.clone();
        let loads = Loads::of(
            position.process,
            position.processes,
            self.config.workers.0,
            !plan.states.is_empty(),
        )?;
        let committer = commit_writer.map(|commits| {
            let config = self.config.checkpoint.commit();
            let committer = committer::run(commits_received, config, commits, ledger.clone());
            Box::pin(committer) as Background
        });
        let loader = loader::run(resume, store, loads, outlets, load_config, load_ledger);
        Ok(Started {
            workers,
            loader: Box::pin(loader),
            sealer: Box::pin(sealer::run(
                parts_received,
                parts_per_epoch,
                dues,
                seals,
                ledger.clone(),
            )),
            committer,
            states: Box::pin(state_writer.run(states, ledger)),
            shared,
            commits,
            progress,
            position,
            tasks,
            targets,
        })
    }

    /// Where readers learn how far the sinks are, if they are to.
    async fn progress(&self, fence: &Fence) -> Result<Option<Arc<dyn ProgressMarks>>> {
        let Some(place) = &self.config.progress else {
            return Ok(None);
        };
        let marks = self.connect.progress(&self.name, place).await?;
        marks.guard(fence);
        Ok(Some(marks))
    }

    /// Where documents go that go no further, if any sink or source sends them there.
    async fn dead_letters(
        &self,
        store: &CheckpointStore,
        fence: &Fence,
    ) -> Result<Option<Arc<dyn DeadLetters>>> {
        let mut sinks = self.config.sink.values();
        let mut sources = self.config.source.values();
        let of_sinks = sinks.any(|sink| sink.dead_letters_per_minute.is_some());
        if !of_sinks && sources.all(|s| s.on_decode_error != DecodeErrors::DeadLetters) {
            return Ok(None);
        }
        let letters: Arc<dyn DeadLetters> = match &self.config.dead_letters {
            Some(place) => self.connect.dead_letters(&self.name, place).await?,
            None => Arc::new(StoredDeadLetters::new(store.letters())),
        };
        letters.guard(fence);
        Ok(Some(Arc::new(Counted::new(letters, self.health.letters()))))
    }
}
