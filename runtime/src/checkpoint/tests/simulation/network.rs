//! Requests: they take time, get lost, lose their answers, and go on when whoever sent them is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Hands out moments, each once: of two timers that are due in the same millisecond, which is the resolution of tokio's, either
/// may come first, and the same seed would not live the same life.
#[derive(Clone)]
pub(super) struct Moments {
    began: Instant,
    taken: Arc<Mutex<BTreeSet<u128>>>,
}

impl Moments {
    pub(super) fn new(began: Instant) -> Self {
        Moments {
            began,
            taken: Arc::default(),
        }
    }

    /// Sleeps for `time`, or as much longer as it takes to be alone.
    async fn sleep(&self, time: Duration) {
        let now = self.began.elapsed();
        let mut at = (now + time).as_millis() + 1;
        {
            let mut taken = self.taken.lock();
            *taken = taken.split_off(&now.as_millis());
            while !taken.insert(at) {
                at += 1;
            }
        }
        let at = Duration::from_millis(u64::try_from(at).expect("a life is short"));
        sleep_until(self.began + at).await;
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Until it is carried out.
    pub(super) before: Duration,
    /// From then until the answer arrives.
    pub(super) after: Duration,
    pub(super) fate: Fate,
    /// If its sender is gone before it is carried out: how much later it is carried out nevertheless, if at all.
    pub(super) late: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    /// Carried out, and the sender is told that it failed.
    AnswerLost,
    NeverArrives,
}

/// The request failed; whether it was carried out is not known.
#[derive(Debug)]
pub(super) struct Lost;

/// Sends a request whose effect is `effect`.
pub(super) async fn send<T: Send + 'static>(
    moments: Moments,
    plan: Plan,
    effect: impl Future<Output = T> + Send + 'static,
) -> Result<T, Lost> {
    let (mut answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let gone = tokio::select! {
            biased;
            () = answer.closed() => true,
            () = moments.sleep(plan.before) => false,
        };
        if plan.fate == Fate::NeverArrives {
            return;
        }
        if gone {
            let Some(late) = plan.late else { return };
            moments.sleep(late).await;
        }
        let outcome = effect.await;
        tokio::select! {
            biased;
            () = answer.closed() => return,
            () = moments.sleep(plan.after) => {}
        }
        if plan.fate == Fate::Answered {
            // Nobody waits any more if it fails.
            let _ = answer.send(outcome);
        }
    });
    // A sender that is dropped without a word is an error of the connection.
    answered.await.map_err(|_| Lost)
}
