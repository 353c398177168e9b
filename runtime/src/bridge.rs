//! The one place where tokio and timely meet.
//!
//! A worker thread never blocks and never awaits. What comes from tokio arrives in an [`Inbox`], a bounded channel whose
//! sender wakes the operator after each item; what goes to tokio is a future that [`Tasks`] spawns, or an item pushed into
//! an unbounded channel whose length the protocol bounds. Everything that completes outside must wake its operator: a
//! forgotten wake shows as a hang only when few epochs are in flight, and hides when many are.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use timely::scheduling::SyncActivator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::{Error, Ledger};

/// Wakes one operator from any thread. It may be handed out before its operator exists; wakes before then are not
/// lost, because a new operator is always scheduled once.
#[derive(Clone, Default)]
pub struct Waker(Arc<OnceLock<SyncActivator>>);

impl Waker {
    /// Names the operator to wake. Only the first call counts.
    pub fn attach(&self, activator: SyncActivator) {
        // A second attach would be a second operator on one inbox, which `Inbox` being owned rules out.
        let _ = self.0.set(activator);
    }

    /// Schedules the operator, if its worker is still there.
    pub fn wake(&self) {
        if let Some(activator) = self.0.get() {
            // The error means that the worker has ended, and then there is nothing left to wake.
            let _ = activator.activate();
        }
    }
}

/// The sending half of an [`Inbox`].
pub struct InboxSender<T> {
    items: mpsc::Sender<T>,
    waker: Waker,
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        InboxSender {
            items: self.items.clone(),
            waker: self.waker.clone(),
        }
    }
}

impl<T> InboxSender<T> {
    /// Waits for room, delivers the item and wakes the operator. False when the operator is gone.
    pub async fn send(&self, item: T) -> bool {
        let sent = self.items.send(item).await.is_ok();
        self.waker.wake();
        sent
    }
}

/// Where an operator finds what tokio tasks sent it.
pub struct Inbox<T> {
    items: mpsc::Receiver<T>,
    waker: Waker,
}

impl<T> Inbox<T> {
    /// A channel with room for `capacity` items (at least one).
    pub fn new(capacity: usize) -> (InboxSender<T>, Inbox<T>) {
        let (sender, items) = mpsc::channel(capacity.max(1));
        let waker = Waker::default();
        (
            InboxSender {
                items: sender,
                waker: waker.clone(),
            },
            Inbox { items, waker },
        )
    }

    /// A channel for items that each hold [`Room`] of this budget. It is as long as the budget allows, so whoever has room
    /// never waits to send.
    pub fn within(budget: &ByteBudget) -> (InboxSender<T>, Inbox<T>) {
        Self::new(budget.units as usize)
    }

    /// Makes the operator known to the senders.
    pub fn attach(&self, activator: SyncActivator) {
        self.waker.attach(activator);
    }

    /// The next item that has arrived, if any. Never waits.
    pub fn try_next(&mut self) -> Option<T> {
        self.items.try_recv().ok()
    }
}

/// Bytes that may wait between tokio and the workers. Clones share the bytes.
///
/// Whoever waits for room has it in turn, first come, first served: what is small does not overtake what is large, and
/// one that wants much, again and again, does not keep the others from theirs.
#[derive(Clone)]
pub struct ByteBudget {
    room: Arc<Semaphore>,
    units: u32,
}

/// What a budget is counted in, so that a `u32` counts four terabytes; and what the smallest thing takes.
const BUDGET_UNIT_BYTES: u64 = 1024;

/// Bytes taken from a [`ByteBudget`], given back when it is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "dropping it is its use")] OwnedSemaphorePermit);

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        ByteBudget {
            room: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Waits until there is room for so many bytes, and takes it. What is larger than the budget takes all of it.
    pub async fn take(&self, bytes: u64) -> Room {
        let room = Arc::clone(&self.room).acquire_many_owned(self.units_of(bytes));
        Room(room.await.expect("the semaphore is never closed"))
    }

    /// Takes room for so many bytes if that needs no waiting: there is room, and nobody waits for it already.
    pub fn try_take(&self, bytes: u64) -> Option<Room> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.units_of(bytes));
        room.ok().map(Room)
    }

    fn units_of(&self, bytes: u64) -> u32 {
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
        units.clamp(1, self.units)
    }
}

/// Runs futures on tokio for one run, and watches them: a panic ends the run, and [`Tasks::idle`] tells when nothing is
/// under way any more. Clones start tasks of the same run.
#[derive(Clone)]
pub struct Tasks {
    tokio: tokio::runtime::Handle,
    ledger: Ledger,
    under_way: watch::Sender<usize>,
}

impl Tasks {
    /// Tasks on the runtime of `tokio`, of the run that `ledger` records.
    pub fn new(tokio: tokio::runtime::Handle, ledger: Ledger) -> Self {
        Tasks {
            tokio,
            ledger,
            under_way: watch::Sender::new(0),
        }
    }

    /// Starts a future and returns at once. If it panics, the run fails at once with `name` and the panic's message: tokio
    /// alone would keep the panic to itself, and whoever waits for the task would wait for ever.
    pub fn spawn(
        &self,
        name: impl Into<String>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (name, ledger) = (name.into(), self.ledger.clone());
        let under_way = UnderWay::begin(&self.under_way);
        self.tokio.spawn(async move {
            // Moved in, so that it ends with the task, also when the runtime drops the task half way.
            let _under_way = under_way;
            // Nothing of the future is looked at after a panic, and what it shared is abandoned with the run.
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                let message = panic_message(panic.as_ref());
                ledger.fail(Error::internal(format!("{name} panicked: {message}")));
            }
        })
    }

    /// Starts a future, as [`Tasks::spawn`] does, and leaves its result in an operator's inbox.
    pub fn spawn_into<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        inbox: InboxSender<T>,
        future: impl Future<Output = T> + Send + 'static,
    ) {
        self.spawn(name, async move {
            let result = future.await;
            inbox.send(result).await;
        });
    }

    /// Resolves when no task is under way. Later tasks do not count, so ask when nobody starts any.
    pub async fn idle(&self) {
        let mut under_way = self.under_way.subscribe();
        // The sender is in `self`, so it cannot be gone.
        let _ = under_way.wait_for(|count| *count == 0).await;
    }
}

/// Counts one task for as long as it lives.
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        UnderWay(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What a panic said.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn tasks() -> (Tasks, Ledger) {
        let ledger = Ledger::new(Epoch(0), Epoch(0));
        let tokio = tokio::runtime::Handle::current();
        (Tasks::new(tokio, ledger.clone()), ledger)
    }

    #[tokio::test]
    async fn a_panic_in_a_task_fails_the_run_with_its_message() {
        let (tasks, ledger) = tasks();
        let (sender, _inbox) = Inbox::<()>::new(1);
        tasks.spawn_into("the write", sender, async { panic!("injected {}", 7) });
        tasks.idle().await;
        let failure = ledger.take_failure().expect("the run has failed");
        assert_eq!(failure.report(), "the write panicked: injected 7");
    }

    #[tokio::test]
    async fn a_budget_is_given_back_and_too_large_a_thing_takes_all() {
        let budget = ByteBudget::new(10 * BUDGET_UNIT_BYTES);
        let all = budget.take(u64::MAX).await;
        assert!(budget.take(1).now_or_never().is_none());
        drop(all);
        let some = budget.take(9 * BUDGET_UNIT_BYTES).await;
        let rest = budget.take(1).now_or_never().expect("there is room");
        assert!(budget.clone().take(1).now_or_never().is_none());
        drop((some, rest));
        assert!(budget.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn room_goes_to_those_who_wait_in_turn() {
        let budget = ByteBudget::new(10 * BUDGET_UNIT_BYTES);
        let first = budget.try_take(6 * BUDGET_UNIT_BYTES).expect("it is empty");
        let mut large = Box::pin(budget.take(8 * BUDGET_UNIT_BYTES));
        assert!(large.as_mut().now_or_never().is_none());
        let overtakes = "four are free, and meant for the one that waits for eight";
        assert!(budget.try_take(1).is_none(), "{overtakes}");
        let mut small = Box::pin(budget.take(3 * BUDGET_UNIT_BYTES));
        drop(first);
        assert!(small.as_mut().now_or_never().is_none());
        let held = large.as_mut().now_or_never().expect("its turn");
        assert!(small.as_mut().now_or_never().is_none());
        drop(held);
        assert!(small.now_or_never().is_some());
    }

    /// An inbox that is shorter would let a sender wait that nobody knows of.
    #[tokio::test]
    async fn whoever_has_room_never_waits_to_send() {
        let budget = ByteBudget::new(3 * BUDGET_UNIT_BYTES);
        let (sender, mut inbox) = Inbox::within(&budget);
        for _ in 0..2 {
            while let Some(room) = budget.try_take(1) {
                assert_eq!(sender.send(room).now_or_never(), Some(true));
            }
            assert_eq!(std::iter::from_fn(|| inbox.try_next()).count(), 3);
        }
    }

    #[tokio::test]
    async fn idle_waits_for_every_task_however_it_ends() {
        let (tasks, _ledger) = tasks();
        tasks.idle().await;
        let gate = watch::Sender::new(false);
        let mut open = gate.subscribe();
        tasks.spawn("one", async move {
            let _ = open.wait_for(|open| *open).await;
        });
        let aborted = tasks.clone().spawn("two", std::future::pending());
        let mut idle = std::pin::pin!(tasks.idle());
        assert!(idle.as_mut().now_or_never().is_none());
        gate.send_replace(true);
        aborted.abort();
        idle.await;
    }
}
