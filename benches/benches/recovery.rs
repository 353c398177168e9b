//! What recovery costs, and what being recoverable costs.
//!
//! ```text
//! cargo bench --bench recovery                 # all parts
//! cargo bench --bench recovery -- cost load    # these parts; of: cost, stall, load, restart, store, cosmos
//! ```
//!
//! | figure | measures | target |
//! |---|---|---|
//! | `load_docs_per_s_per_core` | documents of about 250 bytes from a base on disk to typed rows in differential's arrangement, on one worker; time from the start of the run to the check of the views | 1,000,000 |
//! | `restart_to_commit_s_100k` | a new process, from its start to its first commit, with 100,000 documents of state that was ended cleanly | 2 |
//! | `checkpoint_cost_ratio` | changes per second with sealing and committing to a local disk, by those of the same dataflow in which seals and commits count as done at once | 0.9 |
//! | `max_epoch_stall_ms_under_compaction` | longest time from tick to acknowledgement of an epoch while 1,000,000 documents are compacted, less the longest without, at 2,000 changes a second | 50 |
//! | `store_bytes_per_live_byte` | bytes of the store's files after 3,000,000 updates of 100,000 documents, by the documents' own bytes | 4 |
//! | `checkpoint_cost_ratio_cosmos` | as `checkpoint_cost_ratio`, but the changes come from a container of 100,000 documents, through the SDK and from the embedded server in a process of its own | |
//!
//! `checkpoint_cost_ratio` is the hardest case: its changes are in memory and cost nothing to read, and one worker does little
//! with them. Both ratios need two processors that are free, since sealing runs beside the worker.
//!
//! Progress and misses go to the standard error; the last line of the output is one JSON object, with null for what was not
//! asked for.

use std::io::{BufRead, BufReader};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::MemoryContainer;
use tidefeed::target::Target;
use tidefeed::{Connect, Job};
use tidefeed_benches::Outcome;
use tidefeed_benches::cpu::processor_time;
use tidefeed_benches::documents::{DATABASE, filled};
use tidefeed_benches::flights::{FlightFeed, flight, flight_document};
use tidefeed_benches::pipeline::{Pipeline, identity};
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::server::{ServerProcess, serve_if_asked};
use tidefeed_benches::stats::{median, rounded};
use tidefeed_benches::totals::totals;
use tidefeed_operators::cosmos::{Container, ContainerSpec, CosmosFeed, FeedConfig};
use tidefeed_runtime::checkpoint::{self, CheckpointStore, CommitRequest, Options};
use tidefeed_runtime::{CommitConfig, Epoch};
use tokio::runtime::Runtime;

/// What the shipped programs have.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Documents of the large state.
const LARGE: u64 = 1_000_000;
/// Documents of the state that is restarted from.
const RESTART: u64 = 100_000;
/// Documents that are updated again and again, and how often.
const UPDATED: u64 = 100_000;
const UPDATES: u64 = 3_000_000;
/// Changes per second while epochs are watched.
const STEADY: u64 = 2000;
/// Documents of the container.
const COSMOS: u64 = 100_000;
const ROUNDS: usize = 3;
const CHILD: &str = "--restart-child";

#[derive(Default, Serialize)]
struct Figures {
    load_docs_per_s_per_core: Option<f64>,
    restart_to_commit_s_100k: Option<f64>,
    checkpoint_cost_ratio: Option<f64>,
    max_epoch_stall_ms_under_compaction: Option<f64>,
    store_bytes_per_live_byte: Option<f64>,
    checkpoint_cost_ratio_cosmos: Option<f64>,
}

fn main() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? {
        return Ok(());
    }
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        let number = arguments.get(at + 2).and_then(|n| n.parse().ok());
        return child(Path::new(&arguments[at + 1]), number.unwrap_or(RESTART));
    }
    let parts = Parts::of(&arguments)?;
    let tokio = client_runtime()?;
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let store = |name: &str| CheckpointStore::local(&folder.path().join(name), "recovery");
    let mut figures = Figures::default();
    if parts.has("cost") {
        figures.checkpoint_cost_ratio = Some(cost_ratio(&tokio, &store)?);
    }
    if parts.has("stall") || parts.has("load") {
        let large = store("large")?;
        fill(&tokio, &large)?;
        if parts.has("stall") {
            figures.max_epoch_stall_ms_under_compaction = Some(stall(&tokio, &large)?);
        }
        if parts.has("load") {
            write_base(&tokio, &large)?;
            figures.load_docs_per_s_per_core = Some(load(&tokio, &large)?);
        }
    }
    if parts.has("restart") {
        figures.restart_to_commit_s_100k = Some(restart(&folder.path().join("restart"))?);
    }
    if parts.has("store") {
        let updated = folder.path().join("updated");
        let place = CheckpointStore::local(&updated, "recovery")?;
        figures.store_bytes_per_live_byte = Some(store_size(&tokio, &place, &updated)?);
    }
    if parts.has("cosmos") {
        figures.checkpoint_cost_ratio_cosmos = Some(cosmos_ratio(&tokio, &store)?);
    }
    figures.report_misses();
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

const PARTS: [&str; 6] = ["cost", "stall", "load", "restart", "store", "cosmos"];

/// The parts that were asked for; none means all.
struct Parts(Vec<String>);

impl Parts {
    fn of(arguments: &[String]) -> Outcome<Parts> {
        // Cargo adds a flag of its own.
        let named = arguments.iter().skip(1).filter(|a| !a.starts_with("--"));
        let parts: Vec<String> = named.cloned().collect();
        match parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            Some(part) => {
                Err(format!("there is no part {part:?}: use {}", PARTS.join(", ")).into())
            }
            None => Ok(Parts(parts)),
        }
    }

    fn has(&self, part: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|asked| asked == part)
    }
}

impl Figures {
    fn report_misses(&self) {
        let least = |name: &str, value: Option<f64>, target: f64| {
            if let Some(value) = value.filter(|value| *value < target) {
                eprintln!("MISS: {name} is {value}, target at least {target}");
            }
        };
        let load = self.load_docs_per_s_per_core;
        least("load_docs_per_s_per_core", load, 1e6);
        least("checkpoint_cost_ratio", self.checkpoint_cost_ratio, 0.9);
        let most = |name: &str, value: Option<f64>, target: f64| {
            if let Some(value) = value.filter(|value| *value > target) {
                eprintln!("MISS: {name} is {value}, target at most {target}");
            }
        };
        let restart = self.restart_to_commit_s_100k;
        most("restart_to_commit_s_100k", restart, 2.0);
        let stall = self.max_epoch_stall_ms_under_compaction;
        most("max_epoch_stall_ms_under_compaction", stall, 50.0);
        let store = self.store_bytes_per_live_byte;
        most("store_bytes_per_live_byte", store, 4.0);
    }
}

/// What a dataflow does at full speed.
#[derive(Clone, Copy)]
struct Speed {
    changes_per_s: f64,
    /// Of all threads of this process.
    cpu_us_per_change: f64,
}

/// The speed over some seconds, after a second of warming up.
fn speed(tokio: &Runtime, store: Option<&CheckpointStore>, feed: &FlightFeed) -> Outcome<Speed> {
    let pipeline = Pipeline::start(tokio, store, feed.shared(), CommitConfig::default())?;
    let begun = Instant::now();
    pipeline.until(tokio, |_| begun.elapsed() > Duration::from_secs(1))?;
    let used = || processor_time(std::process::id());
    let (from, begun, used_before) = (pipeline.changes(), Instant::now(), used()?);
    pipeline.until(tokio, |_| begun.elapsed() > Duration::from_secs(4))?;
    let changes = (pipeline.changes() - from) as f64;
    let speed = Speed {
        changes_per_s: changes / begun.elapsed().as_secs_f64(),
        cpu_us_per_change: used()?.saturating_sub(used_before).as_secs_f64() * 1e6 / changes,
    };
    pipeline.stop(tokio)?;
    Ok(speed)
}

fn cost_ratio(
    tokio: &Runtime,
    store: &impl Fn(&str) -> tidefeed::Result<CheckpointStore>,
) -> Outcome<f64> {
    let feed = FlightFeed::new(UPDATED, 2 * UPDATED);
    feed.written.store(u64::MAX, Ordering::Release);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let off = speed(tokio, None, &feed)?;
        let on = speed(tokio, Some(&store(&format!("cost-{round}"))?), &feed)?;
        eprintln!(
            "cost: {:.0} changes/s with seals and commits, {:.0} without; {:.2} and {:.2} us of processor time for each",
            on.changes_per_s, off.changes_per_s, on.cpu_us_per_change, off.cpu_us_per_change
        );
        ratios.push(on.changes_per_s / off.changes_per_s);
    }
    Ok(rounded(median(&ratios)))
}

/// Changes per second from the first request to the acknowledgement of the last epoch, of all that a container holds.
fn read_through(
    tokio: &Runtime,
    store: Option<&CheckpointStore>,
    container: &Container,
) -> Outcome<f64> {
    let config = FeedConfig {
        page_size: NonZeroU32::new(1000).ok_or("a page has documents")?,
        ..FeedConfig::default()
    };
    let feed = Arc::new(CosmosFeed::new(container.clone(), config)?);
    let begun = Instant::now();
    let pipeline = Pipeline::start(tokio, store, feed, CommitConfig::default())?;
    pipeline.until(tokio, |p| p.changes() >= COSMOS)?;
    let s = begun.elapsed().as_secs_f64();
    pipeline.stop(tokio)?;
    Ok(COSMOS as f64 / s)
}

fn cosmos_ratio(
    tokio: &Runtime,
    store: &impl Fn(&str) -> tidefeed::Result<CheckpointStore>,
) -> Outcome<f64> {
    let server = tokio.block_on(ServerProcess::start())?;
    let container = tokio.block_on(async {
        let account = server.account().await?;
        let spec = ContainerSpec::new(DATABASE, "flights", "/carrier");
        filled(&account, &spec, COSMOS as usize, flight_document).await
    })?;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let off = read_through(tokio, None, &container)?;
        let place = store(&format!("cosmos-{round}"))?;
        let on = read_through(tokio, Some(&place), &container)?;
        eprintln!("cosmos: {on:.0} changes/s with seals and commits, {off:.0} without");
        ratios.push(on / off);
    }
    Ok(rounded(median(&ratios)))
}

/// Commits of runs whose base is written by the benchmark itself, or not at all.
fn uncompacted() -> CommitConfig {
    CommitConfig {
        compact_min_bytes: u64::MAX,
        ..CommitConfig::default()
    }
}

/// Reads the large state for the first time, and commits all of it.
fn fill(tokio: &Runtime, store: &CheckpointStore) -> Outcome {
    let feed = FlightFeed::new(LARGE, 0);
    feed.written.store(LARGE, Ordering::Release);
    let begun = Instant::now();
    let pipeline = Pipeline::start(tokio, Some(store), feed.shared(), uncompacted())?;
    pipeline.until(tokio, |p| p.changes() == LARGE && p.committed())?;
    let sealed = pipeline.ledger.figures().sealed;
    pipeline.stop(tokio)?;
    let s = begun.elapsed().as_secs_f64();
    eprintln!("first load: {LARGE} documents in {s:.2} s, {sealed} seals");
    Ok(())
}

/// Whether everything that was minted is committed.
fn idle(pipeline: &Pipeline) -> bool {
    pipeline.committed() && pipeline.ledger.figures().oldest_uncommitted.is_none()
}

/// Longest time of an epoch that was acknowledged in `from..to`, in milliseconds.
fn longest(pipeline: &Pipeline, from: Instant, to: Instant) -> f64 {
    let epochs = pipeline.epochs();
    let within = epochs
        .acknowledged
        .iter()
        .filter(|(at, _)| (from..to).contains(at));
    within
        .map(|(_, took)| took.as_secs_f64() * 1e3)
        .fold(0.0, f64::max)
}

fn stall(tokio: &Runtime, store: &CheckpointStore) -> Outcome<f64> {
    let feed = FlightFeed::new(LARGE, 0);
    feed.written.store(LARGE, Ordering::Release);
    let pipeline = Pipeline::start(tokio, Some(store), feed.shared(), uncompacted())?;
    pipeline.until(tokio, |p| p.ledger.writable())?;
    let writer = feed.clone();
    let writing = tokio.spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        loop {
            pace.tick().await;
            writer.written.fetch_add(STEADY / 200, Ordering::AcqRel);
        }
    });
    let warm = Instant::now();
    pipeline.until(tokio, |_| warm.elapsed() > Duration::from_secs(1))?;
    let quiet = Instant::now();
    pipeline.until(tokio, |_| quiet.elapsed() > Duration::from_secs(4))?;
    let busy = Instant::now();
    let compaction = pipeline
        .resume
        .as_ref()
        .and_then(|resume| resume.compaction(store));
    let compaction = compaction.ok_or("there is no commit")?;
    let compacting = tokio.spawn(compaction.run());
    pipeline.until(tokio, |_| compacting.is_finished())?;
    let done = Instant::now();
    let base = tokio.block_on(compacting)??.ok_or("no base was written")?;
    writing.abort();
    let (without, with) = (
        longest(&pipeline, quiet, busy),
        longest(&pipeline, busy, done),
    );
    eprintln!(
        "compaction: {} buckets in {:.2} s; longest epoch {with:.1} ms, without {without:.1} ms",
        base.buckets.len(),
        (done - busy).as_secs_f64()
    );
    let written = feed.written.load(Ordering::Acquire);
    pipeline.until(tokio, |p| p.changes() == written && idle(p))?;
    pipeline.stop(tokio)?;
    Ok(rounded((with - without).max(0.0)))
}

/// Puts the large state into a base, so that this is what is loaded.
fn write_base(tokio: &Runtime, store: &CheckpointStore) -> Outcome {
    tokio.block_on(async {
        let mut opened = checkpoint::open(store, &identity(), Options::default()).await?;
        let commit = opened.resume.commit.clone().ok_or("there is no commit")?;
        if opened.resume.last_sealed != Some(commit.epoch) {
            return Err("something is not committed".into());
        }
        let compaction = opened
            .resume
            .compaction(store)
            .ok_or("there is no commit")?;
        let base = compaction.run().await?.ok_or("no base was written")?;
        opened.commits.set_base(base)?;
        let request = CommitRequest {
            epoch: Epoch(commit.epoch.0 + 1),
            loading: false,
            tokens: commit.tokens,
            seals: Vec::new(),
            sinks: commit.sinks,
            marks: commit.marks,
        };
        opened.commits.commit(request).await?;
        Ok(())
    })
}

fn load(tokio: &Runtime, store: &CheckpointStore) -> Outcome<f64> {
    let feed = FlightFeed::new(LARGE, 0);
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let pipeline = Pipeline::start(tokio, Some(store), feed.shared(), uncompacted())?;
        pipeline.until(tokio, |p| p.ledger.writable())?;
        let s = begun.elapsed().as_secs_f64();
        let loaded = pipeline.changes();
        if loaded != LARGE {
            return Err(format!("{loaded} documents were loaded").into());
        }
        pipeline.stop(tokio)?;
        rates.push(LARGE as f64 / s);
        eprintln!(
            "load: {LARGE} documents in {s:.2} s, {:.0} documents/s",
            LARGE as f64 / s
        );
    }
    Ok(median(&rates).round())
}

/// Containers of the job that is restarted.
struct Place(FlightFeed);

#[async_trait]
impl Connect for Place {
    async fn source(&self, _: &str, _: &SourceConfig) -> tidefeed::Result<Arc<dyn ChangeFeed>> {
        Ok(Arc::new(self.0.clone()))
    }

    async fn sink(&self, _: &str, _: &SinkConfig) -> tidefeed::Result<Arc<dyn Target>> {
        Ok(Arc::new(MemoryContainer::new(Default::default())))
    }
}

/// A process that runs a job over so many changes, says when it has committed, and ends when it has caught up.
fn child(folder: &Path, written: u64) -> Outcome {
    let feed = FlightFeed::new(RESTART, 0);
    feed.written.store(written, Ordering::Release);
    let config = JobConfig::parse(
        "[source.flights]\ndatabase = \"d\"\ncontainer = \"flights\"\n[sink.totals]\ndatabase = \"d\"\ncontainer = \"totals\"\n",
    )?;
    let store = CheckpointStore::local(folder, "restart")?;
    let job = Job::new("restart", config, Place(feed), totals)
        .checkpoint_store(store)
        .start()?;
    let pause = client_runtime()?;
    while job.status().epochs.committed == 0 && !job.ended() {
        pause.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }
    println!("committed");
    job.finish_when_caught_up();
    job.join()?;
    Ok(())
}

fn restart(folder: &Path) -> Outcome<f64> {
    std::fs::create_dir_all(folder)?;
    let mut times = Vec::new();
    // The first builds the state; each of the others finds ten changes more.
    for round in 0..=ROUNDS as u64 {
        let begun = Instant::now();
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(folder)
            .arg((RESTART + 10 * round).to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("the output is piped")?;
        let said = BufReader::new(out)
            .lines()
            .next()
            .ok_or("it said nothing")??;
        let s = begun.elapsed().as_secs_f64();
        let ended = child.wait()?;
        if said != "committed" || !ended.success() {
            return Err(format!("the process said {said} and ended with {ended}").into());
        }
        if round > 0 {
            eprintln!("restart: first commit after {s:.3} s, with {RESTART} documents");
            times.push(s);
        }
    }
    Ok(rounded(median(&times)))
}

fn store_size(tokio: &Runtime, store: &CheckpointStore, folder: &Path) -> Outcome<f64> {
    let feed = FlightFeed::new(UPDATED, 10 * UPDATED);
    feed.written.store(UPDATED + UPDATES, Ordering::Release);
    let pipeline = Pipeline::start(tokio, Some(store), feed.shared(), CommitConfig::default())?;
    pipeline.until(tokio, |p| p.changes() == UPDATED + UPDATES && idle(p))?;
    let figures = pipeline.ledger.figures();
    pipeline.stop(tokio)?;
    let live: usize = (0..UPDATED).map(|key| flight(key, key).size_bytes()).sum();
    let (bytes, files) = size_of(folder)?;
    eprintln!(
        "store: {bytes} bytes in {files} files for {live} live bytes, after {} seals and {} commits",
        figures.sealed, figures.committed
    );
    Ok(rounded(bytes as f64 / live as f64))
}

fn size_of(folder: &Path) -> Outcome<(u64, u64)> {
    let (mut bytes, mut files) = (0, 0);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let (more, within) = size_of(&entry.path())?;
            (bytes, files) = (bytes + more, files + within);
        } else {
            (bytes, files) = (bytes + entry.metadata()?.len(), files + 1);
        }
    }
    Ok((bytes, files))
}
