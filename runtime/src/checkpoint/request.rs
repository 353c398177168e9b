//! What is asked of a run that lives, by whoever can reach its checkpoint: that it ends, and goes on in another shape.
//!
//! `request/<g>` is created once and asks generation g. Process 0 looks for it; it drains, and gives the checkpoint back. A request
//! decides nothing by itself: what a run resumes from does not depend on its shape.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::lease::newest;
use super::names::ObjectName;
use super::objects::GenerationRecord;
use super::store::CheckpointStore;
use crate::{Error, ErrorKind, Generation, Result};

/// How many processes a run has, and workers in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Processes.
    pub processes: u32,
    /// Workers of each process.
    pub workers: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.processes, self.workers)
    }
}

/// Asks the run that holds the checkpoint to end, for one of this shape. Returns its generation.
///
/// # Errors
/// `NotFound` when no run holds it, `Fenced` when the run has been asked for another shape, `Checkpoint` or `Unreachable` when
/// the store does not take it.
pub async fn ask_for_shape(store: &CheckpointStore, shape: Shape) -> Result<Generation> {
    let Some((_, lease)) = newest(store).await?.filter(|(_, lease)| lease.held) else {
        return Err(nobody(store));
    };
    let name = ObjectName::Request(lease.generation);
    match store.create_json(name, &shape).await {
        Ok(_) => Ok(lease.generation),
        Err(error) if error.kind() == ErrorKind::Fenced => Err(Error::new(
            ErrorKind::Fenced,
            format!(
                "generation {} has been asked to become another shape already",
                lease.generation
            ),
        )),
        Err(error) => Err(error),
    }
}

/// The shape that was asked of a generation, if any.
///
/// # Errors
/// `Checkpoint` or `Unreachable` when the store does not say.
pub async fn asked_of(store: &CheckpointStore, generation: Generation) -> Result<Option<Shape>> {
    store.find_json(ObjectName::Request(generation)).await
}

/// The shape that was asked of the run that has held the checkpoint last.
///
/// # Errors
/// As [`asked_of`].
pub async fn asked_of_last(store: &CheckpointStore) -> Result<Option<Shape>> {
    match newest(store).await? {
        Some((_, lease)) => asked_of(store, lease.generation).await,
        None => Ok(None),
    }
}

/// The shape of the run that holds the checkpoint.
///
/// # Errors
/// `NotFound` when none does, or it has not begun; as [`asked_of`].
pub async fn shape_now(store: &CheckpointStore) -> Result<Shape> {
    let begun: Option<GenerationRecord> = match holder(store).await? {
        Some(generation) => store.find_json(ObjectName::Generation(generation)).await?,
        None => None,
    };
    let begun = begun.ok_or_else(|| nobody(store))?;
    Ok(Shape {
        processes: begun.processes,
        workers: begun.workers_per_process,
    })
}

/// Which generation holds the checkpoint, if any does.
///
/// # Errors
/// As [`asked_of`].
pub async fn holder(store: &CheckpointStore) -> Result<Option<Generation>> {
    let newest = newest(store).await?;
    let held = newest.filter(|(_, lease)| lease.held);
    Ok(held.map(|(_, lease)| lease.generation))
}

fn nobody(store: &CheckpointStore) -> Error {
    let job = store.job();
    let what =
        format!("no run of job {job} has its checkpoint: start one in the shape that you want");
    Error::new(ErrorKind::NotFound, what)
}

#[cfg(test)]
mod tests {
    use super::super::lease::LeaseConfig;
    use super::super::{Opened, Options, RunIdentity, open};
    use super::*;

    #[tokio::test]
    async fn a_run_that_lives_is_asked_once_and_no_other_hears_of_it() {
        let store = CheckpointStore::in_memory("job");
        let shape = |workers| Shape {
            processes: 2,
            workers,
        };
        let error = ask_for_shape(&store, shape(1)).await.expect_err("none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = shape_now(&store).await.expect_err("none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let identity = RunIdentity {
            job: "job".to_owned(),
            fingerprint: Default::default(),
            processes: 1,
            workers_per_process: 4,
        };
        let options = Options {
            lease: LeaseConfig::default(),
            ..Options::default()
        };
        let run = open(&store, &identity, options).await.expect("opens");
        assert_eq!(asked_of(&store, run.generation).await.expect("read"), None);
        let now = shape_now(&store).await.expect("it has begun");
        assert_eq!((now.processes, now.workers), (1, 4));
        for _ in 0..2 {
            let asked = ask_for_shape(&store, shape(3)).await.expect("asked");
            assert_eq!(asked, run.generation);
        }
        let error = ask_for_shape(&store, shape(4)).await.expect_err("another");
        assert_eq!(error.kind(), ErrorKind::Fenced);
        let asked = asked_of(&store, run.generation).await;
        assert_eq!(asked.expect("read"), Some(shape(3)));
        // With the writers goes the lock.
        let Opened {
            lease,
            seals,
            states,
            commits,
            ..
        } = run;
        lease.release().await.expect("given back");
        drop((seals, states, commits));
        assert_eq!(holder(&store).await.expect("read"), None);
        let last = asked_of_last(&store).await;
        assert_eq!(
            last.expect("read"),
            Some(shape(3)),
            "for who starts it again"
        );
        let run = open(&store, &identity, options).await.expect("opens");
        assert_eq!(asked_of(&store, run.generation).await.expect("read"), None);
    }
}
