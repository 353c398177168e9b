//! A new version of a job takes over from an old one, and processes of a cluster that are asked to end one by one, as by whoever
//! rolls out the new version.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{Place, differences};
use tidefeed_tests::process::Run;

use super::alone;

const SECRET: &str = "the secret of this test";
/// So long that a run that had to wait for it would be noticed.
const LEASE: &str = "settle_ms = 50\nlease_ms = 60000\nshared = true";
/// For the start of a run that need not wait for the lease.
const SOON: Duration = Duration::from_secs(45);

/// Where the processes of a cluster are, run after run.
struct Cluster {
    place: Place,
    orders: Orders,
    hosts: Vec<String>,
}

impl Cluster {
    fn new(processes: usize, seed: u64) -> Cluster {
        let place = Place::new();
        place.configure(LEASE);
        let bound: Vec<_> = (0..processes)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let addresses = bound.iter().map(|l| l.local_addr().expect("bound"));
        Cluster {
            place,
            orders: Orders::new(seed),
            hosts: addresses.map(|address| address.to_string()).collect(),
        }
    }

    /// Starts one process of a version, which says what it waits for.
    fn start(&self, process: usize, version: &str, arguments: &[&str]) -> Run {
        let mut program = self.place.program(env!("CARGO_BIN_EXE_shop"), 1);
        program
            .args(["--process", &process.to_string()])
            .args(["--hosts", &self.hosts.join(",")])
            .args(["--peer-timeout", "20000"])
            .args(arguments)
            .env("TIDEFEED_CLUSTER_SECRET", SECRET)
            .env("RUST_LOG", "tidefeed=info")
            .env("SHOP_CODE", version);
        Run::start(program)
    }

    fn start_all(&self, version: &str, arguments: &[&str]) -> Vec<Run> {
        let processes = 0..self.hosts.len();
        processes
            .map(|process| self.start(process, version, arguments))
            .collect()
    }

    fn files(&self) -> CheckpointFiles {
        CheckpointFiles::of(&self.place.checkpoint())
    }

    fn wait_for_a_commit(&mut self, run: &mut Run) {
        let before = self.files().commit.map(|commit| commit.number);
        let alive = run.wait_until(|| {
            self.place.write(self.orders.change(10));
            let files = CheckpointFiles::of(&self.place.checkpoint());
            files.commit.map(|commit| commit.number) > before
        });
        assert!(alive, "it has ended: {:#?}", run.lines());
    }

    fn assert_right(&self) {
        let differences = differences(&self.place.found(), &self.orders.expected());
        assert_eq!(differences, Vec::<String>::new());
    }
}

fn ends_well(run: Run) -> Vec<String> {
    let (status, lines) = run.end();
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    lines
}

fn says(run: &mut Run, what: &str) {
    let said = |run: &Run| run.lines().iter().any(|line| line.contains(what));
    assert!(run.wait_until_says(said), "{what}: {:#?}", run.lines());
}

/// Whichever is asked, all end with 0 after a last commit, and the next run begins at once with it.
#[test]
fn a_member_that_is_asked_to_end_ends_all_in_order() {
    let _alone = alone();
    let mut cluster = Cluster::new(3, 31);
    for asked in [2, 0, 1] {
        let before = cluster.files();
        let began = Instant::now();
        let mut runs = cluster.start_all("views", &[]);
        cluster.wait_for_a_commit(&mut runs[0]);
        assert!(began.elapsed() < SOON, "it waited for the lease");
        cluster
            .files()
            .check_after(&before, &cluster.place.checkpoint());
        runs[asked].signal(Signal::TERM);
        for run in runs {
            ends_well(run);
        }
    }
    cluster.place.write(cluster.orders.change(50));
    for run in cluster.start_all("views", &["--until-caught-up"]) {
        ends_well(run);
    }
    cluster.assert_right();
}

/// As the first process of a container must.
#[test]
fn a_process_that_waits_for_others_ends_when_it_is_asked() {
    let _alone = alone();
    let cluster = Cluster::new(2, 32);
    for (process, waits_for) in [(0, "waiting for process 1"), (1, "waiting for process 0")] {
        let mut run = cluster.start(process, "views", &[]);
        says(&mut run, waits_for);
        let asked = Instant::now();
        run.signal(Signal::TERM);
        ends_well(run);
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(cluster.files(), CheckpointFiles::default());
}

#[test]
fn versions_do_not_mix_and_the_new_one_takes_over_where_the_old_one_ended() {
    let _alone = alone();
    let mut cluster = Cluster::new(2, 33);
    cluster.place.write(cluster.orders.change(500));
    // The new version is at one host before the old one is everywhere.
    let mut lead = cluster.start(0, "views", &[]);
    says(&mut lead, "waiting for process 1");
    let (status, lines) = cluster.start(1, "next", &[]).end();
    assert_eq!(status.code(), Some(2), "{lines:#?}");
    let what = "digest of the dataflow, its sources and its sinks: ";
    let said: Vec<_> = lines.iter().filter(|line| line.contains(what)).collect();
    assert_eq!(said.len(), 1, "{lines:#?}");
    says(&mut lead, what);
    let said = lead.lines().iter().filter(|line| line.contains(what));
    assert_eq!(said.count(), 1, "{:#?}", lead.lines());

    // The old one goes on when its own is there. The new one does not get into it, and waits.
    let mut member = cluster.start(1, "views", &[]);
    cluster.wait_for_a_commit(&mut lead);
    let mut early = cluster.start(1, "next", &["--rebuild", "large"]);
    says(&mut early, "waiting for process 0");
    cluster.wait_for_a_commit(&mut lead);
    member.signal(Signal::TERM);
    assert!(!member.wait_until(|| false));
    for run in [lead, member] {
        ends_well(run);
    }

    // All of it: it goes on from the old one's last commit, and not from the beginning.
    let before = cluster.files();
    let began = Instant::now();
    let mut lead = cluster.start(0, "next", &["--rebuild", "large"]);
    cluster.wait_for_a_commit(&mut lead);
    assert!(began.elapsed() < SOON, "it waited for the lease");
    cluster
        .files()
        .check_after(&before, &cluster.place.checkpoint());
    for what in ["sink large: is rebuilt", "sink totals: continues"] {
        says(&mut lead, what);
    }
    early.signal(Signal::TERM);
    for run in [early, lead] {
        ends_well(run);
    }
    for run in cluster.start_all("next", &["--until-caught-up"]) {
        ends_well(run);
    }
    cluster.assert_right();
}
