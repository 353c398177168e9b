//! Memory of a process, from `/proc`.

use crate::Outcome;

/// Resident memory now, in bytes.
///
/// # Errors
/// When the process has ended.
pub fn resident_bytes(process: u32) -> Outcome<u64> {
    read(process, "VmRSS")
}

/// The most resident memory that the process has had since its program started, in bytes.
///
/// # Errors
/// When the process has ended.
pub fn peak_resident_bytes(process: u32) -> Outcome<u64> {
    read(process, "VmHWM")
}

fn read(process: u32, field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    parse(&status, field).ok_or_else(|| format!("process {process} has no {field}").into())
}

fn parse(status: &str, field: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Name:\tx\nVmHWMX:\t1 kB\nVmHWM:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(parse(status, "VmHWM"), Some(2_097_152));
        assert_eq!(parse(status, "VmRSS"), None);
        assert_eq!(parse(status, "Threads"), None);
    }
}
