//! Looking at a checkpoint and mending it by hand: the commits there are, whether every object is sound, going back to an
//! older commit, collecting garbage.
//!
//! Looking reads only, beside a run that lives too. Changing takes the lease first, as a run does, so it is refused while a
//! run lives.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chain::{load_commit, read_back};
use super::commit_writer::{Collection, GarbageReport};
use super::frame::Checksum;
use super::lease::{Claimant, Lease, LeaseConfig, LeaseRecord, newest};
use super::names::ObjectName;
use super::objects::{CommitRecord, CommitRef, GenerationRecord, StartRecord};
use super::reader::{check_base, check_object, read_tokens};
use super::recovery::{Span, Survey, beyond};
use super::store::CheckpointStore;
use crate::fence::Fence;
use crate::states::is_state;
use crate::{Error, ErrorKind, Generation, Result};

/// What is in a checkpoint, as far as the readable records tell.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Who holds or held it last.
    pub lease: Option<LeaseRecord>,
    /// The newest run that started.
    pub generation: Option<GenerationRecord>,
    /// What it started from.
    pub start: Option<StartRecord>,
    /// The commits that can be gone back to, the newest first: the next run starts from that one.
    pub commits: Vec<CommitRecord>,
    /// Objects in the store.
    pub objects: u64,
}

/// Listings that are tried while they change. A guess: commits are read newest first and collected oldest first, so each
/// try that meets a collection has about half as many to read as the one before.
const LISTINGS: u32 = 5;

/// Reads the overview. What a run that lives has taken since the listing is not in it.
///
/// # Errors
/// `Checkpoint` when one of the records is damaged or missing, naming it.
pub async fn overview(store: &CheckpointStore) -> Result<Overview> {
    let mut names = store.list().await?;
    for _ in 1..LISTINGS {
        match overview_of(store, &names).await {
            Err(error) if error.kind() == ErrorKind::Checkpoint => {
                let now = store.list().await?;
                if now == names {
                    return Err(error);
                }
                names = now;
            }
            done => return done,
        }
    }
    overview_of(store, &names).await
}

async fn overview_of(store: &CheckpointStore, names: &[ObjectName]) -> Result<Overview> {
    let survey = Survey::of(names);
    let state = State::of(store, &survey).await?;
    let generation = match &state.start {
        Some(start) => Some(owner(store, start.generation).await?),
        None => None,
    };
    Ok(Overview {
        lease: newest(store).await?.map(|(_, record)| record),
        generation,
        start: state.start,
        commits: state.chain.into_iter().map(|(_, commit)| commit).collect(),
        objects: names.len() as u64,
    })
}

/// The start record in force, and the commits behind it.
struct State {
    start: Option<StartRecord>,
    /// The newest first.
    chain: Vec<(CommitRef, CommitRecord)>,
}

impl State {
    async fn of(store: &CheckpointStore, survey: &Survey) -> Result<State> {
        let refused = |refusal| store.refused(refusal);
        let Some(newest) = survey.newest_start().map_err(refused)? else {
            return Ok(State {
                start: None,
                chain: Vec::new(),
            });
        };
        let (_, start): (Checksum, StartRecord) =
            store.load_json(ObjectName::Start(newest)).await?;
        let chain = match survey.commit_for(&start).map_err(refused)? {
            Some(name) => {
                let newest = load_commit(store, name, start.commit).await?;
                let from = newest.1.previous;
                let older = read_back(store, from, |name| survey.has_commit(name), usize::MAX);
                [vec![newest], older.await?].concat()
            }
            None => Vec::new(),
        };
        Ok(State {
            start: Some(start),
            chain,
        })
    }
}

async fn owner(store: &CheckpointStore, generation: Generation) -> Result<GenerationRecord> {
    let (_, record) = store.load_json(ObjectName::Generation(generation)).await?;
    Ok(record)
}

/// What a verification has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Objects read.
    pub objects: u64,
    /// Their bytes, without the frames.
    pub bytes: u64,
    /// One line for each object that cannot be used, and for what is missing.
    pub damage: Vec<String>,
}

/// Reads every object there is, and follows everything that a run could start from. `progress` is told how many objects of
/// how many are read.
///
/// A run that lives changes the store meanwhile: what its garbage collection takes then shows as missing.
///
/// # Errors
/// When the store cannot be listed. What is wrong with an object is in the result.
pub async fn verify(
    store: &CheckpointStore,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verification> {
    let mut names = store.list().await?;
    let survey = Survey::of(&names);
    names.extend(store.list_letters().await?);
    let mut found = Verification::default();
    for name in &names {
        match check_object(store, *name).await {
            Ok(bytes) => found.bytes += bytes,
            Err(error) => found.damage.push(error.report()),
        }
        found.objects += 1;
        progress(found.objects, names.len() as u64);
    }
    if let Err(error) = follow(store, &survey, &mut found.damage).await {
        found.damage.push(error.report());
    }
    // An object may be found wrong by itself and by what leads to it.
    let mut seen = BTreeSet::new();
    found.damage.retain(|line| seen.insert(line.clone()));
    Ok(found)
}

/// Follows the chain of commits, what each consists of, and the seals beyond the newest.
async fn follow(store: &CheckpointStore, survey: &Survey, damage: &mut Vec<String>) -> Result<()> {
    let state = State::of(store, survey).await?;
    let Some(start) = &state.start else {
        return Ok(());
    };
    owner(store, start.generation).await?;
    for (_, commit) in &state.chain {
        if let Err(error) = check_state(store, commit).await {
            damage.push(error.report());
        }
    }
    let newest = state.chain.first().map(|(_, commit)| commit);
    let spans = beyond(survey, start, newest).map_err(|refusal| store.refused(refusal))?;
    for span in spans {
        read_tokens(store, &span, newest.map(|commit| commit.epoch)).await?;
    }
    Ok(())
}

/// Whether everything that `commit` consists of is there and is what it names.
async fn check_state(store: &CheckpointStore, commit: &CommitRecord) -> Result<()> {
    if let Some(base) = &commit.base {
        check_base(store, base).await?;
    }
    for run in &commit.runs {
        read_tokens(store, &Span::of(run), None).await?;
    }
    Ok(())
}

/// Makes the next run start from the commit with this number. Everything after it is forgotten: the feeds are read again
/// from its tokens, and every sink is reconciled with its container, because the containers are further than the commit.
/// Returns the commit.
///
/// # Errors
/// `Config` when no such commit is kept, `Fenced` when a run lives, `Checkpoint` when what the commit consists of is damaged
/// or missing. Nothing was changed then.
pub async fn rewind(
    store: &CheckpointStore,
    number: u64,
    lease: LeaseConfig,
) -> Result<CommitRecord> {
    while_held(store, lease, async |held| {
        rewind_held(&held.store, number, held.generation).await
    })
    .await
}

/// A checkpoint that is held to be changed by hand.
#[derive(Clone, Debug)]
pub struct Held {
    /// The store, for as long as the lease lasts.
    pub store: CheckpointStore,
    /// Closed when the lease is lost.
    pub fence: Fence,
    /// The generation that the lease is for.
    pub generation: Generation,
    /// How long to wait before the first write to a sink: requests of the runs before may still be carried out.
    pub settle: Duration,
}

/// Does something with the store while holding its lease, which is renewed meanwhile.
///
/// # Errors
/// `Fenced` when a run lives, or the lease was lost; and what `work` returns.
pub async fn while_held<T>(
    store: &CheckpointStore,
    config: LeaseConfig,
    work: impl AsyncFnOnce(Held) -> Result<T>,
) -> Result<T> {
    let mut lease = Lease::acquire(store, config, Claimant::default()).await?;
    let held = Held {
        store: store.fenced(lease.fence().clone()),
        fence: lease.fence().clone(),
        generation: lease.generation(),
        settle: lease.settle(),
    };
    let done = tokio::select! {
        done = work(held) => done,
        lost = lease.keep() => return Err(lost),
    };
    let released = lease.release().await;
    // What went wrong first is what matters.
    done.and_then(|done| released.map(|()| done))
}

async fn rewind_held(
    store: &CheckpointStore,
    number: u64,
    generation: Generation,
) -> Result<CommitRecord> {
    let survey = Survey::of(&store.list().await?);
    let (reference, commit) = kept(store, &survey, number).await?;
    check_state(store, &commit).await?;
    let before = owner(store, commit.generation).await?;
    let record = GenerationRecord {
        generation,
        ..before
    };
    let start = StartRecord {
        generation,
        fresh: false,
        commit: Some(reference),
        first_commit: survey.last_commit() + 1,
        runs: Vec::new(),
        // Keyed state is loaded as of the commit; containers are further.
        rebuild: commit
            .sinks
            .keys()
            .filter(|name| !is_state(name))
            .cloned()
            .collect(),
    };
    let name = ObjectName::Generation(generation);
    store.create_json(name, &record).await?;
    let name = ObjectName::Start(generation);
    store.create_json(name, &start).await?;
    Ok(commit)
}

/// The commit of the chain with this number. A newer one that is damaged is stepped over: to get away from it is what
/// rewinding is for.
async fn kept(
    store: &CheckpointStore,
    survey: &Survey,
    number: u64,
) -> Result<(CommitRef, CommitRecord)> {
    let refused = |refusal| store.refused(refusal);
    let unknown = || {
        let context = format!(
            "there is no commit {number} to go back to: `checkpoints list` shows those there are"
        );
        Error::new(ErrorKind::Config, context)
    };
    let newest = survey
        .newest_start()
        .map_err(refused)?
        .ok_or_else(unknown)?;
    let (_, start): (Checksum, StartRecord) = store.load_json(ObjectName::Start(newest)).await?;
    // Of the run in force, or of the chain that it started from.
    let own = (newest, number);
    if survey.has_commit(own) {
        return load_commit(store, own, start.commit).await;
    }
    let there = |name| survey.has_commit(name);
    let before = read_back(store, start.commit, there, usize::MAX).await?;
    let found = before.into_iter().find(|(named, _)| named.number == number);
    found.ok_or_else(unknown)
}

/// Deletes what neither the last `retain` commits nor the next run can reach.
///
/// # Errors
/// `Fenced` when a run lives (it collects by itself), `Checkpoint` when a record is damaged: then nothing is deleted.
pub async fn collect_garbage(
    store: &CheckpointStore,
    retain: usize,
    lease: LeaseConfig,
) -> Result<GarbageReport> {
    while_held(store, lease, async |held| {
        collect_held(held.store, retain).await
    })
    .await
}

async fn collect_held(store: CheckpointStore, retain: usize) -> Result<GarbageReport> {
    let names = store.list().await?;
    let state = State::of(&store, &Survey::of(&names)).await?;
    let Some(start) = state.start else {
        return Ok(GarbageReport::default());
    };
    let kept = state.chain.into_iter().take(retain.max(1));
    let recent = kept.map(|(_, commit)| commit).rev();
    Collection::new(store, start, retain, recent.collect())
        .run()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::vanishing::Vanishing;
    use crate::checkpoint::tests::{Place, commit_of, identity, part, record};
    use crate::checkpoint::{Options, open};
    use crate::{Epoch, Record};

    /// Six epochs in two runs, each committed, with a base between them.
    async fn build(place: &Place) {
        for epochs in [1..=3u64, 4..=6] {
            let store = place.reopened();
            let mut opened = open(&store, &identity(), Options::default()).await.unwrap();
            for epoch in epochs {
                let records: Vec<Record> = vec![record("k", Some(&epoch.to_string()))];
                let parts = vec![part("flights", "-FF", &epoch.to_string(), records)];
                let seal = opened.seals.write(Epoch(epoch), parts).await.unwrap();
                let request = commit_of(epoch, &[seal]);
                opened.commits.commit(request).await.unwrap();
            }
            opened.lease.release().await.unwrap();
        }
    }

    fn quick() -> LeaseConfig {
        LeaseConfig::default()
    }

    #[tokio::test]
    async fn the_overview_shows_the_chain_across_runs() {
        for place in Place::both() {
            assert_eq!(overview(&place.store).await.unwrap().commits, []);
            build(&place).await;
            let seen = overview(&place.store).await.unwrap();
            let numbers: Vec<u64> = seen.commits.iter().map(|commit| commit.number).collect();
            assert_eq!(numbers, [6, 5, 4, 3, 2, 1]);
            assert_eq!(seen.start.unwrap().generation, Generation(2));
            assert!(!seen.lease.unwrap().held);
        }
    }

    fn commit(generation: u64, number: u64) -> ObjectName {
        ObjectName::Commit {
            generation: Generation(generation),
            number,
        }
    }

    /// As garbage collection does: the oldest commits first. It was an error that the commit is missing.
    #[tokio::test]
    async fn what_is_collected_while_the_overview_is_read_is_not_in_it() {
        let place = Place::memory();
        build(&place).await;
        for (oldest, vanish) in [(1, vec![]), (3, vec![2, 1]), (4, vec![3])] {
            let vanish = vanish.into_iter().map(|number| commit(1, number));
            let store = Vanishing::over(&place.store, vanish);
            let seen = overview(&store).await.unwrap();
            let numbers: Vec<u64> = seen.commits.iter().map(|commit| commit.number).collect();
            assert_eq!(numbers, (oldest..=6).rev().collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_is_lost_for_good_is_named_by_the_overview() {
        let place = Place::memory();
        build(&place).await;
        let owner = ObjectName::Generation(Generation(2));
        // Lost while it is looked at, and before.
        for _ in 0..2 {
            let store = Vanishing::over(&place.store, [owner]);
            let error = overview(&store).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Checkpoint);
            let says = format!("{owner} is missing");
            assert!(error.to_string().contains(&says), "{error}");
        }
    }

    #[tokio::test]
    async fn verification_names_all_that_is_wrong_and_nothing_else() {
        for place in Place::both() {
            build(&place).await;
            let store = &place.store;
            let mut told = 0;
            let sound = verify(store, |done, _| told = done).await.unwrap();
            assert_eq!((sound.damage, sound.objects), (vec![], told));
            let names = store.list().await.unwrap();
            let seal = names
                .iter()
                .find(|name| name.to_string().starts_with("seal/0000000001"));
            let commit = names
                .iter()
                .rfind(|name| matches!(name, ObjectName::Commit { .. }));
            for lost in [seal.unwrap(), commit.unwrap()] {
                store.delete(*lost).await.unwrap();
            }
            let found = verify(store, |_, _| {}).await.unwrap();
            let [line] = found.damage.as_slice() else {
                panic!("{found:?}");
            };
            // The newest commit can be lost without a trace; that is a commit less, and no damage.
            assert!(
                line.contains(&format!("{} is missing", seal.unwrap())),
                "{line}"
            );
        }
    }

    #[tokio::test]
    async fn the_next_run_starts_from_the_commit_rewound_to() {
        for place in Place::both() {
            build(&place).await;
            let error = rewind(&place.store, 7, quick()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            for number in [4, 2] {
                rewind(&place.store, number, quick()).await.unwrap();
                let store = place.reopened();
                let opened = open(&store, &identity(), Options::default()).await.unwrap();
                let commit = opened.resume.commit.as_ref().unwrap();
                assert_eq!((commit.number, commit.epoch), (number, Epoch(number)));
                assert_eq!(opened.resume.last_sealed, Some(Epoch(number)));
                let rebuild = &opened.resume.start.rebuild;
                assert!(rebuild.contains("board"), "the container is further");
                opened.lease.release().await.unwrap();
            }
        }
    }

    /// The way out when the newest commit cannot be read.
    #[tokio::test]
    async fn a_damaged_commit_can_be_left_behind() {
        let place = Place::memory();
        build(&place).await;
        let newest = ObjectName::Commit {
            generation: Generation(2),
            number: 6,
        };
        place.overwrite(newest, b"junk").await;
        let opened = open(&place.store, &identity(), Options::default()).await;
        let text = opened.unwrap_err().to_string();
        assert!(text.contains(&newest.to_string()), "{text}");
        rewind(&place.store, 5, quick()).await.unwrap();
        let opened = open(&place.store, &identity(), Options::default()).await;
        assert_eq!(opened.unwrap().resume.commit.unwrap().number, 5);
    }

    #[tokio::test]
    async fn garbage_goes_and_what_is_kept_can_be_gone_back_to() {
        for place in Place::both() {
            build(&place).await;
            let report = collect_garbage(&place.store, 2, quick()).await.unwrap();
            assert!(report.deleted >= 4, "{report:?}");
            let found = verify(&place.store, |_, _| {}).await.unwrap();
            assert_eq!(found.damage, Vec::<String>::new());
            assert_eq!(overview(&place.store).await.unwrap().commits.len(), 2);
            rewind(&place.store, 5, quick()).await.unwrap();
            let error = rewind(&place.store, 4, quick()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }

    #[tokio::test]
    async fn nothing_is_changed_under_a_run_that_lives() {
        for place in Place::both() {
            let _run = open(&place.store, &identity(), Options::default())
                .await
                .unwrap();
            let store = place.reopened();
            let error = rewind(&store, 1, quick()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced);
            let error = collect_garbage(&store, 1, quick()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced);
        }
    }
}
