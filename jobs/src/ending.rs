//! The end of a run, and the time between two runs: who still writes, and who may write next (I5, I7).

use std::time::Duration;
use tidefeed_operators::target::REQUEST_DEADLINE;
use tidefeed_runtime::bridge::Tasks;
use tidefeed_runtime::checkpoint::Lease;
use tidefeed_runtime::{Context, ErrorKind, Ledger, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cluster::Standing;
use crate::job::Targets;
use crate::progress::{Beginning, Following};

/// Everything of a run that writes outside of it.
pub(crate) struct Writers {
    /// Sealer, committer and state writer.
    pub(crate) checkpoint: Vec<JoinHandle<()>>,
    pub(crate) targets: Targets,
    pub(crate) progress: Option<Following>,
    pub(crate) tasks: Tasks,
    pub(crate) standing: Standing,
}

impl Writers {
    /// Ends all writing, once the workers are gone, and gives the checkpoint back.
    ///
    /// # Errors
    /// What has kept the last progress document from being written; `Unreachable` when a write was still under way after [`REQUEST_DEADLINE`]. The checkpoint is not given back then: the
    /// next run lets the time pass that such a write may take.
    pub(crate) async fn end(self, ledger: &Ledger, went_well: bool) -> Result<()> {
        self.targets.values().for_each(|target| target.close());
        // With the workers went the senders: sealer, committer and state writer finish what they have.
        for task in self.checkpoint {
            task.await
                .context(ErrorKind::Internal, || "a background task ended badly")?;
        }
        let (told, closed) = match self.progress {
            Some(progress) => progress.end(went_well).await,
            None => (Ok(()), Ok(())),
        };
        ledger.stop();
        closed?;
        tokio::time::timeout(REQUEST_DEADLINE, self.tasks.idle())
            .await
            .context(ErrorKind::Unreachable, || {
                format!(
                    "a sink was still writing {} s after the job had ended: \
                     check that the server answers before the next start",
                    REQUEST_DEADLINE.as_secs()
                )
            })?;
        self.standing.end().await;
        told
    }
}

/// Renews the lease until the run has ended, and then gives it back.
pub(crate) struct LeaseKeeper {
    keeping: JoinHandle<Option<Lease>>,
    end: oneshot::Sender<()>,
    settle: Duration,
}

impl LeaseKeeper {
    pub(crate) fn start(mut lease: Lease, ledger: &Ledger) -> Self {
        let settle = lease.settle();
        let (end, ended) = oneshot::channel();
        let ledger = ledger.clone();
        let keeping = tokio::spawn(async move {
            tokio::select! {
                lost = lease.keep() => {
                    ledger.fail(lost);
                    None
                }
                // A keeper that is gone has dropped its sender: the lease runs out.
                ended = ended => ended.ok().map(|()| lease),
            }
        });
        LeaseKeeper {
            keeping,
            end,
            settle,
        }
    }

    /// How long to wait before the first write to a sink.
    pub(crate) fn settle(&self) -> Duration {
        self.settle
    }

    /// Gives the lease back, unless it is lost.
    pub(crate) async fn release(self) {
        let _ = self.end.send(());
        let released = match self.keeping.await {
            Ok(Some(lease)) => lease.release().await,
            // Lost: the run's failure says so.
            Ok(None) | Err(_) => return,
        };
        if let Err(error) = released {
            tracing::warn!(
                event = "lease_kept",
                error = %error.report(),
                "the checkpoint was not given back; the next run waits for it"
            );
        }
    }
}

/// What the run before had sent may still be carried out; until it cannot be any more, and `beginning` is written, no sink
/// writes.
pub(crate) fn settle(
    delay: Duration,
    beginning: Option<Beginning>,
    tasks: &Tasks,
    ledger: &Ledger,
) {
    if delay.is_zero() && beginning.is_none() {
        return ledger.settle();
    }
    if !delay.is_zero() {
        tracing::info!(
            event = "settling",
            wait_s = delay.as_secs_f64(),
            "the run before this one did not end in order: sinks wait until its last requests cannot act any more"
        );
    }
    ledger.unsettle();
    let ledger = ledger.clone();
    tasks.spawn("the wait for the run before", async move {
        let mut end = ledger.end();
        let settled = async {
            tokio::time::sleep(delay).await;
            match beginning {
                Some(beginning) => beginning.write().await,
                None => Ok(()),
            }
        };
        tokio::select! {
            settled = settled => match settled {
                Ok(()) => ledger.settle(),
                Err(error) => ledger.fail(error),
            },
            // The sender is in the ledger, so it cannot be gone.
            _ = end.wait_for(|ended| *ended) => {}
        }
    });
}
