//! A cluster of processes on hosts of their own, whose network fails in many ways while orders are written.
//!
//! Every process that ends is started again after a pause, as by systemd. Each time: whoever is to notice has ended in time
//! ([`NOTICED`]), the cluster commits again when the fault is gone, and then the views are exactly right.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `TIDEFEED_SEED` | seed of the changes, the losses and the order of the faults | random; printed |
//! | `TIDEFEED_NETWORK_ROUNDS` | how often each fault comes | 1 |
//! | `TIDEFEED_NETWORK_LOG` | what the processes log, as in `RUST_LOG`; all of it is printed at the end | `error` |
//! | `TIDEFEED_SKIP_NETWORK` | 1: skip where network namespaces are not permitted | |

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidefeed::ErrorKind;
use tidefeed::target::REQUEST_DEADLINE;
use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::network::{Link, Network};
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::{Run, from_environment};

use super::alone;
use super::killing::{Versions, Writing};

const HOSTS: usize = 3;
const PORT: u16 = 7000;
const SECRET: &str = "the secret of this test";
/// As on hosts of their own: a lease, and no lock.
fn shared(lease: Duration) -> String {
    format!(
        "settle_ms = 50\nlease_ms = {}\nshared = true",
        lease.as_millis()
    )
}
const LEASE: Duration = Duration::from_millis(2000);
const PEER_TIMEOUT: Duration = Duration::from_millis(1500);
/// From a fault to the end of the last process that is to notice it. A connection for data that says nothing is noticed a second
/// later than others, one that broke waits a second for the cause, whoever is told later has to be told, and the processes get two
/// cores together. A process that does not reach the server either waits for its requests besides, [`REQUEST_DEADLINE`].
const NOTICED: Duration = Duration::from_millis(PEER_TIMEOUT.as_millis() as u64 + 6000);
/// Says what the processes log.
const LOG_VARIABLE: &str = "TIDEFEED_NETWORK_LOG";
/// Before a process that has ended is started again.
const PAUSE: Duration = Duration::from_millis(300);
/// Nothing takes so long.
const LONG: Duration = Duration::from_secs(60);

/// How a process has ended.
struct End {
    at: Instant,
    code: Option<i32>,
    lines: Vec<String>,
}

/// The process of one host, which is started again and again.
#[derive(Default)]
struct Member {
    run: Option<Run>,
    ends: Vec<End>,
}

/// A cluster on hosts.
struct Fleet<'a> {
    network: &'a Network,
    place: &'a Place,
    peer_timeout: Duration,
    members: Vec<Member>,
}

impl<'a> Fleet<'a> {
    fn start(network: &'a Network, place: &'a Place, peer_timeout: Duration) -> Self {
        let mut fleet = Fleet {
            network,
            place,
            peer_timeout,
            members: (0..HOSTS).map(|_| Member::default()).collect(),
        };
        fleet.look();
        fleet
    }

    fn program(&self, process: usize) -> Run {
        let hosts = (0..HOSTS).map(|host| format!("{}:{PORT}", self.network.address(host)));
        let hosts: Vec<_> = hosts.collect();
        let mut program = self.place.program(env!("CARGO_BIN_EXE_shop"), 1);
        program
            .args(["--process", &process.to_string()])
            .args(["--hosts", &hosts.join(",")])
            .args(["--peer-timeout", &self.peer_timeout.as_millis().to_string()])
            .env("TIDEFEED_CLUSTER_SECRET", SECRET);
        if let Ok(log) = std::env::var(LOG_VARIABLE) {
            program.env("RUST_LOG", log);
        }
        Run::start(self.network.on(process, &program))
    }

    /// Looks who has ended, and starts again who has ended a while ago.
    fn look(&mut self) {
        for process in 0..HOSTS {
            match self.members[process].run.take() {
                Some(mut run) => {
                    if run.wait_for(Duration::from_millis(1)) {
                        self.members[process].run = Some(run);
                        continue;
                    }
                    let at = Instant::now();
                    let (status, lines) = run.end();
                    let code = status.code();
                    self.members[process].ends.push(End { at, code, lines });
                }
                None => {
                    let last = self.members[process].ends.last();
                    if last.is_none_or(|end| end.at.elapsed() >= PAUSE) {
                        self.members[process].run = Some(self.program(process));
                    }
                }
            }
        }
    }

    /// Keeps the cluster up until `there`, and says how long that took.
    fn until(&mut self, what: &str, within: Duration, there: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !there(self) {
            let took = began.elapsed();
            assert!(
                took < within,
                "no {what} within {took:?}: {:#?}",
                self.said()
            );
            self.look();
        }
        began.elapsed()
    }

    fn said(&self) -> Vec<(usize, Option<i32>, &[String])> {
        let members = self.members.iter().enumerate();
        let ends =
            members.flat_map(|(number, member)| member.ends.iter().map(move |e| (number, e)));
        ends.map(|(number, end)| (number, end.code, end.lines.as_slice()))
            .collect()
    }

    fn ends(&self) -> Vec<usize> {
        self.members
            .iter()
            .map(|member| member.ends.len())
            .collect()
    }

    /// The generation of the last commit, and its number.
    fn commit(&self) -> (u64, u64) {
        let commit = CheckpointFiles::of(&self.place.checkpoint()).commit;
        commit.map_or((0, 0), |commit| (commit.generation, commit.number))
    }

    /// Keeps the cluster up until it has committed something new.
    fn commits(&mut self, what: &str) -> Duration {
        let before = self.commit();
        self.until(what, LONG, |fleet| fleet.commit() > before)
    }

    /// Keeps the cluster up until the views are right.
    fn verify(&mut self, writing: &Writing<'_>, what: &str) {
        let orders = writing.stand_still();
        let expected = orders.expected();
        let right = |fleet: &Self| differences(&fleet.place.found(), &expected).is_empty();
        self.until(&format!("right views after {what}"), LONG, right);
    }

    /// Ends it in order, and compares once more with what a process by itself makes of the checkpoint.
    fn end(mut self, writing: &Writing<'_>) {
        self.commits("commit before the end");
        if std::env::var_os(LOG_VARIABLE).is_some() {
            eprintln!("{:#?}", self.said());
        }
        let runs: Vec<_> = self
            .members
            .iter_mut()
            .filter_map(|m| m.run.take())
            .collect();
        assert_eq!(runs.len(), HOSTS, "all run: {:#?}", self.said());
        runs.iter().for_each(|run| run.signal(Signal::TERM));
        for run in runs {
            let (status, lines) = run.end();
            assert_eq!(status.code(), Some(0), "{lines:#?}");
        }
        let orders = writing.stand_still();
        let mut program = self.place.program(env!("CARGO_BIN_EXE_shop"), 1);
        program.arg("--until-caught-up");
        let (status, lines) = Run::start(program).end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        let differences = differences(&self.place.found(), &orders.expected());
        assert_eq!(differences, Vec::<String>::new());
    }
}

/// What happens to the network.
#[derive(Clone, Copy, Debug)]
enum Fault {
    OneWay(usize, usize),
    BothWays(usize, usize),
    /// From the others and from the server.
    CutOff(usize),
    Loss,
}

const FAULTS: [Fault; 8] = [
    Fault::OneWay(1, 2),
    Fault::OneWay(2, 1),
    Fault::BothWays(1, 2),
    Fault::OneWay(0, 1),
    Fault::OneWay(1, 0),
    Fault::BothWays(0, 2),
    Fault::CutOff(2),
    Fault::Loss,
];

impl Fault {
    fn begin(self, network: &Network) {
        match self {
            Fault::OneWay(from, to) => network.set(from, to, Link::CUT),
            Fault::BothWays(one, other) => network.set_both(one, other, Link::CUT),
            Fault::CutOff(host) => (0..=network.outside())
                .filter(|other| *other != host)
                .for_each(|other| network.set_both(host, other, Link::CUT)),
            Fault::Loss => network.set_all(Link {
                loss: 0.3,
                ..Link::default()
            }),
        }
    }

    /// From the fault to the end of the last process that is to notice it.
    fn noticed(self) -> Duration {
        match self {
            Fault::CutOff(_) => NOTICED + REQUEST_DEADLINE,
            _ => NOTICED,
        }
    }

    /// Whether a process is certain to be lost by it.
    fn loses(self) -> bool {
        !matches!(self, Fault::Loss)
    }
}

/// A run of orders and a cluster that begins with right views.
fn with_fleet(
    peer_timeout: Duration,
    lease: Duration,
    test: impl FnOnce(&mut Fleet<'_>, &Writing<'_>, u64),
) {
    let _alone = alone();
    let seed = from_environment("TIDEFEED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TIDEFEED_SEED={seed}");
    let Some(network) = Network::new(HOSTS, seed) else {
        return;
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    place.configure(&shared(lease));
    let port = place.server().endpoint().rsplit_once(':');
    let port = port.and_then(|(_, port)| port.trim_end_matches('/').parse().ok());
    network.serve(port.expect("a port")).expect("a free port");
    let writing = Writing::new(
        &place,
        Versions::Latest,
        "",
        vec![count_writes()],
        &mut random,
    );
    std::thread::scope(|scope| {
        let (writes, end) = channel();
        let (writing, draws) = (&writing, random.fork());
        scope.spawn(move || writing.run(&end, draws));
        // Dropped first of all when the test fails, so that the writing ends.
        let _writes = writes;
        let mut fleet = Fleet::start(&network, &place, peer_timeout);
        fleet.commits("first commit");
        test(&mut fleet, writing, seed);
        fleet.end(writing);
    });
}

/// What a process may end with when it, or another one, is lost.
fn check_ends(fleet: &Fleet<'_>) {
    let lost = [
        ErrorKind::PeerLost,
        ErrorKind::Fenced,
        ErrorKind::Unreachable,
    ];
    let codes = lost.map(|kind| Some(i32::from(kind.exit_code())));
    for (process, code, lines) in fleet.said() {
        assert!(
            codes.contains(&code),
            "process {process}: {code:?} {lines:#?}"
        );
        let said = lines.iter().filter(|line| line.starts_with("shop: "));
        assert_eq!(said.count(), 1, "one line says why: {lines:#?}");
    }
}

#[test]
fn whatever_the_network_does_all_notice_in_time_and_go_on_when_it_is_over() {
    let rounds = from_environment("TIDEFEED_NETWORK_ROUNDS").unwrap_or(1);
    with_fleet(PEER_TIMEOUT, LEASE, |fleet, writing, seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..rounds {
            let mut faults = FAULTS;
            random.shuffle(&mut faults);
            for fault in faults {
                round(fleet, writing, fault);
            }
        }
        check_ends(fleet);
    });
}

fn round(fleet: &mut Fleet<'_>, writing: &Writing<'_>, fault: Fault) {
    fleet.commits("commit before the fault");
    let (before, (generation, _)) = (fleet.ends(), fleet.commit());
    let began = Instant::now();
    fault.begin(fleet.network);
    let took = if fault.loses() {
        let ended = |fleet: &Fleet<'_>| {
            let ends = fleet.ends();
            ends.iter().zip(&before).all(|(now, then)| now > then)
        };
        fleet.until(
            &format!("end of all after {fault:?}"),
            fault.noticed(),
            ended,
        )
    } else {
        fleet.until("end of the fault", LONG, |_| {
            began.elapsed() > 2 * PEER_TIMEOUT
        })
    };
    fleet.network.heal();
    let healed = Instant::now();
    if fault.loses() {
        let newer = |fleet: &Fleet<'_>| fleet.commit().0 > generation;
        fleet.until(&format!("commit after {fault:?}"), LONG, newer);
    } else {
        fleet.commits("commit after the losses");
    }
    let recovered = healed.elapsed();
    fleet.verify(writing, &format!("{fault:?}"));
    eprintln!("{fault:?}: over after {took:?}, a commit {recovered:?} after it was gone");
}

/// With what a process takes for a loss, and for how long it has the checkpoint, by default: no false alarm.
#[test]
fn a_slow_network_slows_a_cluster_and_ends_it_not() {
    let (timeout, lease) = (Duration::from_secs(5), Duration::from_secs(10));
    with_fleet(timeout, lease, |fleet, writing, _| {
        fleet.network.set_all(Link {
            delay: Duration::from_millis(200),
            ..Link::default()
        });
        let before = fleet.ends();
        for _ in 0..5 {
            let took = fleet.commits("commit while all is slow");
            eprintln!("a commit while all is slow: {took:?}");
        }
        fleet.verify(writing, "delays");
        assert_eq!(fleet.ends(), before, "{:#?}", fleet.said());
        fleet.network.heal();
    });
}

/// Hits every write and changes nothing: its hits are the writes that the server had.
fn count_writes() -> FaultRule {
    FaultRule::new(FaultAction::delay(0)).on(&[FaultOperation::Writes])
}

/// As long as the lease lasts that it knows of, it may write: until then no other run does (I7).
#[test]
fn a_process_that_stood_still_for_too_long_writes_nothing_and_ends() {
    with_fleet(PEER_TIMEOUT, LEASE, |fleet, writing, seed| {
        let frozen = 1 + (seed % 2) as usize;
        let (before, (generation, _)) = (fleet.ends(), fleet.commit());
        let signal = |fleet: &Fleet<'_>, signal| {
            let run = fleet.members[frozen].run.as_ref();
            run.expect("it runs").signal(signal);
        };
        let stopped = Instant::now();
        signal(fleet, Signal::STOP);
        let others = |fleet: &Fleet<'_>| {
            let ends = fleet.ends();
            (0..HOSTS).all(|process| process == frozen || ends[process] > before[process])
        };
        let took = fleet.until("end of the others", NOTICED, others);
        eprintln!("process {frozen} stood still: over after {took:?}");
        fleet.until("end of the lease", LONG, |_| stopped.elapsed() > LEASE);
        let orders = writing.stand_still();
        let writes = writing.faults_met();
        signal(fleet, Signal::CONT);
        let ended = |fleet: &Fleet<'_>| fleet.ends()[frozen] > before[frozen];
        let took = fleet.until("end of what stood still", NOTICED, ended);
        // It may be counted twice for a moment, when the rules are set anew.
        let none = |_: &Fleet<'_>| writing.faults_met() == writes;
        fleet.until("end without a write", Duration::from_secs(1), none);
        eprintln!("process {frozen} went on, and has ended after {took:?}");
        drop(orders);
        let newer = |fleet: &Fleet<'_>| fleet.commit().0 > generation;
        fleet.until("commit after it", LONG, newer);
        fleet.verify(writing, "a freeze");
        check_ends(fleet);
    });
}

/// Starts a cluster of two at addresses of its own.
fn start_cluster(place: &Place) -> Vec<Run> {
    let addresses = [(); 2].map(|()| tidefeed_tests::producer::free_address().to_string());
    let start = |process: usize| {
        let mut program = place.program(env!("CARGO_BIN_EXE_shop"), 1);
        program
            .args(["--process", &process.to_string()])
            .args(["--hosts", &addresses.join(",")])
            .env("TIDEFEED_CLUSTER_SECRET", SECRET);
        Run::start(program)
    };
    (0..2).map(start).collect()
}

#[test]
fn of_two_clusters_on_one_checkpoint_one_goes_on_and_the_other_says_why_not() {
    let _alone = alone();
    for checkpoint in ["settle_ms = 50\nlease_ms = 2000", &shared(LEASE)] {
        let place = Place::new();
        place.configure(checkpoint);
        let mut orders = tidefeed_tests::orders::Orders::new(1);
        place.write(orders.change(50));
        let mut clusters = [start_cluster(&place), start_cluster(&place)];
        let began = Instant::now();
        let fenced = loop {
            let mut processes = clusters.iter_mut().map(|cluster| &mut cluster[0]);
            let ended = processes.position(|lead| !lead.wait_for(Duration::from_millis(1)));
            if let Some(ended) = ended {
                break ended;
            }
            assert!(began.elapsed() < LONG, "both go on");
        };
        let [first, second] = clusters;
        let (ended, mut goes_on) = match fenced {
            0 => (first, second),
            _ => (second, first),
        };
        for run in ended {
            let (status, lines) = run.end();
            let code = i32::from(ErrorKind::Fenced.exit_code());
            assert_eq!(status.code(), Some(code), "{checkpoint}: {lines:#?}");
            let says = "another run of this job";
            let or = "is running and renews its lease";
            let clear = lines.len() == 1 && (lines[0].contains(says) || lines[0].contains(or));
            assert!(clear, "{checkpoint}: {lines:#?}");
        }
        let newest = || {
            CheckpointFiles::of(&place.checkpoint())
                .commit
                .map(|c| c.number)
        };
        let before = newest();
        place.write(orders.change(50));
        assert!(goes_on[0].wait_until(|| newest() > before), "it has ended");
        goes_on.iter().for_each(|run| run.signal(Signal::TERM));
        for run in goes_on {
            let (status, lines) = run.end();
            assert_eq!(status.code(), Some(0), "{checkpoint}: {lines:#?}");
        }
    }
}
