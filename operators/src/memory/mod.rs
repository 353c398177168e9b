//! A container in memory behind both ports, for tests and examples.
//!
//! It keeps a log per feed range, as the service does: an update moves its document to the end, and a reader sees the newest
//! version only (LatestVersion). Each version has an etag of its own. Documents of one partition key that one
//! [`apply`](crate::target::Target::apply) writes share a position in the log, and a page never splits them.
//!
//! It also watches its users: it counts writes per key, and notes every write that begins while another one to the same key
//! has not ended (invariant I5), in [`violations`](MemoryContainer::violations). Faults are injected by a seed: the same seed
//! gives the same order of writes and the same failures.

mod feed;
mod log;
mod outcome;
mod random;
mod target;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tidefeed_runtime::{Error, ErrorKind, FeedRangeId, Result};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use self::log::{Entry, Log};
use self::outcome::{Outcome, outcome};
use self::random::SplitMix64;
use crate::target::DocumentWrite;

/// How a container in memory behaves.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Feed ranges. Default 4.
    pub ranges: usize,
    /// Records of a page, unless more were written at once. Default 100.
    pub page_size: usize,
    /// Whether the feed carries deletes, as records without a body. Default false, as LatestVersion.
    pub deletes_in_feed: bool,
    /// Seeds the order in which a batch's documents are written, and which of them a failing batch writes.
    pub seed: u64,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions {
            ranges: 4,
            page_size: 100,
            deletes_in_feed: false,
            seed: 0,
        }
    }
}

/// A container in memory. Clones are the same container, each a [`Target`](crate::target::Target) of its own: closing one closes no other.
///
/// ```
/// use tidefeed_operators::memory::MemoryContainer;
///
/// let container = MemoryContainer::new(Default::default());
/// container.upsert(r#"["EWR"]"#, "1", r#"{"id":"1"}"#);
/// container.upsert(r#"["EWR"]"#, "1", r#"{"id":"1","late":true}"#);
/// assert_eq!(container.contents()[r#"["EWR","1"]"#], r#"{"id":"1","late":true}"#);
/// assert_eq!(container.writes_of(r#"["EWR","1"]"#), 2);
/// ```
pub struct MemoryContainer {
    shared: Arc<Shared>,
    /// Of this clone alone: the container outlives the runs that write to it.
    closed: watch::Sender<bool>,
}

impl Clone for MemoryContainer {
    fn clone(&self) -> Self {
        Self::over(Arc::clone(&self.shared))
    }
}

struct Shared {
    options: MemoryOptions,
    /// What each log is of.
    ranges: Vec<FeedRangeId>,
    state: Mutex<State>,
    /// True while writes are held back.
    held: watch::Sender<bool>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

struct State {
    logs: Vec<Log>,
    /// The partitions that there are now: the ranges of the logs, or parts of them.
    partitions: Vec<FeedRangeId>,
    writes: HashMap<String, u64>,
    in_flight: HashSet<String>,
    violations: Vec<String>,
    failures: Vec<Failure>,
    batches: u64,
    random: SplitMix64,
}

/// A failure to come.
struct Failure {
    at: FailurePoint,
    error: ErrorKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FailurePoint {
    NextPage,
    NextBatch,
}

impl MemoryContainer {
    /// An empty container.
    pub fn new(options: MemoryOptions) -> Self {
        Self::with_clock(options, SystemTime::now)
    }

    /// An empty container that takes the time of its writes from `clock`.
    pub fn with_clock(
        options: MemoryOptions,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let count = options.ranges.max(1);
        let state = State {
            partitions: range_ids(count),
            logs: (0..count).map(|_| Log::default()).collect(),
            writes: HashMap::new(),
            in_flight: HashSet::new(),
            violations: Vec::new(),
            failures: Vec::new(),
            batches: 0,
            random: SplitMix64(options.seed),
        };
        Self::over(Arc::new(Shared {
            ranges: range_ids(count),
            state: Mutex::new(state),
            held: watch::Sender::new(false),
            clock: Box::new(clock),
            options,
        }))
    }

    fn over(shared: Arc<Shared>) -> Self {
        MemoryContainer {
            shared,
            closed: watch::Sender::new(false),
        }
    }

    /// Writes one document. `partition_key` is a JSON array without spaces.
    pub fn upsert(&self, partition_key: &str, id: &str, body: impl Into<Bytes>) {
        self.write_at_once(vec![DocumentWrite::upsert(partition_key, id, body)]);
    }

    /// Removes one document, if it is there.
    pub fn delete(&self, partition_key: &str, id: &str) {
        self.write_at_once(vec![DocumentWrite::delete(partition_key, id)]);
    }

    /// Writes documents at once: those of one partition key share a position in the feed. Writes that their own condition turns
    /// away change nothing.
    ///
    /// # Panics
    /// When a patch cannot be carried out; [`apply`](crate::target::Target::apply) returns an error.
    pub fn write_at_once(&self, writes: Vec<DocumentWrite>) {
        self.write_all(writes)
            .expect("the caller's patches can be carried out");
    }

    /// Carries out the writes, up to the first that cannot be. Returns how many were ignored.
    fn write_all(&self, writes: Vec<DocumentWrite>) -> Result<u64> {
        let now = (self.shared.clock)();
        let mut state = self.shared.state.lock();
        let mut positions = HashMap::new();
        let mut ignored = 0;
        for write in writes {
            let hash = xxh3_64(write.partition_key.as_bytes());
            let log = &mut state.logs[self.log_of(hash)];
            let key = key_of(&write.partition_key, &write.id);
            let body = match outcome(write.action, log.document(&key)) {
                Ok(Outcome::Body(body)) => body,
                Ok(Outcome::Ignored) => {
                    ignored += 1;
                    continue;
                }
                Err(error) => return Err(error.wrap(key)),
            };
            let position = *positions.entry(write.partition_key).or_insert_with(|| {
                log.last += 1;
                log.last
            });
            let entry = Entry {
                key: key.clone(),
                hash,
                body,
                at: now,
            };
            log.append(position, entry, &self.shared.options);
            *state.writes.entry(key).or_default() += 1;
        }
        Ok(ignored)
    }

    /// The etag of the document with this key; `None` if there is none.
    pub fn etag_of(&self, key: &str) -> Option<String> {
        let state = self.shared.state.lock();
        let mut found = state.logs.iter().filter_map(|log| log.document(key));
        found.next().map(|(_, etag)| etag)
    }

    /// Every document by key, `["EWR","id7"]`.
    pub fn contents(&self) -> BTreeMap<String, Bytes> {
        let state = self.shared.state.lock();
        let mut contents = BTreeMap::new();
        for log in &state.logs {
            for (key, at) in &log.newest {
                if let Some(body) = &log.entries[at].body {
                    contents.insert(key.clone(), body.clone());
                }
            }
        }
        contents
    }

    /// How often the document with this key was written or deleted. Ignored writes do not count.
    pub fn writes_of(&self, key: &str) -> u64 {
        self.shared
            .state
            .lock()
            .writes
            .get(key)
            .copied()
            .unwrap_or(0)
    }

    /// How often any document was written or deleted.
    pub fn writes(&self) -> u64 {
        self.shared.state.lock().writes.values().sum()
    }

    /// Calls of `apply` that have begun.
    pub fn batches(&self) -> u64 {
        self.shared.state.lock().batches
    }

    /// Broken promises of the writers: a key twice in a batch, or a write that began before another to the same key had
    /// ended. Empty when all is well.
    pub fn violations(&self) -> Vec<String> {
        self.shared.state.lock().violations.clone()
    }

    /// Holds back the writes of [`apply`](crate::target::Target::apply), or lets them go on. A held batch has begun and is not acknowledged;
    /// if its target is closed it ends with an error, and nothing of it is written, then or later.
    pub fn hold_writes(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Makes the next `apply` write some of its documents, chosen by the seed, and then fail.
    pub fn fail_next_batch(&self, error: ErrorKind) {
        self.fail(FailurePoint::NextBatch, error);
    }

    /// Makes the next page of any range fail.
    pub fn fail_next_page(&self, error: ErrorKind) {
        self.fail(FailurePoint::NextPage, error);
    }

    fn fail(&self, at: FailurePoint, error: ErrorKind) {
        self.shared
            .state
            .lock()
            .failures
            .push(Failure { at, error });
    }

    /// Splits the partition at this place in the key order into two, from here on.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn split(&self, at: usize) {
        let partitions = &mut self.shared.state.lock().partitions;
        let parts = partitions[at].divide(2, u64::MAX);
        partitions.splice(at..=at, parts);
    }

    /// The log that a partition key of this hash is in.
    fn log_of(&self, hash: u64) -> usize {
        let count = self.shared.ranges.len() as u128;
        ((u128::from(hash) * count) >> 64) as usize
    }

    #[cfg(test)]
    pub(crate) fn range_of(&self, partition_key: &str) -> usize {
        self.log_of(xxh3_64(partition_key.as_bytes()))
    }

    fn index_of(&self, range: &FeedRangeId) -> Result<usize> {
        let ranges = &self.shared.ranges;
        ranges
            .iter()
            .position(|id| id.covers(range))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Checkpoint,
                    format!("feed range {range} is not one of this container"),
                )
            })
    }
}

impl State {
    fn take_failure(&mut self, at: FailurePoint) -> Option<ErrorKind> {
        let index = self.failures.iter().position(|failure| failure.at == at)?;
        Some(self.failures.remove(index).error)
    }
}

/// `["EWR"]` and `7` are `["EWR","7"]`.
fn key_of(partition_key: &str, id: &str) -> String {
    let id = serde_json::Value::from(id);
    match partition_key.strip_suffix(']') {
        Some("[") | None => format!("[{id}]"),
        Some(values) => format!("{values},{id}]"),
    }
}

/// Names in the form of the service's, which tile the space of 64-bit hashes.
fn range_ids(count: usize) -> Vec<FeedRangeId> {
    let bound = |index: usize| match index {
        0 => String::new(),
        _ if index == count => "FF".to_owned(),
        _ => format!("{:016X}", ((index as u128) << 64) / count as u128),
    };
    (0..count)
        .map(|index| FeedRangeId(format!("{}-{}", bound(index), bound(index + 1))))
        .collect()
}

#[cfg(test)]
mod tests;
