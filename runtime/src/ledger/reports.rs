//! What members report of themselves to process 0: texts that only the job understands. No decision of a run depends on one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Ledger;
use crate::cluster::MAX_REPORT_BYTES;

/// The newest report to tell, and the newest that were heard.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Not told yet, in a member.
    to_tell: Mutex<Option<Arc<str>>>,
    /// By process, in process 0.
    heard: Mutex<BTreeMap<u32, Heard>>,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    text: Arc<str>,
}

/// The newest report of a member, in process 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// The member.
    pub process: u32,
    /// Since it was heard.
    pub age: Duration,
    /// What the job of the member has made of it.
    pub text: Arc<str>,
}

impl Ledger {
    /// In a member: process 0 hears this with the next word, which is said at once. One that was not told yet is forgotten, and so
    /// is one that is longer than [`MAX_REPORT_BYTES`]. False then.
    pub fn tell_report(&self, text: Arc<str>) -> bool {
        if text.len() > MAX_REPORT_BYTES {
            return false;
        }
        *self.0.reports.to_tell.lock() = Some(text);
        self.tell_lead();
        true
    }

    /// What is to be told with the next word.
    pub(crate) fn report_to_tell(&self) -> Option<Arc<str>> {
        self.0.reports.to_tell.lock().take()
    }

    /// Takes note of a member's report.
    pub(crate) fn hear_report(&self, process: u32, text: Arc<str>) {
        if text.len() > MAX_REPORT_BYTES {
            return;
        }
        let mut heard = self.0.reports.heard.lock();
        let at = Instant::now();
        heard.insert(process, Heard { at, text });
    }

    /// The newest report of each member that has told one, in process 0.
    pub fn member_reports(&self) -> Vec<MemberReport> {
        let heard = self.0.reports.heard.lock();
        let report = |(process, heard): (&u32, &Heard)| MemberReport {
            process: *process,
            age: heard.at.elapsed(),
            text: Arc::clone(&heard.text),
        };
        heard.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn the_newest_is_told_once_and_what_is_too_long_never() {
        let member = Ledger::new(Epoch(0), Epoch(0));
        member.follow();
        let news = member.news();
        assert!(member.tell_report("one".into()) && member.tell_report("two".into()));
        assert!(news.has_changed().expect("the ledger is there"));
        assert!(!member.tell_report("x".repeat(MAX_REPORT_BYTES + 1).into()));
        assert_eq!(member.report_to_tell().as_deref(), Some("two"));
        assert_eq!(member.report_to_tell(), None);
    }

    #[test]
    fn process_0_knows_the_newest_of_each_member() {
        let lead = Ledger::new(Epoch(0), Epoch(0));
        lead.lead(2);
        for (process, text) in [(1, "a"), (2, "b"), (1, "c")] {
            lead.hear_report(process, text.into());
        }
        lead.hear_report(2, "x".repeat(MAX_REPORT_BYTES + 1).into());
        let known = lead.member_reports();
        let known: Vec<_> = known.iter().map(|one| (one.process, &*one.text)).collect();
        assert_eq!(known, [(1, "c"), (2, "b")]);
    }
}
