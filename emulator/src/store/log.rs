//! The change log of a partition: which document is current as of which LSN.
//!
//! Entries are appended in LSN order, several to an LSN when a batch wrote them. A document has one live entry, its
//! newest; writing or deleting it kills the old one. Dead entries are swept when they outnumber the live ones, so the
//! log's size follows the documents and not the writes, at an amortised cost of O(1) a write.

/// Slot of an entry whose document was overwritten or deleted.
const DEAD: u32 = u32::MAX;

/// Dead entries that are tolerated however few live ones there are.
const SLACK: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Entry {
    lsn: u64,
    ts: u32,
    slot: u32,
}

/// Entries in LSN order, dead ones included.
#[derive(Debug, Default)]
pub struct ChangeLog {
    entries: Vec<Entry>,
    dead: usize,
    /// Times are out of order: partitions with clocks of their own were merged.
    mixed: bool,
}

impl ChangeLog {
    /// Notes that `slot` was written and returns the entry's position. The LSN may not go backwards.
    pub fn append(&mut self, lsn: u64, ts: u32, slot: u32) -> u32 {
        if let Some(last) = self.entries.last() {
            debug_assert!(last.lsn <= lsn);
            self.mixed |= last.ts > ts;
        }
        self.entries.push(Entry { lsn, ts, slot });
        (self.entries.len() - 1) as u32
    }

    /// Marks an entry as overwritten or deleted.
    pub fn kill(&mut self, position: u32) {
        self.entries[position as usize].slot = DEAD;
        self.dead += 1;
    }

    /// Whether [`Self::sweep`] is due.
    pub fn wants_sweep(&self) -> bool {
        self.dead > SLACK + self.entries.len() / 2
    }

    /// Drops dead entries; `moved` is told the new position of every slot.
    pub fn sweep(&mut self, mut moved: impl FnMut(u32, u32)) {
        let live = self.entries.len() - self.dead;
        let mut entries = Vec::with_capacity(live + live / 4 + SLACK);
        entries.extend(
            self.entries
                .iter()
                .filter(|entry| entry.slot != DEAD)
                .copied(),
        );
        for (position, entry) in entries.iter().enumerate() {
            moved(entry.slot, position as u32);
        }
        self.entries = entries;
        self.dead = 0;
    }

    /// Slots in LSN order, of changes after `lsn`.
    pub fn after(&self, lsn: u64) -> impl Iterator<Item = u32> {
        self.live_from(self.entries.partition_point(|entry| entry.lsn <= lsn))
    }

    /// Slots in LSN order, of changes at `ts` or later. Costs a look at every change if times are out of order.
    pub fn since(&self, ts: u32) -> impl Iterator<Item = u32> {
        let start = if self.mixed {
            0
        } else {
            self.entries.partition_point(|entry| entry.ts < ts)
        };
        self.entries[start..]
            .iter()
            .filter(move |entry| entry.slot != DEAD && entry.ts >= ts)
            .map(|entry| entry.slot)
    }

    fn live_from(&self, start: usize) -> impl Iterator<Item = u32> {
        self.entries[start..]
            .iter()
            .filter(|entry| entry.slot != DEAD)
            .map(|entry| entry.slot)
    }

    /// Bytes held.
    pub fn footprint(&self) -> usize {
        self.entries.capacity() * std::mem::size_of::<Entry>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_keeps_order_and_tells_positions() {
        let mut log = ChangeLog::default();
        let mut position_of = [0; 8];
        for lsn in 1..=2_000u64 {
            let slot = (lsn % 8) as u32;
            if lsn > 8 {
                log.kill(position_of[slot as usize]);
            }
            position_of[slot as usize] = log.append(lsn, lsn as u32 / 10, slot);
            if log.wants_sweep() {
                log.sweep(|slot, position| position_of[slot as usize] = position);
            }
            assert!(log.entries.len() <= 2 * (SLACK + 8) + 2);
        }
        assert_eq!(log.after(0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 0]);
        assert_eq!(log.after(1_998).collect::<Vec<_>>(), [7, 0]);
        assert_eq!(log.since(200).collect::<Vec<_>>(), [0]);
        assert_eq!(log.after(2_000).count(), 0);
    }
}
