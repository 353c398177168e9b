//! What the end of a request does to its operations.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::classify::{Refresh, Subject, Verdict};
use super::config::Poison;
use super::flow::Seen;
use super::groups::Settled;
use super::machine::{Machine, Sent};
use super::operation::{Answer, Lost, Operation, OperationResult, Refusal, RequestId};
use super::order::{Slot, State};
use super::output::{Cause, Letter, LetterId, Output, Stop};
use super::partition::Pace;

/// Failures to connect in a row after which the account is asked where it takes writes.
const FAILOVER_AFTER: u32 = 3;

/// A request that has ended, and what is known so far.
struct Ended<S> {
    sent: Sent<S>,
    now: Duration,
    random: f64,
    activity_id: Box<str>,
    seen: Seen,
    /// Operations to send again at once, in their order.
    back: Vec<Slot>,
}

impl<P: Pace> Machine<P> {
    /// A request was answered. `random` is uniform in `[0, 1)`. What was sent before a stop counts as well.
    pub(crate) fn answered(&mut self, now: Duration, random: f64, id: RequestId, answer: Answer) {
        let Some(sent) = self.sent.remove(&id) else {
            debug_assert!(false, "{id:?} was answered twice");
            return;
        };
        // Before its operations are done, as their group may finish with them.
        if answer.throttled() {
            self.groups.throttled(sent.group);
        }
        let has_results = matches!(answer.status, 200 | 207);
        let is_readable = !has_results || answer.results.len() == sent.slots.len();
        let mut ended = Ended {
            sent,
            now,
            random,
            activity_id: answer.activity_id,
            seen: Seen {
                charge: Some(answer.charge_ru),
                retry_after: answer.retry_after.unwrap_or_default(),
                ..Seen::default()
            },
            back: Vec::new(),
        };
        if !is_readable {
            self.may_have_happened(&mut ended);
        } else if has_results {
            self.each(&mut ended, answer.results);
        } else {
            self.groups.charged(ended.sent.group, answer.charge_ru);
            let refusal = Refusal {
                status: answer.status,
                sub_status: answer.sub_status,
                message: answer.message,
                activity_id: ended.activity_id.clone(),
            };
            self.whole(&mut ended, refusal, answer.retry_after);
        }
        self.end(ended);
    }

    /// A request has ended without an answer.
    pub(crate) fn lost(&mut self, now: Duration, random: f64, id: RequestId, lost: Lost) {
        let Some(sent) = self.sent.remove(&id) else {
            debug_assert!(false, "{id:?} ended twice");
            return;
        };
        let mut ended = Ended {
            sent,
            now,
            random,
            activity_id: "".into(),
            seen: Seen::default(),
            back: Vec::new(),
        };
        match lost {
            Lost::Maybe => self.may_have_happened(&mut ended),
            Lost::Unsent => {
                ended.back.extend(&ended.sent.slots);
                // A connection that was idle for long may be gone: the first failure costs no wait.
                let backoff = self.config.backoff.clone();
                let failures = self.paused(&ended, |failures| match failures {
                    0 => Duration::ZERO,
                    _ => backoff.wait(failures - 1, None, random),
                });
                if failures.is_multiple_of(FAILOVER_AFTER) && failures > 0 {
                    self.want(Refresh::Account);
                }
            }
        }
        self.end(ended);
    }

    /// The dead letter is durable.
    pub(crate) fn letter_put(&mut self, now: Duration, letter: LetterId) {
        if let Some((slot, refusal)) = self.letters.remove(&letter) {
            self.finish(now, slot, Settled::Dead(refusal));
        }
    }

    fn may_have_happened(&mut self, ended: &mut Ended<P::Sent>) {
        ended.seen.charge = None;
        ended.seen.overloaded = true;
        let until = ended.now + self.config.ambiguous_settle;
        for &slot in &ended.sent.slots {
            self.order.ambiguous(slot, until);
        }
        ended.back.extend(&ended.sent.slots);
        self.failed(ended, None);
    }

    /// The operations of an answered batch.
    fn each(&mut self, ended: &mut Ended<P::Sent>, results: Vec<OperationResult>) {
        let slots = std::mem::take(&mut ended.sent.slots);
        let is_alone = slots.len() == 1;
        let mut is_explained = false;
        for (&slot, result) in slots.iter().zip(results) {
            let entry = self.order.get(slot);
            self.groups.charged(entry.group, result.charge_ru);
            let subject = Subject::Operation {
                operation: &entry.operation,
                ambiguous: entry.ambiguous,
            };
            let verdict = self
                .classifier
                .verdict(result.status, result.sub_status, subject);
            is_explained |= verdict != Verdict::Again;
            match verdict {
                Verdict::Done => {
                    self.suspect_since = None;
                    let etag = result.etag;
                    self.finish(ended.now, slot, Settled::Written { etag });
                }
                Verdict::Ignored => self.finish(ended.now, slot, Settled::Ignored),
                _ => self.one(ended, slot, verdict, result, is_alone),
            }
        }
        if is_explained {
            self.recovered(&ended.sent);
        } else {
            // Nobody is to blame, so it would come again at once.
            self.failed(ended, None);
        }
    }

    /// An operation that was not carried out.
    fn one(
        &mut self,
        ended: &mut Ended<P::Sent>,
        slot: Slot,
        verdict: Verdict,
        result: OperationResult,
        is_alone: bool,
    ) {
        let refusal = Refusal {
            status: result.status,
            sub_status: result.sub_status,
            message: result.message.unwrap_or_default(),
            activity_id: ended.activity_id.clone(),
        };
        let asked = result.retry_after;
        match verdict {
            Verdict::Throttled { cut } => {
                ended.seen.throttled(cut, 1, asked);
                ended.back.push(slot);
            }
            Verdict::Retry { ambiguous } => {
                if ambiguous {
                    let until = ended.now + self.config.fault_settle;
                    self.order.ambiguous(slot, until);
                }
                self.retry_later(ended, slot, asked);
            }
            Verdict::Reroute(refresh) => self.reroute(ended, &[slot], refresh),
            Verdict::Renew(refresh) => {
                self.renew(ended, refresh, refusal);
                self.retry_later(ended, slot, asked);
            }
            Verdict::Smaller if !is_alone => {
                self.order.get_mut(slot).company = 1;
                ended.back.push(slot);
            }
            Verdict::Smaller | Verdict::Refused => self.poison(ended.now, slot, refusal),
            Verdict::Fatal => {
                self.fail(ended.now, Cause::Fatal, refusal, None);
                ended.back.push(slot);
            }
            Verdict::Again | Verdict::Done | Verdict::Ignored => ended.back.push(slot),
        }
    }

    /// A request that failed as a whole.
    fn whole(&mut self, ended: &mut Ended<P::Sent>, refusal: Refusal, asked: Option<Duration>) {
        let slots = ended.sent.slots.clone();
        let subject = Subject::Request;
        let verdict = self
            .classifier
            .verdict(refusal.status, refusal.sub_status, subject);
        if !matches!(verdict, Verdict::Reroute(_)) {
            ended.back.extend(&slots);
        }
        match verdict {
            Verdict::Throttled { cut } => ended.seen.throttled(cut, slots.len(), asked),
            Verdict::Retry { ambiguous } => {
                ended.seen.overloaded = ambiguous;
                let until = ended.now + self.config.fault_settle;
                for &slot in slots.iter().filter(|_| ambiguous) {
                    self.order.ambiguous(slot, until);
                }
                self.failed(ended, asked);
            }
            Verdict::Reroute(refresh) => self.reroute(ended, &slots, refresh),
            Verdict::Renew(refresh) => {
                self.renew(ended, refresh, refusal);
                self.failed(ended, asked);
            }
            Verdict::Smaller | Verdict::Refused => {
                ended.seen.too_large = verdict == Verdict::Smaller;
                let half = u8::try_from(slots.len() / 2).unwrap_or(u8::MAX);
                match slots[..] {
                    [slot] => {
                        ended.back.clear();
                        self.poison(ended.now, slot, refusal);
                    }
                    _ => slots
                        .iter()
                        .for_each(|&slot| self.order.get_mut(slot).company = half),
                }
            }
            Verdict::Fatal => self.fail(ended.now, Cause::Fatal, refusal, None),
            Verdict::Again | Verdict::Done | Verdict::Ignored => {
                self.failed(ended, asked);
            }
        }
    }

    /// Tells the pace, and puts back what is to be sent again.
    fn end(&mut self, ended: Ended<P::Sent>) {
        let Ended {
            sent,
            now,
            seen,
            back,
            ..
        } = ended;
        if let Some(partition) = self.partition_of(&sent.range) {
            partition.pace.answered(now, sent.pace, &seen);
        }
        for &slot in back.iter().rev() {
            if self.keep(now, slot) {
                let at = self.order.get(slot).partition;
                self.partitions[at as usize].put_back(slot);
            }
        }
    }

    /// Whether an operation that has come back is to be sent again. If not, it is done.
    fn keep(&mut self, now: Duration, slot: Slot) -> bool {
        let entry = self.order.get_mut(slot);
        let keep = !self.is_ending && self.groups.wants(entry);
        if keep {
            entry.state = State::Ready;
        } else {
            self.finish(now, slot, Settled::Unwritten);
        }
        keep
    }

    /// Pauses the partition. Returns how many failures in a row it has had.
    fn failed(&mut self, ended: &Ended<P::Sent>, asked: Option<Duration>) -> u32 {
        let backoff = self.config.backoff.clone();
        self.paused(ended, |failures| {
            backoff.wait(failures, asked, ended.random)
        })
    }

    fn paused(&mut self, ended: &Ended<P::Sent>, wait: impl FnOnce(u32) -> Duration) -> u32 {
        let partition = self.partition_of(&ended.sent.range);
        partition.map_or(0, |partition| {
            partition.failed(ended.now, ended.sent.at, wait)
        })
    }

    fn recovered(&mut self, sent: &Sent<P::Sent>) {
        if let Some(partition) = self.partition_of(&sent.range) {
            partition.recovered();
        }
    }

    fn retry_later(&mut self, ended: &Ended<P::Sent>, slot: Slot, asked: Option<Duration>) {
        if self.keep(ended.now, slot) {
            let entry = self.order.get_mut(slot);
            let wait = self
                .config
                .backoff
                .wait(entry.attempts, asked, ended.random);
            entry.attempts = entry.attempts.saturating_add(1);
            self.later.push(Reverse((ended.now + wait, slot)));
        }
    }

    /// Holds operations, and the rest of their range, until the map has been read. If it has been since they were sent, they
    /// can go at once.
    fn reroute(&mut self, ended: &mut Ended<P::Sent>, slots: &[Slot], refresh: Refresh) {
        if ended.sent.version < self.version {
            ended.back.extend(slots);
            return;
        }
        self.want(refresh);
        if let Some(partition) = self.partition_of(&ended.sent.range) {
            partition.is_stale = true;
        }
        for &slot in slots {
            if self.keep(ended.now, slot) {
                self.adrift.push(slot);
            }
        }
    }

    /// Has something read again, once. A request that was sent after that and still fails is fatal.
    fn renew(&mut self, ended: &Ended<P::Sent>, refresh: Refresh, refusal: Refusal) {
        match self.suspect_since {
            Some(since) if ended.sent.at > since => {
                self.fail(ended.now, Cause::Fatal, refusal, None);
            }
            Some(_) => {}
            None => {
                self.suspect_since = Some(ended.now);
                match refresh {
                    Refresh::Token => self.out.push(Output::Refresh(Refresh::Token)),
                    _ => {
                        self.want(refresh);
                        let partitions = self.partitions.iter_mut();
                        partitions.for_each(|partition| partition.is_stale = true);
                    }
                }
            }
        }
    }

    /// An operation will never succeed.
    fn poison(&mut self, now: Duration, slot: Slot, refusal: Refusal) {
        let entry = self.order.get_mut(slot);
        match self.config.on_poison {
            Poison::Report => self.finish(now, slot, Settled::Dead(refusal)),
            Poison::DeadLetter { per_minute } if self.letter_rate.take(per_minute, now) => {
                entry.state = State::Letter;
                let id = LetterId(self.letter_count);
                self.letter_count += 1;
                self.out.push(Output::Letter(Letter {
                    id,
                    operation: entry.operation.clone(),
                    refusal: refusal.clone(),
                }));
                self.letters.insert(id, (slot, refusal));
            }
            policy => {
                let cause = match policy {
                    Poison::Fail => Cause::Poison,
                    _ => Cause::TooManyLetters,
                };
                let operation = entry.operation.clone();
                self.fail(now, cause, refusal, Some(operation));
                self.finish(now, slot, Settled::Unwritten);
            }
        }
    }

    fn fail(
        &mut self,
        now: Duration,
        cause: Cause,
        refusal: Refusal,
        operation: Option<Arc<Operation>>,
    ) {
        if self.is_ending {
            return;
        }
        self.close(now);
        self.out.push(Output::Stop(Stop {
            cause,
            refusal,
            operation,
        }));
    }
}

impl Seen {
    fn throttled(&mut self, cut: bool, operations: usize, asked: Option<Duration>) {
        match cut {
            true => self.throttled_ops += operations,
            false => self.refused_ops += operations,
        }
        self.retry_after = self.retry_after.max(asked.unwrap_or_default());
    }
}
