//! Whether a run may still write (I7).
//!
//! A run holds its checkpoint by a lease that it renews. Everything that writes, to the store or to a sink, asks the fence
//! first, and a request is abandoned when the fence closes under it. A process that was frozen finds the fence closed when
//! it wakes up, before it has looked at anything else.
//!
//! Limits: what has passed the fence and is with an HTTP client, in a task of a connection or on its way to the kernel, goes out
//! when a process that was frozen just then wakes. So whoever writes to sinks asks at the socket itself, and what remains is the
//! moment between the question and the system call. A clock that stands while the machine is suspended does not show the time
//! that has passed; so the wall clock is asked too, and whichever says more counts.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use futures::future::poll_fn;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::{Error, ErrorKind, Result};

/// Open while the run may write. Clones are the same fence.
#[derive(Clone, Default)]
pub struct Fence(Arc<Mutex<Validity>>);

#[derive(Clone, Debug, Default)]
enum Validity {
    /// Nobody else can take over while this process lives.
    #[default]
    Unlimited,
    Until(Moment),
    Closed(String),
}

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Moment {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn passed(&self) -> bool {
        Instant::now() >= self.monotonic || SystemTime::now() >= self.wall
    }
}

/// When a renewal of a lease was begun; the lease lasts from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal(Moment);

impl Renewal {
    pub(crate) fn begin() -> Self {
        Renewal(Moment::now())
    }
}

impl Fence {
    /// A fence that never closes by itself: for runs that keep every other one out by a lock.
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// A fence that closes when `duration` has passed since `renewal` began.
    pub(crate) fn until(renewal: Renewal, duration: Duration) -> Self {
        let fence = Self::default();
        *fence.0.lock() = Validity::Until(end_of(renewal, duration));
        fence
    }

    /// Moves the end to `duration` after `renewal` began, unless it is later already or the fence has closed by now.
    pub(crate) fn extend(&self, renewal: Renewal, duration: Duration) -> Result<()> {
        self.check()?;
        let mut validity = self.0.lock();
        if let Validity::Until(end) = &mut *validity {
            let later = end_of(renewal, duration);
            if later.monotonic > end.monotonic {
                *end = later;
            }
        }
        Ok(())
    }

    /// How long it stays open from now on if nothing is done; an hour if it never closes by itself.
    pub(crate) fn left(&self) -> Duration {
        match (self.check(), &*self.0.lock()) {
            (Err(_), _) | (_, Validity::Closed(_)) => Duration::ZERO,
            (_, Validity::Unlimited) => Duration::from_secs(3600),
            (_, Validity::Until(end)) => {
                let wall = end.wall.duration_since(SystemTime::now());
                let monotonic = end.monotonic.saturating_duration_since(Instant::now());
                monotonic.min(wall.unwrap_or_default())
            }
        }
    }

    /// Closes the fence for good.
    pub(crate) fn close(&self, why: &str) {
        *self.0.lock() = Validity::Closed(why.to_owned());
    }

    /// Succeeds while the run may write.
    ///
    /// # Errors
    /// `Fenced` from the moment on when another run may have taken over.
    pub fn check(&self) -> Result<()> {
        let mut validity = self.0.lock();
        if let Validity::Until(end) = &*validity
            && end.passed()
        {
            *validity = Validity::Closed("its lease was not renewed in time".to_owned());
        }
        match &*validity {
            Validity::Closed(why) => Err(Error::new(
                ErrorKind::Fenced,
                format!("this run may not write any more, {why}: another run may have taken over"),
            )),
            _ => Ok(()),
        }
    }

    /// Runs `future` as long as the fence is open: it is not polled, and so sends nothing, once the fence has closed, and given
    /// up at the latest when the lease has run out.
    ///
    /// # Errors
    /// `Fenced` when the fence closed before the future was ready.
    pub async fn guard<F: Future>(&self, future: F) -> Result<F::Output> {
        let mut future = pin!(future);
        let mut open = pin!(poll_fn(|context| match self.check() {
            Ok(()) => future.as_mut().poll(context).map(Ok),
            Err(error) => Poll::Ready(Err(error)),
        }));
        while let Some(end) = self.end() {
            tokio::select! {
                biased;
                done = &mut open => return done,
                // It may have been moved meanwhile; else the next poll finds the fence closed.
                () = sleep_until(end) => {}
            }
        }
        open.await
    }

    /// When the fence closes by itself, if it does.
    fn end(&self) -> Option<Instant> {
        match &*self.0.lock() {
            Validity::Until(end) => Some(end.monotonic),
            _ => None,
        }
    }
}

fn end_of(renewal: Renewal, duration: Duration) -> Moment {
    Moment {
        monotonic: renewal.0.monotonic + duration,
        wall: renewal.0.wall + duration,
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({:?})", self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fence_closes_by_itself_and_stays_closed() {
        let begun = Renewal::begin();
        let fence = Fence::until(begun, Duration::from_secs(10));
        fence.check().expect("open");
        tokio::time::advance(Duration::from_secs(9)).await;
        fence
            .extend(Renewal::begin(), Duration::from_secs(10))
            .expect("in time");
        tokio::time::advance(Duration::from_secs(9)).await;
        fence.check().expect("extended");
        tokio::time::advance(Duration::from_secs(1)).await;
        let late = fence.extend(Renewal::begin(), Duration::from_secs(10));
        assert_eq!(late.expect_err("too late").kind(), ErrorKind::Fenced);
        assert!(fence.check().is_err(), "and it stays closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guarded_future_is_not_polled_behind_a_closed_fence() {
        let fence = Fence::until(Renewal::begin(), Duration::from_secs(5));
        let sent = Mutex::new(0);
        let work = async {
            *sent.lock() += 1;
            tokio::time::sleep(Duration::from_secs(6)).await;
            *sent.lock() += 1;
        };
        let error = fence.guard(work).await.expect_err("closed meanwhile");
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert_eq!(*sent.lock(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guarded_future_that_hangs_is_given_up_when_the_lease_runs_out() {
        let fence = Fence::until(Renewal::begin(), Duration::from_secs(5));
        let begun = Instant::now();
        let renewals = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let renewed = fence.extend(Renewal::begin(), Duration::from_secs(5));
            renewed.expect("in time");
            std::future::pending::<()>().await;
        };
        let hanging = fence.guard(std::future::pending::<()>());
        let error = tokio::select! {
            given_up = hanging => given_up.expect_err("closed"),
            () = renewals => unreachable!("it never ends"),
        };
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert_eq!(begun.elapsed().as_secs(), 9);
    }
}
