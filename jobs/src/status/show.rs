//! A report as text, for a terminal.

use std::fmt;

use super::look::word as state_word;
use super::report::{Process, Range, RangeState, Report, Sink, Source};

/// Feed ranges of a source that are shown; the worst come first.
const RANGES: usize = 10;

/// Throttled physical partitions of a sink that are shown; the worst come first.
const PARTITIONS: usize = 10;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = &self.job;
        let generation = job
            .generation
            .map(|generation| format!(", run {generation}"));
        let processes = if job.processes == 1 {
            "process"
        } else {
            "processes"
        };
        let workers = if job.workers == 1 {
            "worker"
        } else {
            "workers"
        };
        writeln!(
            f,
            "{}{}: {}, {} {processes}, {} {workers}, up {}",
            job.name,
            generation.unwrap_or_default(),
            state_word(self.holds.state),
            job.processes,
            job.workers,
            time(self.at_ms.saturating_sub(job.started_at_ms)),
        )?;
        writeln!(f, "{}", self.holds)?;
        self.fmt_epochs(f)?;
        for source in &self.sources {
            fmt_source(source, f)?;
        }
        for sink in &self.sinks {
            fmt_sink(sink, f)?;
        }
        for process in &self.processes {
            fmt_process(process, f)?;
        }
        Ok(())
    }
}

impl Report {
    fn fmt_epochs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epochs, checkpoint) = (&self.epochs, &self.checkpoint);
        let commit = checkpoint
            .last_commit_at_ms
            .map_or("no commit yet".to_owned(), |at| {
                format!("last commit {} ago", time(self.at_ms.saturating_sub(at)))
            });
        let oldest = epochs.oldest_ms.map_or("all committed".to_owned(), |age| {
            format!("oldest not committed {}", time(age))
        });
        writeln!(
            f,
            "epochs      {commit}, {oldest}, p50 {:.0} ms, p99 {:.0} ms; {} commits, {} seals, at {}",
            epochs.latency_p50_ms,
            epochs.latency_p99_ms,
            checkpoint.commits,
            checkpoint.seals,
            checkpoint.location,
        )?;
        self.fmt_store(f)
    }

    /// The checkpoint store, where its figures are known.
    fn fmt_store(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = &self.checkpoint;
        let (Some(objects), Some(bytes)) = (store.objects_written, store.bytes_written) else {
            return Ok(());
        };
        write!(
            f,
            "store       {objects} objects written, {} deleted, {:.1} MB, {:.1} kB/s, {} bases",
            store.objects_deleted.unwrap_or(0),
            bytes as f64 / 1e6,
            store.bytes_per_s.unwrap_or(0.0) / 1e3,
            store.bases.unwrap_or(0),
        )?;
        match store.write_p50_ms.zip(store.write_p99_ms) {
            Some((p50, p99)) => writeln!(f, "; a write p50 {p50:.1} ms, p99 {p99:.1} ms"),
            None => writeln!(f),
        }
    }
}

fn fmt_source(source: &Source, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let behind = source.ranges.iter().map(|range| range.behind_ms);
    let behind = match behind.collect::<Option<Vec<_>>>() {
        Some(behind) if behind.is_empty() => "no feed range".to_owned(),
        Some(behind) => format!("behind {}", time(behind.into_iter().max().unwrap_or(0))),
        None => "catching up".to_owned(),
    };
    write!(
        f,
        "source {}  {:.0} records/s, {:.1} RU/s, {behind}, {} records",
        source.name, source.records_per_s, source.ru_per_s, source.records
    )?;
    if source.decode_errors > 0 {
        write!(f, ", {} not decoded", source.decode_errors)?;
    }
    if source.dead_letters > 0 {
        write!(f, ", {} dead letters", source.dead_letters)?;
    }
    writeln!(f)?;
    let mut ranges: Vec<&Range> = source.ranges.iter().collect();
    ranges.sort_by_key(|range| std::cmp::Reverse((badness(range.state), range.behind_ms)));
    for range in ranges.iter().take(RANGES) {
        let behind = range.behind_ms.map_or("-".to_owned(), time);
        write!(
            f,
            "  {}  {}, worker {}, behind {behind}, {:.0} records/s, token {} old",
            range.range,
            word(range.state),
            range.worker,
            range.records_per_s,
            time(range.token_age_ms)
        )?;
        match &range.trouble {
            Some(trouble) => writeln!(f, ": {trouble}")?,
            None => writeln!(f)?,
        }
    }
    match ranges.len().saturating_sub(RANGES) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more feed ranges"),
    }
}

fn fmt_sink(sink: &Sink, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let budget = sink
        .ru_budget_per_s
        .map(|budget| format!(" of {budget:.0}"));
    let in_flight = sink
        .in_flight
        .map(|requests| format!(", {requests} requests in flight"));
    writeln!(
        f,
        "sink {}  {:.0} documents/s, {:.1}{} RU/s, {:.1} % throttled{}, {} dead letters, {} upserts, {} deletes, {} ignored",
        sink.name,
        sink.documents_per_s,
        sink.ru_per_s,
        budget.unwrap_or_default(),
        sink.throttled_share * 100.0,
        in_flight.unwrap_or_default(),
        sink.dead_letters,
        sink.upserts,
        sink.deletes,
        sink.ignored,
    )?;
    let mut throttled: Vec<_> = sink.partitions.iter().collect();
    throttled.retain(|one| one.throttled_share > 0.0);
    throttled.sort_by(|a, b| b.throttled_share.total_cmp(&a.throttled_share));
    for one in throttled.iter().take(PARTITIONS) {
        writeln!(
            f,
            "  partition {}  {:.1} % throttled, {:.0} documents/s, {:.1} RU/s, {} requests in flight",
            one.partition,
            one.throttled_share * 100.0,
            one.documents_per_s,
            one.ru_per_s,
            one.in_flight,
        )?;
    }
    match throttled.len().saturating_sub(PARTITIONS) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more throttled partitions"),
    }
}

fn fmt_process(process: &Process, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "process {}", process.process)?;
    if let Some(address) = &process.address {
        write!(f, " at {address}")?;
    }
    match &process.state {
        Some(state) => write!(f, "  {state}")?,
        None => match process.heard_ms {
            Some(age) => write!(f, "  heard of {} ago", time(age))?,
            None => write!(f, "  not heard of")?,
        },
    }
    if process.memory_bytes > 0 {
        let last = if process.state.is_some() { "" } else { "last " };
        write!(
            f,
            ", {last}{:.0} MB, {:.2} cores, {} files, {} tasks",
            process.memory_bytes as f64 / 1e6,
            process.cpu,
            process.open_files,
            process.tokio_tasks
        )?;
    }
    match &process.missing {
        Some(missing) => writeln!(f, "; {missing}"),
        None => writeln!(f),
    }
}

fn badness(state: RangeState) -> u8 {
    match state {
        RangeState::Failing => 4,
        RangeState::Throttled => 3,
        RangeState::Backpressure => 2,
        RangeState::Reading => 1,
        RangeState::CaughtUp => 0,
    }
}

fn word(state: RangeState) -> &'static str {
    match state {
        RangeState::Failing => "failing",
        RangeState::Throttled => "throttled",
        RangeState::Backpressure => "backpressure",
        RangeState::Reading => "reading",
        RangeState::CaughtUp => "caught up",
    }
}

fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Partition;
    use super::*;
    use crate::config::HttpConfig;
    use crate::health::Health;

    #[test]
    fn times_have_units() {
        let times = [999, 1_000, 60_000, 3_661_000].map(time);
        assert_eq!(times, ["999 ms", "1.0 s", "1 min 0 s", "1 h 1 min"]);
    }

    #[test]
    fn what_is_wrong_is_shown_first() {
        let mut report = Report::of(&Health::new(HttpConfig::default()).look(), None);
        let range = |number: u64, state| Range {
            range: format!("range {number}"),
            state,
            behind_ms: (state == RangeState::CaughtUp).then_some(number),
            ..Range::default()
        };
        let mut ranges: Vec<_> = (0..12).map(|n| range(n, RangeState::CaughtUp)).collect();
        let failing = Range {
            trouble: Some("failed 3 times in a row: no answer".to_owned()),
            ..range(99, RangeState::Failing)
        };
        ranges.push(failing);
        report.sources.push(Source {
            name: "orders".to_owned(),
            ranges,
            ..Source::default()
        });
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        let source = lines
            .iter()
            .position(|line| line.starts_with("source orders"));
        let source = source.expect("named");
        assert!(lines[source].contains("catching up"), "{text}");
        let first = lines[source + 1];
        assert!(
            first.contains("range 99  failing") && first.ends_with("no answer"),
            "{text}"
        );
        assert!(lines[source + 2].contains("range 11  caught up"), "{text}");
        assert!(text.contains("and 3 more feed ranges"), "{text}");
        assert!(text.contains("no commit yet"), "{text}");
    }

    #[test]
    fn the_most_throttled_partitions_are_shown_and_no_others() {
        let mut report = Report::of(&Health::new(HttpConfig::default()).look(), None);
        let partition = |number: u32| Partition {
            partition: number.to_string(),
            throttled_share: f64::from(number) / 100.0,
            ..Partition::default()
        };
        report.sinks.push(Sink {
            name: "view".to_owned(),
            in_flight: Some(3),
            partitions: (0..13).map(partition).collect(),
            ..Sink::default()
        });
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        let sink = lines.iter().position(|line| line.starts_with("sink view"));
        let sink = sink.expect("named");
        assert!(lines[sink].contains(", 3 requests in flight,"), "{text}");
        assert!(
            lines[sink + 1].starts_with("  partition 12  12.0 %"),
            "{text}"
        );
        assert!(lines[sink + 10].starts_with("  partition 3  "), "{text}");
        assert_eq!(
            lines[sink + 11],
            "  and 2 more throttled partitions",
            "{text}"
        );
        let store = "store       0 objects written, 0 deleted, 0.0 MB, 0.0 kB/s, 0 bases";
        assert!(lines.contains(&store), "{text}");
    }
}
