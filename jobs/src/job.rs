//! Starts a job.
//!
//! The order of a start matters: nothing is written to a sink before the code's plan, the configuration, the containers and
//! the checkpoint agree. The one thing that may exist before they do is a missing sink container.
//!
//! 1. Plan: the job's code is built once without running.
//! 2. Connect: every source and sink is opened. A cluster tries whether what the job exchanges can travel (`trial.rs`).
//! 3. Take over the checkpoint, and see what there is to resume from.
//! 4. Decide what becomes of each sink (`decision.rs`). A refusal gives the checkpoint back as it was.
//! 5. Pin what to resume from, and which sinks to rebuild.
//! 6. Start sealer, committer and state writer, the loader of the checkpoint, and the workers, which start a reader
//!    for each feed range.
//!
//! So does the order of an end, good or bad, because what one run writes must not land on the writes of the next (I5, I7):
//!
//! 1. The workers leave their dataflows; from here on nobody begins a write.
//! 2. The targets are closed: they send nothing more, and what they have sent comes to its end.
//! 3. Sealer, committer and state writer write what they have.
//! 4. The mark of the last commit is written, if readers are told of commits (`progress.rs`).
//! 5. Every task has ended, or [`REQUEST_DEADLINE`](tidefeed_operators::target::REQUEST_DEADLINE) has passed, which no request outlives.
//! 6. The checkpoint's lease is given back, and the next run may start. A run that could not wait for its tasks does not give
//!    it back, and neither does one that was killed: then the next run lets the time pass that a request may take.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidefeed_operators::cosmos::Budget;
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::target::Target;
use tidefeed_runtime::checkpoint::{self, CheckpointStore, Resume, RunIdentity};
use tidefeed_runtime::failpoint::Failpoints;
use tidefeed_runtime::stall::Phase;
use tidefeed_runtime::{Context, ErrorKind, Result};

use crate::build::{Build, plan, run_dataflow};
use crate::check::{CheckReport, RefusalReport, SourceReport};
use crate::cluster::{Member, Position};
use crate::config::{JobConfig, SinkConfig, SourceConfig};
use crate::connect::{Connect, source};
use crate::decision::{Asked, Before, Decisions, SinkNow};
use crate::ending::{Writers, settle};
use crate::flow::Flow;
use crate::health::Health;
use crate::http;
use crate::milestones;
use crate::plan::Plan;
use crate::ranges::starts;
use crate::running::RunningJob;
use crate::status::JobFacts;
use crate::trial::{sample, try_exchange};

pub(crate) type Feeds = BTreeMap<String, Arc<dyn ChangeFeed>>;
pub(crate) type Targets = BTreeMap<String, Arc<dyn Target>>;

/// How long blocking work, as on files, may take to end with a job before it is abandoned.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A job: a name, a configuration, containers, and the code that builds its dataflow.
pub struct Job {
    pub(crate) name: String,
    pub(crate) config: JobConfig,
    pub(crate) connect: Arc<dyn Connect>,
    store: Option<CheckpointStore>,
    pub(crate) fresh: bool,
    rebuild: Vec<String>,
    member: Option<Member>,
    pub(crate) health: Health,
    pub(crate) failpoints: Failpoints,
    pub(crate) build: Build,
}

impl Job {
    /// A job that is ready to start.
    pub fn new<F>(name: &str, config: JobConfig, connect: impl Connect, build: F) -> Self
    where
        F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
    {
        Job {
            name: name.to_owned(),
            health: Health::new(config.http.clone()),
            config,
            connect: Arc::new(connect),
            store: None,
            fresh: false,
            rebuild: Vec::new(),
            member: None,
            failpoints: Failpoints::default(),
            build: Arc::new(build),
        }
    }

    /// Starts over, whatever the checkpoint holds: every source from its configured start. Sinks whose containers hold
    /// documents are rebuilt.
    pub fn fresh(mut self, fresh: bool) -> Self {
        self.fresh = fresh;
        self
    }

    /// Rebuilds these sinks, or every one if `all` is among them: once the sources have caught up, each container is brought
    /// in line with its view, whatever it holds. What is right already is not written again.
    pub fn rebuild(mut self, sinks: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rebuild.extend(sinks.into_iter().map(Into::into));
        self
    }

    /// Rebuilds none but those that the checkpoint says are still to be.
    pub(crate) fn without_rebuild(mut self) -> Self {
        self.rebuild.clear();
        self
    }

    /// Runs as one process of a cluster; what is decided once for a run, process 0 decides.
    pub fn member(mut self, member: Member) -> Self {
        self.member = Some(member);
        self
    }

    /// How the job is, from now on until it has ended; also while [`start`](Job::start) has not returned.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Shows its page and answers how it is at the address of `[http]`, from now on until the process ends; returns the address, or `None` if
    /// that is `off`. A program with [`main`](crate::main()) does so by itself.
    ///
    /// # Errors
    /// `Config` when it cannot listen there, or others could ask without a token.
    pub fn listen(&self) -> Result<Option<SocketAddr>> {
        let answering = http::serve(&self.config.http, 0, self.health.clone())?;
        Ok(answering.map(|answering| answering.at))
    }

    /// Tells there how it is, where others ask already.
    pub(crate) fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Uses this checkpoint store instead of the configured place.
    pub fn checkpoint_store(mut self, store: CheckpointStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Fails where a test says.
    #[doc(hidden)]
    pub fn failpoints(mut self, failpoints: Failpoints) -> Self {
        self.failpoints = failpoints;
        self
    }

    /// Starts the job and returns when its workers run, and every feed range that starts at now has a durable position: whatever is
    /// written from then on is read, by this run or the next.
    ///
    /// # Errors
    /// Whatever keeps the job from starting; nothing was written to a sink then.
    pub fn start(self) -> Result<RunningJob> {
        let health = self.health.clone();
        let started = self.start_noted();
        if started.is_err() {
            health.end(&started);
        }
        started
    }

    fn start_noted(mut self) -> Result<RunningJob> {
        let position = self
            .member
            .as_ref()
            .map_or(Position::ALONE, Member::position);
        let word_due = self
            .member
            .as_ref()
            .map_or(Duration::ZERO, Member::word_due);
        self.health.begin(position, word_due, self.facts());
        self.config.validate()?;
        let plan = plan(&self.build)?;
        plan.check(&self.config)?;
        self.health.knows_code(plan.operators.clone());
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tidefeed-io")
            .enable_all()
            .build()
            .context(ErrorKind::Internal, || "cannot start the I/O threads")?;
        let member = self.member.take();
        let (started, standing, mesh) = tokio.block_on(self.prepare(&plan, member))?;
        let status = started.shared.clone();
        let (workers, epoch, build) = (started.workers, self.config.epoch, self.build);
        let tasks = started.tasks;
        let on_tokio = tokio.enter();
        let mut following = None;
        let beginning = started.progress.map(|(beginning, follower, end)| {
            tasks.spawn("the writer of progress documents", follower);
            following = Some(end);
            beginning
        });
        if let Some(delay) = standing.settle() {
            settle(delay, beginning, &tasks, &started.shared.ledger);
        }
        let mut checkpoint = vec![
            tasks.spawn("the sealer", started.sealer),
            tasks.spawn("the state writer", started.states),
        ];
        let committer = started.committer;
        checkpoint.extend(committer.map(|committer| tasks.spawn("the committer", committer)));
        let first = started.position.first_worker(workers.len());
        self.health.runs(&started.shared, &started.targets);
        if !started.position.leads() {
            self.health.tell_lead(&started.shared, &tasks);
        }
        let health = self.health.clone();
        let writers = Writers {
            standing,
            checkpoint,
            targets: started.targets,
            progress: following,
            tasks: tasks.clone(),
        };
        tasks.spawn("the loader of the checkpoint", started.loader);
        drop(on_tokio);
        let (shared, commits) = (started.shared, started.commits);
        let handle = tokio.handle().clone();
        let (name, process, began) = (self.name, started.position.process, Instant::now());
        let main = std::thread::Builder::new()
            .name("tidefeed-job".to_owned())
            .spawn(move || {
                let failure = || shared.ledger.take_failure().map_or(Ok(()), Err);
                let ran = run_dataflow(workers, first, mesh, epoch, &shared, commits, build);
                let ran = ran.and_then(|()| failure());
                health.enter(Phase::Ending);
                let ended = tokio.block_on(writers.end(&shared.ledger, ran.is_ok()));
                tokio.shutdown_timeout(SHUTDOWN);
                // The end may fail the run as well.
                let ended = ran.and_then(|()| failure()).and(ended);
                let generation = health.generation();
                milestones::over(
                    &name,
                    process,
                    generation,
                    &shared.ledger,
                    began.elapsed(),
                    &ended,
                );
                health.end(&ended);
                ended
            })
            .context(ErrorKind::Internal, || "cannot start the job's thread")?;
        let running = RunningJob::new(main, status);
        handle.block_on(running.fixed());
        Ok(running)
    }

    fn facts(&self) -> JobFacts {
        let source = |(name, config): (&String, &SourceConfig)| (name.clone(), config.kind());
        let sink = |(name, config): (&String, &SinkConfig)| {
            let Some(Budget::RuPerSecond(budget)) = config.budget else {
                return None;
            };
            Some((name.clone(), budget))
        };
        JobFacts {
            name: self.name.clone(),
            workers: u32::try_from(self.config.workers.0).unwrap_or(u32::MAX),
            checkpoint: self.config.checkpoint.shown(),
            sources: self.config.source.iter().map(source).collect(),
            budgets: self.config.sink.iter().filter_map(sink).collect(),
        }
    }

    async fn connect_sources(&self, plan: &Plan) -> Result<Feeds> {
        let mut feeds = Feeds::new();
        for name in plan.sources.keys() {
            feeds.insert(
                name.clone(),
                source(&*self.connect, name, &self.config.source[name]).await?,
            );
        }
        Ok(feeds)
    }

    pub(crate) async fn connect_all(&self, plan: &Plan) -> Result<(Feeds, Targets)> {
        let feeds = self.connect_sources(plan).await?;
        let mut targets = Targets::new();
        for name in plan.sinks.keys() {
            targets.insert(
                name.clone(),
                self.connect.sink(name, &self.config.sink[name]).await?,
            );
        }
        Ok((feeds, targets))
    }

    /// What a start would do, without starting: nothing is written, and the checkpoint is not taken over.
    ///
    /// # Errors
    /// Whatever keeps a start from finding out. What it finds out and refuses is in the report.
    pub fn check(self) -> Result<CheckReport> {
        self.config.validate()?;
        let plan = plan(&self.build)?;
        plan.check(&self.config)?;
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(ErrorKind::Internal, || "cannot start the I/O thread")?;
        tokio.block_on(async {
            let feeds = self.connect_sources(&plan).await?;
            let mut targets = BTreeMap::new();
            for name in plan.sinks.keys() {
                targets.insert(name.clone(), self.existing_sink(name).await?);
            }
            let store = self.open_store()?;
            let resume =
                checkpoint::look(&store, &self.identity(&plan, Position::ALONE), self.fresh)
                    .await?;
            let (mut report, decisions) = self.examine(&plan, &resume, &feeds, &targets).await?;
            let travels = try_exchange(&self.build, sample(&feeds, &self.config).await);
            report.cannot_travel = travels.err().map(|error| error.report());
            if let Err(error) = decisions.rebuild() {
                report.refused = Some(RefusalReport::of(&error));
            }
            Ok(report)
        })
    }

    pub(crate) fn identity(&self, plan: &Plan, position: Position) -> RunIdentity {
        RunIdentity {
            job: self.name.clone(),
            fingerprint: plan.fingerprint(&self.config),
            processes: position.processes,
            workers_per_process: u32::try_from(self.config.workers.0).unwrap_or(u32::MAX),
        }
    }

    /// Finds out what becomes of each source and sink when the run goes on from `resume`. A target that is not there is an
    /// empty container.
    pub(crate) async fn examine(
        &self,
        plan: &Plan,
        resume: &Resume,
        feeds: &Feeds,
        targets: &BTreeMap<String, Option<Arc<dyn Target>>>,
    ) -> Result<(CheckReport, Decisions)> {
        let asked = Asked::new(self.rebuild.iter().cloned());
        asked.check(plan.sinks.keys(), |sink| plan.keeps_view(sink))?;
        let mut sources = BTreeMap::new();
        for (name, feed) in feeds {
            let saved = resume.tokens.get(name).cloned().unwrap_or_default();
            let live = feed.ranges().await?;
            // The start that it would have is not asked for, only whether there is one.
            starts(name, &**feed, &saved, &live, &Start::Beginning)?;
            let saved = saved.into_keys().collect();
            sources.insert(name.clone(), SourceReport { saved, live });
        }
        let before = Before {
            nothing: resume.last_sealed.is_none(),
            sinks: resume.before.clone().unwrap_or_default().sinks,
            pending: resume.rebuild().clone(),
        };
        let fingerprints = plan.fingerprint(&self.config).sinks;
        let mut sinks = BTreeMap::new();
        for (name, fingerprint) in &fingerprints {
            let keeps_view = plan.keeps_view(name);
            let empty = match targets.get(name) {
                Some(Some(target)) if keeps_view && before.needs_look(name, fingerprint) => {
                    target.is_empty().await?
                }
                Some(Some(_)) => false,
                _ => true,
            };
            let now = SinkNow {
                fingerprint: fingerprint.clone(),
                empty,
                keeps_view,
            };
            sinks.insert(name.clone(), now);
        }
        let decisions = Decisions::of(&sinks, &before, &asked, self.fresh);
        let report = CheckReport::new(&self.name, resume, sources, &decisions, &fingerprints);
        Ok((report, decisions))
    }

    /// The sink's container if it exists, and `None` if a start would create it.
    async fn existing_sink(&self, name: &str) -> Result<Option<Arc<dyn Target>>> {
        let config = &self.config.sink[name];
        let existing = SinkConfig {
            create: false,
            ..config.clone()
        };
        match self.connect.sink(name, &existing).await {
            Err(error) if error.kind() == ErrorKind::NotFound && config.create => Ok(None),
            opened => opened.map(Some),
        }
    }

    pub(crate) fn open_store(&self) -> Result<CheckpointStore> {
        match &self.store {
            Some(store) => Ok(store.clone().counted_anew()),
            None => self.config.checkpoint.open(&self.name),
        }
    }
}

pub(crate) fn opened_only(targets: &Targets) -> BTreeMap<String, Option<Arc<dyn Target>>> {
    let opened = |(name, target): (&String, &Arc<dyn Target>)| (name.clone(), Some(target.clone()));
    targets.iter().map(opened).collect()
}
