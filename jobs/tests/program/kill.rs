//! The program, killed again and again at random moments, ends with exactly right views.
//!
//! The server lives in the test's process and keeps its data; the program is a child process that is killed with SIGKILL,
//! so it cleans nothing up. Moments are drawn from a seed and measured by what a run has been seen to do, in three phases:
//! while it starts (by its requests, and from taking over the checkpoint on), while it plays (by how far the writes have
//! come), and when everything is written (draining, committing, verifying). After every kill the checkpoint directory is
//! looked at: a run that took over started from exactly the last commit of those before it.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEFEED_SEED` | seed of the moments and of the numbers of workers | random; printed |
//! | `TIDEFEED_KILLS` | number of kills | 8 |
//! | `TIDEFEED_WORKERS` | workers of every run | random for each run, 1 to 3 |
//!
//! A seed repeats the draws, not the scheduling of the operating system.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::moments::{Moment, Watched};
use tidefeed_tests::process::{Run, SIGKILL, from_environment};

use super::common::{JOB, Place, is_progress, january, wait_for};

/// Writes per second, so that the writing alone takes more than ten seconds.
const RATE: &str = "7000";

/// Starts the program.
fn start(place: &Place, workers: usize) -> Run {
    let mut program = place.program();
    program.args(["--rate", RATE, "--workers", &workers.to_string()]);
    // Without what it says about runs that were killed: it is expected here.
    program.env("RUST_LOG", "error");
    Run::start(program)
}

/// What a checkpoint directory holds between two runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    /// Events that are remembered as written.
    written: u64,
    files: CheckpointFiles,
}

impl State {
    fn of(checkpoint: &Path) -> State {
        State {
            written: written(checkpoint),
            files: CheckpointFiles::of(&checkpoint.join(JOB)),
        }
    }

    /// Checks what one run made of the state before it.
    fn check_after(&self, before: &State, checkpoint: &Path, lines: &[String]) {
        let said = said_resumed(lines);
        assert!(
            said.is_none_or(|from| from == before.written),
            "it resumed from {said:?}, but {} were remembered",
            before.written
        );
        assert!(self.written >= before.written);
        self.files.check_after(&before.files, &checkpoint.join(JOB));
        if self.files.generation > before.files.generation {
            assert_eq!(said.unwrap_or(0), before.written);
        }
    }
}

/// The mark in the file `player.json`.
fn written(checkpoint: &Path) -> u64 {
    let Ok(text) = std::fs::read(checkpoint.join("player.json")) else {
        return 0;
    };
    let mark: Value = serde_json::from_slice(&text).expect("replaced as a whole");
    mark["acknowledged"].as_u64().expect("a number")
}

/// From where the run said that it resumed the writes.
fn said_resumed(lines: &[String]) -> Option<u64> {
    let from = |line: &String| {
        let rest = line.strip_prefix("resuming the writes after ")?;
        rest.split(' ').next()?.parse().ok()
    };
    lines.iter().find_map(from)
}

/// What the flights' rows say about the end, counted from the CSV file alone.
#[derive(Default)]
struct Expected {
    events: u64,
    flights: u64,
    /// Ids of the flights that never land.
    airborne: BTreeSet<String>,
    /// By carrier: flights, cancelled, departed, landed.
    carriers: BTreeMap<String, [u64; 4]>,
}

impl Expected {
    fn of(csv: &str) -> Expected {
        let mut expected = Expected::default();
        for row in csv::Reader::from_reader(csv.as_bytes()).deserialize() {
            let row: BTreeMap<String, String> = row.expect("a row");
            let departed = row["dep_time"] != "NA";
            let landed = departed && row["arr_time"] != "NA";
            expected.flights += 1;
            expected.events += 2 + u64::from(landed);
            let counts = expected.carriers.entry(row["carrier"].clone()).or_default();
            for (count, counts_in) in counts.iter_mut().zip([true, !departed, departed, landed]) {
                *count += u64::from(counts_in);
            }
            if departed && !landed {
                expected.airborne.insert(format!(
                    "{}-{:0>2}-{:0>2}-{}{}-{}-{:0>4}",
                    row["year"],
                    row["month"],
                    row["day"],
                    row["carrier"],
                    row["flight"],
                    row["origin"],
                    row["sched_dep_time"]
                ));
            }
        }
        expected
    }

    /// Compares with what the containers hold.
    async fn check(&self, place: &Place) {
        let text = |document: &Value, field: &str| document[field].as_str().map(str::to_owned);
        let flights = place.documents("flights").await;
        assert_eq!(flights.len() as u64, self.flights);
        assert!(
            flights
                .values()
                .all(|flight| flight["status"] != "scheduled")
        );
        let airborne = place.documents("airborne").await;
        let ids: BTreeSet<_> = airborne
            .values()
            .filter_map(|row| text(row, "id"))
            .collect();
        assert_eq!(ids, self.airborne);
        assert_eq!(airborne.len(), ids.len());
        let carriers = place.documents("carrier_delays").await;
        let carriers: BTreeMap<_, _> = carriers
            .values()
            .map(|row| {
                let counts = ["flights", "cancelled", "departed", "landed"];
                let counts = counts.map(|field| row[field].as_u64().expect("a count"));
                (text(row, "carrier").expect("a carrier"), counts)
            })
            .collect();
        assert_eq!(carriers, self.carriers);
    }
}

#[test]
fn killed_at_random_moments_it_ends_with_exactly_right_views() {
    let began = Instant::now();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(8) as usize;
    eprintln!("TIDEFEED_SEED={seed} TIDEFEED_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let workers = |random: &mut fastrand::Rng| {
        let drawn = random.usize(1..=3);
        from_environment("TIDEFEED_WORKERS").map_or(drawn, |workers| workers as usize)
    };
    let csv = january();
    let expected = Expected::of(&csv);
    // Both counts were taken from the file with another program as well.
    assert_eq!((expected.events, expected.airborne.len()), (80_476, 15));
    let place = Place::new(&csv);
    let checkpoint = place.checkpoint();
    let mut moments = Moment::draw(&mut random, kills, expected.events, 4000);
    let (mut killed, mut ended, mut took_over, mut resumed) = (0, 0, 0, 0);
    let mut state = State::default();

    while killed < kills {
        let moment = moments[killed];
        let mut run = start(&place, workers(&mut random));
        let watched = Watched {
            checkpoint: &checkpoint.join(JOB),
            requests: &|| place.server.stats().requests,
            written: &|| written(&checkpoint),
        };
        moment.wait(&mut run, &watched);
        let (status, lines) = run.kill();
        let unexpected: Vec<_> = lines.iter().filter(|line| !is_progress(line)).collect();
        assert!(unexpected.is_empty(), "{moment:?}: {unexpected:#?}");
        if status.signal() == Some(SIGKILL) {
            killed += 1;
        } else {
            // It was faster. Then the next one dies at its start, where it cannot be.
            assert_eq!(status.code(), Some(0), "{moment:?}: {lines:#?}");
            ended += 1;
            moments[killed] = Moment::at_start(&mut random);
        }
        let now = State::of(&checkpoint);
        now.check_after(&state, &checkpoint, &lines);
        let new = now.files.generation > state.files.generation;
        took_over += u64::from(new);
        resumed += u64::from(new && state.files.commit.is_some());
        state = now;
    }

    // The last run may end, and the one after it finds nothing to do.
    for nothing_left in [false, true] {
        let (status, lines) = start(&place, workers(&mut random)).end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        let now = State::of(&checkpoint);
        now.check_after(&state, &checkpoint, &lines);
        assert!(now.files.generation > state.files.generation && now.written == expected.events);
        state = now;
        let summary = place.summary();
        assert_eq!(summary["verified"], true, "{summary:#}");
        for view in [
            "carrier_delays",
            "route_delays",
            "weather_delays",
            "airborne",
        ] {
            let view = &summary["views"][view];
            assert!(view["rows"].as_u64() > Some(0) && view["rows"] == view["verified"]);
            let updates = view["updates_written"].as_u64();
            assert!(!nothing_left || updates == Some(0), "{summary:#}");
        }
        let read = summary["changes_read"].as_u64().expect("a number");
        assert!(read < expected.events && (!nothing_left || read == 0));
    }
    wait_for(expected.check(&place));
    assert!(kills < 8 || resumed > 0, "no run resumed from a commit");
    eprintln!(
        "{killed} kills, {ended} ended sooner; {took_over} took over, {resumed} from a commit; last commit {:?}; {:.1} s",
        state.files.commit,
        began.elapsed().as_secs_f64()
    );
}
