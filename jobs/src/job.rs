//! Starts a job, watches it and ends it.
//!
//! The order of a start matters: nothing is written anywhere before the code's plan, the configuration, the containers and the
//! checkpoint agree.
//!
//! 1. Plan: the job's code is built once without running.
//! 2. Connect: every source and sink is opened.
//! 3. Open the checkpoint: take a generation, pin what to resume from, read it.
//! 4. Start sealer and committer, one reader for each feed range, and the workers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidefeed_operators::document::DocumentEncoder;
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::reader::{PollDelay, Readers, SourceCounters};
use tidefeed_operators::sink::{SinkCounters, SinkParts};
use tidefeed_operators::source::SourceParts;
use tidefeed_operators::target::Target;
use tidefeed_runtime::bridge::{Inbox, Tasks};
use tidefeed_runtime::checkpoint::{self, CheckpointStore, Opened, Rehydrated, RunIdentity};
use tidefeed_runtime::committer::CommitSender;
use tidefeed_runtime::dataflow::{Resumed, commit, ticks};
use tidefeed_runtime::sealer::PartSender;
use tidefeed_runtime::{
    Context, Epoch, EpochConfig, EpochFigures, Error, ErrorKind, FeedRangeId, Ledger, Result,
    committer, run_workers, sealer,
};
use timely::dataflow::operators::Concatenate;
use timely::worker::Worker;
use tokio::sync::{mpsc, watch};

use crate::config::{JobConfig, StartAt};
use crate::connect::Connect;
use crate::flow::{Flow, WorkerParts};
use crate::plan::Plan;
use crate::ranges::{RangeStart, starts};

/// Pages that may wait for a worker, for each source.
const INBOX_PAGES: usize = 8;

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
        let Started {
            shared,
            commits,
            worker_parts,
            readers,
            sealer,
            committer,
        } = started;
        let (workers, epoch, build) =
            (self.config.workers.0, self.config.epoch.clone(), self.build);
        let background = vec![tokio.spawn(sealer), tokio.spawn(committer)];
        for (readers, range, start, inbox) in readers {
            tokio.spawn(readers.read(range, start, inbox));
        }
        let ledger = shared.ledger.clone();
        let status = shared.clone();
        let main = std::thread::Builder::new()
            .name("tidefeed-job".to_owned())
            .spawn(move || {
                let run = run_dataflow(workers, epoch, &shared, commits, worker_parts, build);
                // The workers are gone, and with them the senders: sealer and committer finish what they have.
                let failed = run.err();
                tokio.block_on(async {
                    for task in background {
                        if let Err(error) = task.await {
                            shared.ledger.fail(Error::internal(format!(
                                "a background task ended badly: {error}"
                            )));
                        }
                    }
                });
                shared.ledger.stop();
                tokio.shutdown_timeout(Duration::from_secs(5));
                failed
                    .or_else(|| shared.ledger.take_failure())
                    .map_or(Ok(()), Err)
            })
            .context(ErrorKind::Internal, || "cannot start the job's thread")?;
        Ok(RunningJob {
            main: Some(main),
            ledger,
            status,
        })
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
        };
        let mut opened = checkpoint::open(&store, &identity, options).await?;
        let rehydrated = opened.resume.rehydrate(&store).await?;
        if let Some(base) = opened.resume.compact(&store, &rehydrated).await? {
            opened.commits.set_base(base)?;
        }
        let committed = opened
            .resume
            .commit
            .as_ref()
            .map_or(Epoch(0), |commit| commit.epoch);
        let last = opened
            .resume
            .last_sealed
            .map_or(committed, |sealed| sealed.max(committed));
        let ledger = Ledger::new(committed, last);
        let (parts, parts_received) = mpsc::unbounded_channel();
        let (commits, commits_received) = mpsc::unbounded_channel();
        let tokens = opened.resume.tokens.clone();
        let resumed = Resumed {
            commit: opened.resume.commit.clone(),
            tokens,
            replayed_through: last,
        };
        let Opened {
            seals,
            commits: commit_writer,
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
        let (worker_parts, readers) = self
            .wire(&shared, feeds, targets, rehydrated, parts)
            .await?;
        let parts_per_epoch = self.config.workers.0 * plan.sources.len();
        let interval = Duration::from_millis(commit_config.interval_ms);
        Ok(Started {
            worker_parts,
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
                ledger,
            )),
            shared,
            commits,
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

    fn open_store(&self) -> Result<CheckpointStore> {
        match (&self.store, &self.config.checkpoint.directory) {
            (Some(store), _) => Ok(store.clone()),
            (None, Some(directory)) => CheckpointStore::local(directory, &self.name),
            (None, None) => Err(Error::new(
                ErrorKind::Config,
                "no place for checkpoints: set checkpoint.directory in the configuration, or use --checkpoint DIR",
            )),
        }
    }

    /// Builds what each worker and each reader works with.
    async fn wire(
        &self,
        shared: &Shared,
        feeds: Feeds,
        targets: Targets,
        rehydrated: Rehydrated,
        parts: PartSender,
    ) -> Result<(Vec<WorkerParts>, Vec<ReaderStart>)> {
        let workers = self.config.workers.0;
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let checkpoint = Arc::new(rehydrated);
        let committed = shared.ledger.committed_through();
        let mut worker_parts: Vec<_> = (0..workers)
            .map(|_| WorkerParts {
                sources: BTreeMap::new(),
                sinks: BTreeMap::new(),
            })
            .collect();
        let mut readers = Vec::new();
        let open_ranges = Arc::new(AtomicUsize::new(0));
        for (at, (name, feed)) in feeds.into_iter().enumerate() {
            let config = &self.config.source[&name];
            let start = match config.start {
                StartAt::Beginning => Start::Beginning,
                StartAt::Now => Start::Now,
            };
            let saved = shared
                .resumed
                .tokens
                .get(&name)
                .cloned()
                .unwrap_or_default();
            let starts = starts(&name, &saved, &feed.ranges().await?, &start)?;
            open_ranges.fetch_add(starts.len(), Ordering::AcqRel);
            let poll = PollDelay {
                first: Duration::from_millis(config.poll_ms),
                longest: Duration::from_millis(config.poll_max_ms),
            };
            let shared_readers = Arc::new(Readers {
                feed,
                poll,
                counters: Arc::clone(&shared.sources[&name]),
                ledger: shared.ledger.clone(),
                finish: shared.finish.subscribe(),
                open_ranges: Arc::clone(&open_ranges),
            });
            let mut inboxes = Vec::new();
            for (index, worker) in worker_parts.iter_mut().enumerate() {
                let (sender, inbox) = Inbox::new(INBOX_PAGES);
                inboxes.push(sender);
                let source = SourceParts {
                    name: name.clone(),
                    inbox,
                    checkpoint: Arc::clone(&checkpoint),
                    resumed: committed,
                    parts: parts.clone(),
                    max_bytes: self.config.epoch.max_bytes_per_worker,
                    reports_seals: at == 0 && index == 0,
                    ledger: shared.ledger.clone(),
                };
                worker.sources.insert(name.clone(), source);
            }
            for (index, RangeStart { range, start }) in starts.into_iter().enumerate() {
                let inbox = inboxes[(index + at) % workers].clone();
                readers.push((Arc::clone(&shared_readers), range, start, inbox));
            }
        }
        for (name, target) in targets {
            let encoder = DocumentEncoder::new(&name, &self.config.sink[&name].partition_key)?;
            for worker in &mut worker_parts {
                let sink = SinkParts {
                    name: name.clone(),
                    target: Arc::clone(&target),
                    tasks: tasks.clone(),
                    resumed: committed,
                    rewrite_through: shared.resumed.replayed_through,
                    ledger: shared.ledger.clone(),
                    counters: Arc::clone(&shared.sinks[&name]),
                };
                worker.sinks.insert(name.clone(), (sink, encoder.clone()));
            }
        }
        Ok((worker_parts, readers))
    }
}

type Feeds = BTreeMap<String, Arc<dyn ChangeFeed>>;
type Targets = BTreeMap<String, Arc<dyn Target>>;
type Background = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type ReaderStart = (
    Arc<Readers>,
    FeedRangeId,
    Start,
    tidefeed_runtime::bridge::InboxSender<tidefeed_operators::reader::Arrival>,
);

/// Everything that a start has made.
struct Started {
    shared: Shared,
    /// Not shared: the committer ends when the last sender, which is the commit operator's, is gone.
    commits: CommitSender,
    worker_parts: Vec<WorkerParts>,
    readers: Vec<ReaderStart>,
    sealer: Background,
    committer: Background,
}

/// What the workers and whoever watches the job share.
#[derive(Clone)]
struct Shared {
    ledger: Ledger,
    finish: Arc<watch::Sender<bool>>,
    sources: BTreeMap<String, Arc<SourceCounters>>,
    sinks: BTreeMap<String, Arc<SinkCounters>>,
    resumed: Resumed,
}

/// Builds the job's code once, without running it, to see what it uses.
fn plan<F>(build: &Arc<F>) -> Result<Plan>
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

fn run_dataflow<F>(
    workers: usize,
    epoch: EpochConfig,
    shared: &Shared,
    commits: CommitSender,
    worker_parts: Vec<WorkerParts>,
    build: Arc<F>,
) -> Result<()>
where
    F: for<'scope> Fn(&mut Flow<'scope>) -> Result<()> + Send + Sync + 'static,
{
    let ledger = shared.ledger.clone();
    let resumed = shared.resumed.clone();
    let worker_parts: Mutex<Vec<_>> = Mutex::new(worker_parts.into_iter().map(Some).collect());
    run_workers(
        workers,
        &shared.ledger.clone(),
        move |worker: &mut Worker| {
            let parts = worker_parts
                .lock()
                .get_mut(worker.index())
                .and_then(Option::take);
            let parts = parts.ok_or_else(|| Error::internal("a worker was built twice"))?;
            worker.dataflow::<u64, _, _>(|scope| {
                let ticks = ticks(scope, &epoch, resumed.replayed_through, ledger.clone());
                let mut flow = Flow::run(scope, ticks, parts);
                build(&mut flow)?;
                let reports = scope.concatenate(flow.into_reports());
                commit(reports, resumed.clone(), ledger.clone(), commits.clone());
                Ok(())
            })
        },
    )
}

/// A job that runs.
pub struct RunningJob {
    main: Option<std::thread::JoinHandle<Result<()>>>,
    ledger: Ledger,
    status: Shared,
}

/// Figures of a running job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobStatus {
    /// Changes read from all sources.
    pub changes_read: u64,
    /// Bytes of those changes.
    pub bytes_read: u64,
    /// Request units charged for reading.
    pub read_ru: f64,
    /// Figures of each sink.
    pub sinks: BTreeMap<String, SinkStatus>,
    /// Figures of the epochs.
    pub epochs: EpochFigures,
}

/// Figures of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SinkStatus {
    /// Documents upserted.
    pub upserts: u64,
    /// Documents deleted.
    pub deletes: u64,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests answered with throttling.
    pub throttled: u64,
    /// Request units charged.
    pub charge_ru: f64,
}

impl RunningJob {
    /// Asks the job to end once every feed range has delivered all changes made before this call, and all of them are
    /// written and committed.
    pub fn finish_when_caught_up(&self) {
        self.status.finish.send_replace(true);
    }

    /// Ends the job now. What is not committed is repeated by the next run.
    pub fn stop(&self) {
        self.ledger.stop();
    }

    /// True once the job has ended, for good or ill; then [`RunningJob::join`] returns at once.
    pub fn ended(&self) -> bool {
        self.main
            .as_ref()
            .is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// Figures so far.
    pub fn status(&self) -> JobStatus {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let sum = |of: fn(&SourceCounters) -> &std::sync::atomic::AtomicU64| -> u64 {
            self.status
                .sources
                .values()
                .map(|counters| read(of(counters)))
                .sum()
        };
        let sink = |counters: &SinkCounters| SinkStatus {
            upserts: read(&counters.upserts),
            deletes: read(&counters.deletes),
            requests: read(&counters.requests),
            throttled: read(&counters.throttled),
            charge_ru: read(&counters.charge_milli_ru) as f64 / 1000.0,
        };
        JobStatus {
            changes_read: sum(|counters| &counters.changes),
            bytes_read: sum(|counters| &counters.bytes),
            read_ru: sum(|counters| &counters.charge_milli_ru) as f64 / 1000.0,
            sinks: self
                .status
                .sinks
                .iter()
                .map(|(name, counters)| (name.clone(), sink(counters)))
                .collect(),
            epochs: self.ledger.figures(),
        }
    }

    /// Waits for the end of the job.
    ///
    /// # Errors
    /// What ended the job, if it did not end because it was asked to.
    pub fn join(mut self) -> Result<JobStatus> {
        let main = self
            .main
            .take()
            .ok_or_else(|| Error::internal("a job is joined once"))?;
        main.join()
            .map_err(|_| Error::internal("the job's thread panicked"))??;
        Ok(self.status())
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        // A job that nobody watches any more must not go on writing.
        self.ledger.stop();
    }
}
