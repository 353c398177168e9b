//! Where one feed range stands in event time, as its reader finds out: what it brings, and when it counts as idle. Pure.
//!
//! Idle is a range that was asked and had nothing, for `idle_after`, since its last record. It was *asked*: a range whose reader waits
//! for room, is throttled or is away has not said that it has nothing, and holds the watermark. So a slow job never makes its own
//! input late. And an idle range that has brought something which has to wait for room is told of at once, so that the watermark
//! waits as well.

use std::time::Duration;

use tidefeed_runtime::watermarks::Mark;

/// The event time of one range.
#[derive(Debug)]
pub struct RangeMark {
    idle_after: Duration,
    /// Asked and without anything since then.
    quiet_since: Option<Duration>,
    at_ms: u64,
    /// What was said last. Nothing at first: a reader before this one may have said that the range is idle.
    told: Option<Mark>,
}

impl RangeMark {
    /// A range of which nothing is known.
    pub fn new(idle_after: Duration) -> Self {
        RangeMark {
            idle_after,
            quiet_since: None,
            at_ms: 0,
            told: None,
        }
    }

    /// The range has brought records, after which no time before `at_ms` is expected. Returns what is to be said with them, if
    /// anything has changed.
    pub fn brought(&mut self, at_ms: u64) -> Option<Mark> {
        self.quiet_since = None;
        self.at_ms = self.at_ms.max(at_ms);
        self.tell(false)
    }

    /// The range was asked and had nothing. `now` is monotonic time since any fixed moment. Returns what is to be said, if anything.
    pub fn had_nothing(&mut self, now: Duration) -> Option<Mark> {
        let since = *self.quiet_since.get_or_insert(now);
        match now.saturating_sub(since) >= self.idle_after {
            true => self.tell(true),
            false => None,
        }
    }

    /// Whether the range counts as idle, as far as was said or may have been said before.
    pub fn may_be_idle(&self) -> bool {
        self.told.is_none_or(|told| told.idle)
    }

    /// What was said last.
    pub fn told(&self) -> Option<Mark> {
        self.told
    }

    fn tell(&mut self, idle: bool) -> Option<Mark> {
        let mark = Mark {
            at_ms: self.at_ms,
            idle,
        };
        (self.told.replace(mark) != Some(mark)).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn mark(at_ms: u64, idle: bool) -> Option<Mark> {
        Some(Mark { at_ms, idle })
    }

    #[test]
    fn a_range_is_idle_when_it_has_had_nothing_for_long_enough() {
        let mut range = RangeMark::new(at(5));
        assert!(range.may_be_idle(), "nothing is known");
        assert_eq!(range.brought(700), mark(700, false));
        assert_eq!(range.brought(600), None, "nothing has changed");
        assert!(!range.may_be_idle());
        assert_eq!(range.had_nothing(at(1)), None);
        assert_eq!(range.had_nothing(at(5)), None);
        assert_eq!(range.had_nothing(at(6)), mark(700, true));
        assert_eq!(range.had_nothing(at(7)), None, "that was said");
        // Also what brings no newer time wakes it up, and the time begins anew.
        assert_eq!(range.brought(0), mark(700, false));
        assert_eq!(range.had_nothing(at(8)), None);
        assert_eq!(range.had_nothing(at(12)), None);
        assert_eq!(range.had_nothing(at(13)), mark(700, true));
    }

    /// Between two answers no time counts that nobody asked in: only an answer begins it, and only one ends it.
    #[test]
    fn a_range_that_was_not_asked_is_not_idle() {
        let mut range = RangeMark::new(at(5));
        range.brought(700);
        assert_eq!(range.had_nothing(at(100)), None);
        assert_eq!(range.had_nothing(at(105)), mark(700, true));
    }
}
