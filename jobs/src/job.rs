//! Starts a job.
//!
//! The order of a start matters: nothing is written to a sink before the code's plan, the configuration, the containers and
//! the checkpoint agree. The one thing that may exist before they do is a missing sink container.
//!
//! 1. Plan: the job's code is built once without running.
//! 2. Connect: every source and sink is opened.
//! 3. Open the checkpoint: take a generation, pin what to resume from, read it.
//! 4. Start sealer, committer and state writer, one reader for each feed range, and the workers.
//!
//! So does the order of an end, good or bad, because what one run writes must not land on the writes of the next (I5, I7):
//!
//! 1. The workers leave their dataflows; from here on nobody begins a write.
//! 2. The targets are closed: they send nothing more, and what they have sent comes to its end.
//! 3. Sealer, committer and state writer write what they have.
//! 4. Every task has ended, or [`REQUEST_DEADLINE`](tidefeed_operators::target::REQUEST_DEADLINE) has passed, which no request outlives.
//! 5. The checkpoint's lease is given back, and the next run may start. A run that could not wait for its tasks does not give
//!    it back, and neither does one that was killed: then the next run lets the time pass that a request may take.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidefeed_operators::feed::ChangeFeed;
use tidefeed_operators::target::Target;
use tidefeed_runtime::bridge::Tasks;
use tidefeed_runtime::checkpoint::{self, CheckpointStore, Lease, Opened, RunIdentity};
use tidefeed_runtime::committer::CommitSender;
use tidefeed_runtime::dataflow::Resumed;
use tidefeed_runtime::states::StateWriter;
use tidefeed_runtime::{Context, Epoch, Error, ErrorKind, Ledger, Result, committer, sealer};
use tokio::sync::{mpsc, watch};

use crate::build::{plan, run_dataflow};
use crate::config::{JobConfig, SinkConfig};
use crate::connect::Connect;
use crate::ending::{LeaseKeeper, Writers, settle};
use crate::flow::{Flow, WorkerParts};
use crate::plan::Plan;
use crate::running::{RunningJob, Shared};
use crate::wire::{ReaderStart, Wiring};

type Feeds = BTreeMap<String, Arc<dyn ChangeFeed>>;
pub(crate) type Targets = BTreeMap<String, Arc<dyn Target>>;

/// How long blocking work, as on files, may take to end with a job before it is abandoned.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A job: a name, a configuration, containers, and the code that builds its dataflow.
pub struct Job<F> {
    name: String,
    config: JobConfig,
    connect: Arc<dyn Connect>,
    store: Option<CheckpointStore>,
    fresh: bool,
    build: Arc<F>,
}

impl<F> Job<F>
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    /// A job that is ready to start.
    pub fn new(name: &str, config: JobConfig, connect: impl Connect, build: F) -> Self {
        let connect = Arc::new(connect);
        Job {
            name: name.to_owned(),
            config,
            connect,
            store: None,
            fresh: false,
            build: Arc::new(build),
        }
    }

    /// Starts over, whatever the checkpoint holds: every source from its configured start.
    pub fn fresh(mut self, fresh: bool) -> Self {
        self.fresh = fresh;
        self
    }

    /// Uses this checkpoint store instead of the configured directory.
    pub fn checkpoint_store(mut self, store: CheckpointStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Starts the job and returns when its workers run.
    ///
    /// # Errors
    /// Whatever keeps the job from starting; nothing was written to a sink then.
    pub fn start(self) -> Result<RunningJob> {
        self.config.validate()?;
        let plan = plan(&self.build)?;
        plan.check(&self.config)?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tidefeed-io")
            .enable_all()
            .build()
            .context(ErrorKind::Internal, || "cannot start the I/O threads")?;
        let started = tokio.block_on(self.prepare(&plan))?;
        let status = started.shared.clone();
        let (workers, epoch, build) = (started.workers, self.config.epoch, self.build);
        let tasks = started.tasks;
        let settle_for = started.lease.settle();
        let on_tokio = tokio.enter();
        let writers = Writers {
            lease: LeaseKeeper::start(started.lease, &started.shared.ledger),
            checkpoint: [
                tasks.spawn("the sealer", started.sealer),
                tasks.spawn("the committer", started.committer),
                tasks.spawn("the state writer", started.states),
            ],
            targets: started.targets,
            tasks: tasks.clone(),
        };
        settle(settle_for, &tasks, &started.shared.ledger);
        for reader in started.readers {
            tasks.spawn(reader.name(), reader.run());
        }
        drop(on_tokio);
        let (shared, commits) = (started.shared, started.commits);
        let main = std::thread::Builder::new()
            .name("tidefeed-job".to_owned())
            .spawn(move || {
                let ran = run_dataflow(workers, epoch, &shared, commits, build);
                let ended = tokio.block_on(writers.end(&shared.ledger));
                tokio.shutdown_timeout(SHUTDOWN);
                ran.and_then(|()| shared.ledger.take_failure().map_or(Ok(()), Err))
                    .and(ended)
            })
            .context(ErrorKind::Internal, || "cannot start the job's thread")?;
        Ok(RunningJob::new(main, status))
    }

    async fn prepare(&self, plan: &Plan) -> Result<Started> {
        let (feeds, targets) = self.connect_all(plan).await?;
        let store = self.open_store()?;
        let identity = RunIdentity {
            job: self.name.clone(),
            fingerprint: plan.fingerprint(&self.config),
            processes: 1,
            workers_per_process: u32::try_from(self.config.workers.0).unwrap_or(u32::MAX),
        };
        let commit_config = self.config.checkpoint.commit();
        let options = checkpoint::Options {
            fresh: self.fresh,
            retain_commits: commit_config.retain,
            lease: self.config.checkpoint.lease(),
        };
        let mut opened = checkpoint::open(&store, &identity, options).await?;
        // Sealed or committed: either may have been written.
        if opened.resume.last_sealed.is_none() {
            self.check_empty(&targets).await?;
        }
        let rehydrated = opened.resume.rehydrate(&store).await?;
        let base = opened.resume.compact(&store, &rehydrated).await?;
        let base_pending = base.is_some();
        if let Some(base) = base {
            opened.commits.set_base(base)?;
        }
        let committed = opened
            .resume
            .commit
            .as_ref()
            .map_or(Epoch(0), |commit| commit.epoch);
        let last = opened.resume.last_sealed.unwrap_or(committed);
        let ledger = Ledger::fenced(committed, last, opened.lease.fence().clone());
        let commit = opened.resume.commit.as_ref();
        if commit.is_some_and(|commit| !commit.loading) {
            ledger.complete_load(committed);
        }
        let (parts, parts_received) = mpsc::unbounded_channel();
        let (commits, commits_received) = mpsc::unbounded_channel();
        let tokens = opened.resume.tokens.clone();
        let resumed = Resumed {
            commit: opened.resume.commit.clone(),
            tokens,
            replayed_through: last,
            base_pending,
            sinks: plan.committed(&self.config),
        };
        let Opened {
            seals,
            states,
            commits: commit_writer,
            lease,
            ..
        } = opened;
        let shared = Shared {
            ledger: ledger.clone(),
            finish: Arc::new(watch::Sender::new(false)),
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
            resumed,
        };
        let mut wiring = Wiring::new(&self.config, &shared, rehydrated, parts);
        for (name, feed) in feeds {
            wiring.source(&name, feed).await?;
        }
        let tasks = Tasks::new(tokio::runtime::Handle::current(), ledger.clone());
        for (name, target) in &targets {
            target.guard(ledger.fence());
            wiring.sink(name, target, &tasks)?;
        }
        let mut state_writer = StateWriter::default();
        for name in plan.states.keys() {
            wiring.state(name, &mut state_writer);
        }
        let (workers, readers) = wiring.finish();
        let parts_per_epoch = self.config.workers.0 * plan.sources.len();
        let interval = Duration::from_millis(commit_config.interval_ms);
        Ok(Started {
            workers,
            readers,
            sealer: Box::pin(sealer::run(
                parts_received,
                parts_per_epoch,
                seals,
                ledger.clone(),
            )),
            committer: Box::pin(committer::run(
                commits_received,
                interval,
                commit_writer,
                ledger.clone(),
            )),
            states: Box::pin(state_writer.run(states, ledger)),
            shared,
            commits,
            tasks,
            targets,
            lease,
        })
    }

    async fn connect_all(&self, plan: &Plan) -> Result<(Feeds, Targets)> {
        let mut feeds = Feeds::new();
        for name in plan.sources.keys() {
            feeds.insert(
                name.clone(),
                self.connect.source(name, &self.config.source[name]).await?,
            );
        }
        let mut targets = Targets::new();
        for name in plan.sinks.keys() {
            targets.insert(
                name.clone(),
                self.connect.sink(name, &self.config.sink[name]).await?,
            );
        }
        Ok((feeds, targets))
    }

    /// A run that starts from nothing knows nothing of documents that an earlier life left, and would never delete them.
    async fn check_empty(&self, targets: &Targets) -> Result<()> {
        for (name, target) in targets {
            if !target.is_empty().await? {
                let SinkConfig {
                    database,
                    container,
                    ..
                } = &self.config.sink[name];
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "sink {name}: container {database}/{container} holds documents, but this run starts from nothing and \
                         would leave those that the view does not hold: use the checkpoint that belongs to them, or \
                         empty the container"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn open_store(&self) -> Result<CheckpointStore> {
        match (&self.store, &self.config.checkpoint.directory) {
            (Some(store), _) => Ok(store.clone()),
            (None, Some(directory)) => {
                let store = CheckpointStore::local(directory, &self.name)?;
                Ok(if self.config.checkpoint.shared {
                    store.shared()
                } else {
                    store
                })
            }
            (None, None) => Err(Error::new(
                ErrorKind::Config,
                "no place for checkpoints: set checkpoint.directory in the configuration, or use --checkpoint DIR",
            )),
        }
    }
}

/// Everything that a start has made.
struct Started {
    shared: Shared,
    /// Not shared: the committer ends when the last sender, which is the commit operator's, is gone.
    commits: CommitSender,
    workers: Vec<WorkerParts>,
    readers: Vec<ReaderStart>,
    sealer: Background,
    committer: Background,
    states: Background,
    tasks: Tasks,
    targets: Targets,
    lease: Lease,
}

type Background = Pin<Box<dyn Future<Output = ()> + Send>>;
