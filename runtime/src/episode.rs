//! Something that happens again and again, told as two lines: one when it begins and one when it is over. Pure: the caller
//! tells the time.
//!
//! Rules:
//!
//! 1. An episode begins with the `least`-th occurrence, if no two of those are `quiet` or more apart: one alone is no news.
//! 2. It is over when there was none for `quiet`. Whoever asks later than that learns of it later; it has lasted until its last
//!    occurrence all the same.

use std::time::Duration;

/// Tells when an episode begins, and when it is over.
#[derive(Clone, Debug)]
pub struct Episode {
    least: u64,
    quiet: Duration,
    /// What has happened without a pause.
    row: Option<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    first: Duration,
    last: Duration,
    count: u64,
    told: bool,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// An episode has begun.
    Begun {
        /// Occurrences so far.
        count: u64,
    },
    /// The episode that was told of is over.
    Over {
        /// From its first occurrence to its last one.
        lasted: Duration,
        /// Its occurrences.
        count: u64,
    },
}

impl Episode {
    /// Of occurrences that are less than `quiet` apart, `least` of them at least.
    pub const fn new(least: u64, quiet: Duration) -> Self {
        Episode {
            least,
            quiet,
            row: None,
        }
    }

    /// It has happened. When the episode before is over and nobody has asked since, that is what is told.
    pub fn happened(&mut self, now: Duration) -> Option<Change> {
        let over = self.look(now);
        let row = self.row.get_or_insert(Row {
            first: now,
            last: now,
            count: 0,
            told: false,
        });
        row.last = now;
        row.count += 1;
        if over.is_some() || row.told || row.count < self.least {
            return over;
        }
        row.told = true;
        Some(Change::Begun { count: row.count })
    }

    /// What has happened last has lasted until now.
    pub fn goes_on(&mut self, now: Duration) {
        if let Some(row) = &mut self.row {
            row.last = row.last.max(now);
        }
    }

    /// Whether the episode is over by now.
    pub fn look(&mut self, now: Duration) -> Option<Change> {
        let quiet = self.quiet;
        let over = |row: &mut Row| now.saturating_sub(row.last) >= quiet;
        let row = self.row.take_if(over)?;
        self.ended(row)
    }

    /// What there was is over, whatever the time.
    pub fn end(&mut self) -> Option<Change> {
        let row = self.row.take()?;
        self.ended(row)
    }

    fn ended(&self, row: Row) -> Option<Change> {
        row.told.then(|| Change::Over {
            lasted: row.last - row.first,
            count: row.count,
        })
    }

    /// When an episode that was told of is over, if nothing happens before.
    pub fn due(&self) -> Option<Duration> {
        let told = self.row.filter(|row| row.told);
        told.map(|row| row.last.saturating_add(self.quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn over(lasted: u64, count: u64) -> Option<Change> {
        let lasted = s(lasted);
        Some(Change::Over { lasted, count })
    }

    #[test]
    fn a_storm_is_two_lines() {
        let mut episode = Episode::new(3, s(5));
        let mut told = Vec::new();
        for ms in 0..20_000 {
            told.extend(episode.happened(Duration::from_millis(ms)));
        }
        assert_eq!(told, [Change::Begun { count: 3 }]);
        assert_eq!(episode.due(), Some(Duration::from_millis(24_999)));
        assert_eq!(episode.look(s(24)), None);
        assert_eq!(
            episode.look(s(25)),
            Some(Change::Over {
                lasted: Duration::from_millis(19_999),
                count: 20_000
            })
        );
        assert_eq!((episode.look(s(26)), episode.due()), (None, None));
    }

    #[test]
    fn what_happens_now_and_then_is_no_episode() {
        let mut episode = Episode::new(3, s(5));
        for time in (0..1000).step_by(5) {
            assert_eq!(episode.happened(s(time)), None, "{time}");
            assert_eq!(episode.due(), None);
        }
        assert_eq!(episode.look(s(2000)), None);
        // Two and a pause, again and again.
        for time in (3000..4000).step_by(10) {
            assert_eq!(episode.happened(s(time)), None);
            assert_eq!(episode.happened(s(time + 1)), None);
        }
    }

    #[test]
    fn an_end_that_nobody_asked_for_comes_with_the_next_occurrence() {
        let mut episode = Episode::new(2, s(5));
        assert_eq!(episode.happened(s(1)), None);
        assert_eq!(episode.happened(s(4)), Some(Change::Begun { count: 2 }));
        assert_eq!(episode.happened(s(100)), over(3, 2));
        assert_eq!(episode.happened(s(101)), Some(Change::Begun { count: 2 }));
        assert_eq!(episode.end(), over(1, 2));
        assert_eq!(episode.end(), None);
    }

    #[test]
    fn one_may_be_enough() {
        let mut episode = Episode::new(1, s(5));
        assert_eq!(episode.happened(s(1)), Some(Change::Begun { count: 1 }));
        assert_eq!(episode.look(s(6)), over(0, 1));
        assert_eq!(episode.happened(s(6)), Some(Change::Begun { count: 1 }));
        // The first occurrence of another is not lost behind the end of the one before: it is told with its second.
        assert_eq!(episode.happened(s(20)), over(0, 1));
        assert_eq!(episode.happened(s(21)), Some(Change::Begun { count: 2 }));
    }
}
