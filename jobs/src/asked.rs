//! Whether the process was asked to end, by SIGTERM or SIGINT, from its first moment on.
//!
//! 1. A job that runs ends in order. Whoever waits for it sees [`Asked::wait`] resolve, also when the signal came before.
//! 2. A process that is still starting, as one that waits for others of its cluster, ends at once. It has written nothing to a sink. If it
//!    had taken the checkpoint over already, the next run waits as after a kill.
//!
//! Without a handler the first process of a container would not end at all: the kernel gives it no default one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidefeed_runtime::{Context, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Listens for the signals until the process ends.
pub(crate) struct Asked {
    asked: watch::Receiver<bool>,
    starting: Arc<AtomicBool>,
}

impl Asked {
    /// Listens from now on. The process is starting.
    ///
    /// # Errors
    /// `Internal` when the machine has no more threads.
    pub(crate) fn listen() -> Result<Asked> {
        let (tell, asked) = watch::channel(false);
        let starting = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&starting);
        let cannot = || "cannot wait for signals";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(ErrorKind::Internal, cannot)?;
        // Here, and not in the thread, which may come to run long after.
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        std::thread::Builder::new()
            .name("tidefeed-signals".to_owned())
            .spawn(move || {
                runtime.block_on(signals.come());
                tracing::info!(event = "stopping", "asked to end by a signal");
                tell.send_replace(true);
                if still.load(Ordering::SeqCst) {
                    std::process::exit(0);
                }
            })
            .context(ErrorKind::Internal, cannot)?;
        Ok(Asked { asked, starting })
    }

    /// Whether the process is starting: it ends at once then when it is asked to.
    pub(crate) fn starting(&self, starting: bool) {
        self.starting.store(starting, Ordering::SeqCst);
        // Asked between two runs: nobody would look again.
        if starting && *self.asked.borrow() {
            std::process::exit(0);
        }
    }

    /// Resolves when the process was asked.
    pub(crate) async fn wait(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // The thread that listened is gone without having heard anything.
            std::future::pending().await
        }
    }
}

/// SIGTERM and SIGINT, which no longer end the process by themselves.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on. To be called within a runtime.
    ///
    /// # Errors
    /// `Internal` when the signals cannot be watched.
    pub(crate) fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).context(ErrorKind::Internal, || "cannot watch signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the first of either.
    pub(crate) async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
