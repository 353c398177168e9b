//! Requests: they take time, get lost, lose their answers, and go on when whoever sent them is gone.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

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
    plan: Plan,
    effect: impl Future<Output = T> + Send + 'static,
) -> Result<T, Lost> {
    let (mut answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let gone = tokio::select! {
            biased;
            () = answer.closed() => true,
            () = sleep(plan.before) => false,
        };
        if plan.fate == Fate::NeverArrives {
            return;
        }
        if gone {
            let Some(late) = plan.late else { return };
            sleep(late).await;
        }
        let outcome = effect.await;
        tokio::select! {
            biased;
            () = answer.closed() => return,
            () = sleep(plan.after) => {}
        }
        if plan.fate == Fate::Answered {
            // Nobody waits any more if it fails.
            let _ = answer.send(outcome);
        }
    });
    // A sender that is dropped without a word is an error of the connection.
    answered.await.map_err(|_| Lost)
}
