//! Processes that die, and processes that stand still while the clock goes on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

/// What happens to a process, from outside. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Life(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    dead: bool,
    frozen: u32,
    /// What happens once it was polled this many times more: so it is met between any two steps, also of one moment.
    fate: Option<(u32, Blow)>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    Kill,
    Freeze(Duration),
}

impl Life {
    /// Lets the process take `polls` more steps at most.
    pub(super) fn strike(&self, polls: u32, blow: Blow) {
        match polls {
            0 => self.hit(blow),
            _ => self.0.lock().fate = Some((polls, blow)),
        }
    }

    fn hit(&self, blow: Blow) {
        match blow {
            Blow::Kill => self.0.lock().dead = true,
            Blow::Freeze(time) => {
                self.0.lock().frozen += 1;
                let life = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    life.0.lock().frozen -= 1;
                    life.wake();
                });
            }
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.0.lock().waker.take() {
            waker.wake();
        }
    }

    /// Whether it may take a step, and if not whether it ever will.
    fn step(&self, context: &Context<'_>) -> Poll<bool> {
        let mut state = self.0.lock();
        if let Some((polls, blow)) = state.fate {
            state.fate = (polls > 1).then_some((polls - 1, blow));
            if polls == 1 {
                drop(state);
                self.hit(blow);
                state = self.0.lock();
            }
        }
        state.waker = Some(context.waker().clone());
        match (state.dead, state.frozen) {
            (true, _) => Poll::Ready(false),
            (false, 0) => Poll::Ready(true),
            _ => Poll::Pending,
        }
    }
}

/// A process: `None` when it was killed. What it had sent goes on without it.
pub(super) struct Process<T> {
    body: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    life: Life,
}

impl<T> Process<T> {
    pub(super) fn new(life: Life, body: impl Future<Output = T> + Send + 'static) -> Self {
        Process {
            body: Some(Box::pin(body)),
            life,
        }
    }
}

impl<T> Future for Process<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        match self.life.step(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(false) => {
                self.body = None;
                Poll::Ready(None)
            }
            Poll::Ready(true) => match &mut self.body {
                Some(body) => body.as_mut().poll(context).map(Some),
                None => Poll::Ready(None),
            },
        }
    }
}
