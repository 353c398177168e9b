//! The small parts that every document goes through, each by itself.
//!
//! ```text
//! cargo bench --bench micro
//! ```
//!
//! | figure | measures |
//! |---|---|
//! | `decode_ns`, `decode_serde_json_ns` | a document of two properties into a value, by Tidefeed and by serde_json |
//! | `read_all_ns`, `read_two_ns` | a line of a file into a record, keeping all of nine properties or two |
//! | `decode_speedup` | `decode_serde_json_ns` by `decode_ns` |
//! | `seal_ns` | a record of two properties into a seal, packed and checksummed, in memory |
//!
//! By criterion: medians, with its own report above. Nanoseconds are of this machine; compare those of one run. The last line of the output
//! is one JSON object.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use serde::{Deserialize, Serialize};
use tidefeed_benches::Outcome;
use tidefeed_benches::stats::rounded;
use tidefeed_operators::feed::{ChangeFeed, Start};
use tidefeed_operators::files::{FileFeed, FilesOptions};
use tidefeed_operators::json;
use tidefeed_runtime::checkpoint::{self, CheckpointStore, Options, RunIdentity, SealPart};
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Records, RecordsWriter};
use tokio::runtime::Runtime;

/// What the shipped programs have.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DOCUMENT: &[u8] = br#"{"region":"region-25","amount":23243}"#;
const LINES: u64 = 20_000;
const SEALED: u64 = 10_000;

#[derive(Deserialize)]
#[expect(dead_code, reason = "they are decoded")]
struct Order {
    region: String,
    amount: i64,
}

#[derive(Serialize)]
struct Figures {
    decode_ns: f64,
    decode_serde_json_ns: f64,
    decode_speedup: f64,
    read_all_ns: f64,
    read_two_ns: f64,
    seal_ns: f64,
}

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let tokio = Runtime::new()?;
    // Reports of earlier runs are not looked at: these machines are noisy.
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(folder.path())
        .measurement_time(Duration::from_secs(3))
        .sample_size(30);
    criterion.bench_function("decode", |bencher| {
        bencher.iter(|| json::from_slice::<Order>(black_box(DOCUMENT)));
    });
    criterion.bench_function("decode_serde_json", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Order>(black_box(DOCUMENT)));
    });
    let file = folder.path().join("orders.jsonl");
    std::fs::write(&file, lines()?)?;
    for (name, fields) in [
        ("read_all", None),
        (
            "read_two",
            Some(vec!["region".to_owned(), "amount".to_owned()]),
        ),
    ] {
        let feed = feed(&file, fields)?;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| tokio.block_on(read(&feed)).expect("a sound file"));
        });
    }
    criterion.bench_function("seal", |bencher| {
        bencher.iter_custom(|times| tokio.block_on(seal(times)).expect("a store in memory"));
    });
    let of = |name: &str, each: u64| median_ns(folder.path(), name).map(|ns| ns / each as f64);
    let (decode, by_serde_json) = (of("decode", 1)?, of("decode_serde_json", 1)?);
    let figures = Figures {
        decode_ns: rounded(decode),
        decode_serde_json_ns: rounded(by_serde_json),
        decode_speedup: rounded(by_serde_json / decode),
        read_all_ns: rounded(of("read_all", LINES)?),
        read_two_ns: rounded(of("read_two", LINES)?),
        seal_ns: rounded(of("seal", SEALED)?),
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// As a container gives them, of about 200 bytes.
fn lines() -> Outcome<String> {
    let mut lines = String::new();
    for number in 0..LINES {
        writeln!(
            lines,
            r#"{{"id":"o-{number}","customer":"c-{}","region":"region-{:02}","amount":{},"status":"placed","_rid":"x5kdALb5093b4d72AAAAAA==","_etag":"\"5c17ebb5-0000-0700-0000-684ee1800000\"","_lsn":{number},"_ts":1750000000}}"#,
            number % 977,
            number % 50,
            number * 7919 % 100_000,
        )?;
    }
    Ok(lines)
}

fn feed(file: &Path, fields: Option<Vec<String>>) -> tidefeed_runtime::Result<FileFeed> {
    let options = FilesOptions {
        files: vec![file.display().to_string()],
        key: vec!["/id".to_owned()],
        page_size: 10_000,
        fields,
        ..FilesOptions::default()
    };
    FileFeed::new("source.orders", options)
}

async fn read(feed: &FileFeed) -> Outcome<usize> {
    let (mut read, ranges) = (0, feed.ranges().await?);
    for range in ranges {
        let mut pages = feed.open(&range, Start::Beginning).await?;
        loop {
            let page = pages.next_page().await?;
            read += page.records.len();
            if page.caught_up {
                break;
            }
        }
    }
    assert_eq!(read as u64, LINES, "all are read");
    Ok(read)
}

fn records() -> Records {
    let mut page = RecordsWriter::default();
    for number in 0..SEALED {
        let key = format!("[\"o-{number}\"]");
        page.record(
            |to| to.extend_from_slice(key.as_bytes()),
            Some(|to: &mut Vec<u8>| to.extend_from_slice(DOCUMENT)),
        );
    }
    page.finish()
}

/// What so many seals take.
async fn seal(times: u64) -> tidefeed_runtime::Result<Duration> {
    let store = CheckpointStore::in_memory("micro");
    let identity = RunIdentity {
        job: "micro".to_owned(),
        fingerprint: Default::default(),
        processes: 1,
        workers_per_process: 1,
    };
    let mut seals = checkpoint::open(&store, &identity, Options::default())
        .await?
        .seals;
    let records = records();
    let begun = Instant::now();
    for epoch in 1..=times {
        let part = SealPart {
            source: "orders".to_owned(),
            ranges: vec![(
                FeedRangeId("-FF".to_owned()),
                ContinuationToken(epoch.to_string()),
            )],
            records: records.clone(),
            marks: Default::default(),
        };
        seals.write(Epoch(epoch), vec![part]).await?;
    }
    Ok(begun.elapsed())
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// As criterion has written it.
fn median_ns(folder: &Path, name: &str) -> Outcome<f64> {
    let path = folder.join(name).join("new").join("estimates.json");
    let estimates: Estimates = serde_json::from_slice(&std::fs::read(path)?)?;
    Ok(estimates.median.point_estimate)
}
