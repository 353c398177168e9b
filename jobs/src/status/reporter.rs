//! Looks at a job each second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::gather::Gather;
use super::report::Report;
use crate::health::Health;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// The newest report, as JSON. Clones are the same.
#[derive(Clone)]
pub(crate) struct Reporter(Arc<watch::Sender<Bytes>>);

impl Reporter {
    pub(crate) fn new(health: &Health) -> Self {
        let first = Report::of(&health.look(), None);
        Reporter(Arc::new(watch::Sender::new(json(&first))))
    }

    /// Looks, for ever.
    pub(crate) async fn run(self, health: Health) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = None;
        let mut gather = Gather::default();
        loop {
            every.tick().await;
            let look = health.look();
            let own = Report::of(&look, before.as_ref());
            let report = gather.whole(own, &look);
            self.0.send_replace(json(&report));
            before = Some(look);
        }
    }

    /// The newest.
    pub(crate) fn newest(&self) -> Bytes {
        self.0.borrow().clone()
    }

    /// The newest, and each that comes.
    pub(crate) fn follow(&self) -> watch::Receiver<Bytes> {
        self.0.subscribe()
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
