//! Notices when nothing gets through. Pure: the driver tells the time.
//!
//! It only tells: throttling, faults and outages are waited out, however long that takes. Whoever reads the log learns that a
//! writer stands still, where, and what to do; and later that it goes on.

use std::fmt;
use std::time::Duration;

/// What is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Operations have been under way for so long, and none was acknowledged.
    Stalled(Duration),
    /// Operations are acknowledged again, after so long.
    GoesOn(Duration),
}

/// Watches one writer.
#[derive(Debug)]
pub(crate) struct Watchdog {
    after: Duration,
    /// Since when operations are under way and none was acknowledged.
    since: Option<Duration>,
    /// The next notice comes after so long; each doubles it.
    next: Duration,
    acknowledged: u64,
}

impl Watchdog {
    /// Speaks up after this time.
    pub(crate) fn new(after: Duration) -> Self {
        Watchdog {
            after,
            since: None,
            next: after,
            acknowledged: 0,
        }
    }

    /// To be called after whatever may have changed, and at the time that [`due`](Self::due) says. `acknowledged` counts the
    /// operations that are done since the beginning.
    pub(crate) fn see(
        &mut self,
        now: Duration,
        is_busy: bool,
        acknowledged: u64,
    ) -> Option<Notice> {
        let stalled = self.since.map_or(Duration::ZERO, |since| now - since);
        if acknowledged != self.acknowledged || !is_busy {
            let goes_on = acknowledged != self.acknowledged && self.next > self.after;
            self.acknowledged = acknowledged;
            self.since = is_busy.then_some(now);
            self.next = self.after;
            return goes_on.then_some(Notice::GoesOn(stalled));
        }
        self.since.get_or_insert(now);
        if stalled < self.next {
            return None;
        }
        while self.next <= stalled {
            self.next = self.next.saturating_mul(2);
        }
        Some(Notice::Stalled(stalled))
    }

    /// Since when operations are under way and none was acknowledged, if any are.
    pub(crate) fn since(&self) -> Option<Duration> {
        self.since
    }

    /// When to look again, if nothing happens before.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.since.map(|since| since.saturating_add(self.next))
    }
}

/// A partition in a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Its name.
    pub(crate) partition: String,
    /// Operations for it.
    pub(crate) operations: usize,
    /// How its last failure ended: status and sub-status, status 0 for no answer.
    pub(crate) last_failure: Option<(u16, u32)>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "partition {}: {} operations, ",
            self.partition, self.operations
        )?;
        match self.last_failure {
            None => f.write_str("no failure"),
            Some((0, _)) => f.write_str("last without an answer"),
            Some((status, 0)) => write!(f, "last {status}"),
            Some((status, sub_status)) => write!(f, "last {status}/{sub_status}"),
        }
    }
}

/// Partitions that a notice names.
const NAMED: usize = 5;

/// The partitions of a notice in a line, those with the most operations first.
pub(crate) fn named(mut waiting: Vec<Waiting>) -> String {
    waiting.sort_by(|a, b| (b.operations, &a.partition).cmp(&(a.operations, &b.partition)));
    let more = waiting.len().saturating_sub(NAMED);
    let named = waiting.iter().take(NAMED).map(Waiting::to_string);
    let mut line = named.collect::<Vec<_>>().join("; ");
    if more > 0 {
        line += &format!("; {more} more");
    }
    line
}

/// What to do about it, going by the failures.
pub(crate) fn advice(waiting: &[Waiting]) -> &'static str {
    let failed = |is: fn(u16) -> bool| {
        let mut failures = waiting.iter().filter_map(|one| one.last_failure);
        failures.any(|(status, _)| is(status))
    };
    if failed(|status| matches!(status, 401 | 403)) {
        "check the credential, its role assignment and the account's firewall"
    } else if failed(|status| status == 429) {
        "the container's throughput is used up: raise it, or find out who else uses it"
    } else if failed(|status| status == 0) {
        "check the network between here and the account, and whether the account is available"
    } else {
        "check whether the account is available, and for pauses of this machine"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_speaks_up_after_each_doubling_and_once_when_it_goes_on() {
        let mut dog = Watchdog::new(AFTER);
        assert_eq!((dog.see(s(0), false, 0), dog.due()), (None, None));
        assert_eq!(dog.see(s(10), true, 0), None);
        assert_eq!(dog.due(), Some(s(70)));
        assert_eq!(dog.see(s(69), true, 0), None);
        assert_eq!(dog.see(s(70), true, 0), Some(Notice::Stalled(s(60))));
        assert_eq!((dog.see(s(71), true, 0), dog.due()), (None, Some(s(130))));
        assert_eq!(dog.see(s(130), true, 0), Some(Notice::Stalled(s(120))));
        // Late by more than a doubling: one notice.
        assert_eq!(dog.see(s(1010), true, 0), Some(Notice::Stalled(s(1000))));
        assert_eq!(dog.due(), Some(s(10 + 1920)));
        assert_eq!(dog.see(s(1020), true, 1), Some(Notice::GoesOn(s(1010))));
        assert_eq!(dog.see(s(1021), true, 2), None);
        assert_eq!((dog.since(), dog.due()), (Some(s(1021)), Some(s(1081))));
    }

    #[test]
    fn a_writer_without_work_or_with_acknowledgements_is_not_stalled() {
        let mut dog = Watchdog::new(AFTER);
        for second in 0..1000 {
            assert_eq!(dog.see(s(second), true, second / 59), None, "{second}");
        }
        assert_eq!(dog.see(s(1000), false, 17), None);
        assert_eq!((dog.since(), dog.due()), (None, None));
        assert_eq!(dog.see(s(5000), true, 17), None);
        assert_eq!(dog.see(s(5060), true, 17), Some(Notice::Stalled(s(60))));
        // What was dropped is no acknowledgement.
        assert_eq!(dog.see(s(5061), false, 17), None);
        assert_eq!(dog.see(s(9000), true, 17), None);
        assert_eq!(dog.due(), Some(s(9060)));
    }

    #[test]
    fn a_notice_names_the_partitions_and_what_to_do() {
        let waiting = |n: usize, last_failure| Waiting {
            partition: n.to_string(),
            operations: 100 - n,
            last_failure,
        };
        let few = vec![waiting(2, None), waiting(1, Some((429, 3200)))];
        assert!(advice(&few).contains("throughput"));
        assert_eq!(
            named(few),
            "partition 1: 99 operations, last 429/3200; partition 2: 98 operations, no failure"
        );
        let lost = vec![waiting(0, Some((0, 0))), waiting(1, Some((503, 0)))];
        assert!(advice(&lost).contains("network"));
        assert!(advice(&[waiting(0, Some((403, 0)))]).contains("firewall"));
        assert!(advice(&[]).contains("available"));
        let many = named((0..20).map(|n| waiting(n, Some((0, 0)))).collect());
        assert!(
            many.starts_with("partition 0: 100 operations, last without an answer;"),
            "{many}"
        );
        assert!(many.ends_with("; 15 more"), "{many}");
    }
}
