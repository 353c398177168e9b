//! What clusters cost and how soon they recover.
//!
//! ```text
//! cargo bench --bench cluster                        # all parts
//! cargo bench --bench cluster -- throughput          # these parts; of: kill, freeze, throughput, exchange
//! ```
//!
//! | figure | measures |
//! |---|---|
//! | `kill_to_commit_s_p50`, `_max` | from a `kill -9` of each process in turn, of a supervised cluster of 3 x 2 workers under load, to the first commit of the next run; 10 kills. Lease and pauses as by default; `settle_ms` is 50, because the server is in the same machine: with its default of 10 s that much comes on top |
//! | `detect_frozen_s_max` | from a SIGSTOP of each in turn to the end of the last other process, with the default timeout of 5 s |
//! | `throughput_PxW` | changes a second of P processes of W workers: read, computed, sealed, written, committed |
//! | `exchange_ns_per_record` | processor time of a document's record of about 250 bytes that crosses processes, less that of one that stays: bincode, socket, reading it once more |
//!
//! Progress goes to the standard error; the last line of the output is one JSON object, with null for what was not asked for.

use std::process::ExitCode;

use serde::Serialize;
use tidefeed_benches::Outcome;
use tidefeed_benches::cluster::supervised::{JOB, JOB_VARIABLE, PROCESSES, Supervised};
use tidefeed_benches::cluster::{crossing, throughput};
use tidefeed_benches::process::{client_runtime, without_library_backtraces};
use tidefeed_benches::server::serve_if_asked;
use tidefeed_benches::stats::{median, rounded};
use tidefeed_benches::totals::totals;

/// What the shipped programs have.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KILLS: usize = 10;
const ROUNDS: usize = 3;
const PARTS: [&str; 4] = ["kill", "freeze", "throughput", "exchange"];
const SHAPES: [(usize, usize); 4] = [(1, 1), (1, 2), (2, 1), (2, 2)];

#[derive(Default, Serialize)]
struct Figures {
    kill_to_commit_s_p50: Option<f64>,
    kill_to_commit_s_max: Option<f64>,
    detect_frozen_s_max: Option<f64>,
    throughput_1x1: Option<f64>,
    throughput_1x2: Option<f64>,
    throughput_2x1: Option<f64>,
    throughput_2x2: Option<f64>,
    exchange_ns_per_record: Option<f64>,
}

fn main() -> ExitCode {
    if std::env::var_os(JOB_VARIABLE).is_some() {
        return tidefeed::main(JOB, totals);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    without_library_backtraces()?;
    if serve_if_asked()? || crossing::cross_if_asked()? || throughput::join_if_asked()? {
        return Ok(());
    }
    // Cargo adds a flag of its own.
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    if let Some(part) = asked.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(format!("there is no part {part:?}: use {}", PARTS.join(", ")).into());
    }
    let has = |part: &str| asked.is_empty() || asked.iter().any(|asked| asked == part);
    let tokio = client_runtime()?;
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut figures = Figures::default();
    if has("kill") || has("freeze") {
        let cluster = Supervised::start(&tokio, folder.path())?;
        if has("kill") {
            let times = cluster.kill(KILLS)?;
            figures.kill_to_commit_s_p50 = Some(rounded(median(&times)));
            figures.kill_to_commit_s_max = Some(longest(&times));
        }
        if has("freeze") {
            figures.detect_frozen_s_max = Some(longest(&cluster.freeze(PROCESSES)?));
        }
    }
    if has("throughput") {
        let mut rates = SHAPES.map(|_| Vec::new());
        for round in 0..ROUNDS {
            for (at, shape) in SHAPES.into_iter().enumerate() {
                let place = folder.path().join(format!("{round}-{at}"));
                rates[at].push(throughput::changes_per_s(&tokio, &place, shape)?);
                std::fs::remove_dir_all(&place)?;
            }
        }
        let rates = rates.map(|rates| Some(median(&rates).round()));
        [
            figures.throughput_1x1,
            figures.throughput_1x2,
            figures.throughput_2x1,
            figures.throughput_2x2,
        ] = rates;
    }
    if has("exchange") {
        let costs = (0..ROUNDS).map(|_| crossing::ns_per_record());
        let costs: Vec<f64> = costs.collect::<Outcome<_>>()?;
        figures.exchange_ns_per_record = Some(median(&costs).round());
    }
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

fn longest(times: &[f64]) -> f64 {
    rounded(times.iter().copied().fold(0.0, f64::max))
}
