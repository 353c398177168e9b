//! Processes that are waited for, for others to see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::stall;

/// Whom a process waits for while a cluster assembles. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Mutex<BTreeMap<u32, Waiting>>>);

#[derive(Debug)]
struct Waiting {
    name: String,
    since: Instant,
    why: Option<String>,
}

impl Awaited {
    /// A process is waited for; `why` it was not reached, if that is known. Of one that is waited for already only the reason
    /// changes.
    pub(super) fn wait_for(&self, process: u32, name: &str, why: Option<String>) {
        let mut waiting = self.0.lock();
        let one = waiting.entry(process).or_insert_with(|| Waiting {
            name: name.to_owned(),
            since: Instant::now(),
            why: None,
        });
        one.why = why.or_else(|| one.why.take());
    }

    /// It has come.
    pub(super) fn came(&self, process: u32) {
        self.0.lock().remove(&process);
    }

    /// Whom this process waits for.
    pub fn facts(&self) -> Vec<stall::Awaited> {
        let waiting = self.0.lock();
        let fact = |(process, one): (&u32, &Waiting)| stall::Awaited {
            process: *process,
            name: one.name.clone(),
            since: one.since.elapsed(),
            why: one.why.clone(),
        };
        waiting.iter().map(fact).collect()
    }
}
