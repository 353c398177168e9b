//! When to kill a run: moments drawn from a seed, measured by what the run has been seen to do, so that a slow machine kills
//! at the same stages as a fast one.

use std::path::Path;
use std::time::Duration;

use crate::checkpoint_files::{CheckpointFiles, newest_generation};
use crate::process::Run;

/// When to kill a run.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// After so many requests: the run connects, opens its containers, reads its first pages.
    Requests(u64),
    /// So long after the run has taken over the checkpoint: it pins its start, rehydrates, compares the views.
    TakenOver(Duration),
    /// So many requests after the first commit of the run: what it read first is in the views, and what it read next is not.
    Committed(u64),
    /// When so many changes are written to the source and the run has taken over, and so many requests later.
    Written(u64, u64),
}

/// What a moment is measured by.
pub struct Watched<'a> {
    /// The folder of the job in the checkpoint directory.
    pub checkpoint: &'a Path,
    /// Requests so far.
    pub requests: &'a dyn Fn() -> u64,
    /// Changes written to the source so far.
    pub written: &'a dyn Fn() -> u64,
}

impl Moment {
    /// Draws `kills` moments that lead from the first write to the last of `changes`: about half of them spread over the
    /// writing, up to `requests_later` after their share of it, the others at starts in between, and the last tenth when
    /// everything is written.
    pub fn draw(
        random: &mut fastrand::Rng,
        kills: usize,
        changes: u64,
        requests_later: u64,
    ) -> Vec<Moment> {
        let at_the_end = (kills / 10).max(1);
        let before = kills - at_the_end.min(kills);
        (0..kills)
            .map(|kill| match random.u8(0..4) {
                _ if kill >= before => Moment::Written(changes, random.u64(0..300)),
                0 => Moment::Requests(random.u64(0..80)),
                1 => Moment::at_start(random),
                _ => {
                    let share = (kill as f64 + random.f64()) / before as f64;
                    let written = (share * changes as f64) as u64;
                    Moment::Written(written, random.u64(0..requests_later))
                }
            })
            .collect()
    }

    /// A moment just after the checkpoint was taken over.
    pub fn at_start(random: &mut fastrand::Rng) -> Moment {
        Moment::TakenOver(Duration::from_micros(random.u64(0..100_000)))
    }

    /// Waits for the moment in a run that has just begun, or for its end.
    pub fn wait(self, run: &mut Run, watched: &Watched<'_>) {
        let before = newest_generation(watched.checkpoint);
        let taken_over = || newest_generation(watched.checkpoint) > before;
        let at_first = (watched.requests)();
        match self {
            Moment::Requests(count) => {
                run.wait_until(|| (watched.requests)() >= at_first + count);
            }
            Moment::TakenOver(later) => {
                let _ = run.wait_until(taken_over) && run.wait_for(later);
            }
            Moment::Committed(later) => {
                let commit = || CheckpointFiles::of(watched.checkpoint).commit;
                run.wait_until(|| commit().is_some_and(|commit| commit.generation > before));
                let from = (watched.requests)();
                run.wait_until(|| (watched.requests)() >= from + later);
            }
            Moment::Written(changes, later) => {
                run.wait_until(|| taken_over() && (watched.written)() >= changes);
                let from = (watched.requests)();
                run.wait_until(|| (watched.requests)() >= from + later);
            }
        }
    }
}
