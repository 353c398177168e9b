//! What has arrived, on its way into an epoch and to the sealer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tidefeed_runtime::checkpoint::SealPart;
use tidefeed_runtime::failpoint::Step;
use tidefeed_runtime::sealer::Part;
use tidefeed_runtime::watermarks::Marks;
use tidefeed_runtime::{ContinuationToken, Epoch, FeedRangeId, RecordRef, Records, Result};

use super::{Attaching, Held, SourceParts};
use crate::enumerator::Released;
use crate::feed::Receipt;
use crate::letters::Undelivered;
use crate::reader::HandedOver;

/// Bytes that are attached in one activation, a few milliseconds of work; the page that crosses it still goes. Measured: with 8 MiB
/// at once everything behind works from outside the cache.
const BYTES_AT_ONCE: u64 = 256 << 10;

/// What is attached to an epoch so far.
pub(super) struct Attached {
    pub(super) epoch: Epoch,
    /// Bytes to attach at most, read when the first page is: the last of the first load may be among these.
    max_bytes: Option<u64>,
    bytes: u64,
    ranges: BTreeMap<FeedRangeId, ContinuationToken>,
    released: Vec<Released>,
    records: Records,
    receipts: Vec<Receipt>,
    pub(super) marks: Marks,
    undecodable: Vec<Undelivered>,
}

pub(super) enum Progress {
    /// There may be more to attach.
    More,
    /// The epoch has what it gets.
    Complete,
}

/// Attaches what has arrived to epochs.
pub(super) struct Attacher<D, F> {
    pub(super) parts: SourceParts,
    pub(super) decode: D,
    /// What becomes of a record.
    pub(super) form: F,
}

impl Attached {
    pub(super) fn new(epoch: Epoch) -> Self {
        Attached {
            epoch,
            max_bytes: None,
            bytes: 0,
            ranges: BTreeMap::new(),
            released: Vec::new(),
            records: Records::new(),
            receipts: Vec::new(),
            marks: Marks::default(),
            undecodable: Vec::new(),
        }
    }

    /// Takes the position after a page, for the range or, where others go on with it, for each of them (I6).
    fn move_on(
        &mut self,
        range: FeedRangeId,
        token: ContinuationToken,
        handed_over: Option<HandedOver>,
    ) {
        let Some(HandedOver {
            parts,
            loading,
            mark,
        }) = handed_over
        else {
            self.ranges.insert(range, token);
            return;
        };
        self.ranges.remove(&range);
        let positions = parts.iter().map(|part| (part.clone(), token.clone()));
        self.ranges.extend(positions);
        for (part, mark) in parts.iter().zip(std::iter::repeat(mark)) {
            if let Some(mark) = mark {
                self.marks.note(part.clone(), mark);
            }
        }
        self.released.push(Released {
            range,
            parts,
            token,
            loading,
        });
    }
}

impl<D, F> Attacher<D, F> {
    /// Takes pages of about [`BYTES_AT_ONCE`] and gives what becomes of their records.
    pub(super) fn attach_some<V, T>(
        &mut self,
        to: &mut Attached,
        mut give: impl FnMut(T),
    ) -> Result<Progress>
    where
        D: Fn(&[u8]) -> Result<V>,
        F: Fn(RecordRef<'_>, Option<V>, u64) -> Option<T>,
    {
        let max_bytes = *to.max_bytes.get_or_insert_with(|| {
            self.parts.ledger.failpoints().before(Step::Attach);
            match self.parts.ledger.loaded() {
                true => self.parts.max_bytes,
                false => self.parts.max_load_bytes,
            }
        });
        let enough = max_bytes.min(to.bytes + BYTES_AT_ONCE);
        while to.bytes < enough {
            let Some(arrival) = self.parts.inbox.try_next() else {
                return Ok(Progress::Complete);
            };
            if arrival.caught_up {
                self.parts.ledger.caught_up(to.epoch);
            }
            if arrival.counts() {
                to.bytes += arrival.bytes;
                self.parts.ledger.page_attached(to.epoch, arrival.bytes);
            }
            let undecodable = self.decode_all(arrival.page.records.iter(), to.epoch, &mut give)?;
            if !undecodable.is_empty() {
                let counters = &self.parts.counters;
                counters.undecodable(&arrival.range, undecodable.len() as u64);
            }
            to.undecodable.extend(undecodable);
            to.records.append(arrival.page.records);
            to.receipts.extend(arrival.page.receipt);
            if let Some(mark) = arrival.mark {
                to.marks.note(arrival.range.clone(), mark);
            }
            to.move_on(arrival.range, arrival.page.token, arrival.handed_over);
        }
        match to.bytes < max_bytes {
            true => Ok(Progress::More),
            false => Ok(Progress::Complete),
        }
    }

    /// Everything that has arrived is attached. The first epoch of a run names the ranges that are read, if they are new.
    pub(super) fn complete(&mut self, attached: &mut Attached) {
        attached.marks.begun = self.parts.begun.take();
    }

    /// Hands records and positions to the sealer, and lets the stream of records pass the epoch.
    pub(super) fn seal(&mut self, complete: Attaching) -> Held {
        let Attached {
            epoch,
            ranges,
            released,
            records,
            receipts,
            marks,
            undecodable,
            ..
        } = complete.attached;
        let ranges: Vec<_> = ranges.into_iter().collect();
        let nothing = ranges.is_empty() && marks.is_empty();
        let seal = (!nothing).then(|| SealPart {
            source: self.parts.name.clone(),
            ranges: ranges.clone(),
            records,
            marks: marks.clone(),
        });
        // The sealer is gone only when the run has failed, and then its failure is already known.
        let _ = self.parts.parts.send(Part { epoch, seal });
        self.parts.ledger.failpoints().after(Step::Attach);
        Held {
            epoch,
            unsealed_cap: complete.unsealed_cap,
            reports_cap: complete.reports_cap,
            released_cap: complete.released_cap,
            undecodable_cap: complete.undecodable_cap,
            ranges,
            receipts,
            released,
            marks,
            undecodable,
        }
    }

    /// Gives what becomes of records, and returns those that do not decode, if the run goes on without them.
    pub(super) fn decode_all<'r, V, T>(
        &self,
        mut records: impl Iterator<Item = RecordRef<'r>>,
        epoch: Epoch,
        mut give: impl FnMut(T),
    ) -> Result<Vec<Undelivered>>
    where
        D: Fn(&[u8]) -> Result<V>,
        F: Fn(RecordRef<'_>, Option<V>, u64) -> Option<T>,
    {
        let mut undecodable = Vec::new();
        records.try_for_each(|record| {
            let value = match record.body.map(&self.decode).transpose() {
                Ok(value) => value,
                Err(error) => {
                    undecodable.push(self.parts.on_decode_error.tell(record, error)?);
                    let counters = &self.parts.counters;
                    counters.decode_errors.fetch_add(1, Ordering::Relaxed);
                    None
                }
            };
            if let Some(row) = (self.form)(record, value, epoch.0) {
                give(row);
            }
            Ok(())
        })?;
        Ok(undecodable)
    }
}
