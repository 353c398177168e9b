//! The workloads written by hand: `serde_json`, the standard `HashMap`, strings owned as a generic runtime holds them.
//!
//! Not a system: results come once, at the end of the input; nothing is incremental outside of a thread, and nothing is
//! recovered. One thread reads what it is given. Two threads read a file each, of orders split by the hash of their ids, and
//! keep their own maps, which are merged at the end: so nothing is exchanged, and no dataflow on two workers does less.
//!
//! ```text
//! floor w1|w2|w3|w4 --data FILE_OR_DIR --out FILE [--customers FILE] [--workers N]
//! ```

mod args;
mod input;
mod views;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use args::Args;
use input::Customers;
use views::{LatestBySegment, LatestTop, LatestTotals, RegionTotals, View};

/// What fails ends the program with its text.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(|args| run(&args)) {
        // Without the time that it takes to free the maps.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome {
    match args.workload.as_str() {
        "w1" => compute::<RegionTotals>(args),
        "w2" => compute::<LatestTotals>(args),
        "w3" => compute::<LatestBySegment>(args),
        "w4" => compute::<LatestTop>(args),
        other => Err(format!("there is no workload `{other}`: it is one of w1, w2, w3, w4").into()),
    }
}

/// Reads the input with as many threads as were asked for, and writes the result.
fn compute<V: View>(args: &Args) -> Outcome {
    let start = Instant::now();
    let customers = args
        .customers
        .as_deref()
        .map(input::customers)
        .transpose()?
        .unwrap_or_default();
    let shares = input::shares(&args.data, args.workers)?;
    let (mut events, mut result) = (0, V::Result::default());
    for part in in_threads(&shares, |files| part::<V>(files, &customers)) {
        let (read, partial) = part?;
        events += read;
        V::merge(&mut result, partial);
    }
    write_lines(&args.out, &V::lines(result))?;
    println!(
        "ENGINE_S={:.3}\nEVENTS={events}",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Applies `work` to each share: here if there is one, else each in a thread.
fn in_threads<T: Send>(
    shares: &[Vec<PathBuf>],
    work: impl Fn(&[PathBuf]) -> Outcome<T> + Sync,
) -> Vec<Outcome<T>> {
    if let [share] = shares {
        return vec![work(share)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = shares
            .iter()
            .map(|share| scope.spawn(|| work(share)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a thread panicked".into()))
            })
            .collect()
    })
}

/// The view of some files, and how many events they hold.
fn part<V: View>(files: &[PathBuf], customers: &Customers) -> Outcome<(u64, V::Result)> {
    let mut view = V::default();
    let mut events = 0;
    for file in files {
        events += input::each_order(file, |order| view.apply(&order))?;
    }
    Ok((events, view.result(customers)))
}

fn write_lines(path: &Path, lines: &[String]) -> Outcome {
    let error = |error| format!("cannot write {}: {error}", path.display());
    let mut out = BufWriter::new(File::create(path).map_err(error)?);
    for line in lines {
        writeln!(out, "{line}").map_err(error)?;
    }
    out.flush().map_err(error)?;
    Ok(())
}
