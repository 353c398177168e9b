//! Rows in windows: tumbling, hopping, or sessions.
//!
//! All three give each row of a key its window, ready to be reduced: `((key, window), row)`. They are functions of the rows as they
//! are now: a row that is corrected or deleted, however late, leaves its window by its retraction, and nothing waits for a window
//! to be over. Windows that are to go when they are old leave by a [temporal filter](super::valid) over
//! [`Window::end_ms`].
//!
//! | windows | which a row is in | state |
//! |---|---|---|
//! | tumbling, hopping | those that contain its time, by [`Hopping`]: that depends on the row alone | none |
//! | sessions | that of the rows of its key that follow each other closely | the rows by key, twice |
//!
//! # Sessions
//!
//! Rows of one key, in order of their times, belong to one session as long as each comes less than `gap` after the one before. The
//! session is `[first, last + gap)`, so the sessions of a key never overlap, and two rows exactly `gap` apart are in two. A row that
//! comes late may join two sessions, one that goes may split one, and all rows of a session that changed move to the new one. A
//! change of a key looks at all of its rows: let those that are too old to matter leave by a temporal filter before, and keep keys fine.

use std::time::Duration;

use differential_dataflow::hashable::Hashable;
use differential_dataflow::{ExchangeData, VecCollection};
use tidefeed_runtime::Result;

use super::windows::{Hopping, Window, whole_millis};

/// Rows of a key with their window.
pub type InWindows<'scope, K, V> = VecCollection<'scope, u64, ((K, Window), V), isize>;

/// Puts the rows of a keyed collection into windows, by the time that `time_ms` reads in a row, in milliseconds since the UNIX epoch.
///
/// ```
/// # use std::time::Duration;
/// # use differential_dataflow::input::Input;
/// use tidefeed_operators::time::windowed::Windowed;
/// use tidefeed_operators::time::windows::Window;
///
/// timely::execute_directly(|worker| {
///     worker.dataflow::<u64, _, _>(|scope| {
///         let (_, visits) = scope.new_collection_from([("anna", 1_200), ("anna", 1_900), ("bert", 2_100)]);
///         let visits = visits.map(|(who, at_ms): (&str, u64)| (who.to_owned(), at_ms));
///         let second = |at_ms| Window { start_ms: at_ms, end_ms: at_ms + 1_000 };
///         visits
///             .tumbling(Duration::from_secs(1), |at_ms| *at_ms)
///             .expect("a whole number of milliseconds")
///             .assert_eq(scope.new_collection_from([
///                 (("anna".to_owned(), second(1_000)), 1_200),
///                 (("anna".to_owned(), second(1_000)), 1_900),
///                 (("bert".to_owned(), second(2_000)), 2_100),
///             ]).1);
///     });
/// });
/// ```
pub trait Windowed<'scope, K, V>: Sized {
    /// Each row in the one window of `size` that contains its time. Windows begin at multiples of `size`.
    ///
    /// # Errors
    /// `Config` when `size` is no whole number of milliseconds, or none at all.
    fn tumbling<F>(self, size: Duration, time_ms: F) -> Result<InWindows<'scope, K, V>>
    where
        F: Fn(&V) -> u64 + 'static,
    {
        self.hopping(size, size, time_ms)
    }

    /// Each row in every window of `size` that contains its time. Windows begin at multiples of `step`; with a step above the size
    /// some rows are in none.
    ///
    /// # Errors
    /// `Config` when either is no whole number of milliseconds, or none at all, or a row would be in more than 10,000 windows.
    fn hopping<F>(
        self,
        size: Duration,
        step: Duration,
        time_ms: F,
    ) -> Result<InWindows<'scope, K, V>>
    where
        F: Fn(&V) -> u64 + 'static;

    /// Each row in its session: the rows of its key among which each is less than `gap` after the one before.
    ///
    /// # Errors
    /// `Config` when `gap` is no whole number of milliseconds, or none at all.
    fn sessions<F>(self, gap: Duration, time_ms: F) -> Result<InWindows<'scope, K, V>>
    where
        F: Fn(&V) -> u64 + 'static;
}

impl<'scope, K: ExchangeData + Hashable, V: ExchangeData> Windowed<'scope, K, V>
    for VecCollection<'scope, u64, (K, V), isize>
{
    fn hopping<F>(
        self,
        size: Duration,
        step: Duration,
        time_ms: F,
    ) -> Result<InWindows<'scope, K, V>>
    where
        F: Fn(&V) -> u64 + 'static,
    {
        let windows = Hopping::new(size, step)?;
        Ok(self.flat_map(move |(key, row)| {
            let of_row = windows.containing(time_ms(&row));
            of_row.map(move |window| ((key.clone(), window), row.clone()))
        }))
    }

    fn sessions<F>(self, gap: Duration, time_ms: F) -> Result<InWindows<'scope, K, V>>
    where
        F: Fn(&V) -> u64 + 'static,
    {
        let gap = whole_millis("a session's gap", gap)?.get();
        // In order of time, so that sessions are runs of neighbours.
        let timed = self.map(move |(key, row)| (key, (time_ms(&row), row)));
        let placed = timed.reduce_named("Sessions", move |_key, rows, placed| {
            let close = |(a, _): &Timed<'_, V>, (b, _): &Timed<'_, V>| b.0 - a.0 < gap;
            for session in rows.chunk_by(close) {
                let window = Window {
                    start_ms: session[0].0.0,
                    end_ms: session[session.len() - 1].0.0.saturating_add(gap),
                };
                let in_window = |((_, row), times): &Timed<'_, V>| ((window, row.clone()), *times);
                placed.extend(session.iter().map(in_window));
            }
        });
        Ok(placed.map(|(key, (window, row))| ((key, window), row)))
    }
}

/// A row with its time, and how often it is there.
type Timed<'a, V> = (&'a (u64, V), isize);
