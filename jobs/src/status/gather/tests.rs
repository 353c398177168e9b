use tidefeed_runtime::Epoch;
use tidefeed_runtime::cluster::MAX_REPORT_BYTES;

use super::*;
use crate::config::HttpConfig;
use crate::health::Health;
use crate::status::report::{FORM, Operator, Process, Range, Sink, Source};
use crate::status::told::text_of;

const SILENT: Duration = Duration::from_secs(2);

fn own(at_ms: u64) -> Report {
    let report = Report::of(&Health::new(HttpConfig::default()).look(), None);
    Report { at_ms, ..report }
}

fn fact(process: u32, heard_ms: u64) -> MemberFact {
    MemberFact {
        process,
        name: format!("process {process} at host:{process}"),
        heard: Some(Duration::from_millis(heard_ms)),
        sealed_through: Epoch(0),
        holding: None,
    }
}

/// What a process that began at `started_at_ms` tells when it has read and written so much.
fn part(started_at_ms: u64, count: u64) -> Part {
    let range = Range {
        range: "-FF".to_owned(),
        token_age_ms: 10,
        records_per_s: 3.0,
        ..Range::default()
    };
    Part {
        form: FORM,
        started_at_ms,
        process: Process {
            state: Some("running".to_owned()),
            memory_bytes: 9,
            ..Process::default()
        },
        sources: vec![Source {
            name: "s".to_owned(),
            records: count,
            ru: count as f64,
            records_per_s: 3.0,
            ranges: vec![range],
            ..Source::default()
        }],
        sinks: vec![Sink {
            name: "v".to_owned(),
            upserts: count,
            requests: count / 2,
            ..Sink::default()
        }],
        graph: super::super::report::Graph {
            operators: vec![Operator::default()],
            channels: Vec::new(),
        },
        checkpoint: super::super::report::Checkpoint {
            seals: count,
            ..Default::default()
        },
    }
}

fn report(process: u32, age_ms: u64, text: impl Into<Arc<str>>) -> MemberReport {
    MemberReport {
        process,
        age: Duration::from_millis(age_ms),
        text: text.into(),
    }
}

impl Gather {
    fn at(&mut self, at_ms: u64, members: &[MemberFact], reports: &[MemberReport]) -> Report {
        self.note(&News {
            at_ms,
            members,
            reports,
            silent_after: SILENT,
        });
        self.join(own(at_ms))
    }
}

fn counts(report: &Report) -> (u64, u64, u64, u64) {
    let records = report.sources.iter().map(|one| one.records).sum();
    let sinks = || report.sinks.iter();
    let upserts = sinks().map(|one| one.upserts).sum();
    let requests = sinks().map(|one| one.requests).sum();
    (records, upserts, requests, report.checkpoint.seals)
}

#[test]
fn a_member_that_falls_silent_keeps_its_figures() {
    let mut gather = Gather::default();
    let told = [report(1, 400, text_of(&part(5, 100)))];
    let whole = gather.at(10_000, &[fact(1, 300)], &told);
    let member = &whole.processes[1];
    assert_eq!((member.process, member.memory_bytes), (1, 9));
    assert_eq!(member.address.as_deref(), Some("host:1"));
    assert_eq!(
        (member.state.as_deref(), member.heard_ms),
        (Some("running"), Some(300))
    );
    assert_eq!(
        whole.sources[0].ranges[0].process, 0,
        "as the member has said"
    );
    assert_eq!(
        (counts(&whole).0, whole.sources[0].records_per_s),
        (100, 3.0)
    );
    // Its words stop.
    let told = [report(1, 3_400, Arc::clone(&told[0].text))];
    let whole = gather.at(13_000, &[fact(1, 3_300)], &told);
    let member = &whole.processes[1];
    assert_eq!(
        (member.state.as_deref(), member.heard_ms),
        (None, Some(3_300))
    );
    assert_eq!((member.memory_bytes, &member.missing), (9, &None));
    assert_eq!(
        (counts(&whole).0, whole.sources[0].records_per_s),
        (100, 0.0)
    );
    assert_eq!(whole.sources[0].ranges[0].token_age_ms, 3_410);
    // The run has ended, and with it the ledger that knew the member.
    let whole = gather.at(20_000, &[], &[]);
    let member = &whole.processes[1];
    assert_eq!(
        (member.state.as_deref(), member.heard_ms),
        (None, Some(10_300))
    );
    assert_eq!(counts(&whole), (100, 100, 50, 100));
}

#[test]
fn what_is_not_understood_is_said_and_ends_nothing() {
    let mut gather = Gather::default();
    let whole = gather.at(1_000, &[fact(1, 10)], &[]);
    let missing = |whole: &Report| whole.processes[1].missing.clone().unwrap_or_default();
    assert!(missing(&whole).contains("not told"), "{whole:?}");
    for garbage in ["", "no report", &"x".repeat(MAX_REPORT_BYTES)] {
        let whole = gather.at(2_000, &[fact(1, 10)], &[report(1, 0, garbage)]);
        assert!(missing(&whole).contains("not understood"), "{whole:?}");
        assert_eq!(whole.processes.len(), 2);
    }
    let told = [report(1, 0, text_of(&part(5, 7)))];
    let whole = gather.at(3_000, &[fact(1, 10)], &told);
    assert_eq!((missing(&whole), counts(&whole).0), (String::new(), 7));
    // What it told before is not forgotten.
    let whole = gather.at(4_000, &[fact(1, 10)], &[report(1, 0, "?")]);
    assert_eq!(counts(&whole).0, 7);
}

/// Members come, go, fall silent and begin anew; what each process has counted is summed up beside.
#[test]
fn no_count_goes_back() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..50 {
        let mut gather = Gather::default();
        // By member: when it began, what it has counted, and what those before it had.
        let mut members = [(1, 0, 0); 3];
        let mut told: BTreeMap<u32, u64> = BTreeMap::new();
        let mut before = (0, 0, 0, 0);
        for second in 1..60 {
            let (mut facts, mut reports) = (Vec::new(), Vec::new());
            for (number, (began, count, past)) in (1..).zip(&mut members) {
                if random.u8(..10) == 0 {
                    // What nobody was told is lost with it.
                    *past = told.get(&number).copied().unwrap_or(0);
                    (*began, *count) = (second * 1_000, 0);
                }
                *count += random.u64(..100) * 2;
                if random.u8(..5) == 0 {
                    continue;
                }
                facts.push(fact(number, random.u64(..4_000)));
                if random.bool() {
                    let text = text_of(&part(*began, *count));
                    reports.push(report(number, random.u64(..900), text));
                    told.insert(number, *past + *count);
                }
            }
            let whole = gather.at(second * 1_000, &facts, &reports);
            let now = counts(&whole);
            let expected: u64 = told.values().sum();
            assert_eq!(
                now,
                (expected, expected, expected / 2, expected),
                "second {second}"
            );
            assert!(now.0 >= before.0 && now.2 >= before.2, "second {second}");
            before = now;
        }
    }
}
