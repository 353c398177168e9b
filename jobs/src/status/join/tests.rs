//! Against a recomputation from the JSON of the parts: by default a figure of a whole is the sum of those of its parts.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::HttpConfig;
use crate::health::Health;
use crate::status::report::{Channel, Range, Worker};

/// What is not a sum.
const LARGEST: [&str; 5] = [
    "writing_ms",
    "busiest_share",
    "frontier_lag_ms",
    "write_p50_ms",
    "write_p99_ms",
];
const SMALLEST: [&str; 2] = ["watermark_at_ms", "frontier"];
/// What is no figure of parts, or is looked at by itself.
const NOT_HERE: [&str; 12] = [
    "name",
    "kind",
    "ranges",
    "partitions",
    "throttled_share",
    "busy_share",
    "id",
    "scope",
    "location",
    "commits",
    "bases",
    "last_commit_at_ms",
];

/// Something of which every number is drawn, and each that may be unknown is so at times. `fixed` is as given.
fn drawn<T: DeserializeOwned + Default + Serialize>(
    random: &mut fastrand::Rng,
    fixed: &[(&str, Value)],
) -> T {
    let mut value = serde_json::to_value(T::default()).expect("JSON");
    let fields = value.as_object().expect("a struct").clone();
    for (name, default) in fields {
        if default.is_number() || (default.is_null() && random.bool()) {
            // Whole numbers have exact sums.
            value[&name] = json!(random.u32(..1000));
            if serde_json::from_value::<T>(value.clone()).is_err() {
                // It is no number when it is known.
                value[&name] = default;
            }
        }
    }
    for (name, given) in fixed {
        value[name] = given.clone();
    }
    serde_json::from_value(value).expect("of the form")
}

fn part(number: u32, random: &mut fastrand::Rng) -> Part {
    let sources = ["s", "t"].map(|name| {
        let named = [("name", json!(name))];
        let mut source: Source = drawn(random, &named);
        source.ranges = (0..random.usize(..3))
            .map(|_| drawn::<Range>(random, &[("process", json!(number))]))
            .collect();
        source
    });
    let sinks = ["v", "w", "x"].map(|name| {
        let named = [("name", json!(name))];
        let mut sink: Sink = drawn(random, &named);
        sink.partitions = (0..random.u32(..3))
            .map(|at| drawn(random, &[("partition", json!(at.to_string()))]))
            .collect();
        sink
    });
    let operators = (0..6).map(|id| {
        let known = [("id", json!(id)), ("name", json!(format!("Map {id}")))];
        drawn::<Operator>(random, &known)
    });
    let operators = operators.collect();
    // Two of them lead to the same operator.
    let channel = |to: u64| drawn::<Channel>(random, &[("from", json!(0)), ("to", json!(to))]);
    let channels = [1, 1, 2].map(channel).to_vec();
    let workers = random.u32(..4);
    let mut process: Process = drawn(random, &[("process", json!(number))]);
    process.state = Some("running".to_owned());
    process.workers = (0..workers).map(|_| Worker::default()).collect();
    let mut some = |all: usize| random.usize(..=all);
    let (of_sources, of_sinks) = (some(2), some(3));
    Part {
        form: FORM,
        started_at_ms: 1,
        process,
        checkpoint: drawn(random, &[]),
        sources: sources[..of_sources].to_vec(),
        sinks: sinks[..of_sinks].to_vec(),
        graph: Graph {
            operators,
            channels,
        },
    }
}

fn own(part: &Part) -> Report {
    let report = Report::of(&Health::new(HttpConfig::default()).look(), None);
    Report {
        checkpoint: part.checkpoint.clone(),
        sources: part.sources.clone(),
        sinks: part.sinks.clone(),
        graph: part.graph.clone(),
        processes: vec![part.process.clone()],
        ..report
    }
}

fn objects<T: Serialize>(all: impl IntoIterator<Item = T>) -> Vec<Map<String, Value>> {
    let object = |one: T| match serde_json::to_value(one) {
        Ok(Value::Object(object)) => object,
        other => panic!("no object: {other:?}"),
    };
    all.into_iter().map(object).collect()
}

/// Every figure of `whole` is what those of `parts` come to.
fn figures_are_right(whole: &Map<String, Value>, parts: &[Map<String, Value>]) {
    for (name, found) in whole {
        if NOT_HERE.contains(&name.as_str()) || name == "last_base_at_ms" {
            continue;
        }
        let known: Vec<f64> = parts.iter().filter_map(|one| one[name].as_f64()).collect();
        let of = match name.as_str() {
            name if LARGEST.contains(&name) => f64::max,
            name if SMALLEST.contains(&name) => f64::min,
            _ => |a, b| a + b,
        };
        let expected = known.into_iter().reduce(of);
        assert_eq!(found.as_f64(), expected, "{name} of {parts:?}");
    }
}

/// Those of all parts with the same name, or number.
fn same<T: Serialize>(
    all: impl IntoIterator<Item = T>,
    key: &str,
    is: &Value,
) -> Vec<Map<String, Value>> {
    let mut all = objects(all);
    all.retain(|one| one[key] == *is);
    all
}

#[test]
fn the_whole_is_the_sum_of_its_parts() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        let parts: Vec<_> = (0..random.u32(1..5))
            .map(|n| part(n, &mut random))
            .collect();
        let whole = join(own(&parts[0]), &parts[1..]);
        for source in objects(&whole.sources) {
            let of_parts = parts.iter().flat_map(|part| &part.sources);
            figures_are_right(&source, &same(of_parts, "name", &source["name"]));
        }
        for sink in objects(&whole.sinks) {
            let of_parts = parts.iter().flat_map(|part| &part.sinks);
            figures_are_right(&sink, &same(of_parts, "name", &sink["name"]));
        }
        for operator in objects(&whole.graph.operators) {
            let of_parts = parts.iter().flat_map(|part| &part.graph.operators);
            figures_are_right(&operator, &same(of_parts, "id", &operator["id"]));
        }
        let checkpoints = objects(parts.iter().map(|part| &part.checkpoint));
        figures_are_right(&objects([&whole.checkpoint])[0], &checkpoints);
        let of_0 = &parts[0].checkpoint;
        let found = &whole.checkpoint;
        assert_eq!((found.commits, found.bases), (of_0.commits, of_0.bases));
        whole_lists_are_there(&whole, &parts);
        shares_are_means(&whole, &parts);
    }
}

fn whole_lists_are_there(whole: &Report, parts: &[Part]) {
    let ranges = |sources: &[Source]| sources.iter().map(|one| one.ranges.len()).sum::<usize>();
    let of_parts = parts.iter().map(|part| ranges(&part.sources));
    assert_eq!(ranges(&whole.sources), of_parts.sum::<usize>());
    let processes = whole.processes.iter().map(|one| one.process);
    assert!(processes.eq(0..parts.len() as u32));
    assert_eq!(whole.graph.channels.len(), 3, "they are matched");
    let sent = |graph: &Graph| graph.channels.iter().map(|one| one.records).sum::<u64>();
    let of_parts = parts.iter().map(|part| sent(&part.graph));
    assert_eq!(sent(&whole.graph), of_parts.sum::<u64>());
    for sink in &whole.sinks {
        let same = parts.iter().flat_map(|part| &part.sinks);
        let same = same.filter(|one| one.name == sink.name);
        let under_way = same
            .flat_map(|one| &one.partitions)
            .map(|one| one.in_flight);
        let found = sink.partitions.iter().map(|one| one.in_flight);
        assert_eq!(found.sum::<u64>(), under_way.sum::<u64>());
        let mut names: Vec<_> = sink.partitions.iter().map(|one| &one.partition).collect();
        names.dedup();
        assert_eq!(names.len(), sink.partitions.len());
    }
}

fn shares_are_means(whole: &Report, parts: &[Part]) {
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} instead of {b}");
    for sink in &whole.sinks {
        let same = parts.iter().flat_map(|part| &part.sinks);
        let same: Vec<_> = same.filter(|one| one.name == sink.name).collect();
        let throttled = same
            .iter()
            .map(|one| one.throttled_share * one.requests_per_s);
        if let [one] = same[..] {
            close(sink.throttled_share, one.throttled_share);
        } else if sink.requests_per_s > 0.0 {
            let expected = throttled.sum::<f64>() / sink.requests_per_s;
            close(sink.throttled_share, expected);
        }
    }
    let workers: usize = parts.iter().map(|part| part.process.workers.len()).sum();
    for (at, operator) in whole.graph.operators.iter().enumerate() {
        let busy = parts
            .iter()
            .map(|part| part.graph.operators[at].busy_share * part.process.workers.len() as f64);
        if parts.len() > 1 && workers > 0 {
            close(operator.busy_share, busy.sum::<f64>() / workers as f64);
        }
    }
}

#[test]
fn operators_of_another_dataflow_are_left_out() {
    let mut random = fastrand::Rng::with_seed(1);
    let (one, mut other) = (part(0, &mut random), part(1, &mut random));
    for operator in &mut other.graph.operators {
        operator.name = "Filter".to_owned();
    }
    let whole = join(own(&one), &[other]);
    assert_eq!(whole.graph.operators, one.graph.operators);
}

#[test]
fn what_is_silent_has_no_rates_and_grows_old() {
    let mut random = fastrand::Rng::with_seed(2);
    let (one, mut silent) = (part(0, &mut random), part(1, &mut random));
    silent.process.state = None;
    let counted = silent.clone();
    silent.still(7_000);
    let whole = join(own(&one), &[silent.clone()]);
    for (at, operator) in whole.graph.operators.iter().enumerate() {
        let alone = &one.graph.operators[at];
        assert_eq!(operator.busy_share, alone.busy_share);
        let records = alone.records_in + counted.graph.operators[at].records_in;
        assert_eq!(operator.records_in, records);
    }
    let names_of_rates = |value: &Value| -> Vec<String> {
        let fields = value.as_object().expect("a struct").iter();
        let rates = fields.filter(|(name, value)| {
            (name.ends_with("_per_s") && *name != "ru_budget_per_s" || name.ends_with("_share"))
                && value.as_f64().is_some_and(|rate| rate != 0.0)
        });
        rates.map(|(name, _)| name.clone()).collect()
    };
    let of = |part: &Part| {
        let sources = objects(&part.sources).into_iter();
        let all = sources.chain(objects(&part.sinks));
        let all = all.chain(objects(part.sources.iter().flat_map(|one| &one.ranges)));
        let all = all.chain(objects(part.sinks.iter().flat_map(|one| &one.partitions)));
        let all = all.chain(objects(&part.graph.operators));
        let all = all.chain(objects(&part.graph.channels));
        let all = all.chain(objects([&part.checkpoint]));
        all.flat_map(|one| names_of_rates(&Value::Object(one)))
            .collect::<Vec<_>>()
    };
    assert!(of(&counted).len() > 20, "{:?}", of(&counted));
    assert_eq!(of(&silent), Vec::<String>::new());
    for (source, before) in silent.sources.iter().zip(&counted.sources) {
        for (range, before) in source.ranges.iter().zip(&before.ranges) {
            assert_eq!(range.token_age_ms, before.token_age_ms + 7_000);
        }
    }
}
