//! The flow as the pace of a partition.

use std::time::Duration;

use super::super::partition::{Pace, Share};
use super::{Figures, Flow, FlowConfig, Permit, Seen, Sent};

impl Pace for Flow {
    type Config = FlowConfig;
    type Sent = Sent;

    fn new(config: &FlowConfig, share: Share, now: Duration) -> Self {
        let mut flow = Flow::new(config.clone(), share.ru_per_s, now);
        flow.fraction(share.fraction);
        flow
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

    fn share(&mut self, share: Share) {
        self.reference(share.ru_per_s);
        self.fraction(share.fraction);
    }

    fn figures(&self, now: Duration) -> Figures {
        Flow::figures(self, now)
    }
}
