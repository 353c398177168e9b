//! The flow as the pace of a partition.

use std::time::Duration;

use super::super::partition::Pace;
use super::{Flow, FlowConfig, Permit, Seen, Sent};

impl Pace for Flow {
    type Config = FlowConfig;
    type Sent = Sent;

    fn new(config: &FlowConfig, reference: Option<f64>, now: Duration) -> Self {
        Flow::new(config.clone(), reference, now)
    }

    fn permit(&mut self, now: Duration) -> Permit {
        Flow::permit(self, now)
    }

    fn sent(&mut self, now: Duration, operations: usize, bytes: usize) -> Sent {
        Flow::sent(self, now, operations, bytes)
    }

    fn answered(&mut self, now: Duration, sent: Sent, seen: &Seen) {
        Flow::answered(self, now, sent, seen);
    }

    fn reference(&mut self, ru_per_s: Option<f64>) {
        Flow::reference(self, ru_per_s);
    }
}
