//! One run at a time, on any store (I7): a lease that is taken, renewed and given back in numbered objects.
//!
//! `lease/<n>` is a log that only one writer can append to at a time, because objects are created if absent. Its newest
//! record says who holds the checkpoint:
//!
//! 1. **Take**: create the next record, with the next generation. Whoever is second finds the record there and looks again.
//! 2. **Renew**: every third of the duration the holder creates the next record. A renewal counts only if its answer comes while
//!    the lease still lasts; the lease then lasts for the duration from when the renewal was *begun*.
//! 3. **Release**: at its end, when none of its writes is under way any more, the holder creates a record that says so.
//! 4. **Take over**: a record that is not released and has not been followed by another one for its whole duration, by the
//!    clock of whoever watches, belongs to a run that may not write any more: its own clock began earlier. One that is
//!    followed by another while somebody watches belongs to a run that lives: the watcher gives up.
//!
//! Old records are removed. So a run that stood still between its look and its try may find the number free that was
//! taken and removed meanwhile. It looks once more after each take: only the newest record counts.
//!
//! Clocks are never compared with each other; only that they run at the same speed is relied on. Where a lock proves that
//! every earlier holder is dead (a local folder, a store in memory), a run takes over at once and needs no renewals. It proves
//! nothing of the other processes of a cluster: those write under the lease of the one that has the lock, so there it counts.
//! Of those a supervisor that started them all knows more (`supervised.rs`): what it has seen end is taken over at once too.
//!
//! What the holder before had sent may still be carried out after its lease has ended or its process died. So a run that
//! takes over from one that did not release waits for [`LeaseConfig::settle`] before it writes to a sink. One that ends before
//! it has waited so long leaves the rest of the wait to the next: its release says how long that is. What an old run
//! writes into the store harms nobody: seals, commits and bases carry their generation in their names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::commit_writer::now_ms;
use super::garbage::KEPT_LEASES;
use super::lock::HeldLock;
use super::names::ObjectName;
use super::recovery::Survey;
use super::store::CheckpointStore;
use super::supervised::Supervised;
use crate::fence::{Fence, Renewal};
use crate::line_limit::LineLimit;
use crate::{Context, Error, ErrorKind, Generation, Result};

/// How long a run may be out of touch before another one takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// How long a lease lasts. Default 10 s, a guess, in the middle of what lease systems use; at least 100 ms. Larger
    /// survives longer outages of the store; smaller takes over sooner from a run that was lost.
    pub duration: Duration,
    /// How long a request may still be carried out after whoever sent it has died or was fenced. Default 10 s: the longest
    /// that a run waits for its own requests. A run that takes over from one that did not end in order lets that much
    /// time pass before it writes to a sink.
    pub settle: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        LeaseConfig {
            duration: Duration::from_secs(10),
            settle: Duration::from_secs(10),
        }
    }
}

/// `lease/<n>`: who holds the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRecord {
    /// The generation that holds it, or did.
    pub generation: Generation,
    /// Tells two runs apart that try the same number at the same moment.
    pub run: String,
    /// False once it was given back.
    pub held: bool,
    /// How long it lasts without a renewal.
    pub duration_ms: u64,
    /// Whether other processes write under it too, which no lock proves dead.
    #[serde(default, skip_serializing_if = "is_alone")]
    pub cluster: bool,
    /// Who has started all processes that write under it, and will know when they have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervised: Option<Supervised>,
    /// Of a release: how much longer requests of the runs before may be carried out.
    #[serde(default)]
    pub unsettled_ms: u64,
    /// Wall clock of the holder, for people.
    pub written_at_ms: u64,
}

fn is_alone(cluster: &bool) -> bool {
    !cluster
}

/// Who wants the checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claimant {
    /// Other processes will write under the lease too.
    pub(super) cluster: bool,
    pub(super) supervised: Option<Supervised>,
}

/// What to do about the newest record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Create the record with this number.
    Take { number: u64, released: bool },
    /// Look again after this long.
    Wait(Duration),
    /// Its holder lives.
    Alive,
}

/// Watches the newest record until it can be taken over. Pure: the time comes in.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// A lock proves that nobody else lives, as far as runs of one process go.
    alone: bool,
    supervised: Option<Supervised>,
    seen: Option<(u64, Duration)>,
}

impl Watch {
    pub(super) fn new(alone: bool, supervised: Option<Supervised>) -> Self {
        Watch {
            alone,
            supervised,
            seen: None,
        }
    }

    /// Whether no process that wrote under this record lives any more.
    fn is_dead(&self, record: &LeaseRecord) -> bool {
        let outlived = |own: Supervised| record.supervised.is_some_and(|r| own.outlived(&r));
        self.alone && !record.cluster || self.supervised.is_some_and(outlived)
    }

    /// Decides on what was seen at `now`, time since any fixed moment.
    pub(super) fn observe(
        &mut self,
        now: Duration,
        newest: Option<(u64, &LeaseRecord)>,
    ) -> Verdict {
        let Some((number, record)) = newest else {
            return Verdict::Take {
                number: 1,
                released: true,
            };
        };
        let take = |released| Verdict::Take {
            number: number + 1,
            released,
        };
        if !record.held || self.is_dead(record) {
            return take(!record.held);
        }
        let duration = Duration::from_millis(record.duration_ms);
        let (first, since) = *self.seen.get_or_insert((number, now));
        match now.saturating_sub(since) {
            _ if first != number => Verdict::Alive,
            waited if waited >= duration => take(false),
            waited => Verdict::Wait((duration - waited).min(duration / 4)),
        }
    }
}

/// The checkpoint, held. Dropping it keeps its lock no longer but does not release it: whoever comes next takes this run for
/// a lost one.
#[derive(Debug)]
pub struct Lease {
    store: CheckpointStore,
    config: LeaseConfig,
    record: LeaseRecord,
    number: u64,
    fence: Fence,
    /// When it was taken, and how long from then on requests of the runs before may be carried out.
    taken: Instant,
    unsettled: Duration,
    /// Held as long as the lease, where there is one.
    lock: Option<HeldLock>,
}

impl Lease {
    /// Takes the checkpoint, after waiting out a holder that is gone and not known to be dead.
    ///
    /// # Errors
    /// `Fenced` when another run lives, `Checkpoint` when the newest record is damaged or the store does not answer.
    pub(super) async fn acquire(
        store: &CheckpointStore,
        config: LeaseConfig,
        claimant: Claimant,
    ) -> Result<Lease> {
        let lock = store.lock()?;
        let mut watch = Watch::new(lock.is_some(), claimant.supervised);
        let began = Instant::now();
        loop {
            let newest = newest(store).await?;
            let known = newest.as_ref().map(|(number, record)| (*number, record));
            let (number, released) = match watch.observe(began.elapsed(), known) {
                Verdict::Alive => return Err(alive(store, known.map(|(_, record)| record))),
                Verdict::Wait(delay) => {
                    store.wait_out(known.map(|(_, record)| record.generation));
                    tokio::time::sleep(delay).await;
                    continue;
                }
                Verdict::Take { number, released } => (number, released),
            };
            let renewal = Renewal::begin();
            let survey = Survey::of(&store.list().await?);
            let newest = newest.map(|(_, record)| record);
            let record = LeaseRecord {
                cluster: claimant.cluster,
                supervised: claimant.supervised,
                ..record_of(next_generation(&survey, newest.as_ref()), config)
            };
            // Another run was faster: look at what it wrote.
            if !create(store, number, &record).await? {
                continue;
            }
            // This run stood still for long: others have come and gone, and the record of this number with them.
            if last(store).await? != number {
                continue;
            }
            let fence = match lock {
                Some(_) if !claimant.cluster => Fence::unlimited(),
                _ => Fence::until(renewal, config.duration),
            };
            fence.check()?;
            store.wait_out(None);
            let left = newest.map_or(0, |record| record.unsettled_ms);
            return Ok(Lease {
                store: store.clone(),
                config,
                record,
                number,
                fence,
                taken: Instant::now(),
                unsettled: match released {
                    true => Duration::from_millis(left),
                    false => config.settle,
                },
                lock,
            });
        }
    }

    /// The generation that holds it.
    pub fn generation(&self) -> Generation {
        self.record.generation
    }

    pub(super) fn lock(&self) -> Option<HeldLock> {
        self.lock.clone()
    }

    /// Closed when the lease is lost.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// How long to wait from now to the first write to a sink: requests of the runs before may still be carried out.
    pub fn settle(&self) -> Duration {
        self.unsettled.saturating_sub(self.taken.elapsed())
    }

    /// Renews the lease until it is lost; to be dropped when the run ends. Never returns where a lock is all that is needed.
    ///
    /// A store that does not take a renewal is tried again as long as the lease lasts.
    pub async fn keep(&mut self) -> Error {
        if self.lock.is_some() && !self.record.cluster {
            return std::future::pending().await;
        }
        let pause = self.config.duration / 3;
        loop {
            tokio::time::sleep(pause).await;
            while let Err(error) = self.renew().await {
                if error.kind() == ErrorKind::Fenced {
                    self.fence.close("another run holds the checkpoint");
                    return error;
                }
                if let Err(fenced) = self.fence.check() {
                    return fenced.with_source(error);
                }
                static LIMIT: LineLimit = LineLimit::rarely();
                if let Some(held_back) = LIMIT.take() {
                    tracing::warn!(
                        event = "lease_not_renewed",
                        left_s = self.fence.left().as_secs_f64(),
                        error = %error.report(),
                        held_back,
                        "the lease was not renewed; trying again"
                    );
                }
                tokio::time::sleep(pause / 10).await;
            }
        }
    }

    async fn renew(&mut self) -> Result<()> {
        self.fence.check()?;
        let renewal = Renewal::begin();
        self.append(true).await?;
        self.fence.extend(renewal, self.config.duration)
    }

    /// Creates the record after the newest one of this run. Guarded, so that a run that wakes up late does not even try.
    async fn append(&mut self, held: bool) -> Result<()> {
        let number = self.number + 1;
        let unsettled = match held {
            true => Duration::ZERO,
            false => self.settle(),
        };
        let record = LeaseRecord {
            held,
            // Rounded up.
            unsettled_ms: u64::try_from(unsettled.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
            written_at_ms: now_ms(),
            ..self.record.clone()
        };
        // A store that hangs must not use up the time in which another try could succeed.
        let patience = self.config.duration / 3;
        let create = tokio::time::timeout(patience, create(&self.store, number, &record));
        let created = self.fence.guard(create).await?;
        let created = created.context(ErrorKind::Unreachable, || {
            format!("the checkpoint store did not answer within {patience:?}")
        })?;
        if !created? {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!("another run of job {} has taken over", self.store.job()),
            ));
        }
        self.number = number;
        if let Some(old) = number.checked_sub(KEPT_LEASES).filter(|old| *old > 0) {
            // Only takes space; the collection of garbage finds it too.
            let _ = self.store.delete(ObjectName::Lease(old)).await;
        }
        Ok(())
    }

    /// Gives the checkpoint back, so that the next run starts at once. Only when no write of this run is under way.
    ///
    /// A remote store that does not take it is tried again as long as the lease lasts.
    ///
    /// # Errors
    /// `Fenced` when the lease was lost before, `Checkpoint` or `Unreachable` when the store does not take it.
    pub async fn release(mut self) -> Result<()> {
        let mut released = self.append(false).await;
        while let Err(error) = released {
            let again = match error.kind() {
                ErrorKind::Fenced => self.pass_own().await,
                _ => self.lock.is_none() && self.fence.check().is_ok(),
            };
            if !again {
                return Err(error);
            }
            tokio::time::sleep(self.config.duration / 30).await;
            released = self.append(false).await;
        }
        Ok(())
    }

    /// Whether the record after the newest one known is this run's too: a renewal that was dropped half way and carried out.
    async fn pass_own(&mut self) -> bool {
        let next = load(&self.store, self.number + 1).await;
        let own = next.is_ok_and(|record| record.run == self.record.run);
        self.number += u64::from(own);
        own
    }
}

/// Beyond every generation that has left anything, and beyond one that may still do so.
fn next_generation(survey: &Survey, newest: Option<&LeaseRecord>) -> Generation {
    let held = newest.map_or(0, |record| record.generation.0 + u64::from(record.held));
    survey.next_generation().max(Generation(held))
}

pub(super) async fn newest(store: &CheckpointStore) -> Result<Option<(u64, LeaseRecord)>> {
    let mut number = last(store).await?;
    while number > 0 {
        match load(store, number).await {
            Ok(record) => return Ok(Some((number, record))),
            // Its holder has gone on meanwhile, and has removed what the listing named.
            Err(error) => match last(store).await? {
                newer if newer > number => number = newer,
                _ => return Err(error),
            },
        }
    }
    Ok(None)
}

/// The number of the newest record, 0 if there is none.
async fn last(store: &CheckpointStore) -> Result<u64> {
    Ok(Survey::of(&store.list_leases().await?).last_lease())
}

async fn load(store: &CheckpointStore, number: u64) -> Result<LeaseRecord> {
    let name = ObjectName::Lease(number);
    let (_, record) = store.load_json(name).await.map_err(|error| {
        error.wrap(format!(
            "cannot tell who holds the checkpoint: if {} is damaged and no run of the job lives, delete it",
            store.full_name(name)
        ))
    })?;
    Ok(record)
}

/// Creates a record. False when another run's is there.
async fn create(store: &CheckpointStore, number: u64, record: &LeaseRecord) -> Result<bool> {
    match store.create_json(ObjectName::Lease(number), record).await {
        Ok(_) => Ok(true),
        // An earlier try whose answer was lost differs in its time only.
        Err(error) if error.kind() == ErrorKind::Fenced => {
            match load(store, number).await {
                Ok(there) => Ok(there.run == record.run && there.held == record.held),
                // It was another run's, which has gone on since.
                Err(_) if last(store).await? > number => Ok(false),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn record_of(generation: Generation, config: LeaseConfig) -> LeaseRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    LeaseRecord {
        generation,
        run: format!(
            "{}-{:x}",
            std::process::id(),
            now.unwrap_or_default().as_nanos()
        ),
        held: true,
        cluster: false,
        supervised: None,
        unsettled_ms: 0,
        duration_ms: u64::try_from(config.duration.as_millis()).unwrap_or(u64::MAX),
        written_at_ms: now_ms(),
    }
}

fn alive(store: &CheckpointStore, holder: Option<&LeaseRecord>) -> Error {
    let generation = holder.map_or(Generation(0), |record| record.generation);
    Error::new(
        ErrorKind::Fenced,
        format!(
            "generation {generation} of job {} is running and renews its lease: stop one of the two",
            store.job()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(held: bool) -> LeaseRecord {
        LeaseRecord {
            held,
            ..record_of(Generation(4), LeaseConfig::default())
        }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn what_was_released_or_is_locked_is_taken_at_once() {
        let free = |number, released| Verdict::Take { number, released };
        assert_eq!(
            Watch::new(false, None).observe(secs(0), None),
            free(1, true)
        );
        let released = record(false);
        let seen = Some((7, &released));
        assert_eq!(
            Watch::new(false, None).observe(secs(0), seen),
            free(8, true)
        );
        let lost = record(true);
        let seen = Some((7, &lost));
        assert_eq!(
            Watch::new(true, None).observe(secs(0), seen),
            free(8, false)
        );
    }

    #[test]
    fn a_silent_holder_is_waited_out_from_when_it_was_first_seen() {
        let held = record(true);
        let mut watch = Watch::new(false, None);
        for (now, wait) in [(100, 2500), (105, 2500), (109, 1000)] {
            let verdict = watch.observe(secs(now), Some((7, &held)));
            assert_eq!(verdict, Verdict::Wait(Duration::from_millis(wait)), "{now}");
        }
        let taken = Verdict::Take {
            number: 8,
            released: false,
        };
        assert_eq!(watch.observe(secs(110), Some((7, &held))), taken);
    }

    #[test]
    fn a_holder_that_renews_or_follows_lives() {
        let held = record(true);
        let mut watch = Watch::new(false, None);
        watch.observe(secs(0), Some((7, &held)));
        assert_eq!(watch.observe(secs(60), Some((8, &held))), Verdict::Alive);
    }

    /// However it was renewed last, and whether or not a lock says anything.
    #[test]
    fn what_a_supervisor_has_seen_end_is_taken_at_once() {
        let run = |run| Some(Supervised { by: 9, run });
        let of = |supervised| LeaseRecord {
            cluster: true,
            supervised,
            ..record(true)
        };
        let lost = of(run(2));
        for alone in [false, true] {
            let taken = Verdict::Take {
                number: 8,
                released: false,
            };
            let mut watch = Watch::new(alone, run(3));
            assert_eq!(watch.observe(secs(0), Some((7, &lost))), taken);
            // A renewal that was on its way when it died.
            let mut watch = Watch::new(alone, run(3));
            watch.seen = Some((6, secs(0)));
            assert_eq!(watch.observe(secs(1), Some((7, &lost))), taken);
            let another = Some(Supervised { by: 8, run: 1 });
            for unknown in [run(3), run(4), another, None] {
                let held = of(unknown);
                let verdict = Watch::new(alone, run(3)).observe(secs(0), Some((7, &held)));
                assert!(matches!(verdict, Verdict::Wait(_)), "{unknown:?}");
            }
            let verdict = Watch::new(alone, None).observe(secs(0), Some((7, &lost)));
            assert!(matches!(verdict, Verdict::Wait(_)), "not supervised");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_on_the_wire_of_a_run_that_was_seen_to_end_is_still_waited_for() {
        let store = CheckpointStore::in_memory("job").shared();
        let claimant = |run| Claimant {
            cluster: true,
            supervised: Some(Supervised { by: 9, run }),
        };
        let first = Lease::acquire(&store, short(), claimant(1));
        drop(first.await.expect("free"));
        let began = Instant::now();
        let next = Lease::acquire(&store, short(), claimant(2)).await;
        let next = next.expect("known to be free");
        assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
        assert_eq!(next.settle(), secs(5));
        assert_eq!(next.generation(), Generation(2));
        drop(next);
        let other = Lease::acquire(&store, short(), Claimant::default());
        other.await.expect("waited out");
        assert!(began.elapsed() >= secs(10), "{:?}", began.elapsed());
    }

    fn short() -> LeaseConfig {
        LeaseConfig {
            duration: secs(10),
            settle: secs(5),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_run_waits_out_a_lost_one_and_not_one_that_ended() {
        let store = CheckpointStore::in_memory("job").shared();
        let began = Instant::now();
        let first = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("free");
        assert_eq!(first.settle(), Duration::ZERO);
        drop(first);
        let second = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("waited out");
        assert_eq!(second.generation(), Generation(2));
        assert!(began.elapsed() >= secs(10), "{:?}", began.elapsed());
        assert_eq!(second.settle(), secs(5));
        tokio::time::advance(secs(5)).await;
        let began = Instant::now();
        second.release().await.expect("still held");
        let third = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("released");
        assert_eq!(third.settle(), Duration::ZERO);
        assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_renews_keeps_the_others_out_for_ever() {
        let store = CheckpointStore::in_memory("job").shared();
        let mut holder = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("free");
        let fence = holder.fence().clone();
        let others = async {
            for _ in 0..20 {
                let error = Lease::acquire(&store, short(), Claimant::default())
                    .await
                    .expect_err("held");
                assert_eq!(error.kind(), ErrorKind::Fenced);
                fence.check().expect("the holder keeps its lease");
            }
        };
        tokio::select! {
            error = holder.keep() => panic!("{error:?}"),
            () = others => {}
        }
        let left = store.list_leases().await.expect("a listing");
        assert!(left.len() as u64 <= KEPT_LEASES, "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_was_frozen_is_fenced_when_it_wakes() {
        let store = CheckpointStore::in_memory("job").shared();
        let mut frozen = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("free");
        let next = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("waited out");
        let error = frozen.keep().await;
        assert_eq!(error.kind(), ErrorKind::Fenced);
        let store = store.fenced(frozen.fence().clone());
        let writes = store
            .create_json(ObjectName::Start(Generation(1)), &1)
            .await;
        assert_eq!(writes.expect_err("fenced").kind(), ErrorKind::Fenced);
        let deletes = store.delete(ObjectName::Lease(1)).await;
        assert_eq!(deletes.expect_err("fenced").kind(), ErrorKind::Fenced);
        next.fence().check().expect("undisturbed");
    }

    /// It had nothing to do with what the lost run before it had sent, and still that must not meet the writes of the next.
    #[tokio::test(start_paused = true)]
    async fn a_short_run_leaves_the_rest_of_its_wait_to_the_next() {
        let store = CheckpointStore::in_memory("job").shared();
        drop(
            Lease::acquire(&store, short(), Claimant::default())
                .await
                .expect("free"),
        );
        for left in [5, 3, 1] {
            let lease = Lease::acquire(&store, short(), Claimant::default())
                .await
                .expect("free");
            assert_eq!(lease.settle(), secs(left));
            tokio::time::advance(secs(2)).await;
            lease.release().await.expect("still held");
        }
        let last = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("free");
        assert_eq!(last.settle(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_nobody_waited_for_does_not_keep_a_run_from_releasing() {
        let store = CheckpointStore::in_memory("job").shared();
        let lease = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("free");
        let renewed = create(&store, lease.number + 1, &lease.record).await;
        assert!(renewed.expect("stored"));
        lease.release().await.expect("still held");
        let next = Lease::acquire(&store, short(), Claimant::default())
            .await
            .expect("released");
        assert_eq!(next.settle(), Duration::ZERO);
    }

    /// Of many that start at once exactly one gets it.
    #[tokio::test(start_paused = true)]
    async fn of_a_crowd_one_is_first() {
        let store = CheckpointStore::in_memory("job").shared();
        let crowd = (0..16).map(|_| async {
            let mut lease = Lease::acquire(&store, short(), Claimant::default()).await?;
            // Holds it longer than anybody waits.
            let _ = tokio::time::timeout(secs(60), lease.keep()).await;
            Ok::<_, Error>(lease)
        });
        let ends = futures::future::join_all(crowd).await;
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    }
}
