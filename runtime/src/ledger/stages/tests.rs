use super::*;

/// Milliseconds as a duration.
fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Epochs with these numbers, minted a millisecond apart from `begun` on.
fn minted(epochs: impl IntoIterator<Item = u64>, begun: Instant) -> Stages {
    let mut stages = Stages::default();
    for (after, epoch) in (0..).zip(epochs) {
        stages.minted(Epoch(epoch), begun + ms(after));
    }
    stages
}

fn times(one: &EpochStages) -> [Option<u64>; 4] {
    let ms = |took: Duration| u64::try_from(took.as_millis()).expect("short");
    [one.sealed, one.frontier, one.written, one.committed].map(|took| took.map(ms))
}

#[test]
fn each_stage_is_timed_from_the_minting() {
    let begun = Instant::now();
    let mut stages = minted([10], begun);
    let seen = |stages: &Stages| times(&stages.recent()[0]);
    assert_eq!(seen(&stages), [None; 4]);
    stages.sealed(Epoch(10), begun + ms(2));
    stages.frontier_passed(Epoch(10), begun + ms(3));
    assert_eq!(
        seen(&stages),
        [Some(2), None, None, None],
        "a frontier at it has not passed it"
    );
    stages.frontier_passed(Epoch(11), begun + ms(4));
    stages.written(Epoch(u64::MAX), begun + ms(7));
    assert_eq!(seen(&stages), [Some(2), Some(4), Some(7), None]);
    assert_eq!(
        stages.histograms.sealed.count(),
        0,
        "rule 6: it is not committed"
    );
    stages.committed(Epoch(10), begun + ms(9));
    assert_eq!(seen(&stages), [Some(2), Some(4), Some(7), Some(9)]);
    let StageHistograms {
        sealed,
        frontier,
        written,
        committed,
    } = &stages.histograms;
    let sums = [sealed, frontier, written, committed].map(Durations::sum);
    assert_eq!(sums, [2, 4, 7, 9].map(ms));
}

#[test]
fn a_stage_covers_all_epochs_before_and_none_twice() {
    let begun = Instant::now();
    let mut stages = minted(1..=5, begun);
    stages.sealed(Epoch(3), begun + ms(10));
    stages.sealed(Epoch(2), begun + ms(20));
    stages.sealed(Epoch(5), begun + ms(30));
    let sealed = |stages: &Stages| {
        let all = stages.recent();
        all.iter().map(|one| times(one)[0]).collect::<Vec<_>>()
    };
    assert_eq!(
        sealed(&stages),
        [Some(10), Some(9), Some(8), Some(27), Some(26)]
    );
    // One commit for three, and later one for the rest; what comes late changes nothing.
    stages.committed(Epoch(3), begun + ms(40));
    stages.committed(Epoch(2), begun + ms(50));
    stages.committed(Epoch(7), begun + ms(60));
    stages.written(Epoch(9), begun + ms(70));
    let committed: Vec<_> = stages.recent().iter().map(times).collect();
    assert_eq!(
        committed.iter().map(|times| times[3]).collect::<Vec<_>>(),
        [Some(40), Some(39), Some(38), Some(57), Some(56)]
    );
    assert!(committed.iter().all(|times| times[2].is_none()));
    assert_eq!(stages.histograms.committed.count(), 5);
}

#[test]
fn what_is_forgotten_takes_no_place() {
    let begun = Instant::now();
    let mut stages = Stages::default();
    stages.minted(Epoch(1), begun);
    stages.committed(Epoch(1), begun + ms(1));
    for epoch in 2..5000 {
        stages.minted(Epoch(epoch), begun);
        stages.sealed(Epoch(epoch), begun);
        stages.written(Epoch(epoch + 1), begun);
        stages.forget(Epoch(1), Epoch(epoch));
    }
    stages.minted(Epoch(5000), begun);
    let epochs: Vec<_> = stages.recent().iter().map(|one| one.epoch.0).collect();
    assert_eq!(epochs, [1, 5000]);
    assert_eq!(stages.histograms.written.count(), 0);
    assert_eq!(stages.histograms.committed.count(), 1);
}

#[test]
fn the_last_are_kept_and_what_is_in_flight_is_among_them() {
    let begun = Instant::now();
    let mut stages = minted(1..=300, begun);
    stages.committed(Epoch(250), begun + ms(400));
    let recent = stages.recent();
    let epochs: Vec<_> = recent.iter().map(|one| one.epoch.0).collect();
    assert_eq!(epochs, (181..=300).collect::<Vec<_>>());
    let open = recent.iter().filter(|one| one.committed.is_none());
    assert_eq!(open.count(), 50);
    assert_eq!(
        stages.histograms.committed.count(),
        250,
        "all of them count"
    );
    assert_eq!(stages.committed.len(), RECENT);
    let mut stages = minted(1..=9999, begun);
    assert_eq!(stages.open.len(), OPEN);
    assert_eq!(stages.recent().len(), RECENT);
    stages.committed(Epoch(9999), begun + ms(1));
    assert_eq!(stages.histograms.committed.count(), OPEN as u64);
}

#[test]
fn the_sink_that_is_furthest_behind_counts() {
    let ledger = Ledger::new(Epoch(0), Epoch(0));
    let [one, other] = [0, 1].map(|worker| ledger.sink_gauge(worker, 7));
    ledger.minted(Epoch(4), Instant::now());
    let passed = || ledger.stages()[0].frontier.is_some();
    one.frontier(Some(5));
    assert!(!passed(), "the other has not all of it");
    other.frontier(Some(4));
    assert!(!passed());
    other.frontier(None);
    assert!(passed());
    ledger.minted(Epoch(6), Instant::now());
    let last = || ledger.stages()[1];
    one.frontier(Some(6));
    assert_eq!(last().frontier, None);
    ledger.acknowledged(Some(7));
    assert_eq!(last().frontier, last().written, "rule 4");
    assert!(last().written.is_some());
}

#[test]
fn without_sinks_no_frontier_is_known() {
    let ledger = Ledger::new(Epoch(0), Epoch(0));
    ledger.minted(Epoch(4), Instant::now());
    ledger.sealed(Epoch(4), None);
    ledger.acknowledged(None);
    ledger.committed(Epoch(4), Instant::now());
    let one = ledger.stages()[0];
    assert!(one.sealed.is_some() && one.written.is_some() && one.committed.is_some());
    assert_eq!(one.frontier, None);
    assert_eq!(ledger.stage_histograms().committed.count(), 1);
}

#[test]
fn a_member_knows_the_epochs_that_it_has_something_of() {
    let (lead, member) = (
        Ledger::new(Epoch(0), Epoch(0)),
        Ledger::new(Epoch(0), Epoch(0)),
    );
    lead.lead(1);
    member.follow();
    let hear = || member.hear_run("process 0", lead.run_facts());
    for epoch in [3, 5, 8] {
        lead.minted(Epoch(epoch), Instant::now());
        hear();
        member.sealed(Epoch(epoch - 1), None);
        if epoch != 5 {
            member.page_arrived(10);
            member.page_attached(Epoch(epoch), 10);
        }
    }
    let stages = member.stages();
    let epochs: Vec<_> = stages.iter().map(|one| one.epoch.0).collect();
    assert_eq!(epochs, [3, 8]);
    assert!(stages[0].sealed.is_some() && stages[1].sealed.is_none());
    member.sealed(Epoch(8), None);
    lead.acknowledged(Some(8));
    hear();
    let stages = member.stages();
    assert!(stages[0].written.is_some() && stages[1].written.is_none());
    lead.acknowledged(None);
    lead.committed(Epoch(8), Instant::now());
    hear();
    let stages = member.stages();
    for one in &stages {
        assert!(one.sealed.is_some() && one.written.is_some() && one.committed.is_some());
    }
    assert_eq!(member.stage_histograms().committed.count(), 2);
}
