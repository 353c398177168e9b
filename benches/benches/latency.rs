//! From a write that is acknowledged in the source container to the view's document that can be read.
//!
//! ```text
//! cargo bench --bench latency [-- SECONDS]
//! ```
//!
//! An embedded server in a process of its own; in this one a writer with a steady pace, a job with one worker that keeps one
//! view, and an observer that polls the view's change feed. The job has its checkpoint in a local directory, with fsync, and polls
//! every 5 ms. What is measured ends when the observer has the document, so the observer's own poll is in it.
//!
//! | figure | measures | target |
//! |---|---|---|
//! | `p50_ms`, `p99_ms` | acknowledged write to readable view document | 10, 30 |
//! | `writes_per_s` | writes that were acknowledged a second | 1,000 |
//! | `max_ms`, `commit_p50_ms`, `commit_p99_ms` | the longest; an epoch's mint to its durable commit | |
//!
//! Client, server and job share the machine's cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidefeed::config::JobConfig;
use tidefeed::{Cosmos, Flow, Job, RunningJob};
use tidefeed_benches::Outcome;
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::server::{ServerProcess, serve_if_asked};
use tidefeed_benches::stats::rounded;
use tidefeed_operators::cosmos::{
    Account, BulkConfig, Container, ContainerSpec, CosmosFeed, CosmosTarget, FeedConfig, Policy,
};
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::target::{DocumentWrite, Target};

const DATABASE: &str = "latency";
const WRITES_PER_S: u64 = 1000;
/// Documents, each of which is written again and again.
const DOCUMENTS: u64 = 5000;
/// Not counted: connections are opened and code is met for the first time.
const WARM_UP: Duration = Duration::from_secs(3);
const OBSERVER_POLL: Duration = Duration::from_millis(1);

/// A document of the source and of the view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Reading {
    id: String,
    /// Counts the writes.
    number: u64,
    text: String,
}

/// The last line.
#[derive(Serialize)]
struct Figures {
    p50_ms: f64,
    p99_ms: f64,
    writes_per_s: f64,
    max_ms: f64,
    commit_p50_ms: f64,
    commit_p99_ms: f64,
}

fn main() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? {
        return Ok(());
    }
    let seconds = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(20);
    let tokio = client_runtime()?;
    let server = tokio.block_on(ServerProcess::start())?;
    let account = tokio.block_on(server.account())?;
    tokio.block_on(open(&account, "source"))?;
    let folder = tempfile::tempdir()?;
    let job = start(&server, folder.path())?;
    let log = Arc::new(Log::default());
    let figures = tokio.block_on(measure(
        &account,
        &log,
        WARM_UP + Duration::from_secs(seconds),
    ));
    let (writes_per_s, mut times) = figures?;
    let epochs = job.status().epochs;
    job.stop();
    job.join()?;
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() - 1) as f64 * share) as usize;
        rounded(times[index].as_secs_f64() * 1e3)
    };
    let figures = Figures {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        writes_per_s: rounded(writes_per_s),
        max_ms: at(1.0),
        commit_p50_ms: rounded(epochs.commit_latency_p50_ms),
        commit_p99_ms: rounded(epochs.commit_latency_p99_ms),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn start(server: &ServerProcess, folder: &std::path::Path) -> Outcome<RunningJob> {
    let config = JobConfig::parse(&format!(
        "[source.readings]\ndatabase = \"{DATABASE}\"\ncontainer = \"source\"\npoll_ms = 5\npoll_max_ms = 5\n\
         [sink.latest]\ndatabase = \"{DATABASE}\"\ncontainer = \"view\"\npartition_key = [\"/id\"]\n\
         throughput_ru = {{ manual = 40000 }}\n\
         [checkpoint]\ndirectory = {:?}\n",
        folder.display().to_string()
    ))?;
    let cosmos = Cosmos::new(server.endpoint(), server.key())?;
    let views = |flow: &mut Flow<'_>| {
        let readings = flow.change_feed::<Reading>("readings")?;
        flow.upsert("latest", readings)
    };
    Ok(Job::new("latency", config, cosmos, views).start()?)
}

async fn open(account: &Account, name: &str) -> Outcome<Container> {
    let spec = ContainerSpec {
        throughput_ru: Some(tidefeed_operators::cosmos::Throughput::Manual(40_000)),
        ..ContainerSpec::new(DATABASE, name, "/id")
    };
    Ok(Container::create_if_absent(account, &spec).await?)
}

/// When each write was acknowledged, and how long after that it was seen.
#[derive(Default)]
struct Log {
    /// By number; `None` until acknowledged.
    acknowledged: Mutex<Vec<Option<Instant>>>,
    seen: Mutex<Vec<(u64, Instant)>>,
    acknowledgements: AtomicU64,
    ended: AtomicBool,
}

/// Writes and observes for so long; writes a second, and the times.
async fn measure(
    account: &Account,
    log: &Arc<Log>,
    lasts: Duration,
) -> Outcome<(f64, Vec<Duration>)> {
    let begun = Instant::now();
    let view = CosmosFeed::new(open(account, "view").await?, FeedConfig::default())?;
    let mut observers = Vec::new();
    for range in view.ranges().await? {
        let mut pages = view.open(&range, Start::Beginning).await?;
        let log = Arc::clone(log);
        observers.push(tokio::spawn(async move {
            while !log.ended.load(Ordering::Relaxed) {
                let page = pages.next_page().await?;
                let now = Instant::now();
                let bodies = page.records.iter().filter_map(|record| record.body);
                let numbers = bodies.map(serde_json::from_slice::<Reading>);
                let numbers: Vec<_> = numbers
                    .map_while(Result::ok)
                    .map(|row| (row.number, now))
                    .collect();
                log.seen.lock().extend(numbers);
                if page.caught_up {
                    tokio::time::sleep(OBSERVER_POLL).await;
                }
            }
            Ok::<_, tidefeed_runtime::Error>(())
        }));
    }
    let bulk = BulkConfig {
        policy: Policy::Point,
        ..BulkConfig::default()
    };
    let target = Arc::new(CosmosTarget::open(open(account, "source").await?, bulk).await?);
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / WRITES_PER_S));
    let mut writing = tokio::task::JoinSet::new();
    let mut number = 0;
    while begun.elapsed() < lasts {
        pace.tick().await;
        log.acknowledged.lock().push(None);
        let (target, log) = (Arc::clone(&target), Arc::clone(log));
        writing.spawn(async move { write(target.as_ref(), &log, number).await });
        number += 1;
        while let Some(written) = writing.try_join_next() {
            written??;
        }
    }
    let writes_per_s =
        log.acknowledgements.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    while let Some(written) = writing.join_next().await {
        written??;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while !log.all_seen(number) {
        if Instant::now() > deadline {
            return Err("the view is not complete after 30 s".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    log.ended.store(true, Ordering::Relaxed);
    for observer in observers {
        observer.await??;
    }
    Ok((writes_per_s, log.times(begun + WARM_UP)))
}

async fn write(target: &CosmosTarget, log: &Log, number: u64) -> tidefeed_runtime::Result<()> {
    let id = format!("r{}", number % DOCUMENTS);
    let text = "x".repeat(180);
    let body = json!({"id": id, "number": number, "text": text}).to_string();
    let partition_key = json!([id]).to_string();
    target
        .apply(vec![DocumentWrite::upsert(partition_key, id, body)])
        .await?;
    log.acknowledged.lock()[number as usize] = Some(Instant::now());
    log.acknowledgements.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

impl Log {
    /// Whether the last write of every document has been seen.
    fn all_seen(&self, writes: u64) -> bool {
        let seen = self.seen.lock();
        let last = writes.saturating_sub(DOCUMENTS);
        let found: std::collections::HashSet<_> = seen
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| *number >= last)
            .collect();
        found.len() as u64 == writes - last
    }

    /// From acknowledged to seen, of writes acknowledged after `from`. A document may be seen before its writer has the answer.
    fn times(&self, from: Instant) -> Vec<Duration> {
        let acknowledged = self.acknowledged.lock();
        let seen = self.seen.lock();
        seen.iter()
            .filter_map(|(number, seen)| Some((acknowledged[*number as usize]?, *seen)))
            .filter(|(acknowledged, _)| *acknowledged > from)
            .map(|(acknowledged, seen)| seen.saturating_duration_since(acknowledged))
            .collect()
    }
}
