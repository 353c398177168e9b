//! Progress while the job runs: a bar on a terminal, a line a second elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text_table::grouped;

/// How far everything is, as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Writes to the source container that were acknowledged.
    pub written: u64,
    /// Writes that there will be.
    pub total: u64,
    /// Changes that were read from the change feed.
    pub changes_read: u64,
    /// Changes read per second, lately.
    pub changes_per_s: f64,
    /// Documents written to the views.
    pub views_written: u64,
    /// Age of the oldest change that is not committed, in milliseconds.
    pub lag_ms: u64,
    /// Time since the last commit, in milliseconds; none before the first.
    pub since_commit_ms: Option<u64>,
}

impl Progress {
    /// Everything but the writes, in one line.
    fn figures(&self) -> String {
        let commit = match self.since_commit_ms {
            Some(ms) => format!("commit {} ms ago", grouped(ms)),
            None => "no commit yet".to_owned(),
        };
        format!(
            "{} read ({}/s), {} to views, lag {} ms, {commit}",
            grouped(self.changes_read),
            grouped(self.changes_per_s.round() as u64),
            grouped(self.views_written),
            grouped(self.lag_ms),
        )
    }

    /// The whole line.
    fn line(&self) -> String {
        format!(
            "{} of {} written, {}",
            grouped(self.written),
            grouped(self.total),
            self.figures()
        )
    }
}

/// Where progress is shown: standard error, so that results can be piped.
pub enum Display {
    /// Redrawn in place.
    Bar(ProgressBar),
    /// A line at most once a second.
    Lines {
        /// When the last line was printed.
        printed: Option<Instant>,
    },
}

const LINE_EVERY: Duration = Duration::from_secs(1);

impl Display {
    /// A bar when standard error is a terminal, else lines.
    pub fn new(total: u64) -> Display {
        if !stderr().is_terminal() {
            return Display::Lines { printed: None };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:24} {pos:>9} of {len} written, {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Display::Bar(bar)
    }

    /// Shows how far everything is; may be called as often as one likes.
    pub fn show(&mut self, progress: &Progress) {
        match self {
            Display::Bar(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.written);
                bar.set_message(progress.figures());
            }
            Display::Lines { printed } => {
                if printed.is_none_or(|printed| printed.elapsed() >= LINE_EVERY) {
                    *printed = Some(Instant::now());
                    print_line(progress);
                }
            }
        }
    }

    /// Shows the end, and leaves the terminal as it was.
    pub fn finish(self, progress: &Progress) {
        match self {
            Display::Bar(bar) => {
                bar.finish_and_clear();
                print_line(progress);
            }
            Display::Lines { .. } => print_line(progress),
        }
    }
}

/// A standard error that is gone is no reason to stop the job.
fn print_line(progress: &Progress) {
    let _ = writeln!(stderr(), "{}", progress.line());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_everything() {
        let progress = Progress {
            written: 40_000,
            total: 80_476,
            changes_read: 39_990,
            changes_per_s: 6_543.21,
            views_written: 12_345,
            lag_ms: 12,
            since_commit_ms: Some(3),
        };
        let line = "40,000 of 80,476 written, 39,990 read (6,543/s), 12,345 to views, lag 12 ms, commit 3 ms ago";
        assert_eq!(progress.line(), line);
        assert!(line.len() <= 110);
        let mut display = Display::Lines { printed: None };
        display.show(&progress);
        display.finish(&progress);
    }
}
