//! The sums of one worker: what its log comes to. No clock, and nothing that is looked up by hash.

use timely::logging::{MessagesEvent, ScheduleEvent, StartStop};

/// What went through one channel, as one worker has seen it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    /// Records that it sent, to whichever worker.
    pub(super) sent: u64,
    /// Of these, to other workers.
    pub(super) sent_to_others: u64,
    /// Records that it took.
    pub(super) received: u64,
    /// Of these, from workers of this process.
    pub(super) received_here: u64,
}

/// Times are nanoseconds since the worker's log began. Operators and channels are numbered by timely from one small range, so both
/// are places in a list.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// The first worker of this process, and how many it has.
    first: usize,
    here: usize,
    worker: usize,
    /// Up to when this is.
    pub(super) at_ns: u64,
    pub(super) parked_ns: u64,
    parked_at_ns: Option<u64>,
    /// By operator, without the operators in it.
    pub(super) own_ns: Vec<u64>,
    /// By channel.
    pub(super) passed: Vec<Passed>,
    /// By channel and worker of this process: what was sent there.
    sent_here: Vec<u64>,
    /// Operators that have ended.
    pub(super) ended: Vec<usize>,
    /// Operators that are being run, the innermost last.
    running: Vec<usize>,
}

impl Clone for Sums {
    fn clone(&self) -> Self {
        let mut sums = Sums::default();
        sums.clone_from(self);
        sums
    }

    /// Into the lists that are there.
    fn clone_from(&mut self, from: &Self) {
        let Sums {
            first,
            here,
            worker,
            at_ns,
            parked_ns,
            parked_at_ns,
            own_ns,
            passed,
            sent_here,
            ended,
            running,
        } = from;
        (self.first, self.here, self.worker) = (*first, *here, *worker);
        (self.at_ns, self.parked_ns) = (*at_ns, *parked_ns);
        self.parked_at_ns = *parked_at_ns;
        self.own_ns.clone_from(own_ns);
        self.passed.clone_from(passed);
        self.sent_here.clone_from(sent_here);
        self.ended.clone_from(ended);
        self.running.clone_from(running);
    }
}

/// The place of a number in a list, which becomes longer where it has none.
fn place<T: Clone + Default>(list: &mut Vec<T>, number: usize) -> &mut T {
    if number >= list.len() {
        list.resize(number + 1, T::default());
    }
    &mut list[number]
}

impl Sums {
    /// Of `worker`, in a process with the workers from `first` on, `here` of them.
    pub(super) fn new(worker: usize, first: usize, here: usize) -> Self {
        Sums {
            worker,
            first,
            here,
            ..Sums::default()
        }
    }

    /// It is so late by now: what went by was the innermost operator's, or nobody's.
    pub(super) fn pass(&mut self, now_ns: u64) {
        if let Some(id) = self.running.last() {
            *place(&mut self.own_ns, *id) += now_ns.saturating_sub(self.at_ns);
        }
        self.at_ns = now_ns;
    }

    pub(super) fn schedule(&mut self, now_ns: u64, event: &ScheduleEvent) {
        self.pass(now_ns);
        match event.start_stop {
            StartStop::Start => self.running.push(event.id),
            StartStop::Stop => {
                self.running.pop();
            }
        }
    }

    pub(super) fn park(&mut self, now_ns: u64) {
        self.parked_at_ns = Some(now_ns);
    }

    pub(super) fn unpark(&mut self, now_ns: u64) {
        if let Some(since) = self.parked_at_ns.take() {
            self.parked_ns += now_ns.saturating_sub(since);
        }
    }

    pub(super) fn message(&mut self, event: &MessagesEvent) {
        let records = u64::try_from(event.record_count).unwrap_or(0);
        let passed = place(&mut self.passed, event.channel);
        if !event.is_send {
            passed.received += records;
            if is_within(event.source, self.first, self.here) {
                passed.received_here += records;
            }
            return;
        }
        passed.sent += records;
        if event.target != self.worker {
            passed.sent_to_others += records;
        }
        if is_within(event.target, self.first, self.here) {
            let at = event.channel * self.here + event.target - self.first;
            *place(&mut self.sent_here, at) += records;
        }
    }

    pub(super) fn shutdown(&mut self, operator: usize) {
        self.ended.push(operator);
    }

    /// What was sent through a channel to a worker of this process, which must be one.
    pub(super) fn sent_to(&self, channel: usize, worker: usize) -> u64 {
        let at = (channel * self.here + worker).checked_sub(self.first);
        at.and_then(|at| self.sent_here.get(at).copied())
            .unwrap_or(0)
    }

    /// How long an operator was at work, without the operators in it.
    pub(super) fn own(&self, operator: usize) -> u64 {
        self.own_ns.get(operator).copied().unwrap_or(0)
    }

    pub(super) fn through(&self, channel: usize) -> Passed {
        self.passed.get(channel).copied().unwrap_or_default()
    }
}

fn is_within(worker: usize, first: usize, here: usize) -> bool {
    worker.checked_sub(first).is_some_and(|at| at < here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_innermost_operators() {
        let mut sums = Sums::new(0, 0, 1);
        for (at, event) in [
            (10, ScheduleEvent::start(1)),
            (12, ScheduleEvent::start(2)),
            (17, ScheduleEvent::stop(2)),
            (18, ScheduleEvent::start(5)),
        ] {
            sums.schedule(at, &event);
        }
        // In the middle of an operator.
        sums.pass(20);
        assert_eq!([1, 2, 5].map(|id| sums.own(id)), [3, 5, 2]);
        sums.schedule(21, &ScheduleEvent::stop(5));
        sums.schedule(25, &ScheduleEvent::stop(1));
        sums.park(30);
        sums.unpark(42);
        sums.pass(50);
        assert_eq!([1, 2, 5, 9].map(|id| sums.own(id)), [7, 5, 3, 0]);
        assert_eq!((sums.parked_ns, sums.at_ns), (12, 50));
    }

    #[test]
    fn only_what_stays_in_the_process_can_be_queued() {
        // Worker 3 of a process with the workers 2 and 3.
        let mut sums = Sums::new(3, 2, 2);
        let mut message = |is_send, source, target, record_count| {
            sums.message(&MessagesEvent {
                is_send,
                channel: 4,
                source,
                target,
                seq_no: 0,
                record_count,
            });
        };
        for target in 0..6 {
            message(true, 3, target, 10 + target as i64);
        }
        message(false, 2, 3, 7);
        message(false, 5, 3, 100);
        let sent: Vec<_> = [2, 3].map(|worker| sums.sent_to(4, worker)).into();
        assert_eq!(sent, [12, 13]);
        let passed = sums.through(4);
        assert_eq!((passed.sent, passed.sent_to_others), (75, 62));
        assert_eq!((passed.received, passed.received_here), (107, 7));
        assert_eq!(sums.through(9).sent, 0);
    }
}
