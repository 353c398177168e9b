//! Final windows over random rows, watermarks and restarts, against what their definition says.

use std::collections::BTreeMap;

use tidefeed_runtime::Record;

use super::*;
use crate::keyed::{KeyBytes, KeyedState, Updates};

/// A document's time and value.
type Row = (u64, i64);
type Key = (u8, Window);
type Shown = BTreeMap<Key, Final<i64, Row>>;
type Changes = Vec<(Key, Row, isize)>;
type ShownRow = (Key, Final<i64, Row>);

const EPOCHS: usize = 60;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn sum(total: &mut i64, row: &Row, times: isize) {
    *total += row.1 * times as i64;
}

/// What a run is given: the changes of each epoch, and where the watermark is after it.
struct History {
    windows: FinalWindows,
    epochs: Vec<(Changes, u64)>,
}

impl History {
    /// Documents that come, change and go; most have times about that of the epoch, and the watermark stands still or moves.
    fn random(random: &mut fastrand::Rng, windows: FinalWindows) -> History {
        let mut documents: BTreeMap<u8, (u8, Row)> = BTreeMap::new();
        let mut watermark = 0;
        let mut epochs = Vec::new();
        for epoch in 0..EPOCHS as u64 {
            let mut changes = Vec::new();
            for _ in 0..random.u8(..6) {
                let id = random.u8(..30);
                let row = (random.u8(..4) > 0).then(|| {
                    let time = (epoch * 10 + 20).saturating_sub(random.u64(..60));
                    (random.u8(..3), (time, random.i64(1..100)))
                });
                let gone = match row {
                    Some(row) => documents.insert(id, row),
                    None => documents.remove(&id),
                };
                for (document, times) in [(gone, -1), (row, 1)] {
                    let of_document = document.into_iter().flat_map(|(key, row)| {
                        let of_row = windows.containing(row.0);
                        of_row.map(move |window| ((key, window), row, times))
                    });
                    changes.extend(of_document);
                }
            }
            if random.bool() {
                watermark = watermark.max((epoch * 10).saturating_sub(random.u64(..80)));
            }
            epochs.push((changes, watermark));
        }
        History { windows, epochs }
    }

    /// What is shown after so many epochs, by the definition: what came before a window closed is in its result, the rest is late.
    fn expected(&self, epochs: usize) -> Shown {
        let epochs = &self.epochs[..epochs];
        let mut rows: BTreeMap<Key, Vec<(usize, Row, isize)>> = BTreeMap::new();
        for (epoch, (changes, _)) in epochs.iter().enumerate() {
            for (key, row, times) in changes {
                rows.entry(*key).or_default().push((epoch, *row, *times));
            }
        }
        let mut shown = Shown::new();
        for (key, rows) in rows {
            let closes = self.windows.closes_ms(&key.1);
            let Some(closed) = epochs.iter().position(|(_, at)| *at >= closes) else {
                continue;
            };
            let (counted, late): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|(epoch, ..)| *epoch <= closed);
            let count: isize = counted.iter().map(|(.., times)| times).sum();
            let mut total = 0;
            counted
                .iter()
                .for_each(|(_, row, times)| sum(&mut total, row, *times));
            let mut late: Vec<_> = late
                .into_iter()
                .map(|(_, row, times)| (row, times))
                .collect();
            consolidate(&mut late);
            let result = (count > 0).then_some(total);
            if result.is_some() || !late.is_empty() {
                shown.insert(key, Final { result, late });
            }
        }
        shown
    }
}

fn updates(changes: &[(Key, Row, isize)]) -> Updates<Row> {
    let mut updates = Updates::new();
    for (key, row, times) in changes {
        let key: KeyBytes = serde_json::to_vec(key).expect("JSON").into();
        updates
            .entry(key)
            .or_insert_with(Vec::new)
            .push((*row, *times));
    }
    updates
}

/// What rows make of what is shown.
fn show(shown: &mut Shown, rows: Vec<(ShownRow, isize)>) {
    for ((key, row), times) in &rows {
        if *times < 0 {
            assert_eq!(shown.remove(key).as_ref(), Some(row), "what goes was there");
        }
    }
    for ((key, row), times) in rows {
        if times > 0 {
            assert_eq!(shown.insert(key, row), None, "a window is shown once");
        }
    }
}

#[test]
fn results_and_late_rows_are_what_their_definition_says_through_any_restarts() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let (mut results, mut late_rows) = (0, 0);
    for round in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed ^ round);
        let step = random.u64(5..40);
        let windows = FinalWindows::hopping(ms(step * random.u64(1..3)), ms(step));
        let windows = windows.and_then(|windows| windows.allowed_lateness(ms(random.u64(..30))));
        let windows = windows.expect("valid");
        let history = History::random(&mut random, windows);
        let build = || {
            let step = move |key: &Key, open: &mut _, shown: Option<&_>, changes, moment| {
                windows.step(&key.1, open, shown, changes, moment, sum)
            };
            KeyedState::<Key, Open<i64>, Final<i64, Row>, _>::new("s", step)
        };
        let mut state = build();
        let mut saved: BTreeMap<_, Record> = BTreeMap::new();
        let (mut shown, mut before_ms) = (Shown::new(), 0);
        for (epoch, (changes, now_ms)) in history.epochs.iter().enumerate() {
            let moment = Moment {
                before_ms,
                now_ms: *now_ms,
            };
            before_ms = *now_ms;
            let given: BTreeMap<Key, Option<i64>> = shown
                .iter()
                .map(|(key, shown)| (*key, shown.result))
                .collect();
            let outcome = state.advance(updates(changes), moment).expect("steps");
            show(&mut shown, outcome.rows);
            assert_eq!(shown, history.expected(epoch + 1), "epoch {epoch}");
            for (key, result) in given.iter().filter(|(_, result)| result.is_some()) {
                assert_eq!(shown[key].result, *result, "a result has changed");
            }
            for record in outcome.records {
                saved.insert(record.key.clone(), record);
            }
            if random.u8(..6) == 0 {
                state = build();
                let loaded = state.load(saved.values().cloned().collect());
                let loaded: Shown = loaded.expect("loads").into_iter().collect();
                assert_eq!(loaded, shown, "epoch {epoch}");
            }
        }
        results += shown.values().filter(|row| row.result.is_some()).count();
        late_rows += shown.values().map(|row| row.late.len()).sum::<usize>();
    }
    assert!(results > 200 && late_rows > 200, "{results}, {late_rows}");
}

/// Steps one window `[0, 100)` with 10 of lateness that is kept for 50.
fn steps(given: &[(&[(Row, isize)], u64)]) -> Vec<Option<(Option<i64>, usize)>> {
    let windows = FinalWindows::tumbling(ms(100))
        .and_then(|windows| windows.allowed_lateness(ms(10)))
        .and_then(|windows| windows.keep(ms(50)))
        .expect("valid");
    let window = windows.containing(0).next().expect("one");
    let key = (0, window);
    let mut state = KeyedState::new(
        "s",
        move |key: &Key, open: &mut Option<Open<i64>>, shown: Option<&_>, changes, moment| {
            windows.step(&key.1, open, shown, changes, moment, sum)
        },
    );
    let (mut shown, mut before_ms) = (Shown::new(), 0);
    let mut step = |(changes, now_ms): &(&[(Row, isize)], u64)| {
        let moment = Moment {
            before_ms,
            now_ms: *now_ms,
        };
        before_ms = *now_ms;
        let changes: Vec<_> = changes
            .iter()
            .map(|(row, times)| (key, *row, *times))
            .collect();
        let outcome = state.advance(updates(&changes), moment).expect("steps");
        show(&mut shown, outcome.rows);
        let row = shown.get(&key);
        row.map(|row| (row.result, row.late.len()))
    };
    given.iter().map(&mut step).collect()
}

#[test]
fn what_is_shown_is_forgotten_when_it_was_kept_for_long_enough() {
    let (one, two): (Row, Row) = ((5, 1), (6, 2));
    let found = steps(&[
        (&[(one, 1)], 109),
        (&[(two, 1)], 110),
        (&[], 159),
        // It would go now, but something comes.
        (&[(two, -1)], 160),
        (&[], 209),
        (&[], 210),
        // What comes for a window that is forgotten is late, and kept for as long again.
        (&[(two, 1)], 210),
        (&[], 259),
        (&[], 260),
    ]);
    let (closed, corrected) = (Some((Some(3), 0)), Some((Some(3), 1)));
    let late = Some((None, 1));
    let expected = [
        None, closed, closed, corrected, corrected, None, late, late, None,
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_watermark_that_jumps_closes_and_then_forgets() {
    let one: Row = (5, 1);
    let found = steps(&[(&[(one, 1)], 1_000), (&[], 1_000), (&[], 1_001)]);
    assert_eq!(found, [Some((Some(1), 0)), Some((Some(1), 0)), None]);
}

#[test]
fn durations_are_whole_milliseconds() {
    let windows = FinalWindows::tumbling(ms(100)).expect("valid");
    let fraction = Duration::from_micros(1_500);
    for refused in [windows.allowed_lateness(fraction), windows.keep(fraction)] {
        let report = refused.expect_err("refused").report();
        assert!(
            report.contains("a whole number of milliseconds"),
            "{report}"
        );
    }
}
