//! What the checkpoint store costs here: `cargo test --release -p tidefeed-runtime --test checkpoint_speed -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidefeed_runtime::checkpoint::{
    CheckpointStore, CommitRequest, Fingerprint, Options, RunIdentity, SealPart, Tokens, open,
};
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, Record};

const RECORDS_PER_SEAL: u64 = 530;
const SEALS: u64 = 500;
const KEYS: u64 = 100_000;

fn record(number: u64) -> Record {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let key = mixed % KEYS;
    let body = format!(
        "{{\"id\":\"flight-{key}\",\"carrier\":\"C{}\",\"origin\":\"A{}\",\"destination\":\"B{}\",\"delay\":{},\"status\":\"departed\",\
         \"tail\":\"N{mixed:012x}\",\"scheduled\":\"2024-05-{:02}T{:02}:{:02}:00Z\",\"distance\":{}}}",
        key % 17,
        key % 300,
        mixed % 299,
        mixed % 180,
        1 + mixed % 28,
        mixed % 24,
        mixed % 60,
        mixed % 9000
    );
    Record {
        key: Bytes::from(format!("flight-{key}")),
        body: Some(Bytes::from(body)),
    }
}

fn part(seal: u64) -> SealPart {
    let first = seal * RECORDS_PER_SEAL;
    SealPart {
        source: "flights".into(),
        ranges: vec![(
            FeedRangeId("-FF".into()),
            ContinuationToken(seal.to_string()),
        )],
        records: (first..first + RECORDS_PER_SEAL).map(record).collect(),
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

#[ignore = "a measurement, not a test"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measure() {
    let folder = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = CheckpointStore::local(folder.path(), "speed").unwrap();
    let mut opened = open(&store, &identity(), Options::default()).await.unwrap();
    let raw: usize = part(0).records.iter().map(Record::size_bytes).sum();
    let (mut times, mut seals) = (Vec::new(), Vec::new());
    for seal in 1..=SEALS {
        let part = part(seal);
        let from = Instant::now();
        seals.push(opened.seals.write(Epoch(seal), vec![part]).await.unwrap());
        times.push(from.elapsed());
    }
    times.sort_unstable();
    let stored: u64 = seals.iter().map(|seal| seal.bytes).sum();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "seal of {raw} bytes of records ({} on disk): mean {:?}, p50 {:?}, p90 {:?}, p99 {:?}",
        stored / SEALS,
        times.iter().sum::<Duration>() / times.len() as u32,
        at(0.5),
        at(0.9),
        at(0.99)
    );
    let request = CommitRequest {
        epoch: Epoch(SEALS),
        tokens: Tokens::new(),
        seals,
        sinks: BTreeMap::new(),
    };
    let from = Instant::now();
    opened.commits.commit(request).await.unwrap();
    println!("commit: {:?}", from.elapsed());
    drop(opened);
    for round in ["from seals", "from a base"] {
        let from = Instant::now();
        let mut opened = open(&store, &identity(), Options::default()).await.unwrap();
        let opening = from.elapsed();
        let from = Instant::now();
        let rehydrated = opened.resume.rehydrate(&store).await.unwrap();
        let took = from.elapsed();
        let live: usize = rehydrated.collection["flights"]
            .iter()
            .map(Record::size_bytes)
            .sum();
        let read = if round == "from seals" {
            raw * SEALS as usize
        } else {
            live
        };
        println!(
            "{round}: open {opening:?}, rehydrate {took:?}, {:.0} MB/s of records read, {} live records",
            read as f64 / 1e6 / took.as_secs_f64(),
            rehydrated.collection["flights"].len()
        );
        let from = Instant::now();
        if let Some(base) = opened.resume.compact(&store, &rehydrated).await.unwrap() {
            println!("compact {live} bytes: {:?}", from.elapsed());
            opened.commits.set_base(base).unwrap();
            let request = CommitRequest {
                epoch: Epoch(SEALS + 1),
                tokens: Tokens::new(),
                seals: Vec::new(),
                sinks: BTreeMap::new(),
            };
            opened.commits.commit(request).await.unwrap();
            let from = Instant::now();
            let report = opened.commits.collect_garbage().await.unwrap();
            println!("garbage {report:?}: {:?}", from.elapsed());
        }
    }
}
