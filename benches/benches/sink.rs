//! What the bulk writer does: fast where the container has room, and all that the container has where it has not.
//!
//! ```text
//! cargo bench --bench sink [-- PART..]          parts: memory, limited, fairness, hot, speed; all without any
//! ```
//!
//! | figure | what is measured | target |
//! |---|---|---|
//! | `bulk_docs_per_s` | upserts of new documents by a bulk writer, nothing limited | 100,000 |
//! | `point_docs_per_s` | the same by point upserts through the official SDK, in turns | a tenth of bulk |
//! | `ru_utilisation` | request units used of those of a container with 4,000 RU/s, as the server counts them | 0.95 |
//! | `throttled_share` | requests that were throttled, or any of whose operations was, meanwhile | at most 0.05 |
//! | `resettle_s` | until both are so for 5 s: the longer one, after the throughput was doubled and after it was halved | 10 |
//! | `cold_partition_ratio` | request units of the slowest of three partitions when the fourth has a tenth of its throughput, by those before | 0.95 |
//! | `fairness_ratio` | request units of the slower of two writers by those of the other; the second came later | 0.8 |
//!
//! Documents have 250 bytes and a partition key each; there are four partitions. Servers are processes of their own with one
//! thread; the client shares the machine with them.
//!
//! `TIDEFEED_SINK_SECONDS=300` looks at the limited container for so long (default 30) after it has settled.
//! `TIDEFEED_SINK_PLOT=docs` writes its request units per second into that directory. Misses go to the standard error; the
//! last line of the output is one JSON object, with null for what was not measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidefeed_benches::Outcome;
use tidefeed_benches::bulk_load::{Load, Numbers, Places, upsert};
use tidefeed_benches::control::Control;
use tidefeed_benches::cpu::processor_time;
use tidefeed_benches::documents::DATABASE;
use tidefeed_benches::memory::{peak_resident_bytes, resident_bytes};
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::server::{ServerProcess, serve_if_asked};
use tidefeed_benches::stats::{median, rounded};
use tidefeed_benches::throughput_log::{LEAST_USE, MOST_THROTTLED, ThroughputLog};
use tidefeed_benches::upserts::Upserts;
use tidefeed_operators::cosmos::{BulkConfig, BulkWriter, Container, ContainerSpec, Throughput};

/// Throughput of the limited container, in RU/s.
const LIMITED: u32 = 4_000;
/// Throughput of the container with the hot partition: as much as four partitions may have.
const HOT: u32 = 40_000;
/// What is left of the hot one.
const HOT_SHARE: f64 = 0.1;
const SETTLE: Duration = Duration::from_secs(10);
/// How long a change of the throughput is followed.
const FOLLOW: Duration = Duration::from_secs(20);

const ROUNDS: usize = 5;
const BULK_PER_ROUND: usize = 200_000;
const POINTS_PER_ROUND: usize = 10_000;
const POINTS_IN_FLIGHT: usize = 64;
const DOCUMENTS_PER_SUBMIT: usize = 1_000;

#[derive(Default, Serialize)]
struct Figures {
    bulk_docs_per_s: Option<f64>,
    point_docs_per_s: Option<f64>,
    ru_utilisation: Option<f64>,
    throttled_share: Option<f64>,
    resettle_s: Option<f64>,
    cold_partition_ratio: Option<f64>,
    fairness_ratio: Option<f64>,
    /// Processor time of the client for a document in bulk, in microseconds.
    client_cpu_us_per_doc: Option<f64>,
    /// The same of the server.
    server_cpu_us_per_doc: Option<f64>,
    /// The least use and the largest throttled share in any 5 s of the limited container.
    worst_ru_utilisation: Option<f64>,
    worst_throttled_share: Option<f64>,
    resettle_doubled_s: Option<f64>,
    resettle_halved_s: Option<f64>,
    /// Growth of the client's resident memory while it had more to write than was taken: after a quarter of the time, and the
    /// most, in megabytes (10^6 bytes).
    backlog_rss_mb_early: Option<f64>,
    backlog_rss_mb_peak: Option<f64>,
}

fn main() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? {
        return Ok(());
    }
    client_runtime()?.block_on(measure())
}

async fn measure() -> Outcome {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&String> = parts.iter().filter(|part| !part.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|one| *one == part);
    let mut figures = Figures::default();
    // First, while the process has held nothing else.
    if wanted("memory") {
        memory(&mut figures).await?;
    }
    if wanted("limited") {
        limited(&mut figures).await?;
    }
    if wanted("fairness") {
        fairness(&mut figures).await?;
    }
    if wanted("hot") {
        hot(&mut figures).await?;
    }
    if wanted("speed") {
        speed(&mut figures).await?;
    }
    figures.report_misses();
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

impl Figures {
    fn report_misses(&self) {
        let least = |name: &str, value: Option<f64>, target: f64| {
            if value.is_some_and(|value| value < target) {
                eprintln!("MISS: {name} is {value:?}, target at least {target}");
            }
        };
        let most = |name: &str, value: Option<f64>, target: f64| {
            if value.is_some_and(|value| value > target) {
                eprintln!("MISS: {name} is {value:?}, target at most {target}");
            }
        };
        let points = self.point_docs_per_s.map_or(0.0, |points| 10.0 * points);
        least("bulk_docs_per_s", self.bulk_docs_per_s, 1e5_f64.max(points));
        least("ru_utilisation", self.ru_utilisation, LEAST_USE);
        most("throttled_share", self.throttled_share, MOST_THROTTLED);
        most("resettle_s", self.resettle_s, 10.0);
        least("cold_partition_ratio", self.cold_partition_ratio, 0.95);
        least("fairness_ratio", self.fairness_ratio, 0.8);
        if self.ru_utilisation.is_some() && self.resettle_s.is_none() {
            eprintln!("MISS: resettle_s: not within {FOLLOW:?}");
        }
    }
}

/// How long the limited container is looked at.
fn watched() -> Outcome<Duration> {
    let seconds = std::env::var("TIDEFEED_SINK_SECONDS").ok();
    let seconds = seconds.map_or(Ok(30), |text| text.parse())?;
    Ok(Duration::from_secs(seconds))
}

async fn container(
    server: &ServerProcess,
    name: &str,
    ru_per_s: Option<u32>,
) -> Outcome<Container> {
    let mut spec = ContainerSpec::new(DATABASE, name, "/pk");
    spec.throughput_ru = ru_per_s.map(Throughput::Manual);
    Ok(Container::create_if_absent(&server.account().await?, &spec).await?)
}

/// Ends writers that have more than they will write.
async fn end(writers: Vec<BulkWriter>, loads: Vec<Load>) {
    let ends: Vec<_> = loads.into_iter().map(Load::stop).collect();
    writers.iter().for_each(BulkWriter::halt);
    for end in ends {
        // It may have been refused, as the writer was halted.
        let _ = end.await;
    }
}

/// A container that takes some hundred documents a second, and a caller that has always more.
async fn memory(figures: &mut Figures) -> Outcome {
    let server = ServerProcess::start_limited(LIMITED).await?;
    let container = container(&server, "memory", Some(LIMITED)).await?;
    let process = std::process::id();
    let config = BulkConfig::default();
    let room = config.max_buffered_bytes;
    let writer = BulkWriter::open(&container, config).await?;
    let before = resident_bytes(process)?;
    let load = Load::everywhere(&writer, &Numbers::default());
    let control = Control::connect(&server, "memory")?;
    let mut log = ThroughputLog::new(control, f64::from(LIMITED));
    log.watch(&[&writer], FOLLOW / 4).await?;
    let early = resident_bytes(process)?.saturating_sub(before);
    log.watch(&[&writer], FOLLOW * 3 / 4).await?;
    let peak = peak_resident_bytes(process)?.saturating_sub(before);
    let held = writer.metrics().held_bytes;
    end(vec![writer], vec![load]).await;
    println!(
        "memory: {:.1} MB more after {:?}, {:.1} MB at most within {FOLLOW:?}; the writer held {:.1} MB of {:.1}",
        megabytes(early),
        FOLLOW / 4,
        megabytes(peak),
        megabytes(held as u64),
        megabytes(room as u64),
    );
    figures.backlog_rss_mb_early = Some(rounded(megabytes(early)));
    figures.backlog_rss_mb_peak = Some(rounded(megabytes(peak)));
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A writer that has less in its hands than the default, so that it does not carry minutes of work.
fn small() -> BulkConfig {
    BulkConfig {
        max_buffered_bytes: 8 << 20,
        ..BulkConfig::default()
    }
}

/// Use of 4,000 RU/s, then of 8,000, then of 4,000 again.
async fn limited(figures: &mut Figures) -> Outcome {
    let server = ServerProcess::start_limited(LIMITED).await?;
    let container = container(&server, "limited", Some(LIMITED)).await?;
    let writer = BulkWriter::open(&container, small()).await?;
    let load = Load::everywhere(&writer, &Numbers::default());
    let control = Control::connect(&server, "limited")?;
    let (writers, rate) = ([&writer], f64::from(LIMITED));
    let mut log = ThroughputLog::new(control, rate);
    log.watch(&writers, SETTLE).await?;
    let time = watched()?;
    let steady = log.watch(&writers, time).await?;
    let (used, throttled) = (steady.ru_per_s() / rate, steady.throttled_share());
    let worst = steady.worst();
    println!(
        "{LIMITED} RU/s for {time:?}: {used:.4} used, {throttled:.4} of the requests and {:.4} of the operations throttled; worst \
         5 s: {:.4} used, {:.4} throttled",
        steady.throttled_operations_share(),
        worst.0 / rate,
        worst.1,
    );
    let doubled = log.provision(2 * LIMITED)?;
    log.watch(&writers, FOLLOW).await?;
    let doubled = log.settled_after(doubled, 2.0 * rate);
    let halved = log.provision(LIMITED)?;
    log.watch(&writers, FOLLOW).await?;
    let halved = log.settled_after(halved, rate);
    println!("settled {doubled:?} after it was doubled, {halved:?} after it was halved");
    if let Some(directory) = std::env::var_os("TIDEFEED_SINK_PLOT") {
        log.plot(&PathBuf::from(directory))?;
    }
    end(vec![writer], vec![load]).await;
    let seconds = |time: Duration| rounded(time.as_secs_f64());
    figures.ru_utilisation = Some(rounded(used));
    figures.throttled_share = Some(rounded(throttled));
    figures.worst_ru_utilisation = Some(rounded(worst.0 / rate));
    figures.worst_throttled_share = Some(rounded(worst.1));
    figures.resettle_doubled_s = doubled.map(seconds);
    figures.resettle_halved_s = halved.map(seconds);
    figures.resettle_s = doubled.zip(halved).map(|(a, b)| seconds(a.max(b)));
    Ok(())
}

/// Two writers on the container, of which the second comes later.
async fn fairness(figures: &mut Figures) -> Outcome {
    let server = ServerProcess::start_limited(LIMITED).await?;
    let container = container(&server, "fairness", Some(LIMITED)).await?;
    let numbers = Numbers::default();
    let control = Control::connect(&server, "fairness")?;
    let mut log = ThroughputLog::new(control, f64::from(LIMITED));
    let first = BulkWriter::open(&container, small()).await?;
    let mut loads = vec![Load::everywhere(&first, &numbers)];
    log.watch(&[&first], SETTLE).await?;
    let second = BulkWriter::open(&container, small()).await?;
    loads.push(Load::everywhere(&second, &numbers));
    let writers = [&first, &second];
    log.watch(&writers, SETTLE).await?;
    let window = log.watch(&writers, watched()?).await?;
    let rates = window.writers_ru_per_s();
    let ratio = rates[0].min(rates[1]) / rates[0].max(rates[1]);
    println!(
        "two writers: {:.0} and {:.0} RU/s, ratio {ratio:.3}; {:.4} used, {:.4} of the requests throttled",
        rates[0],
        rates[1],
        window.ru_per_s() / f64::from(LIMITED),
        window.throttled_share(),
    );
    end(vec![first, second], loads).await;
    figures.fairness_ratio = Some(rounded(ratio));
    Ok(())
}

/// One of four partitions loses most of its throughput. Each has callers of its own.
async fn hot(figures: &mut Figures) -> Outcome {
    let server = ServerProcess::start_limited(HOT).await?;
    let container = container(&server, "hot", Some(HOT)).await?;
    let (_, partitions) = Control::connect(&server, "hot")?.partitions()?;
    let places = Places::new(&partitions)?;
    let mut log = ThroughputLog::new(Control::connect(&server, "hot")?, f64::from(HOT));
    let writer = BulkWriter::open(&container, BulkConfig::default()).await?;
    let count = partitions.len();
    let load = |place| Load::in_partition(&writer, &places, place, count);
    let loads = (0..count).map(load).collect();
    let writers = [&writer];
    log.watch(&writers, SETTLE).await?;
    let time = watched()?;
    let before = log.watch(&writers, time).await?.partitions_ru_per_s();
    let limit = HOT_SHARE * f64::from(HOT) / count as f64;
    // Over a new connection: the server closes those that are idle for long.
    Control::connect(&server, "hot")?.limit(partitions[0].id, limit)?;
    log.watch(&writers, SETTLE).await?;
    let window = log.watch(&writers, time).await?;
    let after = window.partitions_ru_per_s();
    let ratios = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after / before);
    let cold = ratios.skip(1).fold(f64::INFINITY, f64::min);
    println!(
        "RU/s of the partitions: {before:.0?} before, {after:.0?} when the first was limited to {limit:.0}: ratio of the cold \
         ones {cold:.3}; {:.4} of the requests throttled",
        window.throttled_share(),
    );
    end(vec![writer], loads).await;
    figures.cold_partition_ratio = Some(rounded(cold));
    Ok(())
}

/// Bulk and points in turns, where nothing is limited.
async fn speed(figures: &mut Figures) -> Outcome {
    let server = ServerProcess::start().await?;
    let (bulk, _) = (
        container(&server, "bulk", None).await?,
        container(&server, "points", None).await?,
    );
    let writer = BulkWriter::open(&bulk, BulkConfig::default()).await?;
    let mut points = Upserts::connect(&server, "points").await?;
    let numbers = Numbers::default();
    let (mut rounds, mut point_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rounds.push(bulk_round(&server, &writer, &numbers).await?);
        let rate = points.timed_round(POINTS_PER_ROUND, POINTS_IN_FLIGHT);
        point_rates.push(rate.await?);
    }
    let of = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let (rate, point_rate) = (of(|round| round.per_s), median(&point_rates));
    let (client, server) = (of(|round| round.client_us), of(|round| round.server_us));
    let total = writer.metrics().total();
    println!(
        "bulk {rate:.0}/s, points {point_rate:.0}/s: {:.1} times (medians of {ROUNDS} rounds); processor time of a document in \
         bulk: client {client:.2} us, server {server:.2} us; {:.1} documents a request",
        rate / point_rate,
        total.operations as f64 / total.requests as f64,
    );
    writer.close().await?;
    figures.bulk_docs_per_s = Some(rounded(rate));
    figures.point_docs_per_s = Some(rounded(point_rate));
    figures.client_cpu_us_per_doc = Some(rounded(client));
    figures.server_cpu_us_per_doc = Some(rounded(server));
    Ok(())
}

struct Round {
    per_s: f64,
    client_us: f64,
    server_us: f64,
}

async fn bulk_round(
    server: &ServerProcess,
    writer: &BulkWriter,
    numbers: &Numbers,
) -> Outcome<Round> {
    let calls: Vec<Vec<_>> = (0..BULK_PER_ROUND / DOCUMENTS_PER_SUBMIT)
        .map(|_| numbers.take(DOCUMENTS_PER_SUBMIT).map(upsert).collect())
        .collect();
    let process = std::process::id();
    let used = || Outcome::Ok((processor_time(process)?, server.processor_time()?));
    let (before, begun) = (used()?, Instant::now());
    for writes in calls {
        drop(writer.submit(writes).await?);
    }
    let summary = writer.flush().await?;
    let (took, after) = (begun.elapsed(), used()?);
    if summary.written != BULK_PER_ROUND as u64 {
        return Err(format!("not everything was written: {summary:?}").into());
    }
    let per_doc = |time: Duration| time.as_secs_f64() * 1e6 / BULK_PER_ROUND as f64;
    Ok(Round {
        per_s: BULK_PER_ROUND as f64 / took.as_secs_f64(),
        client_us: per_doc(after.0 - before.0),
        server_us: per_doc(after.1 - before.1),
    })
}
