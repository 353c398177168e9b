//! What is asked of a checkpoint store, counted where it is asked: in `store.rs`, which all of the protocol goes through.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::Durations;

/// What a process has done with a checkpoint store: everything below the job's folder, dead letters among it.
#[derive(Clone, Debug, Default)]
pub struct StoreFigures {
    /// Objects created. One that was there already, with the same content or another, is none.
    pub objects_written: u64,
    /// Bytes of those, their frames included.
    pub bytes_written: u64,
    /// Objects deleted.
    pub objects_deleted: u64,
    /// How long it took to create an object, repeated requests included, until it was durable.
    pub writes: Durations,
    /// Commits that name a base of this run's: it holds the collection, instead of what has changed since another.
    pub bases: u64,
    /// When the last of those was durable.
    pub last_base_at: Option<SystemTime>,
}

impl StoreFigures {
    /// With what another has counted, before this one.
    pub fn after(mut self, past: &StoreFigures) -> StoreFigures {
        self.objects_written += past.objects_written;
        self.bytes_written += past.bytes_written;
        self.objects_deleted += past.objects_deleted;
        self.writes.merge(&past.writes);
        self.bases += past.bases;
        self.last_base_at = self.last_base_at.or(past.last_base_at);
        self
    }
}

/// Counted by whoever writes: three additions and a lock for each object, beside a request to the store.
#[derive(Debug, Default)]
pub(super) struct StoreCounters {
    objects_written: AtomicU64,
    bytes_written: AtomicU64,
    objects_deleted: AtomicU64,
    writes: Mutex<Durations>,
    bases: Mutex<(u64, Option<SystemTime>)>,
}

impl StoreCounters {
    /// An object of so many bytes is durable.
    pub(super) fn wrote(&self, bytes: u64, took: Duration) {
        self.objects_written.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.writes.lock().add(took);
    }

    /// An object is gone.
    pub(super) fn deleted(&self) {
        self.objects_deleted.fetch_add(1, Ordering::Relaxed);
    }

    /// A commit that names a new base is durable.
    pub(super) fn based(&self) {
        let mut bases = self.bases.lock();
        *bases = (bases.0 + 1, Some(SystemTime::now()));
    }

    pub(super) fn figures(&self) -> StoreFigures {
        let (bases, last_base_at) = *self.bases.lock();
        StoreFigures {
            objects_written: self.objects_written.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            objects_deleted: self.objects_deleted.load(Ordering::Relaxed),
            writes: self.writes.lock().clone(),
            bases,
            last_base_at,
        }
    }
}
