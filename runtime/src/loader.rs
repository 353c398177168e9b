//! Hands the workers what a checkpoint holds, as fast as they take it.
//!
//! ```text
//!   store --bucket--> loader --chunks--> inbox of a worker --> source operator --records--> the job
//!                       ^                                          |
//!                       +------------- room for bytes -------------+
//! ```
//!
//! 1. First the collection, bucket by bucket, at the epoch of the commit; then each sealed epoch beyond it, at its own; then
//!    [`Loaded::All`], which keyed state is sent after the collection already. So epochs never fall, and a source keeps its capability until it has seen the end.
//! 2. A record goes to one worker, by a hash of its key, whatever the number of workers and of processes was before ([`Loads`]).
//! 3. Every chunk takes its bytes from a budget and gives them back when the operator lets go of it: slow workers slow the
//!    loader down, and nobody waits on a worker thread. A chunk is at most [`CHUNK_BYTES`], or one record.
//! 4. Whoever asks for [`EPOCHS`] is told, on every worker, of the epoch of the commit and of every sealed one beyond it, each
//!    when it begins and whether it holds records or not: what time changes is to come at the same epochs as before.
//! 5. Whatever goes wrong fails the run, and the error names the object. Sinks have written nothing of the collection then:
//!    they wait for it to be complete and compared with its commit.
//!
//! # Limits
//!
//! Records are slices of the unpacked bucket that they were read from, and keep all of it while they wait. So memory is the
//! budget, the buckets that it has pieces of, and what [`Buckets`](crate::checkpoint::Buckets) holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::bridge::{ByteBudget, InboxSender, Room};
use crate::checkpoint::{CheckpointStore, Resume, Share};
use crate::stall::Doing;
use crate::states::is_state;
use crate::{AtWork, Epoch, Error, ErrorKind, Ledger, Record, Result};

/// Bytes of records that are handed over at once: about a millisecond of decoding. Larger steals more of a worker's time in
/// one go; a guess.
const CHUNK_BYTES: usize = 256 * 1024;

/// How much of a checkpoint may wait in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadConfig {
    /// Bytes of records that are read and not yet taken by a worker, over all workers; default 64 MiB, at least 1 MiB. Larger
    /// hides more of a slow store's latency; smaller needs less memory at the start. Default: a guess.
    pub max_bytes: u64,
}

impl Default for LoadConfig {
    fn default() -> Self {
        LoadConfig {
            max_bytes: 64 << 20,
        }
    }
}

impl LoadConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `Config`, naming the field and what is allowed.
    pub fn validate(&self) -> Result<()> {
        if self.max_bytes < 1 << 20 {
            return Err(Error::new(
                ErrorKind::Config,
                "load.max_bytes is out of range: allowed is 1048576 bytes or more",
            ));
        }
        Ok(())
    }
}

/// The name under which the epochs themselves are asked for, beside the names of sources and of keyed state.
pub const EPOCHS: &str = "epochs:";

/// What a source finds in its inbox while a checkpoint is loaded.
#[derive(Debug)]
pub enum Loaded {
    /// Records at an epoch that is not below the one before.
    Records(Chunk),
    /// There is no more.
    All,
}

/// Some records of one source, for one worker.
#[derive(Debug)]
pub struct Chunk {
    /// The epoch to emit them at.
    pub epoch: Epoch,
    /// The records; several of one key at an epoch are in order.
    pub records: Vec<Record>,
    /// Held until the chunk is dropped.
    _room: Room,
}

impl Chunk {
    /// Records that have waited for room in `budget`.
    pub async fn within(budget: &ByteBudget, epoch: Epoch, records: Vec<Record>) -> Chunk {
        let bytes: usize = records.iter().map(Record::size_bytes).sum();
        Chunk {
            epoch,
            _room: budget.take(bytes as u64).await,
            records,
        }
    }
}

/// What one process of a run loads.
#[derive(Clone, Copy, Debug)]
pub enum Loads {
    /// These buckets, and its workers share them.
    Buckets(Share),
    /// What belongs to its own workers, by the hash that an exchange uses: for keyed state, which is not exchanged any more. Every
    /// process reads everything then.
    Workers {
        /// The number of its first worker.
        first: usize,
        /// The workers of all processes.
        peers: usize,
    },
}

impl Loads {
    /// Everything, in a run of one process.
    pub const ALL: Loads = Loads::Buckets(Share::WHOLE);

    /// What process `process` of `processes` loads, each with so many workers. `keyed` says that there is keyed state.
    ///
    /// # Errors
    /// `Internal` if there is no such process.
    pub fn of(process: u32, processes: u32, workers: usize, keyed: bool) -> Result<Loads> {
        match keyed && processes > 1 {
            true => Ok(Loads::Workers {
                first: process as usize * workers,
                peers: processes as usize * workers,
            }),
            false => Share::new(process, processes).map(Loads::Buckets),
        }
    }

    fn share(self) -> Share {
        match self {
            Loads::Buckets(share) => share,
            Loads::Workers { .. } => Share::WHOLE,
        }
    }

    /// Which of this process's workers a key is for; `None` for another process's.
    fn worker_of(self, key: &[u8], here: usize) -> Option<usize> {
        match self {
            Loads::Buckets(_) => Some(worker_of(key, here)),
            Loads::Workers { first, peers } => {
                let here = first..first + here;
                let worker = worker_of(key, peers);
                here.contains(&worker).then(|| worker - first)
            }
        }
    }
}

/// The inboxes of each source, one for each worker of this process.
pub type Outlets = BTreeMap<String, Vec<InboxSender<Loaded>>>;

/// Loads what this process holds of a checkpoint, and ends. Sources that nobody asks for are skipped.
pub async fn run(
    resume: Resume,
    store: CheckpointStore,
    loads: Loads,
    outlets: Outlets,
    config: LoadConfig,
    ledger: Ledger,
) {
    let mut end = ledger.end();
    let loader = Loader {
        work: ledger.at_work(Doing::Load),
        loads,
        outlets,
        budget: ByteBudget::new(config.max_bytes),
    };
    tokio::select! {
        loaded = loader.load(&resume, &store) => if let Err(error) = loaded {
            ledger.fail(error.wrap("cannot load the checkpoint"));
        },
        // An error means that the ledger is gone, and with it the run.
        _ = end.wait_for(|ended| *ended) => {}
    }
}

struct Loader {
    work: AtWork,
    loads: Loads,
    outlets: Outlets,
    budget: ByteBudget,
}

impl Loader {
    async fn load(&self, resume: &Resume, store: &CheckpointStore) -> Result<()> {
        let share = self.loads.share();
        if let Some(commit) = &resume.commit {
            self.begin(commit.epoch).await;
            let mut buckets = resume.buckets(store, share).await?;
            while let Some(bucket) = buckets.next().await? {
                for (source, records) in bucket.sources {
                    self.hand_out(&source, commit.epoch, records).await;
                }
            }
        }
        // What is replayed computes keyed state anew.
        self.end(is_state).await;
        let mut replay = resume.replay(store, share);
        while let Some((epoch, parts)) = replay.next().await? {
            self.begin(epoch).await;
            for part in parts {
                self.hand_out(&part.source, epoch, part.records.into())
                    .await;
            }
        }
        self.end(|source| !is_state(source)).await;
        Ok(())
    }

    /// Tells those who ask for epochs of one.
    async fn begin(&self, epoch: Epoch) {
        for inbox in self.outlets.get(EPOCHS).into_iter().flatten() {
            self.send(inbox, epoch, Vec::new()).await;
        }
    }

    /// Tells those of a kind that there is no more.
    async fn end(&self, of_kind: impl Fn(&str) -> bool) {
        let outlets = self.outlets.iter().filter(|(source, _)| of_kind(source));
        for inbox in outlets.flat_map(|(_, inboxes)| inboxes) {
            inbox.send(Loaded::All).await;
        }
    }

    /// Cuts records into chunks for the workers. A worker that is gone has ended with its run.
    async fn hand_out(&self, source: &str, epoch: Epoch, records: Vec<Record>) {
        let Some(inboxes) = self.outlets.get(source) else {
            return;
        };
        let mut cuts: Vec<Cut> = inboxes.iter().map(|_| Cut::default()).collect();
        for record in records {
            let Some(at) = self.loads.worker_of(&record.key, inboxes.len()) else {
                continue;
            };
            let cut = &mut cuts[at];
            cut.bytes += record.size_bytes();
            cut.records.push(record);
            if cut.bytes >= CHUNK_BYTES {
                let full = std::mem::take(cut).records;
                self.send(&inboxes[at], epoch, full).await;
            }
        }
        for (inbox, cut) in inboxes.iter().zip(cuts) {
            if !cut.records.is_empty() {
                self.send(inbox, epoch, cut.records).await;
            }
        }
    }

    async fn send(&self, inbox: &InboxSender<Loaded>, epoch: Epoch, records: Vec<Record>) {
        let chunk = Chunk::within(&self.budget, epoch, records).await;
        inbox.send(Loaded::Records(chunk)).await;
        self.work.moved();
    }
}

#[derive(Default)]
struct Cut {
    records: Vec<Record>,
    bytes: usize,
}

/// The worker that a key is handed to. Other bits of the hash than those that choose the bucket, or a bucket would be all
/// one worker's.
fn worker_of(key: &[u8], workers: usize) -> usize {
    // The remainder is below a usize.
    ((xxh3_64(key) >> 32) % workers.max(1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::Inbox;
    use crate::checkpoint::{self, CommitRequest, Options, RunIdentity, SealPart};
    use bytes::Bytes;

    fn part(epoch: u64, keys: std::ops::Range<u64>) -> SealPart {
        let record = |key| Record {
            key: Bytes::from(format!("k{key}")),
            body: Some(Bytes::from(format!("{epoch:0>5000}"))),
        };
        SealPart {
            source: "s".into(),
            ranges: Vec::new(),
            records: keys.map(record).collect(),
            marks: Default::default(),
        }
    }

    async fn resume(store: &CheckpointStore) -> Resume {
        let identity = RunIdentity {
            job: "job".into(),
            fingerprint: Default::default(),
            processes: 1,
            workers_per_process: 1,
        };
        let options = Options::default();
        let mut run = checkpoint::open(store, &identity, options)
            .await
            .expect("opens");
        let mut seals = Vec::new();
        for (epoch, keys) in [(1, 0..600), (2, 300..900), (3, 0..100), (4, 50..150)] {
            let parts = vec![part(epoch, keys)];
            seals.push(run.seals.write(Epoch(epoch), parts).await.expect("seals"));
        }
        seals.truncate(2);
        let request = CommitRequest {
            epoch: Epoch(2),
            loading: false,
            tokens: Default::default(),
            seals,
            sinks: Default::default(),
            marks: Default::default(),
        };
        run.commits.commit(request).await.expect("commits");
        drop(run);
        let run = checkpoint::open(store, &identity, options)
            .await
            .expect("opens");
        run.resume
    }

    /// With a budget that is smaller than what there is: the loader must wait for the workers, and they for nothing.
    #[tokio::test]
    async fn every_worker_count_gets_everything_once_in_order_within_the_budget() {
        let store = CheckpointStore::in_memory("job");
        let resume = resume(&store).await;
        for workers in [1, 2, 3, 7] {
            let (senders, mut inboxes): (Vec<_>, Vec<_>) =
                (0..workers).map(|_| Inbox::new(1)).unzip();
            let ledger = Ledger::new(Epoch(2), Epoch(4));
            let config = LoadConfig { max_bytes: 1 << 20 };
            let outlets = Outlets::from([("s".to_owned(), senders)]);
            let loading = run(
                resume.clone(),
                store.clone(),
                Loads::ALL,
                outlets,
                config.clone(),
                ledger.clone(),
            );
            let loading = tokio::spawn(loading);
            let mut found: BTreeMap<(Epoch, Bytes), Bytes> = BTreeMap::new();
            let (mut held, mut held_bytes) = (Vec::new(), 0);
            let mut last = vec![Epoch(0); workers];
            let mut open = workers;
            while open > 0 {
                let mut idle = true;
                for (at, inbox) in inboxes.iter_mut().enumerate() {
                    match inbox.try_next() {
                        None => continue,
                        Some(Loaded::All) => open -= 1,
                        Some(Loaded::Records(chunk)) => {
                            assert!(chunk.epoch >= last[at], "epochs never fall");
                            last[at] = chunk.epoch;
                            for record in &chunk.records {
                                let key = (chunk.epoch, record.key.clone());
                                let body = record.body.clone().expect("nothing was removed");
                                assert!(found.insert(key, body).is_none(), "a record came twice");
                                held_bytes += record.size_bytes() as u64;
                            }
                            held.push(chunk);
                        }
                    }
                    idle = false;
                }
                if idle {
                    assert!(
                        held_bytes <= config.max_bytes + (300 << 10),
                        "{held_bytes} held"
                    );
                    (held, held_bytes) = (Vec::new(), 0);
                    assert!(ledger.take_failure().is_none());
                    tokio::task::yield_now().await;
                }
            }
            loading.await.expect("ends");
            assert_eq!(found.len(), 900 + 100 + 100, "{workers} workers");
            for ((epoch, key), body) in &found {
                let number: u64 = String::from_utf8_lossy(&key[1..])
                    .parse()
                    .expect("a number");
                let sealed = match epoch {
                    Epoch(2) if number < 300 => 1,
                    other => other.0,
                };
                assert_eq!(body, &Bytes::from(format!("{sealed:0>5000}")));
            }
        }
    }

    #[tokio::test]
    async fn every_worker_is_told_of_every_epoch_in_order() {
        let store = CheckpointStore::in_memory("job");
        let resume = resume(&store).await;
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| Inbox::new(9)).unzip();
        let ledger = Ledger::new(Epoch(2), Epoch(4));
        let outlets = Outlets::from([(EPOCHS.to_owned(), senders)]);
        let config = LoadConfig::default();
        run(resume, store, Loads::ALL, outlets, config, ledger.clone()).await;
        assert!(ledger.take_failure().is_none());
        for mut inbox in inboxes {
            let mut epochs = Vec::new();
            while let Some(Loaded::Records(chunk)) = inbox.try_next() {
                assert!(chunk.records.is_empty());
                epochs.push(chunk.epoch.0);
            }
            assert_eq!(epochs, [2, 3, 4], "the commit and what is sealed beyond it");
        }
    }

    #[tokio::test]
    async fn a_load_that_fails_fails_the_run_and_names_the_object() {
        let store = CheckpointStore::in_memory("job");
        let resume = resume(&store).await;
        let other = CheckpointStore::in_memory("other");
        let (sender, _inbox) = Inbox::new(1);
        let ledger = Ledger::new(Epoch(2), Epoch(4));
        let outlets = Outlets::from([("s".to_owned(), vec![sender])]);
        let config = LoadConfig::default();
        run(resume, other, Loads::ALL, outlets, config, ledger.clone()).await;
        let report = ledger.take_failure().expect("it is not there").report();
        assert!(
            report.contains("cannot load the checkpoint")
                && report.contains("other/seal/0000000001/"),
            "{report}"
        );
    }
}
