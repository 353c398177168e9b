//! Time to live: what a container and its documents say about it, and its end.
//!
//! Nothing runs in the background. Whoever opens a partition first removes what has expired by then, so an expired document
//! is never seen, and a partition that nobody looks at costs nothing.

use std::sync::atomic::Ordering;

use super::container::Container;
use super::document::Version;
use super::environment::StoreError;
use super::history::ChangeKind;
use super::partition::Partition;
use super::shard::Stamp;
use super::transaction::Mutation;
use crate::json::Members;

/// The property by which a document overrides the container's time to live.
const TTL_PROPERTY: &str = "ttl";

/// Expiries that are journaled at once: any number may be due.
const EXPIRIES_PER_RECORD: usize = 1_000;

/// No time to live at all, not even a document's own.
pub(super) const TTL_OFF: i64 = i64::MIN;

impl Container {
    /// Removes what has expired, each document under an LSN of its own, at the second in which it expired.
    pub(super) fn expire(&self, partition: &Partition) -> Result<(), StoreError> {
        let due = partition.next_expiry.load(Ordering::Relaxed);
        if due == u64::from(super::document::NEVER) {
            return Ok(());
        }
        let now = self.environment.clock.now_seconds();
        if due > u64::from(now) {
            return Ok(());
        }
        let mut shard = partition.shard.write();
        let mut stamp = shard.stamp();
        let mut mutations = shard
            .expired(now)
            .into_iter()
            .map(|(expiry, epk, id)| {
                stamp = Stamp {
                    lsn: stamp.lsn + 1,
                    ts: stamp.ts.max(expiry),
                };
                Mutation::Remove {
                    epk,
                    id,
                    kind: ChangeKind::Expire,
                    stamp,
                }
            })
            .peekable();
        while mutations.peek().is_some() {
            let some = mutations.by_ref().take(EXPIRIES_PER_RECORD).collect();
            self.apply(partition, &mut shard, some)?;
        }
        Ok(())
    }

    /// Whether something follows from a document's text besides its place.
    pub(super) fn needs_text(&self) -> bool {
        self.default_ttl.load(Ordering::Relaxed) != TTL_OFF || !self.unique.is_empty()
    }

    pub(super) fn ttl_of_version(&self, version: &Version) -> Option<u32> {
        let text = version.to_json_text();
        self.ttl_of(&Members::parse(&text).ok()?).ok().flatten()
    }

    /// Seconds that a document lives; `None` for ever.
    ///
    /// # Errors
    /// One clause, if its property `ttl` has a value that it may not have.
    pub fn ttl_of(&self, members: &Members<'_>) -> Result<Option<u32>, String> {
        let default = self.default_ttl.load(Ordering::Relaxed);
        if default == TTL_OFF {
            return Ok(None);
        }
        let seconds = match members.find(TTL_PROPERTY).map(|raw| raw.get()) {
            None => default,
            Some(text) => text
                .parse()
                .ok()
                .filter(|ttl| *ttl == -1 || (1..=i64::from(i32::MAX)).contains(ttl))
                .ok_or_else(|| {
                    format!("the ttl {text} is invalid: use a positive number of seconds, or -1")
                })?,
        };
        Ok(u32::try_from(seconds).ok())
    }
}
