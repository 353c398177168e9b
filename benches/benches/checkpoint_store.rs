//! What the checkpoint store costs: seals, a commit, rehydration from seals and from a base, compaction, garbage.
//!
//! ```text
//! cargo bench --bench checkpoint_store
//! ```
//!
//! The store is a temporary directory below `target`: what a seal costs is mostly what the file system's sync costs. The
//! last line is one JSON object.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidefeed_benches::Outcome;
use tidefeed_benches::flights::{flight, mixed};
use tidefeed_benches::process::client_runtime;
use tidefeed_benches::stats::rounded;
use tidefeed_runtime::checkpoint::{
    CheckpointStore, CommitRequest, Fingerprint, Options, RunIdentity, SealPart, SealRef, Share,
    Tokens, open,
};
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Record};

const RECORDS_PER_SEAL: u64 = 530;
const SEALS: u64 = 500;
const KEYS: u64 = 100_000;

fn update(number: u64) -> Record {
    flight(number, mixed(number) % KEYS)
}

fn part(seal: u64) -> SealPart {
    let first = seal * RECORDS_PER_SEAL;
    SealPart {
        source: "flights".into(),
        ranges: vec![(
            FeedRangeId("-FF".into()),
            ContinuationToken(seal.to_string()),
        )],
        records: (first..first + RECORDS_PER_SEAL).map(update).collect(),
        marks: Default::default(),
    }
}

fn identity() -> RunIdentity {
    RunIdentity {
        job: "speed".into(),
        fingerprint: Fingerprint::default(),
        processes: 1,
        workers_per_process: 1,
    }
}

fn main() -> Outcome {
    client_runtime()?.block_on(measure())
}

async fn measure() -> Outcome {
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let store = CheckpointStore::local(folder.path(), "speed")?;
    let mut figures = Figures::default();
    write_seals(&store, &mut figures).await?;
    (figures.rehydrate_seals_mb_per_s, figures.compact_ms) = resume(&store, "seals").await?;
    (figures.rehydrate_base_mb_per_s, _) = resume(&store, "a base").await?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// The last line of the bench. Megabytes are 10^6 bytes of keys and documents.
#[derive(Default, Serialize)]
struct Figures {
    seal_p50_ms: f64,
    seal_p99_ms: f64,
    commit_ms: f64,
    rehydrate_seals_mb_per_s: f64,
    rehydrate_base_mb_per_s: f64,
    compact_ms: f64,
}

async fn write_seals(store: &CheckpointStore, figures: &mut Figures) -> Outcome {
    let mut opened = open(store, &identity(), Options::default()).await?;
    let (mut times, mut seals) = (Vec::new(), Vec::new());
    for seal in 1..=SEALS {
        let part = part(seal);
        let begun = Instant::now();
        seals.push(opened.seals.write(Epoch(seal), vec![part]).await?);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: f64| ms(times[((times.len() - 1) as f64 * share) as usize]);
    (figures.seal_p50_ms, figures.seal_p99_ms) = (at(0.5), at(0.99));
    println!(
        "seal of {} bytes of records ({} on disk): {} ms (p50), {} ms (p90), {} ms (p99)",
        seal_bytes(),
        seals.iter().map(|seal| seal.bytes).sum::<u64>() / SEALS,
        at(0.5),
        at(0.9),
        at(0.99)
    );
    let begun = Instant::now();
    opened.commits.commit(commit(SEALS, seals)).await?;
    figures.commit_ms = ms(begun.elapsed());
    println!("commit: {} ms", figures.commit_ms);
    Ok(())
}

/// Rehydrates, and compacts where there is something to: megabytes per second of records read, and milliseconds.
async fn resume(store: &CheckpointStore, from: &str) -> Outcome<(f64, f64)> {
    let begun = Instant::now();
    let mut opened = open(store, &identity(), Options::default()).await?;
    let opening = ms(begun.elapsed());
    let begun = Instant::now();
    let mut buckets = opened.resume.buckets(store, Share::WHOLE).await?;
    let (mut documents, mut live) = (0, 0);
    while let Some(bucket) = buckets.next().await? {
        let records = &bucket.sources["flights"];
        documents += records.len();
        live += records.iter().map(Record::size_bytes).sum::<usize>();
    }
    let took = begun.elapsed();
    let begun = Instant::now();
    let compaction = opened.resume.compaction(store);
    let base = match compaction {
        Some(compaction) => compaction.run().await?,
        None => None,
    };
    let compact_ms = ms(begun.elapsed());
    // Without a new base there was one already, and it was read.
    let read = match &base {
        Some(_) => seal_bytes() * SEALS as usize,
        None => live,
    };
    let mb_per_s = rounded(read as f64 / 1e6 / took.as_secs_f64());
    println!(
        "from {from}: open {opening} ms, rehydrate {} ms, {mb_per_s} MB/s of records read, {documents} live records",
        ms(took),
    );
    if let Some(base) = base {
        println!("compact {live} bytes: {compact_ms} ms");
        opened.commits.set_base(base)?;
        opened.commits.commit(commit(SEALS + 1, Vec::new())).await?;
        let begun = Instant::now();
        let report = opened.commits.collect_garbage().await?;
        println!("garbage {report:?}: {} ms", ms(begun.elapsed()));
    }
    Ok((mb_per_s, compact_ms))
}

fn commit(epoch: u64, seals: Vec<SealRef>) -> CommitRequest {
    CommitRequest {
        epoch: Epoch(epoch),
        loading: false,
        tokens: Tokens::new(),
        seals,
        sinks: BTreeMap::new(),
        marks: BTreeMap::new(),
    }
}

/// Bytes of keys and documents in one seal.
fn seal_bytes() -> usize {
    part(0).records.size_bytes()
}

fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}
