//! One physical partition: an interval of keys and the shard that holds them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::meter::Meter;
use super::shard::Shard;
use crate::epk::EpkRange;
use crate::ru::Charge;

/// A physical partition of a container.
#[derive(Debug)]
pub struct Partition {
    /// Partition key range id, as clients name it. Never used again, once the partition is gone.
    pub id: u32,
    /// The keys it owns.
    pub range: EpkRange,
    /// Ids of the partitions that its keys were in before, the oldest first.
    pub parents: Vec<u32>,
    pub(super) shard: RwLock<Shard>,
    /// When the next document expires, so that nobody has to lock to know.
    pub(super) next_expiry: AtomicU64,
    throughput: Mutex<Throughput>,
    limited: AtomicBool,
    moving: AtomicBool,
    consumed: AtomicU64,
    throttled: AtomicU64,
}

/// How much a partition may do. The default is anything.
#[derive(Debug, Default)]
struct Throughput {
    /// Its share of what the container has, in request units per second.
    share: Option<f64>,
    /// What it is limited to in place of its share.
    own: Option<f64>,
    /// None if it is not limited.
    meter: Option<Meter>,
}

impl Throughput {
    /// Makes the meter go by the rate that is in force now; whether there is one.
    fn settle(&mut self, now_ms: u64) -> bool {
        let rate = self.own.or(self.share);
        match (self.meter.as_mut(), rate) {
            (Some(meter), Some(rate)) => meter.set_rate(rate, now_ms),
            (_, rate) => self.meter = rate.map(|rate| Meter::new(rate, now_ms)),
        }
        rate.is_some()
    }
}

impl Partition {
    /// A partition with the documents of `shard`.
    pub fn new(id: u32, range: EpkRange, parents: Vec<u32>, shard: Shard) -> Self {
        let next_expiry = AtomicU64::new(u64::from(shard.next_expiry()));
        Self {
            id,
            range,
            parents,
            shard: RwLock::new(shard),
            next_expiry,
            throughput: Mutex::default(),
            limited: AtomicBool::new(false),
            moving: AtomicBool::new(false),
            consumed: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
        }
    }

    /// LSN of the newest change.
    pub fn lsn(&self) -> u64 {
        self.shard.read().lsn()
    }

    /// Looks at the documents without admission and without expiry: for counting, not for answering.
    pub fn inspect<T>(&self, look: impl FnOnce(&Shard) -> T) -> T {
        look(&self.shard.read())
    }

    /// Whether a client that names this partition is told to look for another: the last moments before a split or merge.
    pub fn is_moving(&self) -> bool {
        self.moving.load(Ordering::Relaxed)
    }

    /// See [`Self::is_moving`].
    pub fn set_moving(&self, moving: bool) {
        self.moving.store(moving, Ordering::Relaxed);
    }

    /// Limits the throughput to a share of the container's, in request units per second; `None` is no limit.
    pub fn share(&self, rate: Option<f64>, now_ms: u64) {
        self.set_throughput(now_ms, |throughput| throughput.share = rate);
    }

    /// Limits the throughput to `rate` request units per second in place of its share; `None` is the share again.
    pub fn limit(&self, rate: Option<f64>, now_ms: u64) {
        self.set_throughput(now_ms, |throughput| throughput.own = rate);
    }

    fn set_throughput(&self, now_ms: u64, change: impl FnOnce(&mut Throughput)) {
        let mut throughput = self.throughput.lock();
        change(&mut throughput);
        let limited = throughput.settle(now_ms);
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// Asks whether a call may run now.
    ///
    /// # Errors
    /// Milliseconds to wait.
    pub fn admit(&self, now_ms: impl FnOnce() -> u64) -> Result<(), u64> {
        if !self.limited.load(Ordering::Relaxed) {
            return Ok(());
        }
        let answer = match self.throughput.lock().meter.as_mut() {
            Some(meter) => meter.admit(now_ms()),
            None => Ok(()),
        };
        if answer.is_err() {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Books what a call cost.
    pub fn consume(&self, charge: Charge) {
        self.consumed
            .fetch_add(charge.hundredths(), Ordering::Relaxed);
        if self.limited.load(Ordering::Relaxed)
            && let Some(meter) = self.throughput.lock().meter.as_mut()
        {
            meter.consume(charge);
        }
    }

    /// Request units consumed so far.
    pub fn consumed(&self) -> f64 {
        self.consumed.load(Ordering::Relaxed) as f64 / 100.0
    }

    /// Calls refused so far because the throughput was used up.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// The session token after the change `lsn`: version 0, one region.
    pub fn session_token(&self, lsn: u64) -> String {
        let mut text = Vec::with_capacity(24);
        crate::json::write_number(&mut text, self.id);
        text.extend_from_slice(b":0#");
        crate::json::write_number(&mut text, lsn);
        text.extend_from_slice(b"#0=");
        crate::json::write_number(&mut text, lsn);
        String::from_utf8(text).unwrap_or_default()
    }

    pub(super) fn note_expiry(&self, shard: &Shard) {
        self.next_expiry
            .store(u64::from(shard.next_expiry()), Ordering::Relaxed);
    }

    pub(super) fn into_shard(self) -> Shard {
        self.shard.into_inner()
    }
}
