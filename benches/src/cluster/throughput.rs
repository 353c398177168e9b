//! How many changes a second a job reads, computes, seals, writes and commits, as one process or two, of one worker or two.
//!
//! The source has four ranges and brings changes of about 250 bytes as fast as they are taken. A document's worker is chosen by its key, so
//! with two processes every other change crosses from one to the other. The view has 17 rows and is kept in memory.
//!
//! Counted is what is read in a few seconds. What is read and not yet committed is bounded, and small beside it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidefeed::config::{JobConfig, SinkConfig, SourceConfig, Workers};
use tidefeed::feed::{ChangeFeed, Page, PageStream, Start};
use tidefeed::memory::MemoryContainer;
use tidefeed::target::Target;
use tidefeed::{
    CheckpointStore, Connect, ContinuationToken, FeedRangeId, Hosts, Job, Member, Record, Secret,
};
use tidefeed_operators::feed::Spent;
use tokio::runtime::Runtime;

use super::{Children, free_addresses};
use crate::Outcome;
use crate::flights::{flight, mixed};
use crate::totals::totals;

/// The argument of one process of a measurement.
const MEMBER: &str = "--member";
const SECRET: &str = "of no use to anybody";
const RANGES: [&str; 4] = ["-40", "40-80", "80-C0", "C0-FF"];
/// Flights of a range, and its changes, which come again and again.
const FLIGHTS: u64 = 25_000;
const CHANGES: u64 = 50_000;
const PAGE: u64 = 1000;
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(5);

/// Changes of flights without end.
#[derive(Clone, Default)]
struct Flights(Arc<[OnceLock<Arc<[Record]>>; RANGES.len()]>);

#[async_trait]
impl ChangeFeed for Flights {
    async fn ranges(&self) -> tidefeed::Result<Vec<FeedRangeId>> {
        let range = |range: &str| FeedRangeId(range.into());
        Ok(RANGES.into_iter().map(range).collect())
    }

    async fn open(
        &self,
        range: &FeedRangeId,
        start: Start,
    ) -> tidefeed::Result<Box<dyn PageStream>> {
        let known = RANGES.iter().position(|known| range.0 == *known);
        let number = known.ok_or_else(|| {
            tidefeed::Error::new(tidefeed::ErrorKind::NotFound, format!("no range {range}"))
        })?;
        let made = self.0[number].get_or_init(|| {
            let first = number as u64 * FLIGHTS;
            let change = |n: u64| match n < FLIGHTS {
                true => flight(n, first + n),
                false => flight(n, first + mixed(n) % FLIGHTS),
            };
            (0..CHANGES).map(change).collect()
        });
        let next = match start {
            Start::Token(token) => token.0.parse().unwrap_or(0),
            _ => 0,
        };
        Ok(Box::new(Pages {
            made: Arc::clone(made),
            next,
        }))
    }
}

struct Pages {
    made: Arc<[Record]>,
    next: u64,
}

#[async_trait]
impl PageStream for Pages {
    async fn next_page(&mut self) -> tidefeed::Result<Page> {
        let end = self.next + PAGE;
        let made = |number: u64| self.made[(number % CHANGES) as usize].clone();
        let records = (self.next..end).map(made).collect();
        self.next = end;
        Ok(Page {
            records,
            token: ContinuationToken(end.to_string()),
            spent: Spent::default(),
            remaining: None,
            caught_up: false,
            receipt: None,
        })
    }
}

#[async_trait]
impl Connect for Flights {
    async fn source(&self, _: &str, _: &SourceConfig) -> tidefeed::Result<Arc<dyn ChangeFeed>> {
        Ok(Arc::new(self.clone()))
    }

    async fn sink(&self, _: &str, _: &SinkConfig) -> tidefeed::Result<Arc<dyn Target>> {
        Ok(Arc::new(MemoryContainer::new(Default::default())))
    }
}

/// Call early in `main`: in a process of a measurement it is a member of a cluster, and returns true when that has ended.
///
/// # Errors
/// When the job fails.
pub fn join_if_asked() -> Outcome<bool> {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == MEMBER) else {
        return Ok(false);
    };
    let [process, workers, hosts, folder] = &arguments[at + 1..] else {
        return Err("a member has four arguments".into());
    };
    let mut config = JobConfig::parse(
        "[source.flights]\ndatabase = \"d\"\ncontainer = \"flights\"\n[sink.totals]\ndatabase = \"d\"\ncontainer = \"totals\"\n",
    )?;
    config.workers = Workers(workers.parse()?);
    let store = CheckpointStore::local(Path::new(folder), "throughput")?;
    let mut job =
        Job::new("throughput", config, Flights::default(), totals).checkpoint_store(store);
    let hosts = Hosts::parse_list(hosts)?;
    if hosts.processes() > 1 {
        let member = Member::new(process.parse()?, hosts, Secret::new(SECRET)?)?;
        // More is asked of the machine than it has.
        job = job.member(member.peer_timeout(Duration::from_secs(60)));
    }
    let job = job.start()?;
    println!("runs");
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "count" => println!("{}", job.status().changes_read),
            _ => job.stop(),
        }
    }
    job.join()?;
    Ok(true)
}

/// Changes a second.
///
/// # Errors
/// When a process fails.
pub fn changes_per_s(
    tokio: &Runtime,
    folder: &Path,
    (processes, workers): (usize, usize),
) -> Outcome<f64> {
    let hosts = free_addresses(processes)?.join(",");
    let mut children = Children(Vec::new());
    let mut pipes: Vec<(ChildStdin, BufReader<ChildStdout>)> = Vec::new();
    for process in 0..processes {
        let mut child = Command::new(std::env::current_exe()?)
            .args([MEMBER, &process.to_string(), &workers.to_string(), &hosts])
            .arg(folder)
            .env("RUST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("it is piped")?;
        let stdout = child.stdout.take().ok_or("it is piped")?;
        pipes.push((stdin, BufReader::new(stdout)));
        children.0.push(child);
    }
    for (_, stdout) in &mut pipes {
        if answer(stdout)? != "runs" {
            return Err("a process did not start".into());
        }
    }
    let sleep = |time| tokio.block_on(async { tokio::time::sleep(time).await });
    let mut count = || -> Outcome<(Instant, u64)> {
        let at = Instant::now();
        let mut all = 0;
        for (stdin, stdout) in &mut pipes {
            stdin.write_all(b"count\n")?;
            all += answer(stdout)?.parse::<u64>()?;
        }
        Ok((at, all))
    };
    sleep(WARM_UP);
    let (from, before) = count()?;
    sleep(MEASURED);
    let (to, after) = count()?;
    // The end of its input ends each; the first that stops ends all.
    for (stdin, _) in &mut pipes {
        let _ = stdin.write_all(b"stop\n");
    }
    drop(pipes);
    for child in &mut children.0 {
        let ended = child.wait()?;
        if !ended.success() {
            return Err(format!("a process ended with {ended}").into());
        }
    }
    let rate = (after - before) as f64 / (to - from).as_secs_f64();
    eprintln!("throughput: {rate:.0} changes/s in {processes} processes of {workers} workers");
    Ok(rate)
}

fn answer(stdout: &mut BufReader<ChildStdout>) -> Outcome<String> {
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
