//! The one place where tokio and timely meet.
//!
//! A worker thread never blocks and never awaits. What comes from tokio arrives in an [`Inbox`], a bounded channel whose
//! sender wakes the operator after each item; what goes to tokio is a future that is spawned, or an item pushed into an
//! unbounded channel whose length the protocol bounds. Everything that completes outside must wake its operator: a
//! forgotten wake shows as a hang only when few epochs are in flight, and hides when many are.

use std::sync::{Arc, OnceLock};

use timely::scheduling::SyncActivator;
use tokio::sync::mpsc;

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

    /// Delivers the item if there is room and wakes the operator. False when full or the operator is gone.
    pub fn try_send(&self, item: T) -> bool {
        let sent = self.items.try_send(item).is_ok();
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

    /// Makes the operator known to the senders.
    pub fn attach(&self, activator: SyncActivator) {
        self.waker.attach(activator);
    }

    /// The next item that has arrived, if any. Never waits.
    pub fn try_next(&mut self) -> Option<T> {
        self.items.try_recv().ok()
    }

    /// Items that have arrived and were not taken.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Runs futures on tokio for operators.
#[derive(Clone, Debug)]
pub struct Tasks(tokio::runtime::Handle);

impl Tasks {
    /// Tasks on the runtime of `handle`.
    pub fn new(handle: tokio::runtime::Handle) -> Self {
        Tasks(handle)
    }

    /// Starts a future and leaves its result in an operator's inbox. Returns at once.
    pub fn spawn_into<T: Send + 'static>(
        &self,
        inbox: InboxSender<T>,
        future: impl Future<Output = T> + Send + 'static,
    ) {
        self.0.spawn(async move {
            let result = future.await;
            inbox.send(result).await;
        });
    }
}
