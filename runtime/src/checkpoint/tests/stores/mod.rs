//! One contract for every store: a local directory, memory, Azure Blob Storage and S3.
//!
//! The remote ones are stood in for by Azurite and moto, which are installed below the target directory and started by each
//! test that needs one, on a port of their own choice. Without Node.js or Python the tests fail;
//! `TIDEFEED_SKIP_CLIENTS=1` leaves them out.

mod conformance;
mod faults;
#[path = "../../../../../emulator/tests/install/mod.rs"]
mod install;
mod proxy;
mod server;

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use server::{Kind, Server};

/// A store that can be opened again and again, as by one process after another.
enum Backend {
    Local(TempDir),
    Memory(CheckpointStore),
    Remote(Server),
}

impl Backend {
    /// The checkpoint of `job` as a new process sees it.
    fn open(&self, job: &str) -> CheckpointStore {
        match self {
            Backend::Local(folder) => CheckpointStore::local(folder.path(), job).unwrap(),
            Backend::Memory(root) => CheckpointStore::over(
                Arc::clone(root.objects()),
                job,
                crate::checkpoint::lock::Place::Shared,
            ),
            Backend::Remote(server) => server.open(job, &server.settings()),
        }
    }
}

/// Everything of the contract.
async fn keeps_the_contract(backend: &Backend) {
    use conformance::*;

    an_object_is_created_once(backend).await;
    a_missing_object_is_missed(backend).await;
    a_listing_is_complete_and_sorted(backend).await;
    what_others_keep_is_left_alone(backend).await;
    deleting_twice_is_deleting_once(backend).await;
    a_large_object_comes_back(backend).await;
    one_of_two_wins_a_race(backend).await;
    // Together, because both mostly wait for leases to end.
    tokio::join!(
        one_of_many_holds_the_lease(backend),
        the_whole_protocol(backend)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_directory() {
    keeps_the_contract(&Backend::Local(TempDir::new().unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    keeps_the_contract(&Backend::Memory(CheckpointStore::in_memory("root"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    remote(Kind::Azure).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    remote(Kind::S3).await;
}

/// A stand-in that hangs must not hang the tests.
async fn remote(kind: Kind) {
    let Some(server) = Server::start(kind).await else {
        return;
    };
    let limit = Duration::from_secs(120);
    let backend = Backend::Remote(server);
    let run = tokio::time::timeout(limit, keeps_the_contract(&backend));
    assert!(run.await.is_ok(), "{kind:?} took more than {limit:?}");
}
