//! Looks at a job each second, and once more when it has ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Look;
use super::gather::Gather;
use super::report::Report;
use crate::health::Health;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// The newest report, as JSON. Clones are the same.
#[derive(Clone)]
pub(crate) struct Reporter {
    health: Health,
    newest: Arc<watch::Sender<Bytes>>,
    past: Arc<Mutex<Past>>,
}

/// What a report is told from, beside a look.
#[derive(Default)]
struct Past {
    before: Option<Look>,
    members: Gather,
}

impl Reporter {
    pub(crate) fn new(health: &Health) -> Self {
        let first = Report::of(&health.look(), None);
        Reporter {
            health: health.clone(),
            newest: Arc::new(watch::Sender::new(json(&first))),
            past: Arc::default(),
        }
    }

    /// Looks, for ever.
    pub(crate) async fn run(self) {
        let mut ends = self.health.ends();
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                // How it has ended is told at once: the process may end with it. The sender is in the health.
                _ = ends.changed() => {}
            }
            self.report();
        }
    }

    /// Looks now.
    pub(crate) fn report(&self) {
        let mut past = self.past.lock();
        let look = self.health.look();
        let own = Report::of(&look, past.before.as_ref());
        let report = past.members.whole(own, &look);
        self.newest.send_replace(json(&report));
        past.before = Some(look);
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Bytes {
        self.newest.borrow().clone()
    }

    /// The newest, and each that comes.
    pub(crate) fn follow(&self) -> watch::Receiver<Bytes> {
        self.newest.subscribe()
    }
}

fn json(report: &Report) -> Bytes {
    match serde_json::to_vec(report) {
        Ok(text) => text.into(),
        Err(error) => {
            tracing::debug!(%error, "a report has no JSON form");
            Bytes::from_static(b"{}")
        }
    }
}
