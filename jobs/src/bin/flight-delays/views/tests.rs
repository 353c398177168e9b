//! The views against the recomputation, at every epoch, with one, two and three workers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use differential_dataflow::VecCollection;
use differential_dataflow::input::{Input, InputSession};
use serde::Serialize;
use serde_json::Value;
use timely::dataflow::ProbeHandle;

use super::{airborne, carrier_delays, route_delays, weather_delays};
use crate::data::{Tables, bundled_flights, bundled_tables};
use crate::lifecycle::Timeline;
use crate::model::FlightDocument;
use crate::oracle::{Documents, Expected};
use crate::rows::VIEWS;
use crate::testing::Seeded;

/// What happens to the flights in each epoch, and what the views should hold after it.
struct Script {
    epochs: Vec<Vec<(FlightDocument, isize)>>,
    expected: Vec<Expected>,
}

/// Random flights, their events cut into epochs of random length. Now and then a document goes back to an earlier state
/// or is deleted, which the demo never does but a right view must bear.
fn script(seed: u64, tables: &Tables) -> Script {
    let mut random = Seeded::new(seed);
    let mut flights = bundled_flights().expect("flights");
    let keep = 20 + random.below(300);
    let total = flights.len() as u64;
    flights.retain(|_| random.below(total) < keep);
    let timeline = Timeline::new(flights);

    let mut current: BTreeMap<String, FlightDocument> = BTreeMap::new();
    let mut script = Script {
        epochs: Vec::new(),
        expected: Vec::new(),
    };
    let mut events = timeline.events();
    while !events.is_empty() {
        let before = current.clone();
        let (now, later) = events.split_at((1 + random.below(40) as usize).min(events.len()));
        events = later;
        for event in now {
            let document = timeline.document(event);
            current.insert(document.id.clone(), document);
            if random.below(8) == 0 {
                let any = random.below(current.len() as u64) as usize;
                if let Some(id) = current.keys().nth(any).cloned() {
                    current.remove(&id);
                }
            }
            if random.below(8) == 0 {
                let any = &timeline.events()[random.below(timeline.events().len() as u64) as usize];
                let document = timeline.document(any);
                current.insert(document.id.clone(), document);
            }
        }
        script.epochs.push(updates(&before, &current));
        let documents: Vec<FlightDocument> = current.values().cloned().collect();
        script.expected.push(Expected::of(&documents, tables));
    }
    script
}

fn updates(
    before: &BTreeMap<String, FlightDocument>,
    after: &BTreeMap<String, FlightDocument>,
) -> Vec<(FlightDocument, isize)> {
    let gone = before
        .iter()
        .filter(|(id, document)| after.get(*id) != Some(document));
    let come = after
        .iter()
        .filter(|(id, document)| before.get(*id) != Some(document));
    let gone = gone.map(|(_, document)| (document.clone(), -1));
    gone.chain(come.map(|(_, document)| (document.clone(), 1)))
        .collect()
}

/// Updates of every view: view, epoch, document, difference.
type Output = Arc<Mutex<Vec<(usize, u64, Value, isize)>>>;

fn capture<'s, R: Serialize + Clone + 'static>(
    view: usize,
    rows: VecCollection<'s, u64, R, isize>,
    output: &Output,
    probe: &ProbeHandle<u64>,
) {
    let output = Arc::clone(output);
    rows.inspect(move |(row, epoch, diff)| {
        let value = serde_json::to_value(row).expect("json");
        output
            .lock()
            .expect("no worker panics")
            .push((view, *epoch, value, *diff));
    })
    .probe_with(probe);
}

/// Runs the four views over the epochs; worker `i` of `n` is given every `n`th update and table row.
fn run(script: &Arc<Script>, tables: &Arc<Tables>, workers: usize, in_step: bool) -> Output {
    let output = Output::default();
    let (script, tables, shared) = (Arc::clone(script), Arc::clone(tables), Arc::clone(&output));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let probe = ProbeHandle::new();
        let mut flights: InputSession<u64, FlightDocument, isize> = InputSession::new();
        worker.dataflow::<u64, _, _>(|scope| {
            fn part<R: Clone>(rows: &[R], index: usize, peers: usize) -> Vec<R> {
                rows.iter().skip(index).step_by(peers).cloned().collect()
            }
            let flights = flights.to_collection(scope);
            let airlines = scope
                .new_collection_from(part(&tables.airlines, index, peers))
                .1;
            let airports = scope
                .new_collection_from(part(&tables.airports, index, peers))
                .1;
            let weather = scope
                .new_collection_from(part(&tables.weather, index, peers))
                .1;
            let planes = scope
                .new_collection_from(part(&tables.planes, index, peers))
                .1;
            capture(
                0,
                carrier_delays(flights.clone(), airlines),
                &shared,
                &probe,
            );
            capture(1, route_delays(flights.clone(), airports), &shared, &probe);
            capture(2, weather_delays(flights.clone(), weather), &shared, &probe);
            capture(3, airborne(flights, planes), &shared, &probe);
        });
        for (epoch, updates) in script.epochs.iter().enumerate() {
            for (document, diff) in updates.iter().skip(index).step_by(peers) {
                flights.update(document.clone(), *diff);
            }
            flights.advance_to(epoch as u64 + 1);
            if in_step {
                flights.flush();
                worker.step_while(|| probe.less_than(flights.time()));
            }
        }
        flights.close();
        worker.step_while(|| !probe.done());
    })
    .expect("workers start");
    for outcome in guards.join() {
        outcome.expect("no worker panics");
    }
    output
}

/// Adds up the updates of one epoch; a document that is not there exactly once, or not at all, is a failure.
fn accumulate(view: &mut HashMap<String, isize>, updates: &[(Value, isize)]) -> Documents {
    for (document, diff) in updates {
        *view.entry(document.to_string()).or_insert(0) += diff;
    }
    view.retain(|_, count| *count != 0);
    let mut documents = Documents::new();
    for (text, count) in view.iter() {
        assert_eq!(*count, 1, "{text}");
        let document: Value = serde_json::from_str(text).expect("json");
        let id = document["id"].as_str().expect("an id").to_owned();
        assert!(
            documents.insert(id, document).is_none(),
            "two rows with one id: {text}"
        );
    }
    documents
}

fn check(script: &Script, output: &Output) {
    let mut by_epoch: HashMap<(usize, u64), Vec<(Value, isize)>> = HashMap::new();
    for (view, epoch, document, diff) in output.lock().expect("no worker panics").drain(..) {
        by_epoch
            .entry((view, epoch))
            .or_default()
            .push((document, diff));
    }
    let mut views: [HashMap<String, isize>; 4] = Default::default();
    for (epoch, expected) in script.expected.iter().enumerate() {
        for (index, view) in VIEWS.iter().enumerate() {
            let updates = by_epoch.remove(&(index, epoch as u64)).unwrap_or_default();
            let actual = accumulate(&mut views[index], &updates);
            assert_eq!(
                Some(&actual),
                expected.view(view.name),
                "{} at epoch {epoch}",
                view.name
            );
        }
    }
    assert!(by_epoch.is_empty(), "updates at an epoch that was not");
}

#[test]
fn every_epoch_equals_a_recomputation_from_scratch() {
    let mut tables = bundled_tables().expect("tables");
    // Flights of January need no other weather, and the runs are many.
    let february = "2013-02-02T00:00:00Z".parse().expect("a time");
    tables.weather.retain(|row| row.hour < february);
    let tables = Arc::new(tables);
    for seed in 0..6 {
        let script = Arc::new(script(seed, &tables));
        for workers in [1, 2, 3] {
            for in_step in [true, false] {
                println!("seed {seed}, {workers} workers, in step: {in_step}");
                let output = run(&script, &tables, workers, in_step);
                check(&script, &output);
            }
        }
    }
}
