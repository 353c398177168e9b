//! A container in memory behind both ports, for tests and examples.
//!
//! It keeps a log per feed range, as the service does: an update moves its document to the end, and a reader sees the newest
//! version only (LatestVersion). Each version has an etag of its own. Documents of one partition key that one
//! [`apply`](Target::apply) writes share a position in the log, and a page never splits them.
//!
//! It also watches its users: it counts writes per key, and notes every write that begins while another one to the same key
//! has not ended (invariant I5), in [`violations`](MemoryContainer::violations). Faults are injected by a seed: the same seed
//! gives the same order of writes and the same failures.

mod outcome;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidefeed_runtime::{ContinuationToken, Error, ErrorKind, FeedRangeId, Record, Result};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::feed::{ChangeFeed, Page, PageStream, Start};
use crate::reconcile::StoredDocument;
use crate::target::{Applied, DocumentWrite, Target};
use outcome::{Outcome, outcome};

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

/// A container in memory. Clones are the same container, each a [`Target`] of its own: closing one closes no other.
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

#[derive(Default)]
struct Log {
    /// What happened, by position and place within the position.
    entries: BTreeMap<(u64, u32), Entry>,
    /// The newest entry of each key.
    newest: HashMap<String, (u64, u32)>,
    last: u64,
}

struct Entry {
    key: String,
    /// Where the partition key is in the key space.
    hash: u64,
    body: Option<Bytes>,
    at: SystemTime,
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
    /// When a patch cannot be carried out; [`apply`](Target::apply) returns an error.
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

    /// Holds back the writes of [`apply`](Target::apply), or lets them go on. A held batch has begun and is not acknowledged;
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

    /// Waits until writes are not held back; an error when this clone is closed, now or meanwhile.
    async fn let_go(&self) -> Result<()> {
        let (mut held, mut closed) = (self.shared.held.subscribe(), self.closed.subscribe());
        // Neither can miss its sender: both are in `self`.
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => {
                Err(Error::internal("the container was closed before the batch was written"))
            }
            _ = held.wait_for(|held| !held) => Ok(()),
        }
    }

    /// Ends the marks of a batch when it ends, even when its future is dropped.
    fn begin(&self, batch: &[DocumentWrite]) -> InFlight {
        let mut state = self.shared.state.lock();
        state.batches += 1;
        let mut keys = Vec::with_capacity(batch.len());
        for write in batch {
            let key = key_of(&write.partition_key, &write.id);
            if state.in_flight.insert(key.clone()) {
                keys.push(key);
            } else {
                let what = format!("{key} was written while another write to it had not ended");
                state.violations.push(what);
            }
        }
        InFlight {
            container: self.clone(),
            keys,
        }
    }
}

struct InFlight {
    container: MemoryContainer,
    keys: Vec<String>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.container.shared.state.lock();
        for key in &self.keys {
            state.in_flight.remove(key);
        }
    }
}

#[async_trait]
impl Target for MemoryContainer {
    async fn is_empty(&self) -> Result<bool> {
        Ok(self.contents().is_empty())
    }

    async fn find(&self, partition_key: &str, id: &str) -> Result<Option<Bytes>> {
        Ok(self.contents().remove(&key_of(partition_key, id)))
    }

    async fn contents(&self) -> Result<Vec<StoredDocument>> {
        let contents = MemoryContainer::contents(self);
        let stored =
            |(key, body): (&String, &Bytes)| StoredDocument::of_record(key.as_bytes(), body);
        contents.iter().map(stored).collect()
    }

    async fn apply(&self, mut batch: Vec<DocumentWrite>) -> Result<Applied> {
        let _in_flight = self.begin(&batch);
        // A real write takes time; others get a turn here.
        tokio::task::yield_now().await;
        self.let_go().await?;
        // From here on nothing waits, so a close comes before all of the writes or after them.
        let failure = {
            let mut state = self.shared.state.lock();
            state.random.shuffle(&mut batch);
            let failure = state.take_failure(FailurePoint::NextBatch);
            if failure.is_some() {
                let written = state.random.below(batch.len() + 1);
                batch.truncate(written);
            }
            failure
        };
        let requests = batch.len() as u64;
        let applied = Applied {
            requests,
            throttled: 0,
            charge_ru: requests as f64,
            ignored: self.write_all(batch)?,
        };
        match failure {
            None => Ok(applied),
            Some(kind) => Err(Error::new(kind, "the batch failed as asked for")),
        }
    }

    fn close(&self) {
        self.closed.send_replace(true);
    }
}

#[async_trait]
impl ChangeFeed for MemoryContainer {
    async fn ranges(&self) -> Result<Vec<FeedRangeId>> {
        Ok(self.shared.state.lock().partitions.clone())
    }

    async fn open(&self, range: &FeedRangeId, start: Start) -> Result<Box<dyn PageStream>> {
        let index = self.index_of(range)?;
        let after = match start {
            Start::Beginning => 0,
            Start::Now => self.shared.state.lock().logs[index].last,
            Start::Time(time) => self.shared.state.lock().logs[index].before(time),
            Start::Token(token) => decode_token(&token, range).ok_or_else(|| {
                Error::new(
                    ErrorKind::Checkpoint,
                    format!("the token for feed range {range} is not one of it"),
                )
            })?,
        };
        Ok(Box::new(MemoryStream {
            container: self.clone(),
            range: range.clone(),
            bounds: range.bounds().unwrap_or_default(),
            index,
            after,
        }))
    }

    fn divide(&self, range: &FeedRangeId, parts: usize) -> Vec<FeedRangeId> {
        range.divide(parts, u64::MAX)
    }
}

struct MemoryStream {
    container: MemoryContainer,
    range: FeedRangeId,
    bounds: (String, String),
    index: usize,
    /// The last position that has been delivered.
    after: u64,
}

#[async_trait]
impl PageStream for MemoryStream {
    async fn next_page(&mut self) -> Result<Page> {
        tokio::task::yield_now().await;
        let mut state = self.container.shared.state.lock();
        if let Some(kind) = state.take_failure(FailurePoint::NextPage) {
            let context = format!("cannot read feed range {}, as asked for", self.range);
            return Err(Error::new(kind, context));
        }
        let log = &state.logs[self.index];
        let page_size = self.container.shared.options.page_size;
        let records = log.page(&mut self.after, page_size, |hash| {
            let hash = format!("{hash:016X}");
            // Hashes fill the space, beyond the name of its end.
            self.bounds.0 <= hash && (hash < self.bounds.1 || self.bounds.1 == "FF")
        });
        Ok(Page {
            caught_up: records.is_empty(),
            records,
            token: ContinuationToken(format!("{}@{}", self.range, self.after)),
            charge_ru: 1.0,
            receipt: None,
        })
    }
}

impl State {
    fn take_failure(&mut self, at: FailurePoint) -> Option<ErrorKind> {
        let index = self.failures.iter().position(|failure| failure.at == at)?;
        Some(self.failures.remove(index).error)
    }
}

impl Log {
    /// A document that is there, and its etag.
    fn document(&self, key: &str) -> Option<(&Bytes, String)> {
        let at @ (position, place) = self.newest.get(key)?;
        let body = self.entries[at].body.as_ref()?;
        Some((body, format!("\"{position}-{place}\"")))
    }

    fn append(&mut self, position: u64, entry: Entry, options: &MemoryOptions) {
        let (key, removed) = (entry.key.clone(), entry.body.is_none());
        let exists = |log: &Log| {
            let newest = log.newest.get(&key);
            newest.is_some_and(|at| log.entries[at].body.is_some())
        };
        if removed && !exists(self) {
            return;
        }
        // LatestVersion: what is overwritten is gone from the feed.
        if let Some(old) = self.newest.remove(&key) {
            self.entries.remove(&old);
        }
        if removed && !options.deletes_in_feed {
            return;
        }
        let place = match self.entries.range(..=(position, u32::MAX)).next_back() {
            Some((&(last, place), _)) if last == position => place + 1,
            _ => 0,
        };
        self.newest.insert(key, (position, place));
        self.entries.insert((position, place), entry);
    }

    /// The last position before `time`.
    fn before(&self, time: SystemTime) -> u64 {
        self.entries
            .iter()
            .find(|(_, entry)| entry.at >= time)
            .map_or(self.last, |((position, _), _)| position - 1)
    }

    /// The records after `after` whose partition key is `within`. `after` moves to the last one's position.
    fn page(&self, after: &mut u64, page_size: usize, within: impl Fn(u64) -> bool) -> Vec<Record> {
        let mut records = Vec::new();
        let rest = (Bound::Excluded((*after, u32::MAX)), Bound::Unbounded);
        for (&(position, _), entry) in self.entries.range(rest) {
            if !within(entry.hash) {
                continue;
            }
            if records.len() >= page_size && position != *after {
                break;
            }
            *after = position;
            records.push(Record {
                key: Bytes::from(entry.key.clone()),
                body: entry.body.clone(),
            });
        }
        records
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

fn decode_token(token: &ContinuationToken, range: &FeedRangeId) -> Option<u64> {
    let (of, position) = token.0.split_once('@')?;
    let covered = FeedRangeId(of.to_owned()).covers(range);
    covered.then(|| position.parse().ok())?
}

/// Small, and the same on every machine.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_tile_the_space_of_hashes() {
        for count in [1, 2, 3, 7] {
            let ids = range_ids(count);
            let bounds: Vec<_> = ids.iter().map(|id| id.0.split_once('-').unwrap()).collect();
            assert_eq!(bounds[0].0, "");
            assert_eq!(bounds[count - 1].1, "FF");
            assert!(bounds.windows(2).all(|pair| pair[0].1 == pair[1].0));
        }
    }

    #[test]
    fn keys_are_json_arrays() {
        assert_eq!(key_of(r#"["a",1]"#, "x\"y"), r#"["a",1,"x\"y"]"#);
    }

    #[test]
    fn a_key_goes_to_the_range_that_its_hash_is_in() {
        let container = MemoryContainer::new(MemoryOptions {
            ranges: 3,
            ..Default::default()
        });
        for n in 0..100 {
            let key = format!("[{n}]");
            let hash = format!("{:016X}", xxh3_64(key.as_bytes()));
            let range = &container.shared.ranges[container.range_of(&key)];
            let (min, max) = range.0.split_once('-').unwrap();
            assert!(min <= hash.as_str() && (max == "FF" || hash.as_str() < max));
        }
    }

    #[tokio::test]
    async fn overlapping_writes_to_one_document_are_noticed() {
        let container = MemoryContainer::new(MemoryOptions::default());
        let write = |id: &str| DocumentWrite::upsert("[1]", id, "{}");
        let (a, b) = tokio::join!(
            container.apply(vec![write("x")]),
            container.apply(vec![write("y")])
        );
        a.unwrap();
        b.unwrap();
        assert_eq!(container.violations(), Vec::<String>::new());
        let (a, b) = tokio::join!(
            container.apply(vec![write("x")]),
            container.apply(vec![write("x")])
        );
        a.unwrap();
        b.unwrap();
        assert_eq!(container.violations().len(), 1);
        container.apply(vec![write("z"), write("z")]).await.unwrap();
        assert_eq!(container.violations().len(), 2);
        assert_eq!(container.writes_of(r#"[1,"x"]"#), 3);
    }

    #[tokio::test]
    async fn a_held_batch_has_begun_and_ends_when_let_go() {
        let container = MemoryContainer::new(MemoryOptions::default());
        container.hold_writes(true);
        let writer = container.clone();
        let task = tokio::spawn(async move {
            let write = DocumentWrite::upsert("[1]", "x", "{}");
            writer.apply(vec![write]).await
        });
        while container.batches() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(container.contents().is_empty());
        container.hold_writes(false);
        task.await.unwrap().unwrap();
        assert_eq!(container.contents().len(), 1);
    }

    #[tokio::test]
    async fn a_held_batch_that_is_closed_is_never_written() {
        let container = MemoryContainer::new(MemoryOptions::default());
        let write = DocumentWrite::upsert("[1]", "x", "{}");
        let writer = Arc::new(container.clone());
        container.hold_writes(true);
        let task = tokio::spawn({
            let (writer, write) = (Arc::clone(&writer), write.clone());
            async move { writer.apply(vec![write]).await }
        });
        while container.batches() == 0 {
            tokio::task::yield_now().await;
        }
        writer.close();
        task.await.unwrap().unwrap_err();
        container.hold_writes(false);
        writer.apply(vec![write.clone()]).await.unwrap_err();
        assert!(container.contents().is_empty());
        container.apply(vec![write]).await.unwrap();
        assert_eq!(container.violations(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_failing_batch_writes_what_the_seed_says() {
        let run = |seed| async move {
            let container = MemoryContainer::new(MemoryOptions {
                seed,
                ..Default::default()
            });
            container.fail_next_batch(ErrorKind::Unreachable);
            let batch = (0..20)
                .map(|n| DocumentWrite::upsert("[1]", n.to_string(), "{}"))
                .collect::<Vec<_>>();
            let error = container.apply(batch.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unreachable);
            let part = container.contents();
            container.apply(batch).await.unwrap();
            assert_eq!(container.contents().len(), 20);
            part
        };
        assert_eq!(run(7).await, run(7).await);
        let mut sizes = HashSet::new();
        for seed in 0..10 {
            sizes.insert(run(seed).await.len());
        }
        assert!(sizes.len() > 3, "{sizes:?}");
    }
}
