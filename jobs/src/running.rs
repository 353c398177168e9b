//! A job that runs: its figures, and how to end it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidefeed_operators::reader::{RangeStatus, SourceCounters};
use tidefeed_operators::sink::SinkCounters;
use tidefeed_operators::time::watermark::WatermarkParts;
use tidefeed_operators::traffic::TrafficCounters;
use tidefeed_runtime::checkpoint::request::Shape;
use tidefeed_runtime::dataflow::Resumed;
use tidefeed_runtime::{EpochFigures, Error, FeedRangeId, Ledger, Result};

/// What the workers and whoever watches the job share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) sources: BTreeMap<String, Arc<SourceCounters>>,
    pub(crate) sinks: BTreeMap<String, Arc<SinkCounters>>,
    /// Of the sinks whose targets count their requests.
    pub(crate) traffic: BTreeMap<String, Arc<dyn TrafficCounters>>,
    pub(crate) resumed: Resumed,
    /// In which other shape the job is to go on after this run.
    pub(crate) asked: Arc<OnceLock<Shape>>,
}

/// A job that runs.
pub struct RunningJob {
    main: Option<std::thread::JoinHandle<Result<()>>>,
    status: Shared,
}

/// Figures of a running job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobStatus {
    /// Changes read from all sources.
    pub changes_read: u64,
    /// Bytes of those changes.
    pub bytes_read: u64,
    /// Request units charged for reading.
    pub read_ru: f64,
    /// Documents that did not decode and that the job goes on without, those of the checkpoint included.
    pub decode_errors: u64,
    /// Figures of each feed range that is read now, by source.
    pub ranges: BTreeMap<String, BTreeMap<FeedRangeId, RangeStatus>>,
    /// How far each source has come in event time, of those whose event time is read and that have a watermark.
    pub watermarks: BTreeMap<String, WatermarkStatus>,
    /// Figures of each sink.
    pub sinks: BTreeMap<String, SinkStatus>,
    /// Figures of the epochs.
    pub epochs: EpochFigures,
}

/// How far a source has come in event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatermarkStatus {
    /// The watermark, milliseconds since the UNIX epoch.
    pub at_ms: u64,
    /// How far it is behind the clock of this machine; zero if it is ahead.
    pub lag: Duration,
    /// Documents that this run has read and that have no event time: they do not move it.
    pub without_event_time: u64,
}

/// Figures of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SinkStatus {
    /// Documents upserted, created, replaced or patched.
    pub upserts: u64,
    /// Documents deleted.
    pub deletes: u64,
    /// Writes that their own condition turned away, as their strategy wants it.
    pub ignored: u64,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests answered with throttling.
    pub throttled: u64,
    /// Request units charged.
    pub charge_ru: f64,
}

impl SinkStatus {
    pub(crate) fn of(counters: &SinkCounters) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SinkStatus {
            upserts: read(&counters.upserts),
            deletes: read(&counters.deletes),
            ignored: read(&counters.ignored),
            requests: read(&counters.requests),
            throttled: read(&counters.throttled),
            charge_ru: read(&counters.charge_milli_ru) as f64 / 1000.0,
        }
    }
}

impl std::ops::AddAssign for SinkStatus {
    fn add_assign(&mut self, other: Self) {
        self.upserts += other.upserts;
        self.deletes += other.deletes;
        self.ignored += other.ignored;
        self.requests += other.requests;
        self.throttled += other.throttled;
        self.charge_ru += other.charge_ru;
    }
}

impl Shared {
    /// What the watermark of a source is made from, on one worker.
    pub(crate) fn watermark(&self, source: &str) -> WatermarkParts {
        let history = self.resumed.marks.get(source).cloned();
        WatermarkParts {
            source: source.to_owned(),
            resumed: self.ledger.committed_through(),
            history: history.unwrap_or_default(),
            counters: Arc::clone(&self.sources[source]),
        }
    }
}

#[cfg(test)]
impl Shared {
    /// A run of a source `orders` and a sink `view` that have counted so much.
    pub(crate) fn counted(records: u64, upserts: u64) -> Shared {
        let (source, sink) = (SourceCounters::default(), SinkCounters::default());
        source.changes.store(records, Ordering::Relaxed);
        sink.upserts.store(upserts, Ordering::Relaxed);
        Shared {
            ledger: Ledger::new(tidefeed_runtime::Epoch(0), tidefeed_runtime::Epoch(0)),
            sources: [("orders".to_owned(), Arc::new(source))].into(),
            sinks: [("view".to_owned(), Arc::new(sink))].into(),
            traffic: BTreeMap::new(),
            resumed: Resumed::default(),
            asked: Arc::default(),
        }
    }
}

impl RunningJob {
    pub(crate) fn new(main: std::thread::JoinHandle<Result<()>>, status: Shared) -> Self {
        RunningJob {
            main: Some(main),
            status,
        }
    }

    /// Waits until every feed range that starts at now has a durable position, or the job has ended.
    pub(crate) async fn fixed(&self) {
        let ledger = &self.status.ledger;
        let (mut unfixed, mut end) = (ledger.unfixed(), ledger.end());
        // Neither can miss its sender: both are in `self`.
        tokio::select! {
            _ = unfixed.wait_for(|ranges| *ranges == 0) => {}
            _ = end.wait_for(|ended| *ended) => {}
        }
    }

    /// Asks the job, in a cluster all of it, to end once every feed range has delivered all changes made before this call, and all of them are
    /// written and committed.
    pub fn finish_when_caught_up(&self) {
        self.status.ledger.finish();
    }

    /// Ends the job now, in a cluster all of it. What is not committed is repeated by the next run.
    pub fn stop(&self) {
        self.status.ledger.stop();
    }

    /// In which other shape the job is to go on after this run, if that was asked (`JOB rescale`).
    pub fn asked_shape(&self) -> Option<Shape> {
        self.status.asked.get().copied()
    }

    /// True once the job has ended, for good or ill; then [`RunningJob::join`] returns at once.
    pub fn ended(&self) -> bool {
        self.main
            .as_ref()
            .is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// Resolves when the job is to end, for good or ill; it ends soon after.
    pub(crate) async fn over(&self) {
        let mut end = self.status.ledger.end();
        // The sender is in `self`, so it cannot be gone.
        let _ = end.wait_for(|ended| *ended).await;
    }

    /// The error of a job that is over and does not end.
    pub(crate) fn stuck(&self) -> Error {
        let what = "the run is over, and a worker or a task did not end: code of the job may be waiting for something";
        match self.status.ledger.take_failure() {
            Some(failure) => failure.wrap(what),
            None => Error::internal(what),
        }
    }

    /// Figures so far; in a cluster, of what this process does.
    pub fn status(&self) -> JobStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = |of: fn(&SourceCounters) -> &AtomicU64| -> u64 {
            self.status
                .sources
                .values()
                .map(|counters| read(of(counters)))
                .sum()
        };
        JobStatus {
            changes_read: sum(|counters| &counters.changes),
            bytes_read: sum(|counters| &counters.bytes),
            read_ru: sum(|counters| &counters.charge_milli_ru) as f64 / 1000.0,
            decode_errors: sum(|counters| &counters.decode_errors),
            ranges: self
                .status
                .sources
                .iter()
                .map(|(name, counters)| (name.clone(), counters.ranges()))
                .collect(),
            watermarks: self.watermarks(),
            sinks: self
                .status
                .sinks
                .iter()
                .map(|(name, counters)| (name.clone(), SinkStatus::of(counters)))
                .collect(),
            epochs: self.status.ledger.figures(),
        }
    }

    fn watermarks(&self) -> BTreeMap<String, WatermarkStatus> {
        let now = SystemTime::now();
        let status = |(name, counters): (&String, &Arc<SourceCounters>)| {
            let at_ms = counters.watermark_ms.load(Ordering::Relaxed);
            let at = UNIX_EPOCH.checked_add(Duration::from_millis(at_ms));
            let behind = at.and_then(|at| now.duration_since(at).ok());
            let status = WatermarkStatus {
                at_ms,
                lag: behind.unwrap_or_default(),
                without_event_time: counters.without_event_time.load(Ordering::Relaxed),
            };
            (at_ms > 0).then(|| (name.clone(), status))
        };
        self.status.sources.iter().filter_map(status).collect()
    }

    /// Waits for the end of the job.
    ///
    /// # Errors
    /// What ended the job, if it did not end because it was asked to.
    pub fn join(mut self) -> Result<JobStatus> {
        let main = self
            .main
            .take()
            .ok_or_else(|| Error::internal("a job is joined once"))?;
        main.join()
            .map_err(|_| Error::internal("the job's thread panicked"))??;
        Ok(self.status())
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        // A job that nobody watches any more must not go on writing.
        self.status.ledger.stop();
    }
}
