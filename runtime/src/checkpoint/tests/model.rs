//! Random runs against the model: after every reopen, collection and replay equal the model's at those epochs.
//!
//! `TIDEFEED_MODEL_SEEDS=2000` makes that many runs in memory instead of 50.

use super::*;
use crate::checkpoint::names::ObjectName;
use crate::checkpoint::records::IN_SECTIONS_BYTES;

/// Small, seeded and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

struct Run {
    store: CheckpointStore,
    opened: Opened,
    others: Vec<SealWriter>,
    /// Seals of this run that no commit names yet.
    uncommitted: Vec<SealRef>,
    /// Numbers and epochs of this run's commits.
    commits: Vec<CommitRecord>,
    retain: usize,
}

impl Run {
    async fn start(place: &Place, dice: &mut Dice, model: &mut Model) -> Run {
        let store = place.reopened();
        let mut identity = identity();
        identity.processes = 1 + dice.roll(3) as u32;
        let options = Options {
            fresh: dice.roll(25) == 0,
            retain_commits: 1 + dice.roll(3) as usize,
            ..options()
        };
        if options.fresh {
            *model = Model::default();
        }
        let mut opened = open(&store, &identity, options).await.unwrap();
        model.check(&store, &opened.resume).await;
        assert_eq!(opened.resume.tokens, model.tokens());
        check_shares(&store, &opened.resume, model).await;
        let mut others = Vec::new();
        for process in 1..identity.processes {
            let joined = join(
                &store,
                &identity,
                opened.generation,
                process,
                opened.lease.fence(),
            )
            .await
            .unwrap();
            assert_eq!(joined.resume.tokens, opened.resume.tokens);
            assert_eq!(joined.resume.last_sealed, opened.resume.last_sealed);
            others.push(joined.seals);
        }
        if dice.roll(2) == 0
            && let Some(compaction) = opened.resume.compaction(&store)
            && let Some(base) = compaction.run().await.unwrap()
            && dice.roll(4) > 0
        {
            opened.commits.set_base(base).unwrap();
        }
        Run {
            store,
            opened,
            others,
            uncommitted: Vec::new(),
            commits: Vec::new(),
            retain: options.retain_commits,
        }
    }

    async fn seal(&mut self, dice: &mut Dice, model: &mut Model) {
        let epoch = Epoch(
            model
                .last_sealed()
                .map_or(1, |last| last.0 + 1 + dice.roll(5)),
        );
        let processes = 1 + self.others.len() as u64;
        for process in 0..processes {
            if processes > 1 && dice.roll(3) == 0 {
                continue;
            }
            let parts = random_parts(dice, process, processes, epoch);
            let writer = match process {
                0 => &mut self.opened.seals,
                _ => &mut self.others[process as usize - 1],
            };
            let seal = writer.write(epoch, parts.clone()).await.unwrap();
            self.uncommitted.push(seal);
            model.seals.push((epoch, parts));
        }
    }

    async fn commit(&mut self, dice: &mut Dice, model: &mut Model) {
        let replay = model.replay();
        let Some(epoch) = replay
            .keys()
            .nth(dice.roll(replay.len().max(1) as u64) as usize)
        else {
            return;
        };
        let (due, rest) = self
            .uncommitted
            .drain(..)
            .partition(|seal| seal.epoch <= *epoch);
        self.uncommitted = rest;
        let mut committed = model.clone();
        committed.seals.retain(|(sealed, _)| sealed <= epoch);
        let request = CommitRequest {
            epoch: *epoch,
            loading: false,
            tokens: committed.tokens(),
            seals: due,
            sinks: BTreeMap::new(),
            marks: Default::default(),
        };
        self.commits
            .push(self.opened.commits.commit(request).await.unwrap());
        model.commit = Some(*epoch);
    }

    /// A compaction beside the run, with other work between its beginning and its end.
    async fn compact(&mut self, dice: &mut Dice, model: &mut Model) {
        let Some(compaction) = self.opened.commits.compaction() else {
            return;
        };
        if dice.roll(2) == 0 {
            self.commit(dice, model).await;
            self.opened.commits.collect_garbage().await.unwrap();
        }
        if let Some(base) = compaction.run().await.unwrap() {
            self.opened.commits.collect_garbage().await.unwrap();
            self.opened.commits.set_base(base).unwrap();
        }
    }

    /// The newest commit is lost, as by a restored copy that is a little old: the one before it must still be enough.
    async fn lose_commit(&self, model: &mut Model) -> bool {
        let before = match self.commits.as_slice() {
            [.., before, _] => Some(before.epoch),
            [_] => self
                .opened
                .resume
                .commit
                .as_ref()
                .map(|commit| commit.epoch),
            [] => return false,
        };
        if self.retain < 2 {
            return false;
        }
        let last = self.commits.last().expect("matched above");
        let name = ObjectName::Commit {
            generation: last.generation,
            number: last.number,
        };
        self.store.delete(name).await.unwrap();
        model.commit = before;
        true
    }
}

async fn check_shares(store: &CheckpointStore, resume: &Resume, model: &Model) {
    let mut together = Documents::new();
    for process in 0..3 {
        let share = Share::new(process, 3).unwrap();
        let (collection, _) = rehydrate(store, resume, share).await.unwrap();
        for (source, keys) in collection {
            let all = together.entry(source).or_default();
            for (key, body) in keys {
                assert!(all.insert(key, body).is_none(), "two shares hold a key");
            }
        }
    }
    assert_eq!(together, model.collection());
}

fn random_parts(dice: &mut Dice, process: u64, processes: u64, epoch: Epoch) -> Vec<SealPart> {
    let mut parts = Vec::new();
    // Now and then a seal is so large that it is kept in sections.
    let padding = match dice.roll(300) {
        0 => " ".repeat(IN_SECTIONS_BYTES / 2),
        _ => String::new(),
    };
    for source in ["flights", "airports"] {
        if dice.roll(3) == 0 {
            continue;
        }
        let mut records = Vec::new();
        for _ in 0..dice.roll(6) {
            // A key belongs to one process in one run (I6).
            let key = format!("k{}", dice.roll(10) * processes + process);
            let body = format!("{{\"v\":{}}}{padding}", dice.roll(1000));
            records.push(record(&key, (dice.roll(4) > 0).then_some(body.as_str())));
        }
        parts.push(part(
            source,
            &format!("range {process}"),
            &epoch.to_string(),
            records,
        ));
    }
    parts
}

async fn random_run(place: Place, seed: u64, steps: u32) {
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut model = Model::default();
    let mut run = Run::start(&place, &mut dice, &mut model).await;
    for _ in 0..steps {
        match dice.roll(20) {
            0..10 => run.seal(&mut dice, &mut model).await,
            10..15 => run.commit(&mut dice, &mut model).await,
            15 => {
                run.opened.commits.collect_garbage().await.unwrap();
            }
            16 => run.compact(&mut dice, &mut model).await,
            other => {
                if other == 19 {
                    run.lose_commit(&mut model).await;
                }
                drop(run);
                run = Run::start(&place, &mut dice, &mut model).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn random_runs_in_memory_equal_the_model() {
    for seed in 0..number("TIDEFEED_MODEL_SEEDS").unwrap_or(50) {
        random_run(Place::memory(), seed, 150).await;
    }
}

#[tokio::test(start_paused = true)]
async fn random_runs_on_disk_equal_the_model() {
    for seed in 1000..1004 {
        random_run(Place::local(), seed, 100).await;
    }
}
