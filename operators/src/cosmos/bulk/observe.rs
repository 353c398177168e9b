//! What the [`Driver`] measures and logs.

use tidefeed_runtime::Result;

use super::driver::Driver;
use super::metrics::Exchange;
use super::operation::{Action, Answer, GroupId, Operation, Summary};
use super::routing::RangeId;
use super::watchdog::{Notice, Waiting, advice, named};
use super::wire::NoAnswer;

impl Driver {
    pub(super) fn observe(
        &mut self,
        range: &RangeId,
        exchange: &Exchange,
        answer: &Result<Answer, NoAnswer>,
    ) {
        if let Some(metrics) = self
            .shared
            .metrics
            .lock()
            .partitions
            .get_mut(range.as_str())
        {
            metrics.ended(exchange, answer);
        }
        if !self.sampler.takes(self.now(), exchange.took, answer) {
            return;
        }
        let (container, took) = (self.routes.container(), exchange.took);
        let operations = exchange.operations;
        match answer {
            Ok(Answer {
                status,
                sub_status,
                activity_id,
                charge_ru,
                message,
                ..
            }) => tracing::info!(
                %container, %range, operations, ?took, status, sub_status, %activity_id, charge_ru, %message,
                "a request of bulk writes was slow or failed"
            ),
            Err(NoAnswer { lost, error }) => tracing::info!(
                %container, %range, operations, ?took, ?lost, error = %error.report(),
                "a request of bulk writes was not answered"
            ),
        }
    }

    pub(super) fn note_pace(&mut self, range: &RangeId) {
        let mut metrics = self.shared.metrics.lock();
        let metrics = metrics.partitions.get_mut(range.as_str());
        if let (Some(metrics), Some(pace)) = (metrics, self.machine.figures(self.now(), range)) {
            metrics.pace = pace;
        }
    }

    /// Keeps a document of a group until that is acknowledged, if nobody has given advice on the container yet.
    pub(super) fn keep_sample(&mut self, group: GroupId, operations: &[Operation]) {
        if self.sample.is_some() || self.routes.container().is_advised() {
            return;
        }
        let whole = operations.iter().find_map(|one| match &one.action {
            Action::Upsert(body) | Action::Create(body) | Action::Replace(body) => Some(body),
            Action::Delete | Action::Patch { .. } => None,
        });
        self.sample = whole.map(|body| (group, body.clone()));
    }

    /// Says whether writes could be cheaper, once a container that was new holds documents.
    pub(super) fn advise(&mut self, group: GroupId, summary: &Summary) {
        if let Some((_, body)) = self.sample.take_if(|(of, _)| *of == group)
            && summary.written > 0
        {
            self.routes.container().advise(&body);
        }
    }

    /// Says when nothing gets through, and when it goes on.
    pub(super) fn watch(&mut self) {
        let (busy, acknowledged) = (self.machine.is_busy(), self.machine.acknowledged());
        let before = self.watchdog.since();
        let notice = self.watchdog.see(self.now(), busy, acknowledged);
        let since = self.watchdog.since();
        if since != before {
            *self.shared.waiting_since.lock() = since.map(|since| self.start + since);
        }
        let container = self.routes.container();
        match notice {
            None => {}
            Some(Notice::GoesOn(after)) => {
                tracing::warn!(%container, stalled_s = after.as_secs_f64(), "writes are acknowledged again");
            }
            Some(Notice::Stalled(after)) => {
                let waiting = self.waiting();
                let operations: usize = waiting.iter().map(|one| one.operations).sum();
                let advice = advice(&waiting);
                tracing::warn!(
                    %container, stalled_s = after.as_secs_f64(), operations, partitions = named(waiting),
                    "no write was acknowledged, and nothing is dropped: {advice}"
                );
            }
        }
    }

    fn waiting(&self) -> Vec<Waiting> {
        let metrics = self.shared.metrics.lock();
        let waiting = |(range, operations): (RangeId, usize)| Waiting {
            last_failure: metrics
                .partitions
                .get(range.as_str())
                .and_then(|one| one.last_failure),
            partition: range.to_string(),
            operations,
        };
        self.machine.loads().into_iter().map(waiting).collect()
    }
}
