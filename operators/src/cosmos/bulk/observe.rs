//! What the [`Driver`] measures and logs.

use tidefeed_runtime::Result;

use super::driver::Driver;
use super::metrics::Exchange;
use super::operation::Answer;
use super::routing::RangeId;
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
}
