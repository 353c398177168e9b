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
//! | `TIDEFEED_KILLS` | number of kills | 20 |
//! | `TIDEFEED_WORKERS` | workers of every run | random for each run, 1 to 3 |
//!
//! A seed repeats the draws, not the scheduling of the operating system.
#![cfg(all(unix, feature = "ready-made"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{JOB, Place, is_progress, january, wait_for};
use serde_json::Value;

/// Writes per second, so that the writing alone takes more than ten seconds.
const RATE: &str = "7000";
/// Nothing that a run is awaited for takes this long.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often the moment is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const SIGKILL: i32 = 9;

/// When to kill a run.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After so many requests: the run connects, opens its containers, reads its first pages.
    Requests(u64),
    /// So long after the run has taken over the checkpoint: it pins its start, rehydrates, compares the views.
    TakenOver(Duration),
    /// When so many events are written and remembered, and so many requests later.
    Written(u64, u64),
}

/// Draws `kills` moments that lead from the first write to the last: about half of them spread over the writing, the others
/// at starts in between, and the last tenth when everything is written.
fn draw_moments(random: &mut fastrand::Rng, kills: usize, events: u64) -> Vec<Moment> {
    let at_the_end = (kills / 10).max(1);
    let before = kills - at_the_end.min(kills);
    (0..kills)
        .map(|kill| match random.u8(0..4) {
            _ if kill >= before => Moment::Written(events, random.u64(0..300)),
            0 => Moment::Requests(random.u64(0..80)),
            1 => at_start(random),
            _ => {
                let share = (kill as f64 + random.f64()) / before as f64;
                Moment::Written((share * events as f64) as u64, random.u64(0..4000))
            }
        })
        .collect()
}

fn at_start(random: &mut fastrand::Rng) -> Moment {
    Moment::TakenOver(Duration::from_micros(random.u64(0..100_000)))
}

/// A run of the program.
struct Run {
    child: Child,
    stderr: Receiver<String>,
    /// What it has said so far.
    lines: Vec<String>,
    deadline: Instant,
}

impl Run {
    fn start(place: &Place, workers: usize) -> Run {
        let mut child = place
            .program()
            .args(["--rate", RATE, "--workers", &workers.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let pipe = child.stderr.take().expect("piped above");
        let (sender, stderr) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Run {
            child,
            stderr,
            lines: Vec::new(),
            deadline: Instant::now() + DEADLINE,
        }
    }

    /// Waits until `there`, or until the run has ended by itself.
    fn wait_until(&mut self, mut there: impl FnMut() -> bool) {
        while !there() {
            match self.stderr.recv_timeout(LOOK_EVERY) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() > self.deadline {
                let _ = self.child.kill();
                panic!("the run hangs; it said {:#?}", self.lines);
            }
        }
    }

    fn kill(mut self) -> (ExitStatus, Vec<String>) {
        self.child.kill().expect("ours to kill");
        self.end()
    }

    fn end(mut self) -> (ExitStatus, Vec<String>) {
        self.wait_until(|| false);
        (self.child.wait().expect("ours to wait for"), self.lines)
    }
}

/// What a checkpoint directory holds between two runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    /// Events that are remembered as written.
    written: u64,
    /// The newest run that took over.
    generation: u64,
    commit: Option<Commit>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Commit {
    number: u64,
    generation: u64,
    epoch: u64,
}

impl State {
    fn of(checkpoint: &Path) -> State {
        let objects = checkpoint.join(JOB);
        let commit = newest(&objects.join("commit")).map(|number| {
            let commit = read_object(&objects.join(format!("commit/{number:012}")));
            let field = |name: &str| commit[name].as_u64().expect("a number");
            assert_eq!(field("number"), number);
            Commit {
                number,
                generation: field("generation"),
                epoch: field("epoch"),
            }
        });
        State {
            written: written(checkpoint),
            generation: newest(&objects.join("generation")).unwrap_or(0),
            commit,
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
        let commits = (before.commit, self.commit);
        if let (Some(then), Some(now)) = commits {
            assert!(
                now == then || now.number > then.number && now.epoch > then.epoch,
                "commits go on: {commits:?}"
            );
        }
        assert!(before.commit.is_none() || self.commit.is_some());
        if self.generation == before.generation {
            assert_eq!(before.commit, self.commit, "it never took over");
            return;
        }
        assert_eq!(self.generation, before.generation + 1);
        assert_eq!(said.unwrap_or(0), before.written);
        let start = checkpoint.join(format!("{JOB}/start/{:010}", self.generation));
        if !start.exists() {
            assert_eq!(before.commit, self.commit, "killed before its start");
            return;
        }
        let start = read_object(&start);
        let last = before.commit.map(|commit| commit.number);
        assert_eq!(start["fresh"], false);
        assert_eq!(start["commit"]["number"].as_u64(), last);
        assert_eq!(start["commits_after"].as_u64(), Some(last.unwrap_or(0)));
        if self.commit != before.commit {
            assert_eq!(self.commit.map(|c| c.generation), Some(self.generation));
        }
    }
}

/// The highest number among the names of objects in a folder.
fn newest(folder: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(folder).ok()?;
    let name = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.map_while(Result::ok).filter_map(name).max()
}

/// The JSON behind the first line of an object, which is its frame.
fn read_object(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("an object is whole or not there");
    let (_, body) = text.split_once('\n').expect("a frame");
    serde_json::from_str(body).expect("JSON")
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

/// The number in an environment variable.
fn from_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable holds a number"))
}

#[test]
fn killed_at_random_moments_it_ends_with_exactly_right_views() {
    let began = Instant::now();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = from_environment("TIDEFEED_KILLS").unwrap_or(20) as usize;
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
    let mut moments = draw_moments(&mut random, kills, expected.events);
    let (mut killed, mut ended, mut took_over, mut resumed) = (0, 0, 0, 0);
    let mut state = State::default();

    while killed < kills {
        let moment = moments[killed];
        let requests_before = place.server.stats().requests;
        let requests = || place.server.stats().requests - requests_before;
        let mut run = Run::start(&place, workers(&mut random));
        match moment {
            Moment::Requests(count) => run.wait_until(|| requests() >= count),
            Moment::TakenOver(later) => {
                let generations = checkpoint.join(JOB).join("generation");
                run.wait_until(|| newest(&generations).unwrap_or(0) > state.generation);
                let at = Instant::now() + later;
                run.wait_until(|| Instant::now() >= at);
            }
            Moment::Written(events, later) => {
                // Never before this run has made requests of its own, else a resumed one would die at once.
                run.wait_until(|| requests() > 0 && written(&checkpoint) >= events);
                let at = requests() + later;
                run.wait_until(|| requests() >= at);
            }
        }
        let (status, lines) = run.kill();
        let unexpected: Vec<_> = lines.iter().filter(|line| !is_progress(line)).collect();
        assert!(unexpected.is_empty(), "{moment:?}: {unexpected:#?}");
        if status.signal() == Some(SIGKILL) {
            killed += 1;
        } else {
            // It was faster. Then the next one dies at its start, where it cannot be.
            assert_eq!(status.code(), Some(0), "{moment:?}: {lines:#?}");
            ended += 1;
            moments[killed] = at_start(&mut random);
        }
        let now = State::of(&checkpoint);
        now.check_after(&state, &checkpoint, &lines);
        took_over += u64::from(now.generation > state.generation);
        resumed += u64::from(now.generation > state.generation && state.commit.is_some());
        state = now;
    }

    // The last run may end, and the one after it finds nothing to do.
    for nothing_left in [false, true] {
        let (status, lines) = Run::start(&place, workers(&mut random)).end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        let now = State::of(&checkpoint);
        now.check_after(&state, &checkpoint, &lines);
        assert!(now.generation > state.generation && now.written == expected.events);
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
    assert!(kills < 10 || resumed > 0, "no run resumed from a commit");
    eprintln!(
        "{killed} kills, {ended} ended sooner; {took_over} took over, {resumed} from a commit; last commit {:?}; {:.1} s",
        state.commit,
        began.elapsed().as_secs_f64()
    );
}
