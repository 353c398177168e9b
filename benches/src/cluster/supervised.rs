//! A supervised cluster of a job over the embedded server, of which processes are killed and frozen under load.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidefeed::prelude::*;
use tidefeed_operators::cosmos::{BulkConfig, Container, ContainerSpec, CosmosTarget, Throughput};
use tidefeed_operators::target::{DocumentWrite, Target};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::Children;
use crate::Outcome;
use crate::documents::DATABASE;
use crate::flights::{flight, mixed};
use crate::server::ServerProcess;

/// Says that this process is the job.
pub const JOB_VARIABLE: &str = "TIDEFEED_BENCH_JOB";
/// The name of the job.
pub const JOB: &str = "cluster";
/// Processes of a cluster.
pub const PROCESSES: usize = 3;
/// After so long a run, the supervisor's next pause is the first again.
const LASTED: Duration = Duration::from_millis(10_500);
/// Flights that are written again and again, and how many at once.
const FLIGHTS: u64 = 5000;
const AT_ONCE: u64 = 10;
const PAUSE: Duration = Duration::from_millis(8);
/// Nothing takes so long.
const LONG: Duration = Duration::from_secs(120);

/// The cluster, its server, and whoever writes.
pub struct Supervised<'a> {
    tokio: &'a Runtime,
    folder: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    writing: JoinHandle<()>,
    _child: Children,
    _server: ServerProcess,
}

impl Drop for Supervised<'_> {
    fn drop(&mut self) {
        self.writing.abort();
        // A supervisor that is killed leaves its processes to themselves.
        for process in self.processes().unwrap_or_default() {
            let _ = signal(process, "KILL");
        }
    }
}

impl<'a> Supervised<'a> {
    /// Starts everything, and waits for the first commit.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(tokio: &'a Runtime, folder: &Path) -> Outcome<Self> {
        let server = tokio.block_on(ServerProcess::start())?;
        let target = tokio.block_on(async {
            let account = server.account().await?;
            let spec = ContainerSpec {
                throughput_ru: Some(Throughput::Manual(40_000)),
                ..ContainerSpec::new(DATABASE, "flights", "/carrier")
            };
            let container = Container::create_if_absent(&account, &spec).await?;
            Outcome::Ok(CosmosTarget::open(container, BulkConfig::default()).await?)
        })?;
        let config = folder.join("cluster.toml");
        std::fs::write(&config, configuration())?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--processes", &PROCESSES.to_string(), "--workers", "2"])
            .args(["--endpoint", server.endpoint()])
            .arg("--config")
            .arg(&config)
            .arg("--checkpoint")
            .arg(folder.join("checkpoint"))
            .env(JOB_VARIABLE, "1")
            .env("COSMOS_KEY", server.key())
            .env("RUST_LOG", "tidefeed=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("it is piped")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().push(line);
            }
        });
        let cluster = Supervised {
            tokio,
            folder: folder.join("checkpoint").join(JOB),
            lines,
            writing: tokio.spawn(write(target)),
            _child: Children(vec![child]),
            _server: server,
        };
        cluster.until("a first commit", || cluster.committed() > 0)?;
        Ok(cluster)
    }

    /// Kills each process in turn, and returns the seconds from each kill to the first commit of the next run.
    ///
    /// # Errors
    /// When the cluster does not recover.
    pub fn kill(&self, rounds: usize) -> Outcome<Vec<f64>> {
        let mut times = Vec::new();
        let mut began = Instant::now();
        for round in 0..rounds {
            self.until("a run that lasts", || began.elapsed() > LASTED)?;
            let generation = self.committed();
            let pid = self.processes()?[round % PROCESSES];
            let killed = Instant::now();
            signal(pid, "KILL")?;
            self.until("a commit", || self.committed() > generation)?;
            let s = killed.elapsed().as_secs_f64();
            eprintln!(
                "kill -9 of process {}: a commit after {s:.2} s",
                round % PROCESSES
            );
            began = Instant::now();
            times.push(s);
        }
        Ok(times)
    }

    /// Freezes each process in turn, and returns the seconds from each SIGSTOP to the end of the last of the others.
    ///
    /// # Errors
    /// When they do not end.
    pub fn freeze(&self, rounds: usize) -> Outcome<Vec<f64>> {
        let mut times = Vec::new();
        let mut began = Instant::now();
        for round in 0..rounds {
            self.until("a run that lasts", || began.elapsed() > LASTED)?;
            let generation = self.committed();
            let mut others = self.processes()?;
            let frozen = others.remove(round % PROCESSES);
            let stopped = Instant::now();
            signal(frozen, "STOP")?;
            let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
            self.until("an end of the others", || others.iter().all(gone))?;
            let s = stopped.elapsed().as_secs_f64();
            eprintln!(
                "SIGSTOP of process {}: the others had ended after {s:.2} s",
                round % PROCESSES
            );
            signal(frozen, "KILL")?;
            self.until("a commit", || self.committed() > generation)?;
            began = Instant::now();
            times.push(s);
        }
        Ok(times)
    }

    /// The generation of the newest commit.
    fn committed(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(self.folder.join("commit")) else {
            return 0;
        };
        let has_commits =
            |path: &PathBuf| std::fs::read_dir(path).is_ok_and(|commits| commits.count() > 0);
        let folders = entries.map_while(Result::ok).map(|entry| entry.path());
        let numbers = folders
            .filter(has_commits)
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok());
        numbers.max().unwrap_or(0)
    }

    /// The processes that it has said to have started last.
    fn processes(&self) -> Outcome<Vec<u32>> {
        let lines = self.lines.lock();
        let mut newest = lines.iter().rev();
        let line = newest.find(|line| line.contains("started 3 processes"));
        let pids = line.and_then(|line| line.rsplit_once('['));
        let (_, pids) = pids.ok_or("it says whom it starts")?;
        let pids = pids.trim_end_matches(']').split(", ");
        Ok(pids.map(str::parse).collect::<Result<_, _>>()?)
    }

    fn until(&self, what: &str, there: impl Fn() -> bool) -> Outcome {
        let began = Instant::now();
        while !there() {
            if began.elapsed() > LONG {
                let lines = self.lines.lock();
                return Err(format!("no {what} within {LONG:?}: {lines:#?}").into());
            }
            self.tokio
                .block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
        Ok(())
    }
}

fn signal(process: u32, signal: &str) -> Outcome {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), process.to_string()])
        .stderr(Stdio::null())
        .status()?;
    match sent.success() {
        true => Ok(()),
        false => Err(format!("no process {process}").into()),
    }
}

/// Requests of a server in the same machine act at once or never, so that the wait for them is not part of what is measured.
fn configuration() -> String {
    format!(
        "[source.flights]\ndatabase = \"{DATABASE}\"\ncontainer = \"flights\"\npoll_ms = 1\npoll_max_ms = 5\n\
         [checkpoint]\nsettle_ms = 50\n\
         [sink.totals]\ndatabase = \"{DATABASE}\"\ncontainer = \"totals\"\npartition_key = [\"/id\"]\nsettle_ms = 20\n\
         throughput_ru = {{ manual = 40000 }}\n"
    )
}

/// Writes flights until it is aborted.
async fn write(target: CosmosTarget) {
    let mut number = 0;
    loop {
        let keys = (number..number + AT_ONCE).map(|number| (number, mixed(number) % FLIGHTS));
        // Of a flight that is drawn twice the last change counts.
        let keys: std::collections::BTreeMap<u64, u64> = keys.map(|(n, key)| (key, n)).collect();
        let writes = keys.into_iter().map(|(key, number)| {
            let body = flight(number, key).body.unwrap_or_default();
            let partition_key = format!("[\"C{}\"]", key % 17);
            DocumentWrite::upsert(partition_key, format!("flight-{key}"), body)
        });
        if let Err(error) = target.apply(writes.collect()).await {
            eprintln!("the writer: {}", error.report());
        }
        number += AT_ONCE;
        tokio::time::sleep(PAUSE).await;
    }
}
