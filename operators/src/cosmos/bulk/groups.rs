//! What is acknowledged together: counters, nothing for each document.

use slab::Slab;

use super::operation::{GroupId, Refusal, Summary};
use super::order::Entry;

/// What became of one operation.
#[derive(Debug)]
pub(crate) enum Settled {
    Written { etag: Option<Box<str>> },
    Ignored,
    Dead(Refusal),
    Unwritten,
}

#[derive(Debug)]
struct Group {
    id: GroupId,
    /// Operations that it began with, and that are still under way.
    size: usize,
    pending: usize,
    /// Nobody waits for it any more.
    withdrawn: bool,
    summary: Summary,
}

/// The groups with operations under way. An operation names its group by position.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: Slab<Group>,
    finished: Vec<(GroupId, Summary)>,
}

impl Groups {
    /// A new group of `size` operations. One of none is finished at once, and has no position.
    pub(crate) fn open(&mut self, id: GroupId, size: usize) -> Option<usize> {
        let group = Group {
            id,
            size,
            pending: size,
            withdrawn: false,
            summary: Summary::default(),
        };
        if size == 0 {
            self.finished.push((id, group.summary));
            return None;
        }
        Some(self.groups.insert(group))
    }

    /// Nobody waits for this group any more.
    pub(crate) fn withdraw(&mut self, id: GroupId) {
        // Rare enough for a search.
        let mut groups = self.groups.iter_mut();
        if let Some((_, group)) = groups.find(|(_, group)| group.id == id) {
            group.withdrawn = true;
        }
    }

    /// Whether anybody waits for the operation.
    pub(crate) fn wants(&self, entry: &Entry) -> bool {
        let waits = |at: usize| self.groups.get(at).is_some_and(|group| !group.withdrawn);
        waits(entry.group) || entry.superseded.iter().any(|&(at, _)| waits(at))
    }

    /// Counts a request for its first operation's group.
    pub(crate) fn sent(&mut self, at: usize) {
        self.group(at).summary.requests += 1;
    }

    /// Counts a throttled request, or one of whose operations was.
    pub(crate) fn throttled(&mut self, at: usize) {
        self.group(at).summary.throttled += 1;
    }

    /// Counts request units.
    pub(crate) fn charged(&mut self, at: usize, charge_ru: f64) {
        self.group(at).summary.charge_ru += charge_ru;
    }

    /// An operation is done, and those whose place it took.
    pub(crate) fn settle(&mut self, entry: &Entry, how: Settled) {
        let unwritten = matches!(how, Settled::Unwritten);
        let group = self.group(entry.group);
        let summary = &mut group.summary;
        match how {
            Settled::Written { etag } => {
                summary.written += 1;
                if group.size == 1 {
                    summary.etag = etag;
                }
            }
            Settled::Ignored => summary.ignored += 1,
            Settled::Dead(refusal) => {
                summary.dead += 1;
                summary.refusal.get_or_insert_with(|| Box::new(refusal));
            }
            Settled::Unwritten => {
                summary.unwritten += 1;
                summary.uncertain += u64::from(entry.ambiguous);
            }
        }
        self.count_down(entry.group, 1);
        for &(at, count) in &entry.superseded {
            let summary = &mut self.group(at).summary;
            match unwritten {
                true => summary.unwritten += u64::from(count),
                false => summary.superseded += u64::from(count),
            }
            self.count_down(at, count as usize);
        }
    }

    /// So many operations of a group will not even be tried.
    pub(crate) fn refuse(&mut self, at: usize, count: usize) {
        self.group(at).summary.unwritten += count as u64;
        self.count_down(at, count);
    }

    /// The groups that have finished since the last call, without those that were withdrawn.
    pub(crate) fn drain_finished(&mut self) -> impl Iterator<Item = (GroupId, Summary)> {
        self.finished.drain(..)
    }

    fn count_down(&mut self, at: usize, count: usize) {
        let group = self.group(at);
        group.pending -= count;
        if group.pending > 0 {
            return;
        }
        let group = self.groups.remove(at);
        if !group.withdrawn {
            self.finished.push((group.id, group.summary));
        }
    }

    fn group(&mut self, at: usize) -> &mut Group {
        &mut self.groups[at]
    }
}
