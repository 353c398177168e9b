//! The run from start to end: server, player, job, verification.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidefeed::config::{AccountConfig, JobConfig, Throughput};
use tidefeed::prelude::*;
use tidefeed::{Cosmos, Job, JobStatus, RunningJob};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_operators::cosmos::{self, Account, Container, ContainerSpec, CosmosReader};
use tidefeed_runtime::{Context, Error, ErrorKind};

use crate::cli::Args;
use crate::data::{self, Tables};
use crate::display::{Display, Progress};
use crate::lifecycle::Timeline;
use crate::mark::MarkFile;
use crate::model::{FLIGHTS_PARTITION_KEY, FlightDocument};
use crate::oracle::Expected;
use crate::player::{DocumentWriter, Player, PlayerOptions, PlayerProgress};
use crate::report::{Percentiles, Summary, top_of_view, verdict_lines};
use crate::rows::VIEWS;
use crate::verify::{Verdict, compare};
use crate::views;

const JOB: &str = "flight-delays";
const DATABASE: &str = "flight-delays";
const FLIGHTS: &str = "flights";
/// After a crash the job waits this long for requests to a server on this machine that may still be carried out.
const LOCAL_SETTLE_MS: u64 = 200;
/// What a server on this machine is asked to have for each view.
const LOCAL_THROUGHPUT: Throughput = Throughput::Manual(40_000);
/// How often the display looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the whole demonstration. True when every row of every view is right.
///
/// # Errors
/// Whatever kept it from coming to a verdict.
pub fn run(args: &Args) -> Result<bool> {
    let flights = match &args.flights {
        Some(file) => data::read_flights(file)?,
        None => data::bundled_flights()?,
    };
    let timeline = Arc::new(Timeline::new(flights));
    let tables = data::bundled_tables()?;
    let directory = Directory::new(args)?;
    let server = Server::new(args)?;
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("player")
        .enable_all()
        .build()
        .context(ErrorKind::Internal, || "cannot start the player's thread")?;
    let account = tokio.block_on(Account::connect(&server.account()))?;
    let source = tokio.block_on(create_source(&account))?;
    let mark = MarkFile::new(directory.path(), timeline.fingerprint());
    if args.fresh {
        mark.save(0)?;
    }
    let options = PlayerOptions {
        rate: args.rate,
        ..PlayerOptions::default()
    };
    let player = Player::new(
        Arc::clone(&timeline),
        Arc::new(ToContainer(source.clone())),
        mark,
        options,
    )?;
    let progress = player.progress();
    if progress.resumed_from() > 0 {
        eprintln!(
            "resuming the writes after {} of {}",
            progress.resumed_from(),
            progress.total()
        );
    }

    let started = Instant::now();
    let job = start_job(args, &server, directory.path(), &tables)?;
    let playing = tokio.spawn(player.play());
    let status = watch(&tokio, job, playing, &progress)?;
    let elapsed_s = started.elapsed().as_secs_f64();

    let mut summary = summarize(&timeline, &progress, &status, elapsed_s);
    println!("{summary}");
    let verdicts = tokio.block_on(verify(&account, &source, &tables))?;
    println!("{}", verdict_lines(&verdicts));
    summary.set_verdicts(&verdicts);
    if let Some(file) = &args.summary_json {
        summary.write(file)?;
    }
    Ok(summary.verified)
}

/// Where checkpoints and the player's mark are.
enum Directory {
    /// Removed at the end.
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn new(args: &Args) -> Result<Self> {
        let Some(path) = &args.checkpoint else {
            let directory = tempfile::tempdir()
                .context(ErrorKind::Config, || "cannot make a temporary directory")?;
            return Ok(Directory::Temporary(directory));
        };
        let context = || format!("cannot use the checkpoint directory {}", path.display());
        std::fs::create_dir_all(path).context(ErrorKind::Config, context)?;
        let mut entries = std::fs::read_dir(path).context(ErrorKind::Config, context)?;
        if args.endpoint.is_none() && entries.next().is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} holds an earlier run, but the built-in server starts empty: name the server of that run with \
                     --endpoint, or use another directory",
                    path.display()
                ),
            ));
        }
        Ok(Directory::Kept(path.clone()))
    }

    fn path(&self) -> &Path {
        match self {
            Directory::Temporary(directory) => directory.path(),
            Directory::Kept(path) => path,
        }
    }
}

/// The server that the run works against.
enum Server {
    /// Inside this process, in memory.
    BuiltIn(Emulator),
    Remote {
        endpoint: String,
        key: String,
    },
}

impl Server {
    fn new(args: &Args) -> Result<Self> {
        let Some(endpoint) = &args.endpoint else {
            let emulator = Emulator::start(EmulatorConfig::default())
                .context(ErrorKind::Config, || "cannot start the built-in server")?;
            return Ok(Server::BuiltIn(emulator));
        };
        let key = match std::env::var(&AccountConfig::default().key_env) {
            Ok(key) => key,
            // The embedded server's own default, so that the two programs of this repository find each other.
            Err(_) if is_loopback(endpoint) => tidefeed_emulator::WELL_KNOWN_KEY.to_owned(),
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "no account key: set the environment variable COSMOS_KEY to the key of {endpoint}"
                    ),
                ));
            }
        };
        Ok(Server::Remote {
            endpoint: endpoint.clone(),
            key,
        })
    }

    fn endpoint_and_key(&self) -> (&str, &str) {
        match self {
            Server::BuiltIn(emulator) => (emulator.endpoint(), emulator.key()),
            Server::Remote { endpoint, key } => (endpoint, key),
        }
    }

    fn account(&self) -> cosmos::AccountConfig {
        let (endpoint, key) = self.endpoint_and_key();
        cosmos::AccountConfig::with_key(endpoint, key)
    }
}

fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.strip_prefix("http://").unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|loopback| {
        host.strip_prefix(loopback)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    })
}

async fn create_source(account: &Account) -> Result<Container> {
    let spec = ContainerSpec::new(DATABASE, FLIGHTS, FLIGHTS_PARTITION_KEY);
    Container::create_if_absent(account, &spec).await
}

/// Writes flights to the source container.
struct ToContainer(Container);

impl DocumentWriter for ToContainer {
    async fn write(&self, document: &FlightDocument) -> Result<()> {
        let partition_key = Value::from(vec![document.partition.as_str()]).to_string();
        self.0.upsert(&partition_key, &document.id, document).await
    }
}

/// The job itself: what a user of Tidefeed writes.
fn start_job(
    args: &Args,
    server: &Server,
    checkpoint: &Path,
    tables: &Tables,
) -> Result<RunningJob> {
    let (endpoint, key) = server.endpoint_and_key();
    let mut config = JobConfig::parse(&configuration(args.workers))?;
    config.checkpoint.directory = Some(checkpoint.to_path_buf());
    if endpoint.starts_with("http://") {
        // Plain http is a server on this machine, and nothing is under way for long to that.
        config.checkpoint.settle_ms = Some(LOCAL_SETTLE_MS);
        // Writers start at what a container has, and nobody pays for it there.
        for sink in config.sink.values_mut() {
            sink.throughput_ru = Some(LOCAL_THROUGHPUT);
            sink.settle_ms = LOCAL_SETTLE_MS;
        }
    }
    let tables = tables.clone();
    let job = Job::new(
        JOB,
        config,
        Cosmos::new(endpoint, key)?,
        move |flow: &mut Flow<'_>| {
            let flights = flow.change_feed::<FlightDocument>(FLIGHTS)?;
            let airlines = flow.table("airlines", &tables.airlines)?;
            let airports = flow.table("airports", &tables.airports)?;
            let weather = flow.table("weather", &tables.weather)?;
            let planes = flow.table("planes", &tables.planes)?;
            flow.upsert(
                "carrier_delays",
                views::carrier_delays(flights.clone(), airlines),
            )?;
            flow.upsert(
                "route_delays",
                views::route_delays(flights.clone(), airports),
            )?;
            flow.upsert(
                "weather_delays",
                views::weather_delays(flights.clone(), weather),
            )?;
            flow.upsert("airborne", views::airborne(flights, planes))
        },
    )
    .fresh(args.fresh)
    .rebuild(args.rebuild.iter().cloned());
    if let Some(at) = job.listen()? {
        println!("the page of the job: http://{at}/");
    }
    job.start()
}

fn configuration(workers: u16) -> String {
    let mut text = format!(
        "workers = {workers}\n[source.{FLIGHTS}]\ndatabase = \"{DATABASE}\"\ncontainer = \"{FLIGHTS}\"\npoll_ms = 5\npoll_max_ms = 100\n"
    );
    for view in VIEWS {
        text += &format!(
            "[sink.{0}]\ndatabase = \"{DATABASE}\"\ncontainer = \"{0}\"\npartition_key = [\"{1}\"]\n",
            view.name, view.partition_key
        );
    }
    text
}

/// Shows progress until the player is done and the job has caught up with it.
fn watch(
    tokio: &tokio::runtime::Runtime,
    job: RunningJob,
    playing: tokio::task::JoinHandle<Result<()>>,
    progress: &PlayerProgress,
) -> Result<JobStatus> {
    let mut display = Display::new(progress.total());
    let mut rate = Rate::default();
    let mut playing = Some(playing);
    while !job.ended() {
        if playing
            .as_ref()
            .is_some_and(tokio::task::JoinHandle::is_finished)
            && let Some(played) = playing.take()
        {
            tokio
                .block_on(played)
                .context(ErrorKind::Internal, || "the player panicked")??;
            job.finish_when_caught_up();
        }
        display.show(&look(&job.status(), progress, &mut rate));
        tokio.block_on(async { tokio::time::sleep(LOOK_EVERY).await });
    }
    let status = job.join()?;
    display.finish(&look(&status, progress, &mut rate));
    Ok(status)
}

/// Changes per second since about a second ago.
#[derive(Default)]
struct Rate {
    since: Option<(Instant, u64)>,
    per_s: f64,
}

impl Rate {
    fn update(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        let (at, before) = *self.since.get_or_insert((now, count));
        let elapsed = (now - at).as_secs_f64();
        if elapsed >= 1.0 {
            self.per_s = (count - before) as f64 / elapsed;
            self.since = Some((now, count));
        }
        self.per_s
    }
}

fn look(status: &JobStatus, progress: &PlayerProgress, rate: &mut Rate) -> Progress {
    let ms = |age: Option<Duration>| {
        age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    };
    Progress {
        written: progress.resumed_from() + progress.written(),
        total: progress.total(),
        changes_read: status.changes_read,
        changes_per_s: rate.update(status.changes_read),
        views_written: status
            .sinks
            .values()
            .map(|sink| sink.upserts + sink.deletes)
            .sum(),
        lag_ms: ms(status.epochs.oldest_uncommitted),
        since_commit_ms: status
            .epochs
            .since_commit
            .map(|_| ms(status.epochs.since_commit)),
    }
}

fn summarize(
    timeline: &Timeline,
    progress: &PlayerProgress,
    status: &JobStatus,
    elapsed_s: f64,
) -> Summary {
    let mut summary = Summary {
        flights: timeline.flights().len() as u64,
        writes: progress.written(),
        changes_read: status.changes_read,
        epochs_sealed: status.epochs.sealed,
        epochs_committed: status.epochs.committed,
        elapsed_s,
        changes_per_s: status.changes_read as f64 / elapsed_s,
        commit_latency_ms: Percentiles {
            p50: status.epochs.commit_latency_p50_ms,
            p99: status.epochs.commit_latency_p99_ms,
        },
        ..Summary::default()
    };
    for (name, sink) in &status.sinks {
        if let Some(view) = summary.views.view_mut(name) {
            view.updates_written = sink.upserts;
            view.deletes_written = sink.deletes;
        }
    }
    summary
}

/// Prints the top of each view, and compares all of it with a recomputation from the source container.
async fn verify(account: &Account, source: &Container, tables: &Tables) -> Result<Vec<Verdict>> {
    let mut flights = Vec::new();
    CosmosReader::new(source.clone())
        .for_each(|key, body| {
            let flight = serde_json::from_slice::<FlightDocument>(body);
            flights
                .push(flight.context(ErrorKind::Data, || format!("document {key} is no flight"))?);
            Ok(())
        })
        .await?;
    let expected = Expected::of(&flights, tables);
    drop(flights);
    let mut verdicts = Vec::new();
    for view in VIEWS {
        let container = Container::open(account, DATABASE, view.name).await?;
        let documents: Vec<Value> = CosmosReader::new(container)
            .documents()
            .await?
            .into_values()
            .collect();
        println!("\n{}", top_of_view(view.name, &documents));
        let expected = expected
            .view(view.name)
            .ok_or_else(|| Error::internal("a view is not recomputed"))?;
        verdicts.push(compare(view.name, expected, &documents));
    }
    Ok(verdicts)
}
