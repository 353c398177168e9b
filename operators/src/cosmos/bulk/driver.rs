//! The task that joins protocol, connections and callers.
//!
//! It owns the [`Machine`] and does what that says: requests, readings of the map and dead letters are tasks of their own, whose
//! ends come back here. It ends when all writers are gone and nothing is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidefeed_runtime::{Error, ErrorKind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::admission::{Admission, Places};
use super::calls::{Call, Shared, Submission};
use super::classify::Refresh;
use super::flow::Flow;
use super::machine::Machine;
use super::metrics::Exchange;
use super::operation::{Answer, GroupId, Lost, Request, RequestId, Summary};
use super::output::{Letter, LetterId, Output};
use super::routes::Routes;
use super::routing::{RangeId, RoutingMap};
use super::stop::Reason;
use super::watchdog::Watchdog;
use super::wire::NoAnswer;
use crate::cosmos::retry::random;
use crate::cosmos::throttling::Throttling;

/// How often the container's throughput is read again.
const THROUGHPUT_EVERY: Duration = Duration::from_secs(60);

/// The end of a task.
enum Event {
    Ended {
        request: RequestId,
        range: RangeId,
        exchange: Exchange,
        answer: Result<Answer, NoAnswer>,
    },
    Map(Result<RoutingMap>),
    Renewed,
    Letter(LetterId, Result<()>),
    Throughput(Option<f64>),
}

pub(super) struct Driver {
    pub(super) machine: Machine<Flow>,
    pub(super) routes: Arc<Routes>,
    pub(super) shared: Arc<Shared>,
    pub(super) start: Instant,
    admission: Admission<Submission>,
    tasks: JoinSet<Event>,
    groups: u64,
    /// Who waits for the groups under way, in the order in which they came in.
    open: BTreeMap<GroupId, oneshot::Sender<Result<Summary>>>,
    /// Flushes, with the first group that they do not wait for.
    flushes: Vec<(GroupId, oneshot::Sender<Result<Summary>>)>,
    /// What became of all groups since the last flush.
    since_flush: Summary,
    /// Of partitions that were throttled.
    pub(super) throttling: BTreeMap<RangeId, Throttling>,
    pub(super) watchdog: Watchdog,
    /// A document of a group under way, to give advice on: a container that was empty at the start had none.
    pub(super) sample: Option<(GroupId, Bytes)>,
    is_broken: bool,
    outputs: Vec<Output>,
}

/// What a driver begins with.
pub(super) struct Parts {
    pub(super) machine: Machine<Flow>,
    pub(super) max_buffered_bytes: usize,
    pub(super) stalled_after: Duration,
    pub(super) routes: Arc<Routes>,
    pub(super) shared: Arc<Shared>,
    pub(super) start: Instant,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        Driver {
            machine: parts.machine,
            routes: parts.routes,
            shared: parts.shared,
            start: parts.start,
            admission: Admission::new(parts.max_buffered_bytes),
            tasks: JoinSet::new(),
            groups: 0,
            open: BTreeMap::new(),
            flushes: Vec::new(),
            since_flush: Summary::default(),
            throttling: BTreeMap::new(),
            watchdog: Watchdog::new(parts.stalled_after),
            sample: None,
            is_broken: false,
            outputs: Vec::new(),
        }
    }

    /// Runs until all callers are gone and nothing is under way.
    pub(super) async fn run(mut self, mut calls: mpsc::UnboundedReceiver<Call>) {
        self.watch_throughput();
        let mut has_callers = true;
        loop {
            let wake = self.step();
            self.watch();
            let look = self.look_at_throttling();
            let wake = wake.into_iter().chain(self.watchdog.due());
            let wake = wake.chain(look).min();
            let is_idle = self.machine.is_idle() && self.admission.is_empty();
            if self.is_broken || !has_callers && is_idle {
                return;
            }
            let wake = wake.map(|wake| self.start + wake);
            tokio::select! {
                call = calls.recv(), if has_callers => match call {
                    Some(call) => self.called(call),
                    None => has_callers = false,
                },
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                () = sleep_until(wake.unwrap_or(self.start)), if wake.is_some() => {}
            }
            // One step for all that is there.
            while let Ok(call) = calls.try_recv() {
                self.called(call);
            }
            while let Some(ended) = self.tasks.try_join_next() {
                self.ended(ended);
            }
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lets in what there is room for, and does what is due. Returns when to come again.
    fn step(&mut self) -> Option<Duration> {
        loop {
            self.admit();
            let wake = self.machine.poll(self.now(), &mut self.outputs);
            if self.outputs.is_empty() {
                self.answer_flushes();
                return wake;
            }
            for output in std::mem::take(&mut self.outputs) {
                self.act(output);
            }
        }
    }

    fn admit(&mut self) {
        while !self.admission.is_empty()
            && let Some(submission) = self.admission.next(&self.machine.held())
        {
            self.come_in(submission);
        }
    }

    fn come_in(&mut self, submission: Submission) {
        let group = GroupId(self.groups);
        if submission.admitted.send(group).is_err() {
            return;
        }
        self.groups += 1;
        self.open.insert(group, submission.done);
        self.keep_sample(group, &submission.operations);
        self.machine
            .submit(self.now(), group, submission.operations);
        if !submission.more_follows {
            self.machine.hurry();
        }
    }

    fn called(&mut self, call: Call) {
        match call {
            // What nobody sends any more needs no room.
            Call::Submit(submission) if self.shared.reason.lock().is_some() => {
                self.come_in(submission);
            }
            Call::Submit(submission) => {
                let places = places(&self.machine, &submission);
                let bytes = submission.bytes;
                self.admission.push(submission, bytes, places);
            }
            Call::Withdraw(group) => {
                if self.open.remove(&group).is_some() {
                    self.machine.withdraw(self.now(), group);
                }
            }
            Call::Flush(done) => self.flushes.push((GroupId(self.groups), done)),
            Call::Close => self.close(Reason::closed()),
        }
    }

    /// Nothing more is sent. What waits for room comes in, so that it is answered.
    fn close(&mut self, reason: Reason) {
        self.shared.reason.lock().get_or_insert(reason);
        self.machine.close(self.now());
        self.let_all_in();
    }

    /// [`close`](Self::close) that waits for no dead letters.
    fn stop(&mut self, reason: Reason) {
        self.shared.reason.lock().get_or_insert(reason);
        self.machine.stop(self.now());
        self.let_all_in();
    }

    fn let_all_in(&mut self) {
        let waiting: Vec<_> = self.admission.drain().collect();
        waiting.into_iter().for_each(|one| self.come_in(one));
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send(request) => self.send(request),
            Output::Refresh(Refresh::Token) => {
                let routes = self.routes.clone();
                self.tasks.spawn(async move {
                    routes.renew_credentials().await;
                    Event::Renewed
                });
            }
            Output::Refresh(refresh) => {
                let routes = self.routes.clone();
                let map = async move { Event::Map(routes.map(refresh).await) };
                self.tasks.spawn(map);
            }
            Output::Letter(letter) => self.put_letter(letter),
            Output::Finished(group, summary) => self.finished(group, summary),
            Output::Stop(stop) => self.close(Reason::of(&stop, self.routes.container())),
        }
    }

    fn put_letter(&mut self, letter: Letter) {
        let Some(letters) = self.shared.letters.get().cloned() else {
            let id = &letter.operation.key.id;
            let what = format!("document {id} was refused, and there is no place for dead letters");
            return self.stop(Reason::error(&Error::new(ErrorKind::Config, what)));
        };
        self.tasks.spawn(async move {
            let put = letters.put(&letter).await;
            Event::Letter(letter.id, put)
        });
    }

    fn send(&mut self, request: Request) {
        self.shared.metrics.lock().sent(request.range.as_str());
        let routes = self.routes.clone();
        self.tasks.spawn(async move {
            let start = Instant::now();
            let answer = routes.send(&request).await;
            let bytes = request.operations.iter().map(|one| one.size_bytes());
            Event::Ended {
                request: request.id,
                exchange: Exchange {
                    operations: request.operations.len(),
                    bytes: bytes.sum(),
                    took: start.elapsed(),
                },
                range: request.range,
                answer,
            }
        });
    }

    fn ended(&mut self, ended: Result<Event, JoinError>) {
        match ended {
            Ok(Event::Ended {
                request,
                range,
                exchange,
                answer,
            }) => {
                self.observe(request, &range, &exchange, &answer);
                self.answered(request, answer);
                self.note_pace(&range);
            }
            Ok(Event::Map(Ok(map))) => {
                self.shared.metrics.lock().map_reads += 1;
                self.machine.new_map(self.now(), map);
                let machine = &self.machine;
                self.admission.relocate(|one| places(machine, one));
            }
            Ok(Event::Letter(id, Ok(()))) => self.machine.letter_put(self.now(), id),
            Ok(Event::Map(Err(error)) | Event::Letter(_, Err(error))) => {
                self.stop(Reason::error(&error));
            }
            Ok(Event::Renewed) => {}
            Ok(Event::Throughput(ru_per_s)) => {
                self.machine.provisioned(ru_per_s);
                self.watch_throughput();
            }
            // Its request will never end, so who waits for it is answered by the end of this task.
            Err(error) => {
                let error = Error::internal("a task of the writer died").with_source(error);
                self.stop(Reason::error(&error));
                self.is_broken = true;
            }
        }
    }

    fn answered(&mut self, request: RequestId, answer: Result<Answer, NoAnswer>) {
        let now = self.now();
        match answer {
            Ok(answer) => self.machine.answered(now, random(), request, answer),
            Err(NoAnswer { lost, error }) => {
                self.machine.lost(now, random(), request, lost);
                let passes = error.kind() == ErrorKind::Unreachable || lost == Lost::Maybe;
                if !passes || error.kind() == ErrorKind::Fenced {
                    self.stop(Reason::error(&error));
                }
            }
        }
    }

    fn finished(&mut self, group: GroupId, summary: Summary) {
        self.since_flush.add(&summary);
        self.shared.metrics.lock().done.add(&summary);
        self.advise(group, &summary);
        let Some(done) = self.open.remove(&group) else {
            return;
        };
        let result = match self.shared.reason.lock().as_ref() {
            Some(reason) if summary.unwritten > 0 => Err(reason.unwritten(&summary)),
            _ => Ok(summary),
        };
        // Nobody may wait for it. A refusal is in the summary of the next flush all the same.
        let _ = done.send(result);
    }

    fn answer_flushes(&mut self) {
        self.shared.metrics.lock().held_bytes = self.machine.held_bytes();
        if self.flushes.is_empty() {
            return;
        }
        let oldest = self.open.keys().next().copied();
        let is_due = |flush: &mut (GroupId, _)| oldest.is_none_or(|group| group >= flush.0);
        for (_, done) in self.flushes.extract_if(.., is_due) {
            let summary = std::mem::take(&mut self.since_flush);
            let result = match self.shared.reason.lock().as_ref() {
                Some(reason) => Err(reason.unwritten(&summary)),
                None => Ok(summary),
            };
            let _ = done.send(result);
        }
    }

    /// The container's throughput can be changed while it is written to.
    fn watch_throughput(&mut self) {
        let routes = self.routes.clone();
        self.tasks.spawn(async move {
            sleep(THROUGHPUT_EVERY).await;
            Event::Throughput(routes.throughput().await)
        });
    }
}

/// Where a submission has something to write, by the present map.
fn places(machine: &Machine<Flow>, submission: &Submission) -> Places {
    if submission.is_ordered_across_partitions {
        return Places::All;
    }
    let routing = submission.operations.iter().map(|one| &one.routing);
    let mut places: Vec<_> = routing.map(|key| machine.position_of(key)).collect();
    places.sort_unstable();
    places.dedup();
    Places::Some(places)
}
