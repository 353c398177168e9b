//! What a source has read, for displays and for whoever asks what holds the job.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tidefeed_runtime::FeedRangeId;
use tidefeed_runtime::stall::Trouble;

use super::figures::{RangeFigures, RangeStatus};

/// What a source has read so far.
#[derive(Debug, Default)]
pub struct SourceCounters {
    /// Changes delivered to workers.
    pub changes: AtomicU64,
    /// Pages with changes.
    pub pages: AtomicU64,
    /// Bytes of keys and documents.
    pub bytes: AtomicU64,
    /// Request units charged, in thousandths.
    pub charge_milli_ru: AtomicU64,
    /// Documents that did not decode and that the run goes on without, those of the checkpoint included.
    pub decode_errors: AtomicU64,
    /// Documents without event time, of a source whose event time is read.
    pub without_event_time: AtomicU64,
    /// The watermark, milliseconds since the UNIX epoch; 0 while there is none.
    pub watermark_ms: AtomicU64,
    /// Of each range that is read now.
    pub(super) ranges: Mutex<BTreeMap<FeedRangeId, Arc<RangeFigures>>>,
}

impl SourceCounters {
    /// So many documents of a range did not decode, and the run goes on without them.
    pub(crate) fn undecodable(&self, range: &FeedRangeId, documents: u64) {
        if let Some(figures) = self.ranges.lock().get(range) {
            figures.undecodable(documents);
        }
    }

    /// What is wrong with the present requests of ranges that are read now.
    pub fn troubles(&self) -> BTreeMap<FeedRangeId, Trouble> {
        let ranges = self.ranges.lock();
        let trouble = |(range, figures): (&FeedRangeId, &Arc<RangeFigures>)| {
            Some((range.clone(), figures.troubles().now()?))
        };
        ranges.iter().filter_map(trouble).collect()
    }

    /// Figures of each feed range that is read now.
    pub fn ranges(&self) -> BTreeMap<FeedRangeId, RangeStatus> {
        let ranges = self.ranges.lock();
        let status = |(range, figures): (&FeedRangeId, &Arc<RangeFigures>)| {
            (range.clone(), figures.status())
        };
        ranges.iter().map(status).collect()
    }
}
