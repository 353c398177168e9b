//! Writes commits, at most one per interval, each covering everything acknowledged since the one before.
//!
//! Worker 0 sends a request whenever the frontier behind all sinks has passed an epoch in which something changed (I4). While
//! a commit is being written further requests wait; they are merged, so commits never queue up behind a slow store.
//!
//! Now and then it compacts beside the dataflow: when as much was sealed as the last base holds, the collection as of the
//! last commit is written as a new base, and the next commit names it. So the store stays a small multiple of the live
//! collection, and so does the work of a resume. Seals that a run found count too, so short runs one after the other come to
//! a base as well. Garbage is collected beside it too: after the first commit of a run, so that short runs leave nothing
//! behind, when a base has made seals obsolete, and every [`COMMITS_PER_COLLECTION`] commits.

use std::pin::pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::checkpoint::{BaseRef, CommitRequest, CommitWriter, Compaction, GarbageReport, SealRef};
use crate::episode::{Change, Episode};
use crate::line_limit::LineLimit;
use crate::stall::Doing;
use crate::{Context, Epoch, Error, ErrorKind, Ledger, Result};

/// When commits are written and how many are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitConfig {
    /// Shortest time between two commits, milliseconds; default 50, at most 600000; 0 commits each acknowledged batch of epochs.
    /// Larger writes fewer objects; smaller repeats less work after a crash. No view waits for a commit. Default: a commit
    /// costs about as much as a seal, and so there are a tenth as many of them at the shortest epochs.
    pub interval_ms: u64,
    /// Commits kept for inspection and for going back; default 3, 1 to 1000.
    pub retain: usize,
    /// Bytes of seals that are never worth a base, each seal counting as 64 KiB more; default 32 MiB, at least 64 KiB. Larger
    /// compacts less often and resumes slower. Default: a base costs 64 writes, and so much takes 512 seals and commits or more.
    pub compact_min_bytes: u64,
}

impl Default for CommitConfig {
    fn default() -> Self {
        CommitConfig {
            interval_ms: 50,
            retain: 3,
            compact_min_bytes: 32 << 20,
        }
    }
}

impl CommitConfig {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `Config`, naming the field and what is allowed.
    pub fn validate(&self) -> Result<()> {
        if self.interval_ms > 600_000 {
            return Err(Error::new(
                ErrorKind::Config,
                "checkpoint.interval_ms is out of range: allowed is 0 to 600000 milliseconds",
            ));
        }
        if !(1..=1000).contains(&self.retain) {
            return Err(Error::new(
                ErrorKind::Config,
                "checkpoint.retain is out of range: allowed is 1 to 1000 commits",
            ));
        }
        if self.compact_min_bytes < SEAL_OVERHEAD_BYTES {
            return Err(Error::new(
                ErrorKind::Config,
                "checkpoint.compact_min_bytes is out of range: allowed is 65536 bytes or more",
            ));
        }
        Ok(())
    }
}

/// Where the commit operator leaves its requests. Never blocks.
pub type CommitSender = mpsc::UnboundedSender<CommitRequest>;

/// Commits until the sender is gone; then everything requested is durable.
pub async fn run(
    mut requests: mpsc::UnboundedReceiver<CommitRequest>,
    config: CommitConfig,
    mut commits: CommitWriter,
    ledger: Ledger,
) {
    let interval = Duration::from_millis(config.interval_ms);
    let mut compactor = Compactor::resumed(&commits, config);
    let mut next = Instant::now();
    let mut slow = SlowCommits::new();
    while let Some(mut request) = requests.recv().await {
        // What arrives until the next commit is due goes into it. The end of the run ends the wait.
        while let Ok(Some(newer)) = timeout_at(next, requests.recv()).await {
            merge(&mut request, newer);
        }
        next = Instant::now() + interval;
        let epoch = request.epoch;
        let committing = ledger.at_work(Doing::Commit(epoch));
        let written = write(&mut commits, &mut compactor, &ledger, request);
        let written = slow.watch(epoch, written).await;
        drop(committing);
        match written {
            Ok(()) => ledger.committed(epoch, std::time::Instant::now()),
            Err(error) => return ledger.fail(error.wrap(format!("cannot commit epoch {epoch}"))),
        }
    }
}

/// A commit that takes longer is slow: the store usually takes some milliseconds on a disk, and some hundred in a cloud.
const SLOW_COMMIT: Duration = Duration::from_secs(1);
/// Commits are slow no longer when none was for so long. A guess.
const NOT_SLOW_FOR: Duration = Duration::from_secs(10);

/// Tells of commits that are slow: while the first of them is still being written, and when they are slow no longer.
struct SlowCommits {
    episode: Episode,
    began: Instant,
}

impl SlowCommits {
    fn new() -> Self {
        SlowCommits {
            episode: Episode::new(1, NOT_SLOW_FOR),
            began: Instant::now(),
        }
    }

    async fn watch<T>(&mut self, epoch: Epoch, writing: impl Future<Output = T>) -> T {
        let mut writing = pin!(writing);
        if let Ok(written) = timeout(SLOW_COMMIT, &mut writing).await {
            self.tell(epoch, |episode, now| episode.look(now));
            return written;
        }
        self.tell(epoch, Episode::happened);
        let written = writing.await;
        self.episode.goes_on(self.began.elapsed());
        written
    }

    fn tell(&mut self, epoch: Epoch, see: impl Fn(&mut Episode, Duration) -> Option<Change>) {
        match see(&mut self.episode, self.began.elapsed()) {
            None => {}
            Some(Change::Begun { .. }) => tracing::warn!(
                event = "commit_slow",
                epoch = epoch.0,
                slower_than_s = SLOW_COMMIT.as_secs_f64(),
                "a commit takes long: views go on, and what is not committed is repeated after a crash; look at the checkpoint's store"
            ),
            Some(Change::Over { lasted, count }) => tracing::info!(
                event = "commit_slow_end",
                epoch = epoch.0,
                lasted_s = lasted.as_secs_f64(),
                count,
                "commits are fast again"
            ),
        }
    }
}

async fn write(
    commits: &mut CommitWriter,
    compactor: &mut Compactor,
    ledger: &Ledger,
    request: CommitRequest,
) -> Result<()> {
    if let Some(base) = compactor.finished().await? {
        commits.set_base(base)?;
    }
    compactor.sealed(&request.seals, ledger);
    commits.commit(request).await?;
    compactor.collect_now_and_then(commits).await;
    if compactor.due() {
        compactor.start(commits.compaction());
    }
    Ok(())
}

/// Runs one compaction and one collection of garbage at a time, beside the commits.
#[derive(Default)]
struct Compactor {
    config: CommitConfig,
    running: Option<JoinHandle<Result<Option<BaseRef>>>>,
    /// Since the last compaction began.
    seals: u64,
    seal_bytes: u64,
    /// Of the last base of this run.
    base_bytes: u64,
    collecting: Option<JoinHandle<Result<GarbageReport>>>,
    /// The number of commits at which the next collection begins, and the number so far.
    collect_at: u64,
    commits: u64,
}

/// Commits between two collections of garbage, if no new base calls for one; a guess. Fewer spend more time listing, more
/// leave more objects behind.
const COMMITS_PER_COLLECTION: u64 = 64;

/// Each seal costs a file and a read at resume, about as much as so many of its bytes. A guess.
const SEAL_OVERHEAD_BYTES: u64 = 64 * 1024;
/// Seals that call for a base however large the last one is. A guess.
const MAX_SEALS: u64 = 8192;

impl Compactor {
    /// How many bytes the seals have that were found is not known, so as soon as they are worth it by their number, a
    /// compaction looks at them; it ends at once if they are not worth a base.
    fn resumed(commits: &CommitWriter, config: CommitConfig) -> Compactor {
        let (seals, base_bytes) = commits.since_base();
        Compactor {
            config,
            seals,
            seal_bytes: if seals > 0 { base_bytes } else { 0 },
            base_bytes,
            ..Compactor::default()
        }
    }

    /// What is sealed during the first load takes the place of a base.
    fn sealed(&mut self, seals: &[SealRef], ledger: &Ledger) {
        self.seals += seals.len() as u64;
        for seal in seals {
            if ledger.in_first_load(seal.epoch) {
                self.base_bytes += seal.bytes;
            } else {
                self.seal_bytes += seal.bytes;
            }
        }
    }

    /// A base costs what it holds, so it is due when as much was sealed since the last one.
    fn due(&self) -> bool {
        let overhead = self.seals.saturating_mul(SEAL_OVERHEAD_BYTES);
        let sealed = self.seal_bytes.saturating_add(overhead);
        let enough = self.seal_bytes >= self.base_bytes || self.seals >= MAX_SEALS;
        self.running.is_none() && sealed >= self.config.compact_min_bytes && enough
    }

    fn start(&mut self, compaction: Option<Compaction>) {
        if let Some(compaction) = compaction {
            (self.seals, self.seal_bytes) = (0, 0);
            self.running = Some(tokio::spawn(compaction.run()));
        }
    }

    /// A failed collection is logged and tried again later: it does not fail the run.
    async fn collect_now_and_then(&mut self, commits: &CommitWriter) {
        let at = self.commits;
        self.commits += 1;
        let busy = |collecting: &JoinHandle<_>| !collecting.is_finished();
        if at < self.collect_at || self.collecting.as_ref().is_some_and(busy) {
            return;
        }
        self.collect_at = at + COMMITS_PER_COLLECTION;
        if let Some(collecting) = self.collecting.take() {
            match collecting.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => garbage_stays(&error.report()),
                Err(error) => garbage_stays(&error.to_string()),
            }
        }
        self.collecting = commits
            .collection()
            .map(|collection| tokio::spawn(collection.run()));
    }

    /// The base of a compaction that has ended, once.
    async fn finished(&mut self) -> Result<Option<BaseRef>> {
        let Some(running) = self.running.take_if(|running| running.is_finished()) else {
            return Ok(None);
        };
        let base = running
            .await
            .context(ErrorKind::Internal, || "the compaction ended badly")??;
        if let Some(base) = &base {
            self.base_bytes = base.buckets.iter().map(|bucket| bucket.length).sum();
            // By then no commit that is kept needs what the base takes the place of.
            let obsolete = self.commits + self.config.retain as u64;
            self.collect_at = self.collect_at.min(obsolete);
            tracing::info!(
                event = "base",
                epoch = base.epoch.0,
                bytes = self.base_bytes,
                objects = base.buckets.len(),
                "the checkpoint has a new base"
            );
        }
        Ok(base)
    }
}

fn garbage_stays(error: &str) {
    static LIMIT: LineLimit = LineLimit::rarely();
    if let Some(held_back) = LIMIT.take() {
        tracing::warn!(
            event = "garbage_stays",
            error,
            held_back,
            "what the checkpoint no longer needs could not be removed; it is tried again"
        );
    }
}

/// Folds a newer request into an older one: positions and views of the newer, seals of both.
fn merge(request: &mut CommitRequest, newer: CommitRequest) {
    let mut seals = std::mem::take(&mut request.seals);
    seals.extend(newer.seals);
    *request = CommitRequest { seals, ..newer };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;
    use crate::checkpoint::{self, CheckpointStore, Options, RunIdentity, SealPart, Share};
    use crate::{ContinuationToken, FeedRangeId, Record};

    #[tokio::test(start_paused = true)]
    async fn slow_commits_are_one_episode() {
        let mut slow = SlowCommits::new();
        let takes = |ms| tokio::time::sleep(Duration::from_millis(ms));
        slow.watch(Epoch(1), takes(900)).await;
        assert_eq!(slow.episode.due(), None);
        for epoch in 2..5 {
            slow.watch(Epoch(epoch), takes(4000)).await;
        }
        let ended = slow.began.elapsed();
        assert_eq!(slow.episode.due(), Some(ended + NOT_SLOW_FOR));
        for epoch in 5..20 {
            slow.watch(Epoch(epoch), takes(900)).await;
        }
        assert_eq!(slow.episode.due(), None, "it is over");
    }

    /// Commits one by one, overwriting a few documents in thousands of epochs: the store must not keep all of it, and what
    /// it keeps must be the last version of each.
    #[tokio::test]
    async fn a_long_run_keeps_its_store_small() {
        let store = CheckpointStore::in_memory("job");
        let identity = RunIdentity {
            job: "job".into(),
            fingerprint: Default::default(),
            processes: 1,
            workers_per_process: 1,
        };
        let mut run = checkpoint::open(&store, &identity, Options::default())
            .await
            .expect("opens");
        let mut compactor = Compactor {
            config: CommitConfig::default(),
            ..Compactor::default()
        };
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        ledger.complete_load(Epoch(0));
        let mut bases = 0;
        let seals_for_a_base = CommitConfig::default().compact_min_bytes / SEAL_OVERHEAD_BYTES;
        let epochs = 4 * seals_for_a_base;
        for epoch in 1..=epochs {
            let record = Record {
                key: format!("k{}", epoch % 10).into(),
                body: Some(format!("{epoch}").into()),
            };
            let range = (
                FeedRangeId("-FF".into()),
                ContinuationToken(epoch.to_string()),
            );
            let part = SealPart {
                source: "s".into(),
                ranges: vec![range.clone()],
                records: vec![record].into(),
                marks: Default::default(),
            };
            let seal = run
                .seals
                .write(Epoch(epoch), vec![part])
                .await
                .expect("seals");
            // Let a compaction that has begun come to its end: this run has no other way to wait for it.
            while compactor
                .running
                .as_ref()
                .is_some_and(|running| !running.is_finished())
            {
                tokio::task::yield_now().await;
            }
            bases += u64::from(compactor.running.is_some());
            let tokens = [("s".to_owned(), [range].into())].into();
            let request = CommitRequest {
                epoch: Epoch(epoch),
                loading: false,
                tokens,
                seals: vec![seal],
                sinks: Default::default(),
                marks: Default::default(),
            };
            write(&mut run.commits, &mut compactor, &ledger, request)
                .await
                .expect("commits");
        }
        assert!(bases >= 2, "{bases} bases");
        let report = run.commits.collect_garbage().await.expect("collects");
        let left = report.listed - report.deleted;
        assert!(
            left < 2 * seals_for_a_base,
            "{left} objects for 10 documents"
        );
        drop(run);
        let run = checkpoint::open(&store, &identity, Options::default())
            .await
            .expect("opens");
        let mut buckets = run
            .resume
            .buckets(&store, Share::WHOLE)
            .await
            .expect("reads");
        let mut numbers: Vec<u64> = Vec::new();
        while let Some(bucket) = buckets.next().await.expect("reads") {
            let bodies = bucket.sources["s"]
                .iter()
                .filter_map(|record| record.body.as_ref());
            numbers.extend(bodies.map(|body| {
                let body = String::from_utf8_lossy(body);
                body.parse::<u64>().expect("a number")
            }));
        }
        numbers.sort_unstable();
        assert_eq!(numbers, ((epochs - 9)..=epochs).collect::<Vec<_>>());
    }
}
