//! Processor time of a process, from `/proc`: it says what work costs even when the machine is busy with other things.

use std::io;
use std::time::Duration;

use crate::Outcome;

/// What all threads that the process has now have used, in user mode and in the kernel.
///
/// # Errors
/// When the process has ended.
pub fn processor_time(process: u32) -> Outcome<Duration> {
    let mut time = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let schedstat = match std::fs::read_to_string(thread?.path().join("schedstat")) {
            Ok(schedstat) => schedstat,
            Err(error) if has_ended(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        let nanoseconds = schedstat.split(' ').next().unwrap_or_default();
        time += Duration::from_nanos(nanoseconds.parse()?);
    }
    Ok(time)
}

/// The same with threads that have ended, to a hundredth of a second.
///
/// # Errors
/// When the process has ended.
pub fn processor_time_of_all(process: u32) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program, which may hold anything, ends with the last parenthesis; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or("a stat names its program")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(10 * ticks))
}

/// A thread may end between the listing and the reading of its file, or while that is read ("no such process").
fn has_ended(error: &io::Error) -> bool {
    const NO_SUCH_PROCESS: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let process = std::process::id();
        let before = processor_time(process).expect("this process runs");
        let spent = (0..).find(|_| {
            processor_time(process).is_ok_and(|now| now > before + Duration::from_millis(1))
        });
        assert!(spent.is_some());
        let all = processor_time_of_all(process).expect("this process runs");
        let now = processor_time(process).expect("this process runs");
        assert!(all + Duration::from_millis(20) >= before && all < now + Duration::from_secs(60));
    }
}
