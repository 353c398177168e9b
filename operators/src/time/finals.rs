//! Windows that are final: each result is given once, when the watermark says that its rows are all there.
//!
//! A window *closes* in the epoch in which the watermark comes to its end and its allowed lateness beyond it. Rules, for each key and
//! window:
//!
//! 1. A row of an epoch is judged by the watermark before that epoch. If the window was open then, it counts; else it is *late*. So
//!    a page that both brings rows of a window and moves the watermark past it does not make them late.
//! 2. While the window is open only its total is kept, folded from the rows that come and go. When no row of it is left it is
//!    forgotten.
//! 3. When it closes the total becomes its result, and that never changes again.
//! 4. What comes or goes later is kept as late rows beside it, with how often each came (or went, if that is negative): the result
//!    and the late rows together are always the rows that there are. A window of which every row was late has no result.
//! 5. Results and late rows stay, or are forgotten when the watermark has gone on by `keep` since the window closed or had its
//!    last late row.
//!
//! All of it is a function of the rows and the watermark of each epoch, and those are sealed. So a run that resumes gives the same
//! results for the same windows, and writing one twice writes the same.

use std::time::Duration;

use differential_dataflow::consolidation::consolidate;
use serde::{Deserialize, Serialize};
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::windows::{Hopping, Window};
use crate::keyed::{Moment, Stepped};

/// Which windows there are, and when they are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalWindows {
    windows: Hopping,
    lateness_ms: u64,
    keep_ms: Option<u64>,
}

impl FinalWindows {
    /// Windows of `size` that neither overlap nor leave a gap.
    ///
    /// # Errors
    /// `Config` when `size` is no whole number of milliseconds, or none at all.
    pub fn tumbling(size: Duration) -> Result<Self> {
        Self::hopping(size, size)
    }

    /// Windows of `size` that begin every `step`.
    ///
    /// # Errors
    /// `Config` when either is no whole number of milliseconds, or none at all, or a row would be in more than 10,000 windows.
    pub fn hopping(size: Duration, step: Duration) -> Result<Self> {
        Ok(FinalWindows {
            windows: Hopping::new(size, step)?,
            lateness_ms: 0,
            keep_ms: None,
        })
    }

    /// Keeps each window open until the watermark is so far beyond its end. Default: not at all, as the watermark waits for what may be
    /// out of order already.
    ///
    /// # Errors
    /// `Config` when it is no whole number of milliseconds.
    pub fn allowed_lateness(self, lateness: Duration) -> Result<Self> {
        let lateness_ms = millis("the allowed lateness", lateness)?;
        Ok(FinalWindows {
            lateness_ms,
            ..self
        })
    }

    /// Forgets results and late rows when the watermark has gone on by so much since: they leave their views, and the containers of
    /// those. What comes for such a window afterwards is late, and is kept for as long again. Default: they stay.
    ///
    /// # Errors
    /// `Config` when it is no whole number of milliseconds.
    pub fn keep(self, keep: Duration) -> Result<Self> {
        let keep_ms = Some(millis("how long results are kept", keep)?);
        Ok(FinalWindows { keep_ms, ..self })
    }

    /// The windows of a moment.
    pub fn containing(&self, time_ms: u64) -> impl Iterator<Item = Window> + use<> {
        self.windows.containing(time_ms)
    }

    fn closes_ms(&self, window: &Window) -> u64 {
        window.end_ms.saturating_add(self.lateness_ms)
    }

    /// Steps a window of a key; see the module for the rules.
    pub fn step<A, V>(
        &self,
        window: &Window,
        open: &mut Option<Open<A>>,
        shown: Option<&Final<A, V>>,
        changes: Vec<(V, isize)>,
        moment: Moment,
        fold: impl Fn(&mut A, &V, isize),
    ) -> Stepped<Final<A, V>>
    where
        A: Clone + Default,
        V: Clone + Ord,
    {
        let closes_ms = self.closes_ms(window);
        if moment.before_ms >= closes_ms {
            return self.late(shown, changes, closes_ms.max(moment.now_ms));
        }
        let mut now = open.take().unwrap_or_default();
        for (row, times) in &changes {
            now.rows += *times as i64;
            fold(&mut now.total, row, *times);
        }
        let any = now.rows != 0;
        if moment.now_ms < closes_ms {
            *open = any.then_some(now);
            return Stepped {
                output: None,
                wake_ms: any.then_some(closes_ms),
            };
        }
        let closed = any.then(|| Final {
            result: Some(now.total),
            late: Vec::new(),
        });
        self.keeping(closed, closes_ms)
    }

    /// Changes of a window that has closed; none when what is shown is to be forgotten.
    fn late<A: Clone, V: Clone + Ord>(
        &self,
        shown: Option<&Final<A, V>>,
        changes: Vec<(V, isize)>,
        since_ms: u64,
    ) -> Stepped<Final<A, V>> {
        if changes.is_empty() {
            return self.keeping(None, since_ms);
        }
        let mut late = shown.map(|shown| shown.late.clone()).unwrap_or_default();
        late.extend(changes);
        consolidate(&mut late);
        let result = shown.and_then(|shown| shown.result.clone());
        let any = result.is_some() || !late.is_empty();
        self.keeping(any.then_some(Final { result, late }), since_ms)
    }

    fn keeping<A, V>(&self, output: Option<Final<A, V>>, since_ms: u64) -> Stepped<Final<A, V>> {
        let keep_ms = self.keep_ms.filter(|_| output.is_some());
        Stepped {
            output,
            wake_ms: keep_ms.map(|keep_ms| since_ms.saturating_add(keep_ms)),
        }
    }
}

fn millis(what: &str, duration: Duration) -> Result<u64> {
    let millis = u64::try_from(duration.as_millis()).ok();
    millis
        .filter(|millis| Duration::from_millis(*millis) == duration)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("{what} is {duration:?}: it must be a whole number of milliseconds"),
            )
        })
}

/// A window that is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open<A> {
    rows: i64,
    total: A,
}

/// A window that has closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Final<A, V> {
    /// Its result; none when every row of it was late.
    pub result: Option<A>,
    /// What came or went later, and how often.
    pub late: Vec<(V, isize)>,
}

/// A row that came or went when its window was final.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Late<V> {
    /// The row.
    pub row: V,
    /// How often it came; negative if it counts in the result, and has gone since.
    pub times: isize,
}

#[cfg(test)]
mod tests;
