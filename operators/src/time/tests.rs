//! Whole dataflows against a recomputation from scratch, epoch by epoch, at 1, 2 and 3 workers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use tidefeed_runtime::Epoch;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Capture;
use timely::dataflow::operators::capture::Extract;
use timely::dataflow::operators::core::UnorderedInput;
use tokio::sync::mpsc::unbounded_channel;

use super::schedule::NEVER;
use super::valid::Valid;
use super::windowed::{InWindows, Windowed};
use super::windows::Window;

/// A row: an identity that decides where it lives, and two numbers.
type Row = (u8, u64, u64);
type Update<R> = (R, u64, isize);

const EPOCHS: u64 = 60;

/// Documents that come, change and go, as a collection has them: what is retracted was there.
fn changes(
    random: &mut fastrand::Rng,
    mut make: impl FnMut(&mut fastrand::Rng, u8, u64) -> Row,
) -> Vec<Update<Row>> {
    let mut current: BTreeMap<u8, Row> = BTreeMap::new();
    let mut updates = Vec::new();
    for time in 0..EPOCHS {
        for _ in 0..random.u8(..6) {
            let id = random.u8(..20);
            let row = (random.u8(..3) > 0).then(|| make(random, id, time));
            let gone = match row {
                Some(row) => current.insert(id, row),
                None => current.remove(&id),
            };
            updates.extend(gone.map(|gone| (gone, time, -1)));
            updates.extend(row.map(|row| (row, time, 1)));
        }
    }
    updates
}

/// The collection as of a time.
fn as_of<R: Ord + Clone>(updates: &[Update<R>], time: u64) -> BTreeMap<R, isize> {
    let mut rows: BTreeMap<R, isize> = BTreeMap::new();
    for (row, at, diff) in updates {
        if *at <= time {
            *rows.entry(row.clone()).or_default() += diff;
        }
    }
    rows.retain(|_, count| *count != 0);
    rows
}

/// Runs a dataflow over the updates, each brought by the worker of its identity, and over `epochs`, brought by every worker.
/// Between its steps everything may come in any order that the frontiers allow. Returns what came out.
fn run<O, F>(
    seed: u64,
    workers: usize,
    updates: &[Update<Row>],
    epochs: &[u64],
    build: F,
) -> Vec<Update<O>>
where
    O: ExchangeData + Debug,
    F: for<'scope> Fn(
            VecCollection<'scope, u64, Row, isize>,
            StreamVec<'scope, u64, u64>,
        ) -> VecCollection<'scope, u64, O, isize>
        + Send
        + Sync
        + 'static,
{
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let (updates, epochs) = (updates.to_vec(), epochs.to_vec());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut random = fastrand::Rng::with_seed(seed + worker.index() as u64);
        let sender = sender.lock().expect("nobody panicked").clone();
        let (index, peers) = (worker.index(), worker.peers());
        let ((mut rows, mut rows_cap), (mut ticks, mut ticks_cap)) =
            worker.dataflow::<u64, _, _>(|scope| {
                let (rows, row_stream) = scope.new_unordered_input();
                let (ticks, tick_stream) = scope.new_unordered_input();
                build(row_stream.as_collection(), tick_stream)
                    .inner
                    .capture_into(sender);
                (rows, ticks)
            });
        let mine = |(row, ..): &&Update<Row>| usize::from(row.0) % peers == index;
        // Each epoch's rows and ticks, the one or the other first, and the frontiers move alone.
        for time in 0..EPOCHS {
            let now: Vec<_> = updates
                .iter()
                .filter(mine)
                .filter(|u| u.1 == time)
                .collect();
            let tick_first = random.bool();
            for tick in [tick_first, !tick_first] {
                if tick && epochs.contains(&time) {
                    ticks
                        .activate()
                        .session(&ticks_cap.delayed(&time))
                        .give(time);
                } else if !tick {
                    let cap = rows_cap.delayed(&time);
                    for update in &now {
                        rows.activate().session(&cap).give(**update);
                    }
                }
                if random.bool() {
                    worker.step();
                }
            }
            if random.bool() {
                rows_cap.downgrade(&(time + 1));
            }
            if random.bool() {
                ticks_cap.downgrade(&(time + 1));
            }
        }
    });
    drop(guards.expect("runs"));
    let captured = receiver.extract().into_iter();
    captured.flat_map(|(_, updates)| updates).collect()
}

fn bounds(row: &Row) -> Range<u64> {
    row.1..row.2
}

#[test]
fn a_temporal_filter_shows_at_each_epoch_what_is_valid_then() {
    let seed = fastrand::u64(..1 << 40);
    eprintln!("seed {seed}");
    for round in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed + round);
        let updates = changes(&mut random, |random, id, time| {
            let from = match random.u8(..4) {
                0 => 0,
                _ => (time + random.u64(..12)).saturating_sub(4),
            };
            let until = match random.u8(..4) {
                0 => NEVER,
                _ => from + random.u64(..15),
            };
            (id, from, until)
        });
        // Epochs with rows are minted, and some without.
        let epochs: Vec<u64> = (0..EPOCHS)
            .filter(|time| random.u8(..4) == 0 || updates.iter().any(|u| u.1 == *time))
            .collect();
        let workers = 1 + round as usize % 3;
        let (due_sender, mut dues) = unbounded_channel();
        let found = run(
            seed + round,
            workers,
            &updates,
            &epochs,
            move |rows, epochs| rows.valid(epochs, due_sender.clone(), bounds),
        );
        let mut said: BTreeMap<Epoch, Vec<bool>> = BTreeMap::new();
        while let Ok(due) = dues.try_recv() {
            said.entry(due.epoch).or_default().push(due.any);
        }
        let mut before = BTreeMap::new();
        for epoch in &epochs {
            let mut expected = as_of(&updates, *epoch);
            let rows = expected.clone();
            expected.retain(|row, _| bounds(row).contains(epoch));
            assert_eq!(
                as_of(&found, *epoch),
                expected,
                "round {round}, epoch {epoch}"
            );
            // Whoever says that nothing is due must be right: the epoch may have no seal.
            let said = &said[&Epoch(*epoch)];
            assert_eq!(said.len(), workers, "each worker says so once");
            let only_time = updates.iter().all(|(_, time, _)| time != epoch);
            if only_time && expected != before {
                assert!(
                    said.contains(&true),
                    "round {round}, epoch {epoch}, {rows:?}"
                );
            }
            before = expected;
        }
        let times = found.iter().map(|(_, time, _)| time);
        assert!(times.clone().all(|time| epochs.contains(time)));
    }
}

/// The rows of each key in windows, by recomputation.
type Placed = BTreeMap<((u8, Window), Row), isize>;

/// The key of a row, and its time.
fn key(row: &Row) -> u8 {
    row.0 % 4
}

#[derive(Clone, Copy, Debug)]
enum Windows {
    Tumbling(u64),
    Hopping(u64, u64),
    Sessions(u64),
}

impl Windows {
    fn of<'scope>(
        self,
        rows: VecCollection<'scope, u64, (u8, Row), isize>,
    ) -> InWindows<'scope, u8, Row> {
        let time = |row: &Row| row.1;
        let windows = match self {
            Windows::Tumbling(size) => rows.tumbling(ms(size), time),
            Windows::Hopping(size, step) => rows.hopping(ms(size), ms(step), time),
            Windows::Sessions(gap) => rows.sessions(ms(gap), time),
        };
        windows.expect("whole numbers of milliseconds")
    }
}

fn check_windows(windows: Windows, expected: impl Fn(&BTreeMap<Row, isize>) -> Placed) {
    let seed = fastrand::u64(..1 << 40);
    eprintln!("seed {seed}");
    for round in 0..15 {
        let mut random = fastrand::Rng::with_seed(seed + round);
        let updates = changes(&mut random, |random, id, _| {
            (id, random.u64(..100), random.u64(..2))
        });
        let workers = 1 + round as usize % 3;
        let found = run(
            seed + round,
            workers,
            &updates,
            &[],
            move |rows, _epochs| windows.of(rows.map(|row| (key(&row), row))),
        );
        for time in 0..EPOCHS {
            let expected = expected(&as_of(&updates, time));
            assert_eq!(
                as_of(&found, time),
                expected,
                "{windows:?}, round {round}, at {time}"
            );
        }
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn window(start_ms: u64, end_ms: u64) -> Window {
    Window { start_ms, end_ms }
}

#[test]
fn tumbling_and_hopping_windows_hold_the_rows_of_their_time() {
    for windows in [
        Windows::Tumbling(10),
        Windows::Hopping(25, 10),
        Windows::Hopping(7, 20),
    ] {
        let (size, step) = match windows {
            Windows::Hopping(size, step) => (size, step),
            Windows::Tumbling(size) | Windows::Sessions(size) => (size, size),
        };
        check_windows(windows, |rows| {
            let windows = (0..100).step_by(step as usize);
            let windows = windows.map(|start| window(start, start + size));
            windows
                .flat_map(|window| {
                    let within = rows.iter().filter(move |(row, _)| window.contains(row.1));
                    within.map(move |(row, times)| (((key(row), window), *row), *times))
                })
                .collect()
        });
    }
}

/// The sessions of a key are the connected components of its rows, two of which are connected if they are close.
#[test]
fn sessions_hold_the_rows_that_follow_each_other() {
    const GAP: u64 = 6;
    check_windows(Windows::Sessions(GAP), |rows| {
        let mut placed = Placed::new();
        for (row, times) in rows {
            let mut session = vec![*row];
            loop {
                let joins = |other: &&Row| {
                    let close = |member: &Row| member.1.abs_diff(other.1) < GAP;
                    key(other) == key(row) && !session.contains(other) && session.iter().any(close)
                };
                let joined: Vec<Row> = rows.keys().filter(joins).copied().collect();
                if joined.is_empty() {
                    break;
                }
                session.extend(joined);
            }
            let times_of = || session.iter().map(|row| row.1);
            let (first, last) = (times_of().min(), times_of().max());
            let (first, last) = (first.expect("itself"), last.expect("itself"));
            placed.insert(((key(row), window(first, last + GAP)), *row), *times);
        }
        placed
    });
}
