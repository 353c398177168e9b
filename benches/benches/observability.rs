//! What it costs to be watched.
//!
//! ```text
//! cargo bench --bench observability
//! ```
//!
//! | figure | measures |
//! |---|---|
//! | `throughput_ratio_on_off` | rate of a job with its page followed and its metrics scraped each second, by that of one that nothing watches; at least 0.98 |
//! | `scrape_ms` | one answer of `/metrics` with at least 1,000 series; at most 20 |
//! | `page_bytes` | all files of the page; at most 500,000 |
//!
//! The job sums orders by region as they change, two workers, from two files into a container in memory, with checkpoints. The two take
//! turns; medians. Off is `http.listen = "off"`, which also leaves the operators unwatched. It fails when a limit is missed. The
//! last line of the output is one JSON object.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidefeed::config::{SinkConfig, SourceConfig};
use tidefeed::feed::ChangeFeed;
use tidefeed::memory::MemoryContainer;
use tidefeed::prelude::*;
use tidefeed::target::Target;
use tidefeed::{CheckpointStore, Connect, Job, JobConfig, RunningJob};
use tidefeed_benches::Outcome;
use tidefeed_benches::flights::mixed;
use tidefeed_benches::stats::{median, rounded};

/// What the shipped programs have.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FILES: u64 = 2;
const LINES: u64 = 1_500_000;
const TURNS: usize = 9;
/// Feed ranges, each with five series.
const RANGES: u64 = 220;
const SCRAPES: usize = 100;

const RATIO_MIN: f64 = 0.98;
const SCRAPE_MS_MAX: f64 = 20.0;
const PAGE_BYTES_MAX: u64 = 500_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Order {
    region: u32,
    cents: i64,
}

#[derive(Clone, Serialize)]
struct Total {
    id: String,
    cents: isize,
}

#[derive(Clone)]
struct Memory(MemoryContainer);

#[async_trait]
impl Connect for Memory {
    async fn source(&self, name: &str, _: &SourceConfig) -> tidefeed::Result<Arc<dyn ChangeFeed>> {
        let why = format!("source {name} is of files");
        Err(tidefeed::Error::new(tidefeed::ErrorKind::Config, why))
    }

    async fn sink(&self, _: &str, _: &SinkConfig) -> tidefeed::Result<Arc<dyn Target>> {
        Ok(Arc::new(self.0.clone()))
    }
}

#[derive(Serialize)]
struct Figures {
    throughput_ratio_on_off: f64,
    scrape_ms: f64,
    page_bytes: u64,
}

fn main() -> Outcome {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let page_bytes = page_bytes()?;
    let scrape_ms = scrape_ms(folder.path())?;
    let data = folder.path().join("large");
    write_orders(&data, FILES, LINES)?;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        on.push(seconds(&data, folder.path(), true)?);
        off.push(seconds(&data, folder.path(), false)?);
        println!(
            "turn {turn}: watched {:.3} s, not {:.3} s",
            on[turn], off[turn]
        );
    }
    let ratio = median(&off) / median(&on);
    let figures = Figures {
        throughput_ratio_on_off: rounded(ratio),
        scrape_ms: rounded(scrape_ms),
        page_bytes,
    };
    println!("{}", serde_json::to_string(&figures)?);
    let missed = ratio < RATIO_MIN || scrape_ms > SCRAPE_MS_MAX || page_bytes > PAGE_BYTES_MAX;
    match missed {
        true => Err("a limit is missed".into()),
        false => Ok(()),
    }
}

fn page_bytes() -> Outcome<u64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jobs/src/page");
    let mut bytes = 0;
    for file in std::fs::read_dir(folder)? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}

/// Three in ten are later versions of orders.
fn write_orders(folder: &Path, files: u64, lines: u64) -> Outcome {
    std::fs::create_dir_all(folder)?;
    for file in 0..files {
        let mut text = String::new();
        for line in 0..lines / files {
            let id = match mixed(line) % 10 {
                0..3 => mixed(line) % (line + 1),
                _ => line,
            };
            let (region, cents) = (mixed(line) % 50, mixed(line) % 100_000);
            let filler = "a text that nobody reads, as there are many in documents";
            writeln!(
                text,
                r#"{{"id":"{file}-{id}","region":{region},"cents":{cents},"status":"placed","note":"{filler}"}}"#
            )?;
        }
        std::fs::write(folder.join(format!("orders-{file}.jsonl")), text)?;
    }
    Ok(())
}

fn job(data: &Path, listen: &str, follow: bool, checkpoint: CheckpointStore) -> Outcome<Job> {
    let files = data.join("*.jsonl").display().to_string();
    let config = format!(
        "workers = 2\n[http]\nlisten = {listen:?}\n[epoch]\nload_bytes = 524288\n\
         [source.orders]\nfiles = {files:?}\npartitioned = true\nfollow = {follow}\npage_size = 10000\nfields = [\"region\", \"cents\"]\n\
         [sink.view]\ndatabase = \"memory\"\ncontainer = \"view\"\n"
    );
    let memory = Memory(MemoryContainer::new(Default::default()));
    let build = |flow: &mut Flow<'_>| {
        let orders = flow.change_feed::<Order>("orders")?;
        let totals = orders.sum_by(|order| [(order.region, order.cents as isize)]);
        let totals = totals.map(|(region, cents)| Total {
            id: region.to_string(),
            cents,
        });
        flow.upsert("view", totals)
    };
    let job = Job::new("observed", JobConfig::parse(&config)?, memory, build);
    Ok(job.checkpoint_store(checkpoint))
}

/// What the job takes for all files.
fn seconds(data: &Path, folder: &Path, watched: bool) -> Outcome<f64> {
    let checkpoint = tempfile::tempdir_in(folder)?;
    let store = CheckpointStore::local(checkpoint.path(), "observed")?;
    let job = job(
        data,
        if watched { "127.0.0.1:0" } else { "off" },
        false,
        store,
    )?;
    let watch = job.listen()?.map(Watch::begin);
    let running = job.start()?;
    let begun = Instant::now();
    running.finish_when_caught_up();
    let status = running.join()?;
    let took = begun.elapsed().as_secs_f64();
    if status.changes_read != LINES {
        return Err(format!("{} changes were read, not {LINES}", status.changes_read).into());
    }
    if let Some(watch) = watch {
        watch.end()?;
    }
    Ok(took)
}

/// Follows the page, and scrapes the metrics each second.
struct Watch {
    over: Arc<AtomicBool>,
    following: std::thread::JoinHandle<std::io::Result<usize>>,
    scraping: std::thread::JoinHandle<std::io::Result<usize>>,
}

impl Watch {
    fn begin(at: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (until, also_until) = (Arc::clone(&over), Arc::clone(&over));
        Watch {
            over,
            following: std::thread::spawn(move || follow(at, &until)),
            scraping: std::thread::spawn(move || {
                let mut bytes = 0;
                while !also_until.load(Ordering::Relaxed) {
                    bytes += get(at, "/metrics")?.len();
                    std::thread::park_timeout(Duration::from_secs(1));
                }
                Ok(bytes)
            }),
        }
    }

    fn end(self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        self.scraping.thread().unpark();
        for watching in [self.following, self.scraping] {
            let seen = watching.join().map_err(|_| "a watcher panicked")??;
            if seen == 0 {
                return Err("a watcher has seen nothing".into());
            }
        }
        Ok(())
    }
}

fn follow(at: SocketAddr, over: &AtomicBool) -> std::io::Result<usize> {
    let mut stream = asked(at, "/events")?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(read) => bytes += read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn asked(at: SocketAddr, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(at)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn get(at: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut answer = String::new();
    asked(at, path)?.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Of a job that follows many files.
fn scrape_ms(folder: &Path) -> Outcome<f64> {
    let data = folder.join("small");
    write_orders(&data, RANGES, RANGES)?;
    let job = job(
        &data,
        "127.0.0.1:0",
        true,
        CheckpointStore::in_memory("observed"),
    )?;
    let at = job.listen()?.ok_or("nothing listens")?;
    let running: RunningJob = job.start()?;
    let begun = Instant::now();
    // The readers begin one after the other.
    while series(&get(at, "/metrics")?) < 1_000 {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the job has no 1,000 series".into());
        }
        std::thread::yield_now();
    }
    let mut times = Vec::new();
    for _ in 0..SCRAPES {
        let asked = Instant::now();
        let answer = get(at, "/metrics")?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        assert!(series(&answer) >= 1_000, "they do not go away");
    }
    running.stop();
    running.join()?;
    Ok(median(&times))
}

fn series(answer: &str) -> usize {
    let lines = answer.lines();
    lines
        .filter(|line| line.starts_with("tidefeed_") || line.starts_with("process_"))
        .count()
}
