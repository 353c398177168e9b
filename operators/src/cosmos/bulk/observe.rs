//! What the [`Driver`] measures and logs.

use std::time::Duration;

use tidefeed_runtime::Result;

use super::driver::Driver;
use super::metrics::Exchange;
use super::operation::{Action, Answer, GroupId, Operation, RequestId, Summary};
use super::routing::RangeId;
use super::watchdog::{Notice, Waiting, advice, named};
use super::wire::NoAnswer;
use crate::cosmos::diagnostics::{self, Call, SLOW};
use crate::cosmos::throttling::Throttling;

/// What its calls do, in the log.
const WRITE: &str = "write";

impl Driver {
    pub(super) fn observe(
        &mut self,
        request: RequestId,
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
        self.throttled(range, answer);
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let is_well = matches!(status, 200 | 207 | 429);
        if is_well && exchange.took < SLOW {
            return;
        }
        let container = self.routes.container();
        let call = call(exchange, answer, self.machine.retries(request));
        match is_well {
            true => diagnostics::slow(WRITE, container, range, &call),
            false => diagnostics::failed(WRITE, container, range, &call),
        }
    }

    fn throttled(&mut self, range: &RangeId, answer: &Result<Answer, NoAnswer>) {
        let throttled = answer.as_ref().is_ok_and(Answer::throttled);
        // Only of those that were throttled before is there anything to say.
        if throttled {
            self.throttling.entry(range.clone()).or_default();
        }
        let (now, container) = (self.now(), self.routes.container());
        if let Some(throttling) = self.throttling.get_mut(range) {
            throttling.ended(now, throttled, WRITE, container, range);
        }
    }

    /// Says when throttling is over, also where nothing is written any more. Returns when to look again.
    pub(super) fn look_at_throttling(&mut self) -> Option<Duration> {
        let (now, container) = (self.now(), self.routes.container());
        for (range, throttling) in &mut self.throttling {
            if throttling.due().is_some_and(|due| due <= now) {
                throttling.ended(now, false, WRITE, container, range);
            }
        }
        self.throttling.values().filter_map(Throttling::due).min()
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
                tracing::warn!(
                    event = "writes_again",
                    %container,
                    lasted_s = after.as_secs_f64(),
                    "writes are acknowledged again"
                );
            }
            Some(Notice::Stalled(after)) => {
                let waiting = self.waiting();
                let operations: usize = waiting.iter().map(|one| one.operations).sum();
                let advice = advice(&waiting);
                tracing::warn!(
                    event = "writes_stalled",
                    %container,
                    stalled_s = after.as_secs_f64(),
                    operations,
                    partitions = named(waiting),
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

fn call(exchange: &Exchange, answer: &Result<Answer, NoAnswer>, retries: usize) -> Call {
    let call = Call {
        took: exchange.took,
        retries,
        ..Call::default()
    };
    match answer {
        Ok(answer) => Call {
            status: answer.status,
            sub_status: answer.sub_status,
            activity_id: answer.activity_id.to_string(),
            charge_ru: answer.charge_ru,
            ..call
        },
        Err(_) => call,
    }
}
