use std::collections::VecDeque;
use std::time::Instant;

use super::*;
use crate::ErrorKind;

/// The ledgers of a cluster, and what is on the way between them.
struct Ledgers {
    all: Vec<Ledger>,
    to_lead: Vec<VecDeque<MemberFacts>>,
    to_members: Vec<VecDeque<RunFacts>>,
}

impl Ledgers {
    fn new(processes: usize) -> Self {
        let all: Vec<_> = (0..processes)
            .map(|_| Ledger::new(Epoch(0), Epoch(0)))
            .collect();
        all[0].lead(processes - 1);
        all[1..].iter().for_each(Ledger::follow);
        Ledgers {
            to_lead: vec![VecDeque::new(); processes - 1],
            to_members: vec![VecDeque::new(); processes - 1],
            all,
        }
    }

    fn lead(&self) -> &Ledger {
        &self.all[0]
    }

    /// A member says something, or is heard; or hears something.
    fn pass(&mut self, member: usize, what: u8) {
        let peer = format!("process {}", member + 1);
        match what {
            0 => self.to_lead[member].push_back(self.all[member + 1].member_facts()),
            1 => {
                if let Some(facts) = self.to_lead[member].pop_front() {
                    self.all[0].hear_member(member as u32 + 1, &peer, facts);
                }
            }
            2 => self.to_members[member].push_back(self.all[0].run_facts()),
            _ => {
                if let Some(facts) = self.to_members[member].pop_front() {
                    self.all[member + 1].hear_run("process 0", facts);
                }
            }
        }
    }

    /// Everybody hears what is true now.
    fn settle(&mut self) {
        for member in 0..self.to_lead.len() {
            for (what, waiting) in [(0, 2), (2, 2)] {
                for _ in 0..waiting {
                    self.pass(member, what);
                }
            }
            while !self.to_lead[member].is_empty() {
                self.pass(member, 1);
            }
        }
        for member in 0..self.to_members.len() {
            self.pass(member, 2);
            while !self.to_members[member].is_empty() {
                self.pass(member, 3);
            }
        }
    }
}

/// A feed range that somebody reads.
#[derive(Clone, Copy)]
struct Range {
    at: usize,
    /// It has yet to be read up to its end, and what it had to read is not all attached.
    loading: bool,
    waiting: bool,
}

/// However late each process hears of the others: the run never takes the load for complete, or the input for drained, while
/// anything is still to be read or attached anywhere; and when all is heard it does.
#[test]
fn a_run_is_complete_when_all_of_it_is_and_not_before() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..300 {
        let processes = random.usize(2..5);
        let mut ledgers = Ledgers::new(processes);
        let mut ranges: Vec<Range> = (0..random.usize(1..5))
            .map(|_| Range {
                at: random.usize(..processes),
                loading: true,
                waiting: false,
            })
            .collect();
        ledgers.lead().open_ranges(ranges.len());
        ledgers.lead().expect_to_catch_up(ranges.len());
        let (mut epoch, mut newest) = (1, 0);
        let mut hand_overs = random.usize(0..4);
        while !ranges.is_empty() {
            for _ in 0..random.usize(0..6) {
                ledgers.pass(random.usize(..processes - 1), random.u8(0..4));
            }
            epoch += 1;
            let which = random.usize(..ranges.len());
            let range = &mut ranges[which];
            let ledger = ledgers.all[range.at].clone();
            match (range.waiting, range.loading) {
                (true, _) => {
                    ledger.page_attached(Epoch(epoch), 10);
                    ledger.caught_up(Epoch(epoch));
                    newest = epoch;
                    (range.waiting, range.loading) = (false, false);
                }
                (false, true) if hand_overs > 0 && random.bool() => {
                    hand_overs -= 1;
                    let parts = random.usize(1..4);
                    // Not before process 0 knows of them, and from there on anywhere.
                    ledgers.lead().handed_over(parts, true);
                    ranges.swap_remove(which);
                    ranges.extend((0..parts).map(|_| Range {
                        at: random.usize(..processes),
                        loading: true,
                        waiting: false,
                    }));
                }
                (false, true) => {
                    ledger.read_up();
                    ledger.page_arrived(10);
                    range.waiting = true;
                }
                (false, false) => {
                    ledger.range_ended();
                    ranges.swap_remove(which);
                }
            }
            let loading = ranges.iter().any(|range| range.loading);
            let to_read = ranges.iter().any(|range| range.loading && !range.waiting);
            let at = format!("seed {seed}, round {round}");
            assert!(!ledgers.lead().loaded() || !loading, "{at}");
            assert!(!ledgers.lead().drained() || ranges.is_empty(), "{at}");
            assert!(ledgers.lead().observe().loading || !to_read, "{at}");
        }
        ledgers.settle();
        assert!(ledgers.lead().drained(), "seed {seed}, round {round}");
        for ledger in &ledgers.all {
            let by = |epoch| ledger.loaded_by(Epoch(epoch));
            assert!(by(newest) && !by(newest - 1), "seed {seed}, round {round}");
        }
    }
}

#[test]
fn what_waits_at_members_counts_for_the_ticker() {
    let mut ledgers = Ledgers::new(3);
    let (lead, member) = (ledgers.all[0].clone(), ledgers.all[2].clone());
    lead.minted(Epoch(7), Instant::now());
    member.page_arrived(300);
    member.page_arrived(200);
    let room = member.want_room();
    member.page_attached(Epoch(7), 300);
    lead.sealed(Epoch(7), None);
    ledgers.settle();
    let seen = lead.observe();
    assert!(seen.data_waiting && seen.full);
    assert_eq!(
        (seen.waiting_bytes, seen.in_flight_bytes, seen.unsealed),
        (200, 300, 1),
        "the members have not sealed it"
    );
    drop(room);
    member.page_attached(Epoch(7), 200);
    ledgers.all[1..]
        .iter()
        .for_each(|member| member.sealed(Epoch(7), None));
    ledgers.settle();
    let seen = lead.observe();
    assert!(!seen.data_waiting && !seen.full);
    assert_eq!((seen.in_flight_bytes, seen.unsealed), (500, 0));
    assert_eq!(lead.acknowledged(Some(8)), Some(Epoch(7)));
    lead.committed(Epoch(7), Instant::now());
    lead.minted(Epoch(9), Instant::now());
    ledgers.settle();
    assert_eq!(lead.observe().in_flight_bytes, 0);
    assert_eq!(member.committed_through(), Epoch(7));
    assert!(member.member_facts().attached.is_empty(), "it is forgotten");
}

#[test]
fn members_write_when_they_are_told_and_end_as_they_are_told() {
    let mut ledgers = Ledgers::new(3);
    let all = ledgers.all.clone();
    all[0].unsettle();
    ledgers.settle();
    assert!(!all.iter().any(Ledger::writable));
    all[0].settle();
    ledgers.settle();
    assert!(all.iter().all(Ledger::writable));
    all[1].finish();
    ledgers.settle();
    let finishing = |finish| {
        all.iter()
            .all(|ledger| *ledger.finishing().borrow() == finish)
    };
    assert!(finishing(Finish::CaughtUp));
    all[0].complete_load(Epoch(1));
    all[0].drain();
    ledgers.settle();
    assert!(finishing(Finish::Here), "sooner counts");
    all[0].finish();
    ledgers.settle();
    assert!(finishing(Finish::Here), "later does not");
    all[2].fail(Error::internal("the cause"));
    ledgers.settle();
    let reports = all.iter().map(|ledger| {
        let failure = ledger.take_failure().expect("failed");
        (failure.kind(), failure.report())
    });
    let told = "process 2 has failed: the cause".to_owned();
    let expected = [
        (ErrorKind::PeerLost, told.clone()),
        (ErrorKind::PeerLost, told),
        (ErrorKind::Internal, "the cause".to_owned()),
    ];
    assert_eq!(reports.collect::<Vec<_>>(), expected);
}

#[test]
fn what_has_nothing_to_commit_soon_is_not_drained_but_stopped() {
    let ledger = Ledger::new(Epoch(0), Epoch(0));
    ledger.drain();
    assert!(ledger.stopped(), "it is not done with its load");
    let ledger = Ledger::new(Epoch(0), Epoch(0));
    ledger.complete_load(Epoch(1));
    ledger.unsettle();
    ledger.drain();
    assert!(ledger.stopped(), "it may not write");
}

#[test]
fn a_stop_is_for_all_unless_all_is_through() {
    let mut ledgers = Ledgers::new(2);
    ledgers.all[1].complete();
    ledgers.all[1].stop();
    ledgers.settle();
    assert!(!ledgers.lead().stopped(), "it may still have to commit");
    let mut ledgers = Ledgers::new(2);
    ledgers.all[1].stop();
    ledgers.settle();
    assert!(ledgers.lead().stopped() && ledgers.lead().take_failure().is_none());
    let mut ledgers = Ledgers::new(2);
    ledgers.all[0].fail(Error::new(ErrorKind::Fenced, "the lease is gone"));
    ledgers.settle();
    let failure = ledgers.all[1].take_failure().expect("failed");
    assert_eq!(failure.kind(), ErrorKind::Fenced, "the whole run is");
}
