//! Sources and their feed ranges in a report.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tidefeed_operators::reader::{RangeStatus, SourceCounters};
use tidefeed_runtime::FeedRangeId;
use tidefeed_runtime::stall::Trouble;

use super::look::{Rate, millis};
use super::report::{Range, RangeState, Source};

/// What a source has counted.
#[derive(Clone)]
pub(crate) struct SourceLook {
    pub(crate) name: String,
    kind: &'static str,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) ru: f64,
    pub(super) decode_errors: u64,
    pub(super) dead_letters: u64,
    pub(super) watermark_ms: u64,
    pub(super) ranges: BTreeMap<FeedRangeId, RangeLook>,
}

/// A feed range, and what is wrong with its present request.
pub(crate) type RangeLook = (RangeStatus, Option<Trouble>);

/// The feed ranges that a source reads now.
pub(crate) fn ranges(counters: &SourceCounters) -> BTreeMap<FeedRangeId, RangeLook> {
    let mut troubles = counters.troubles();
    let looked = |(range, status)| {
        let trouble = troubles.remove(&range);
        (range, (status, trouble))
    };
    counters.ranges().into_iter().map(looked).collect()
}

impl SourceLook {
    pub(crate) fn of(
        name: &str,
        kind: &'static str,
        counters: &SourceCounters,
        dead_letters: u64,
    ) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SourceLook {
            name: name.to_owned(),
            kind,
            records: read(&counters.changes),
            bytes: read(&counters.bytes),
            ru: read(&counters.charge_milli_ru) as f64 / 1000.0,
            decode_errors: read(&counters.decode_errors),
            dead_letters,
            watermark_ms: read(&counters.watermark_ms),
            ranges: ranges(counters),
        }
    }

    /// With what it counted in earlier runs of this process, so that nothing goes back.
    pub(super) fn after(mut self, past: Option<&SourceLook>) -> Self {
        let Some(past) = past else { return self };
        self.records += past.records;
        self.bytes += past.bytes;
        self.ru += past.ru;
        self.decode_errors += past.decode_errors;
        self.dead_letters += past.dead_letters;
        self
    }
}

pub(super) fn report(
    look: &SourceLook,
    process: u32,
    before: Option<&SourceLook>,
    rate: Rate,
) -> Source {
    let range_before = |range: &FeedRangeId| before?.ranges.get(range).map(|(status, _)| status);
    let ranges = look.ranges.iter().map(|(range, (status, trouble))| {
        of_range(
            range,
            process,
            status,
            trouble.as_ref(),
            range_before(range),
            rate,
        )
    });
    Source {
        name: look.name.clone(),
        kind: look.kind.to_owned(),
        records: look.records,
        records_per_s: rate.of(look.records, before.map(|one| one.records)),
        bytes: look.bytes,
        bytes_per_s: rate.of(look.bytes, before.map(|one| one.bytes)),
        ru: look.ru,
        ru_per_s: rate.of_f64(look.ru, before.map(|one| one.ru)),
        decode_errors: look.decode_errors,
        dead_letters: look.dead_letters,
        watermark_at_ms: (look.watermark_ms > 0).then_some(look.watermark_ms),
        ranges: ranges.collect(),
    }
}

fn of_range(
    range: &FeedRangeId,
    process: u32,
    status: &RangeStatus,
    trouble: Option<&Trouble>,
    before: Option<&RangeStatus>,
    rate: Rate,
) -> Range {
    Range {
        range: range.0.clone(),
        process,
        worker: u32::try_from(status.worker).unwrap_or(u32::MAX),
        state: state(status, trouble),
        trouble: trouble.map(told),
        records: status.changes,
        records_per_s: rate.of(status.changes, before.map(|one| one.changes)),
        ru: status.spent.charge_ru,
        ru_per_s: rate.of_f64(
            status.spent.charge_ru,
            before.map(|one| one.spent.charge_ru),
        ),
        behind_ms: status.behind.map(millis),
        remaining: status.remaining,
        token_age_ms: millis(status.since_moved),
        answered_ms: status.answered.map(millis),
        decode_errors: status.decode_errors,
    }
}

fn state(status: &RangeStatus, trouble: Option<&Trouble>) -> RangeState {
    match trouble {
        Some(Trouble::Failing { .. }) => RangeState::Failing,
        Some(Trouble::Throttled { .. } | Trouble::Budget) => RangeState::Throttled,
        None if status.waits_for_room.is_some() => RangeState::Backpressure,
        None if status.behind.is_some() => RangeState::CaughtUp,
        None => RangeState::Reading,
    }
}

fn told(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Throttled { attempts } => format!("throttled {attempts} times in a row"),
        Trouble::Failing { attempts, error } => {
            format!("failed {attempts} times in a row: {error}")
        }
        Trouble::Budget => "waits for its budget of request units".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_wrong_comes_first() {
        let room = Some(Duration::from_secs(1));
        let waiting = RangeStatus {
            waits_for_room: room,
            behind: room,
            ..RangeStatus::default()
        };
        let failing = Trouble::Failing {
            attempts: 3,
            error: "no answer".to_owned(),
        };
        assert_eq!(state(&waiting, Some(&failing)), RangeState::Failing);
        assert_eq!(
            state(&waiting, Some(&Trouble::Budget)),
            RangeState::Throttled
        );
        assert_eq!(state(&waiting, None), RangeState::Backpressure);
        assert_eq!(state(&RangeStatus::default(), None), RangeState::Reading);
        let quiet = RangeStatus {
            behind: room,
            ..RangeStatus::default()
        };
        assert_eq!(state(&quiet, None), RangeState::CaughtUp);
        assert_eq!(told(&failing), "failed 3 times in a row: no answer");
    }
}
