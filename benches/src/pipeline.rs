//! A small job from its parts, on one worker, so that single parts can be left out and watched: flights in, a total for each
//! carrier out, sealed and committed, or not.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use differential_dataflow::operators::CountTotal;
use parking_lot::Mutex;
use tidefeed_operators::decode::DecodeErrors;
use tidefeed_operators::enumerator::{Assignment, EnumeratorParts, ReaderParts, enumerate};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::reader::{PollDelay, RangeStart, Readers, SourceCounters};
use tidefeed_operators::source::{SourceParts, rows, source};
use tidefeed_operators::upsert::UpsertToCollection;
use tidefeed_runtime::bridge::{ByteBudget, Inbox, Tasks};
use tidefeed_runtime::checkpoint::{self, CheckpointStore, Options, Resume, RunIdentity};
use tidefeed_runtime::dataflow::{Report, Resumed, SinkStart, commit, ticks};
use tidefeed_runtime::loader::{self, Loaded, Loads, Outlets};
use tidefeed_runtime::sealer::Part;
use tidefeed_runtime::{
    CommitConfig, Context, Epoch, EpochConfig, Error, ErrorKind, FeedRangeId, Ledger, LoadConfig,
    Result, committer, run_workers, sealer,
};
use timely::dataflow::channels::pact::Pipeline as Local;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Delay, Map};
use timely::dataflow::operators::{Concatenate, InspectCore};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::flights::Flight;

const SOURCE: &str = "flights";

/// What is known of the epochs of a run.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    /// Epochs that are not acknowledged: when each was minted, and its changes.
    open: BTreeMap<u64, (Option<Instant>, u64)>,
    /// For each acknowledged epoch with changes: when it was, and how long after its tick.
    pub acknowledged: Vec<(Instant, Duration)>,
    /// Changes in acknowledged epochs; what was loaded counts too.
    pub changes: u64,
    /// The newest acknowledged epoch with changes.
    pub newest: Epoch,
}

impl Epochs {
    fn pass(&mut self, bound: u64) {
        let kept = self.open.split_off(&bound);
        let now = Instant::now();
        for (epoch, (minted, changes)) in std::mem::replace(&mut self.open, kept) {
            if changes == 0 {
                continue;
            }
            self.changes += changes;
            self.newest = Epoch(epoch);
            self.acknowledged
                .extend(minted.map(|minted| (now, now - minted)));
        }
    }
}

/// A pipeline that runs.
pub struct Pipeline {
    /// What it started from; `None` without a store.
    pub resume: Option<Resume>,
    /// Its ledger.
    pub ledger: Ledger,
    epochs: Arc<Mutex<Epochs>>,
    workers: std::thread::JoinHandle<Result<()>>,
    tasks: Vec<JoinHandle<()>>,
    reading: Tasks,
}

/// The name that every run has.
pub fn identity() -> RunIdentity {
    RunIdentity {
        job: "recovery".into(),
        fingerprint: Default::default(),
        processes: 1,
        workers_per_process: 1,
    }
}

impl Pipeline {
    /// Starts it; `commits` says when it commits and compacts. Without a store nothing is sealed and nothing committed: both
    /// count as done at once.
    ///
    /// # Errors
    /// When the store cannot be opened or the feed has no ranges to tell.
    pub fn start(
        tokio: &Runtime,
        store: Option<&CheckpointStore>,
        feed: Arc<dyn ChangeFeed>,
        commits: CommitConfig,
    ) -> Outcome<Pipeline> {
        let _entered = tokio.enter();
        let opened = match store {
            None => None,
            Some(store) => {
                Some(tokio.block_on(checkpoint::open(store, &identity(), Options::default()))?)
            }
        };
        let resume = opened.as_ref().map(|opened| opened.resume.clone());
        let record = resume.as_ref().and_then(|resume| resume.commit.clone());
        let committed = record.as_ref().map_or(Epoch(0), |commit| commit.epoch);
        let last = resume.as_ref().and_then(|resume| resume.last_sealed);
        let last = last.unwrap_or(committed);
        let tokens = resume.as_ref().map(|resume| resume.tokens.clone());
        let resumed = Resumed {
            commit: record,
            tokens: tokens.unwrap_or_default(),
            marks: BTreeMap::new(),
            replayed_through: last,
            sinks: [("totals".to_owned(), SinkStart::default())].into(),
        };
        let ledger = Ledger::new(committed, last);
        // As if it had been loaded before: what is sealed is for compaction to rewrite.
        ledger.complete_load(committed);
        let (parts, parts_received) = mpsc::unbounded_channel();
        let (requests, commits_received) = mpsc::unbounded_channel();
        let (load_sender, load) = Inbox::new(1024);
        let epoch = EpochConfig::default();
        let budget = ByteBudget::new(epoch.max_waiting_bytes);
        let (page_sender, inbox) = Inbox::within(&budget);
        let ranges = tokio.block_on(feed.ranges())?;
        let readers = Arc::new(Readers {
            feed,
            poll: PollDelay {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(1),
            },
            event_time: None,
            counters: Arc::new(SourceCounters::default()),
            budget,
            ledger: ledger.clone(),
            finish: ledger.finishing(),
            split_seen: Arc::default(),
        });
        let saved = resumed.tokens.get(SOURCE);
        let start = |range: FeedRangeId| {
            let token = saved.and_then(|saved| saved.get(&range)).cloned();
            RangeStart {
                range,
                start: token.map_or(Start::Beginning, Start::Token),
                loading: false,
            }
        };
        let reading = Tasks::new(tokio.handle().clone(), ledger.clone());
        let (_, changes) = Inbox::new(1);
        let enumerator = EnumeratorParts {
            starts: ranges.iter().cloned().map(start).collect(),
            least: ranges.len(),
            live: ranges,
            absent: BTreeMap::new(),
            changes,
            assignment: Assignment::new(1, 0),
        };
        let reader_parts = ReaderParts {
            source: SOURCE.into(),
            worker: 0,
            readers,
            inbox: page_sender,
            tasks: reading.clone(),
            enumerator: Some(enumerator),
        };
        let mut tasks = Vec::new();
        match (opened, store, &resume) {
            (Some(opened), Some(store), Some(resume)) => {
                let outlets = Outlets::from([(SOURCE.to_owned(), vec![load_sender])]);
                tasks.push(tokio.spawn(loader::run(
                    resume.clone(),
                    store.clone(),
                    Loads::ALL,
                    outlets,
                    LoadConfig::default(),
                    ledger.clone(),
                )));
                let sealing = sealer::run(
                    parts_received,
                    1,
                    sealer::Dues::none(),
                    opened.seals,
                    ledger.clone(),
                );
                tasks.push(tokio.spawn(sealing));
                tasks.push(tokio.spawn(committer::run(
                    commits_received,
                    commits,
                    opened.commits,
                    ledger.clone(),
                )));
            }
            _ => {
                tokio.block_on(load_sender.send(Loaded::All));
                let ledger = ledger.clone();
                tasks.push(tokio.spawn(take_as_done(parts_received, commits_received, ledger)));
            }
        }
        let source_parts = SourceParts {
            name: SOURCE.into(),
            on_decode_error: DecodeErrors::Fail,
            counters: Arc::default(),
            inbox,
            begun: None,
            load,
            parts,
            max_bytes: epoch.max_bytes_per_worker,
            max_load_bytes: epoch.load_bytes,
            reports_seals: true,
            ledger: ledger.clone(),
        };
        let epochs = Arc::new(Mutex::new(Epochs::default()));
        let dataflow = Dataflow {
            parts: Mutex::new(Some((source_parts, reader_parts, requests))),
            epochs: Arc::clone(&epochs),
            resumed,
            ledger: ledger.clone(),
        };
        let run_ledger = ledger.clone();
        let workers = std::thread::spawn(move || {
            run_workers(1, None, &run_ledger, move |worker| dataflow.build(worker))
        });
        Ok(Pipeline {
            resume,
            ledger,
            epochs,
            workers,
            tasks,
            reading,
        })
    }

    /// Waits for something to happen, and looks every millisecond.
    ///
    /// # Errors
    /// When the run has failed, or after five minutes.
    pub fn until(&self, tokio: &Runtime, there: impl Fn(&Pipeline) -> bool) -> Outcome {
        let begun = Instant::now();
        while !there(self) {
            if self.ledger.stopped() || begun.elapsed() > Duration::from_secs(300) {
                let failure = self.ledger.take_failure();
                let why = failure.map_or("it takes too long".to_owned(), |error| error.report());
                return Err(why.into());
            }
            tokio.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
        Ok(())
    }

    /// The epochs so far.
    pub fn epochs(&self) -> Epochs {
        self.epochs.lock().clone()
    }

    /// Changes in acknowledged epochs.
    pub fn changes(&self) -> u64 {
        self.epochs.lock().changes
    }

    /// Whether everything that is acknowledged is committed.
    pub fn committed(&self) -> bool {
        self.ledger.committed_through() >= self.epochs.lock().newest
    }

    /// Ends it.
    ///
    /// # Errors
    /// What it failed with.
    pub fn stop(self, tokio: &Runtime) -> Outcome {
        self.ledger.stop();
        let ran = self.workers.join().map_err(|_| "the workers panicked")?;
        for task in self.tasks {
            tokio.block_on(task)?;
        }
        tokio.block_on(self.reading.idle());
        Ok(ran?)
    }
}

/// Stands in for sealer and committer.
async fn take_as_done(
    mut parts: mpsc::UnboundedReceiver<Part>,
    mut commits: mpsc::UnboundedReceiver<checkpoint::CommitRequest>,
    ledger: Ledger,
) {
    loop {
        tokio::select! {
            part = parts.recv() => match part {
                Some(part) => ledger.sealed(part.epoch, None),
                None => return,
            },
            Some(request) = commits.recv() => ledger.committed(request.epoch, Instant::now()),
        }
    }
}

struct Dataflow {
    parts: Mutex<Option<(SourceParts, ReaderParts, committer::CommitSender)>>,
    epochs: Arc<Mutex<Epochs>>,
    resumed: Resumed,
    ledger: Ledger,
}

impl Dataflow {
    fn build(&self, worker: &mut timely::worker::Worker) -> Result<()> {
        let taken = self.parts.lock().take();
        let (parts, readers, commits) =
            taken.ok_or_else(|| Error::internal("there is one worker"))?;
        let last = self.resumed.replayed_through;
        worker.dataflow::<u64, _, _>(|scope| {
            let ticks = ticks(scope, &EpochConfig::default(), last, self.ledger.clone());
            let epochs = Arc::clone(&self.epochs);
            let ticks = ticks.inspect_container(move |event| {
                if let Ok((_, minted)) = event {
                    let mut epochs = epochs.lock();
                    for epoch in minted {
                        epochs.open.entry(*epoch).or_default().0 = Some(Instant::now());
                    }
                }
            });
            let decode = |body: &[u8]| {
                serde_json::from_slice::<Flight>(body).context(ErrorKind::Data, || "no flight")
            };
            let source = source(ticks, parts, decode, rows::upserts(None));
            enumerate(source.released, readers);
            let (mut upserts, sealed) = (source.rows, source.reports);
            let epochs = Arc::clone(&self.epochs);
            upserts.records = upserts.records.inspect_container(move |event| {
                if let Ok((time, upserts)) = event {
                    epochs.lock().open.entry(*time).or_default().1 += upserts.len() as u64;
                }
            });
            let rows = upserts.upsert_to_collection(SOURCE);
            let totals = rows
                .explode(|flight| Some((flight.carrier, (1isize, flight.delay as isize))))
                .count_total();
            let views = totals
                .inner
                .delay(|(_, time, _), _| *time)
                .map(|(row, _, diff)| {
                    let mut hasher = DefaultHasher::new();
                    row.hash(&mut hasher);
                    Report::View {
                        sink: "totals".into(),
                        rows: diff as i64,
                        hash: u128::from(hasher.finish()).wrapping_mul(diff as i128 as u128),
                    }
                });
            let reports = scope.concatenate([sealed, views]);
            let epochs = Arc::clone(&self.epochs);
            reports
                .clone()
                .sink(Local, "Acknowledged", move |(input, frontier)| {
                    input.for_each(|_, _| {});
                    let bound = frontier.frontier().as_option().copied();
                    epochs.lock().pass(bound.unwrap_or(u64::MAX));
                });
            commit(reports, self.resumed.clone(), self.ledger.clone(), commits);
        });
        Ok(())
    }
}
