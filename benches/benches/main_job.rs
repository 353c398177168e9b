//! The whole product at two sizes: the `flight-delays` job over a month and over a year of real flights, and the embedded
//! server's change feed with 10,000 and 500,000 documents.
//!
//! ```text
//! cargo bench --bench main_job
//! ```
//!
//! It says whether the cost of a change or of a page grows with the container: figures that must not are measured in turns.
//! The year's flights are downloaded once into `target/bench-data`; `FLIGHTS_CSV` names a file to use instead. The last
//! line is one JSON object. It fails when a view is wrong or a limit is missed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tidefeed_benches::Outcome;
use tidefeed_benches::documents::{DOCUMENT_BYTES, filled_container};
use tidefeed_benches::feed_pages::{FeedPages, PAGE_SIZE};
use tidefeed_benches::figures::Figures;
use tidefeed_benches::flight_delays::{Backtraces, FlightDelays, Run, Summary};
use tidefeed_benches::full_year;
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::raw_feed::RawFeed;
use tidefeed_benches::server::{ServerProcess, serve_if_asked};
use tidefeed_benches::stats::{median, median_ms, rounded};

const SMALL: usize = 10_000;
const LARGE: usize = 500_000;
/// Pages timed of each container.
const PAGES: usize = 400;
/// Runs over January without backtraces, and as many with; the year comes in the middle.
const JANUARY_RUNS: usize = 4;
/// A page of the large container may take this many times one of the small.
const PAGE_RATIO_MAX: f64 = 2.0;
/// What a document may cost the server.
const BYTES_PER_DOC_MAX: f64 = 1_024.0;

fn main() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? {
        return Ok(());
    }
    client_runtime()?.block_on(measure())
}

async fn measure() -> Outcome {
    let folders = Folders::create()?;
    let program =
        FlightDelays::build(&folders.workspace, &folders.target, &folders.scratch).await?;
    let begun = Instant::now();
    let server = measure_server().await?;
    let job = measure_job(&folders, &program).await?;
    println!(
        "\nall of it took {:.0} s after building",
        begun.elapsed().as_secs_f64()
    );
    let figures = Figures {
        feed_page_ms_10k: rounded(server.small_page_ms),
        feed_page_ms_500k: rounded(server.large_page_ms),
        server_bytes_per_doc: rounded(server.bytes_per_doc),
        job_changes_per_s_january: rounded(job.january_per_s),
        job_changes_per_s_full_year: job
            .year
            .as_ref()
            .map(|run| rounded(run.summary.changes_per_s)),
        peak_rss_mb_full_year: job.year.as_ref().map(|run| rounded(megabytes(run))),
    };
    println!("{}", serde_json::to_string(&figures)?);
    server.check()
}

/// Where things are.
struct Folders {
    workspace: PathBuf,
    target: PathBuf,
    /// Files of the runs.
    scratch: PathBuf,
    /// What is downloaded.
    data: PathBuf,
}

impl Folders {
    fn create() -> Outcome<Self> {
        let parent_of = |folder: &str| Path::new(folder).join("..").canonicalize();
        let target = parent_of(env!("CARGO_TARGET_TMPDIR"))?;
        let folders = Folders {
            workspace: parent_of(env!("CARGO_MANIFEST_DIR"))?,
            scratch: target.join("tmp/main_job"),
            data: target.join("bench-data"),
            target,
        };
        std::fs::create_dir_all(&folders.scratch)?;
        std::fs::create_dir_all(&folders.data)?;
        Ok(folders)
    }
}

/// What was measured of the server.
struct ServerFigures {
    small_page_ms: f64,
    large_page_ms: f64,
    bytes_per_doc: f64,
}

impl ServerFigures {
    fn page_ratio(&self) -> f64 {
        self.large_page_ms / self.small_page_ms
    }

    fn check(&self) -> Outcome {
        if self.page_ratio() > PAGE_RATIO_MAX {
            return Err(format!("a page takes {:.2} times as long", self.page_ratio()).into());
        }
        if self.bytes_per_doc > BYTES_PER_DOC_MAX {
            return Err(format!("a document costs {:.0} bytes", self.bytes_per_doc).into());
        }
        Ok(())
    }
}

async fn measure_server() -> Outcome<ServerFigures> {
    println!(
        "The embedded server, a process of its own; documents of {DOCUMENT_BYTES} bytes, 4 partitions"
    );
    let server = ServerProcess::start().await?;
    let account = server.account().await?;
    let small = filled_container(&account, "small", SMALL).await?;
    let (before, begun) = (server.resident_bytes()?, Instant::now());
    let large = filled_container(&account, "large", LARGE).await?;
    let loaded_s = begun.elapsed().as_secs_f64();
    let bytes_per_doc = server.resident_bytes()?.saturating_sub(before) as f64 / LARGE as f64;
    println!(
        "  memory: {bytes_per_doc:.0} bytes per document, at most {BYTES_PER_DOC_MAX:.0} (growth of resident memory over \
         {LARGE} documents)"
    );
    println!(
        "  loading: {:.0} documents/s (batches of 100, 16 at once, through the adapter)",
        LARGE as f64 / loaded_s
    );

    let (mut small, mut large) = (FeedPages::new(small).await?, FeedPages::new(large).await?);
    let (mut small_times, mut large_times) = (Vec::new(), Vec::new());
    for _ in 0..PAGES {
        small_times.push(small.timed_page().await?);
        large_times.push(large.timed_page().await?);
    }
    let figures = ServerFigures {
        small_page_ms: median_ms(&small_times),
        large_page_ms: median_ms(&large_times),
        bytes_per_doc,
    };
    println!(
        "  feed page of {PAGE_SIZE} through the adapter and the SDK: {:.2} ms with {SMALL} documents, {:.2} ms with {LARGE}: \
         ratio {:.2}, at most {PAGE_RATIO_MAX:.0} (medians of {PAGES}, in turns)",
        figures.small_page_ms,
        figures.large_page_ms,
        figures.page_ratio(),
    );
    measure_raw_feed(&server)?;
    Ok(figures)
}

fn measure_raw_feed(server: &ServerProcess) -> Outcome {
    let mut small = RawFeed::connect(server, "small")?;
    let mut large = RawFeed::connect(server, "large")?;
    let (mut small_times, mut large_times) = (Vec::new(), Vec::new());
    for _ in 0..PAGES {
        small_times.push(small.timed_page()?);
        large_times.push(large.timed_page()?);
    }
    let (small_ms, large_ms) = (median_ms(&small_times), median_ms(&large_times));
    println!(
        "  the server's share of a page: {small_ms:.2} ms and {large_ms:.2} ms: ratio {:.2} (read and not parsed)",
        large_ms / small_ms
    );
    let (mut small_times, mut large_times) = (Vec::new(), Vec::new());
    for _ in 0..PAGES {
        small_times.push(small.timed_idle_poll()?);
        large_times.push(large.timed_idle_poll()?);
    }
    println!(
        "  a poll that finds nothing: {:.3} ms and {:.3} ms",
        median_ms(&small_times),
        median_ms(&large_times)
    );
    Ok(())
}

/// What was measured of the job.
struct JobFigures {
    january_per_s: f64,
    year: Option<Run>,
}

async fn measure_job(folders: &Folders, program: &FlightDelays) -> Outcome<JobFigures> {
    println!(
        "\nThe flight-delays job with its server and player in one process, 2 workers, every view verified; changes are \
         those read from the feed, which skips what is overwritten before it is read"
    );
    let (mut plain, mut asked) = (Vec::new(), Vec::new());
    let mut year = None;
    for round in 0..JANUARY_RUNS {
        if round == JANUARY_RUNS / 2 {
            let file = full_year::file(&folders.workspace, &folders.data).await;
            year = measure_year(program, file).await?;
        }
        // The other way round each time, so that neither always comes after the other.
        let mut kinds = [Backtraces::Off, Backtraces::Asked];
        if round % 2 == 1 {
            kinds.reverse();
        }
        for backtraces in kinds {
            let run = program.run(None, backtraces).await?;
            print_run(&format!("January, backtraces {backtraces:?}"), &run);
            match backtraces {
                Backtraces::Off => plain.push(run.summary),
                Backtraces::Asked => asked.push(run.summary),
            }
        }
    }
    print_backtraces(&plain, &asked);
    if let Some(run) = &year {
        print_growth(&plain, run);
    }
    Ok(JobFigures {
        january_per_s: median_of(&plain, |summary| summary.changes_per_s),
        year,
    })
}

fn print_backtraces(plain: &[Summary], asked: &[Summary]) {
    let plain_per_s = median_of(plain, |summary| summary.changes_per_s);
    let asked_per_s = median_of(asked, |summary| summary.changes_per_s);
    println!(
        "  January: {plain_per_s:.0} changes/s; with RUST_BACKTRACE=1 {asked_per_s:.0}: ratio {:.2}, 1 but for noise \
         (medians of {JANUARY_RUNS}, in turns)",
        asked_per_s / plain_per_s
    );
}

fn print_growth(january: &[Summary], year: &Run) {
    let side_by_side = |what: &str, of: fn(&Summary) -> f64| {
        let (month_us, year_us) = (median_of(january, of), of(&year.summary));
        println!(
            "  time per {what}: {month_us:.1} us in January, {year_us:.1} us in the year: ratio {:.2}, 1 but for noise",
            year_us / month_us
        );
    };
    side_by_side("change read", Summary::us_per_change);
    side_by_side("document written", Summary::us_per_write);
    println!(
        "  peak of resident memory in the year: {:.0} MB (VmHWM of its process)",
        megabytes(year)
    );
}

fn median_of(runs: &[Summary], of: fn(&Summary) -> f64) -> f64 {
    median(&runs.iter().map(of).collect::<Vec<_>>())
}

/// A run over the year; none, and why on standard error, when there is no file of it.
async fn measure_year(program: &FlightDelays, file: Outcome<PathBuf>) -> Outcome<Option<Run>> {
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            eprintln!("no figures of the full year, its flights are not to be had: {error}");
            return Ok(None);
        }
    };
    let run = program.run(Some(&file), Backtraces::Off).await?;
    let found = (run.summary.flights, run.summary.writes);
    if found != (full_year::FLIGHTS, full_year::WRITES) {
        eprintln!(
            "no figures of the full year: {} has {found:?} flights and writes",
            file.display()
        );
        return Ok(None);
    }
    print_run("full year", &run);
    Ok(Some(run))
}

fn print_run(name: &str, run: &Run) {
    let summary = &run.summary;
    println!(
        "  {name:<26} {:>7.0} changes/s, {:>5.1} us per change ({} writes, {} changes read, {:.1} s; peak {:.0} MB)",
        summary.changes_per_s,
        summary.us_per_change(),
        summary.writes,
        summary.changes_read,
        summary.elapsed_s,
        megabytes(run)
    );
}

fn megabytes(run: &Run) -> f64 {
    run.peak_rss_bytes as f64 / 1e6
}
