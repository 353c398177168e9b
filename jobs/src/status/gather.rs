//! The report of a whole job, in process 0: its own, and what the members have told last. Pure: moments come in.
//!
//! 1. A member that is silent keeps its counts and its last figures. Its state is none, its rates are in no sum, and what has an age
//!    goes on ageing.
//! 2. A process that has begun anew in a member's place counts from 0; what the one before it has counted is added. So no sum goes
//!    back as long as process 0 lives.
//! 3. What is not understood, or does not come, leaves the rest as it is, and is said ([`Process::missing`]).
//!
//! [`Process::missing`]: super::report::Process::missing

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidefeed_runtime::MemberReport;
use tidefeed_runtime::stall::MemberFact;

use super::join::{Part, join};
use super::look::{Look, millis, unix_ms};
use super::report::Report;
use super::told;

/// A report that is older is not of now; one comes each second.
const OLD_MS: u64 = 5_000;

/// What process 0 knows of the members, over all runs that it has seen.
#[derive(Default)]
pub(crate) struct Gather {
    seats: BTreeMap<u32, Seat>,
}

/// What is known of the member with one number.
#[derive(Default)]
struct Seat {
    address: String,
    heard_at_ms: Option<u64>,
    silent: bool,
    /// The newest report, and when it came.
    told: Option<(Arc<str>, u64)>,
    newest: Option<Part>,
    /// What earlier processes in this place have counted.
    past: Part,
    missing: Option<String>,
}

/// What has come of the members by a moment.
struct News<'a> {
    at_ms: u64,
    members: &'a [MemberFact],
    reports: &'a [MemberReport],
    /// Who says nothing for so long is silent.
    silent_after: Duration,
}

impl Gather {
    /// The report of the job, of which `own` is that of this process at a look.
    pub(crate) fn whole(&mut self, own: Report, look: &Look) -> Report {
        let facts = look.facts.as_ref();
        self.note(&News {
            at_ms: unix_ms(look.at),
            members: facts.map_or(&[], |facts| &facts.members),
            reports: &look.told,
            silent_after: look.silent_after,
        });
        self.join(own)
    }

    fn note(&mut self, news: &News<'_>) {
        for seat in self.seats.values_mut() {
            seat.silent = true;
        }
        for member in news.members {
            let seat = self.seats.entry(member.process).or_default();
            seat.address = address(&member.name);
            seat.silent = member.heard.is_none_or(|age| age >= news.silent_after);
            if let Some(age) = member.heard {
                seat.heard_at_ms = Some(news.at_ms.saturating_sub(millis(age)));
            }
        }
        for report in news.reports {
            let seat = self.seats.entry(report.process).or_default();
            seat.hear(report, news.at_ms);
        }
    }

    fn join(&self, own: Report) -> Report {
        let at_ms = own.at_ms;
        let part = |(process, seat): (&u32, &Seat)| seat.part(*process, at_ms);
        let parts: Vec<_> = self.seats.iter().map(part).collect();
        join(own, &parts)
    }
}

impl Seat {
    fn hear(&mut self, report: &MemberReport, at_ms: u64) {
        let known = self.told.as_ref();
        if known.is_some_and(|(text, _)| Arc::ptr_eq(text, &report.text)) {
            return;
        }
        let came_at_ms = at_ms.saturating_sub(millis(report.age));
        self.told = Some((Arc::clone(&report.text), came_at_ms));
        let part = match told::read(&report.text) {
            Ok(part) => part,
            Err(why) => {
                self.missing = Some(why);
                return;
            }
        };
        self.missing = None;
        if let Some(before) = self.newest.take()
            && before.started_at_ms != part.started_at_ms
        {
            self.past.after(&before.ended());
        }
        self.newest = Some(part);
    }

    /// What is known of it now.
    fn part(&self, number: u32, at_ms: u64) -> Part {
        let mut part = self.newest.clone().unwrap_or_default();
        let age_ms = self.told.as_ref().map(|(_, at)| at_ms.saturating_sub(*at));
        if let Some(age_ms) = age_ms.filter(|age| self.silent || *age >= OLD_MS) {
            part.still(age_ms);
        }
        part.after(&self.past);
        let process = &mut part.process;
        process.process = number;
        process.address = Some(self.address.clone()).filter(|address| !address.is_empty());
        process.heard_ms = self.heard_at_ms.map(|at| at_ms.saturating_sub(at));
        if self.silent {
            process.state = None;
        }
        let untold = || (age_ms.is_none()).then(|| "it has not told its figures yet".to_owned());
        let missing = self.missing.clone().or_else(untold);
        process.missing = missing.or_else(|| process.missing.take());
        part
    }
}

/// Without the number, which is told beside.
fn address(name: &str) -> String {
    let address = name.split_once(" at ").map_or(name, |(_, address)| address);
    address.to_owned()
}

#[cfg(test)]
mod tests;
