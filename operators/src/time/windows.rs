//! Windows: spans of time, and which of them a moment is in.
//!
//! Windows of one size begin at multiples of their step, counted from the UNIX epoch; they are tumbling if the step is the size,
//! else hopping.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::{Error, ErrorKind, Result};

/// A span of time, `[start, end)`, in milliseconds since the UNIX epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first moment.
    pub start_ms: u64,
    /// The first moment after it.
    pub end_ms: u64,
}

impl Window {
    /// Whether a moment is in it.
    pub fn contains(&self, time_ms: u64) -> bool {
        (self.start_ms..self.end_ms).contains(&time_ms)
    }
}

/// Most windows that a row may be in: each is a row of its own downstream.
const MAX_WINDOWS: u64 = 10_000;

/// Windows of one size, one for each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hopping {
    size: NonZeroU64,
    step: NonZeroU64,
}

impl Hopping {
    /// Windows of `size` that begin every `step`. With a step above the size there are moments in no window.
    ///
    /// # Errors
    /// `Config` when either is shorter than a millisecond, or no whole number of milliseconds, or a row would be in more than
    /// 10,000 windows.
    pub fn new(size: Duration, step: Duration) -> Result<Self> {
        let (size, step) = (
            whole_millis("a window's size", size)?,
            whole_millis("a window's step", step)?,
        );
        if size.get().div_ceil(step.get()) > MAX_WINDOWS {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "windows of {size} ms every {step} ms put each row into more than {MAX_WINDOWS} of them: use a longer step"
                ),
            ));
        }
        Ok(Hopping { size, step })
    }

    /// Windows of `size` that neither overlap nor leave a gap.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn tumbling(size: Duration) -> Result<Self> {
        Self::new(size, size)
    }

    /// The windows that contain a moment, the latest first. A window that would end beyond all time ends with it.
    pub fn containing(&self, time_ms: u64) -> impl Iterator<Item = Window> + use<> {
        let (size, step) = (self.size.get(), self.step.get());
        let latest = time_ms - time_ms % step;
        let starts = std::iter::successors(Some(latest), move |start| start.checked_sub(step));
        starts
            .take_while(move |start| time_ms - start < size)
            .map(move |start_ms| Window {
                start_ms,
                end_ms: start_ms.saturating_add(size),
            })
    }
}

/// A duration as milliseconds.
pub(super) fn whole_millis(what: &str, duration: Duration) -> Result<NonZeroU64> {
    let millis = u64::try_from(duration.as_millis()).ok();
    let whole = millis.filter(|millis| Duration::from_millis(*millis) == duration);
    whole.and_then(NonZeroU64::new).ok_or_else(|| {
        Error::new(
            ErrorKind::Config,
            format!(
                "{what} is {duration:?}: it must be a whole number of milliseconds, at least one"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_row_is_in_exactly_the_windows_that_contain_its_time() {
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let (size, step) = (random.u64(1..40), random.u64(1..40));
            let time = random.u64(0..200);
            let windows = Hopping::new(ms(size), ms(step)).expect("valid");
            let mut found: Vec<_> = windows.containing(time).collect();
            found.sort_unstable();
            // All that there are, one by one.
            let all = (0..=time).filter(|start| start % step == 0);
            let all = all.map(|start_ms| Window {
                start_ms,
                end_ms: start_ms + size,
            });
            let expected: Vec<_> = all.filter(|window| window.contains(time)).collect();
            assert_eq!(found, expected, "{time} in {size} every {step}");
            if size == step {
                assert_eq!(found.len(), 1);
            }
        }
    }

    #[test]
    fn the_end_of_time_is_in_a_window() {
        let windows = Hopping::tumbling(ms(1000)).expect("valid");
        let found: Vec<_> = windows.containing(u64::MAX).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].end_ms, u64::MAX);
    }

    #[test]
    fn windows_without_length_and_windows_without_number_are_refused() {
        let report = |size, step| Hopping::new(size, step).expect_err("refused").report();
        assert!(report(ms(0), ms(1)).contains("a window's size"));
        assert!(report(ms(1), Duration::from_micros(1500)).contains("a window's step"));
        assert!(report(ms(86_400_000), ms(1)).contains("use a longer step"));
    }
}
