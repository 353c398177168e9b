//! What the operating system says of this process.

use std::time::Duration;

/// Figures of this process; what cannot be had is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessFigures {
    pub(super) memory_bytes: u64,
    /// Of all cores, since the process began.
    pub(super) cpu: Duration,
    pub(super) open_files: u64,
}

impl ProcessFigures {
    /// From `/proc`, where there is one.
    pub(crate) fn now() -> Self {
        let read = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        ProcessFigures {
            memory_bytes: resident(&read("/proc/self/statm")).unwrap_or(0),
            cpu: cpu(&read("/proc/self/stat")).unwrap_or_default(),
            // Without the one that is read.
            open_files: (files as u64).saturating_sub(1),
        }
    }
}

/// Pages are counted.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Ticks are counted; the name, in parentheses, may have anything in it.
fn cpu(stat: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    let per_second = rustix::param::clock_ticks_per_second();
    let seconds = (user + system) as f64 / per_second.max(1) as f64;
    Some(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let tick = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 {} {tick} 0", 2 * tick);
        assert_eq!(cpu(&stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("7 (a"), None);
        let page = rustix::param::page_size() as u64;
        assert_eq!(resident("9 3 1"), Some(3 * page));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_files() {
        let now = ProcessFigures::now();
        assert!(now.memory_bytes > 0 && now.open_files > 0, "{now:?}");
    }
}
