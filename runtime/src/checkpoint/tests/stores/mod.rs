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
    Remote(Arc<Server>),
}

impl Backend {
    /// `None` if tests with stand-ins are to be left out.
    async fn remote(kind: Kind) -> Option<Backend> {
        Some(Backend::Remote(Arc::new(Server::start(kind).await?)))
    }

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

macro_rules! on_every_backend {
    ($($case:ident),* $(,)?) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn a_local_directory() {
            let backend = Backend::Local(TempDir::new().unwrap());
            $(conformance::$case(&backend).await;)*
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn memory() {
            let backend = Backend::Memory(CheckpointStore::in_memory("root"));
            $(conformance::$case(&backend).await;)*
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn azure() {
            let Some(backend) = Backend::remote(Kind::Azure).await else { return };
            $(timed(stringify!($case), conformance::$case(&backend)).await;)*
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn s3() {
            let Some(backend) = Backend::remote(Kind::S3).await else { return };
            $(timed(stringify!($case), conformance::$case(&backend)).await;)*
        }
    };
}

on_every_backend!(
    an_object_is_created_once,
    a_missing_object_is_missed,
    a_listing_is_complete_and_sorted,
    what_others_keep_is_left_alone,
    deleting_twice_is_deleting_once,
    a_large_object_comes_back,
    one_of_two_wins_a_race,
    one_of_many_holds_the_lease,
    the_whole_protocol,
);

/// A stand-in that hangs must not hang the tests.
async fn timed(case: &str, run: impl Future<Output = ()>) {
    let limit = Duration::from_secs(60);
    if tokio::time::timeout(limit, run).await.is_err() {
        panic!("{case} took more than {limit:?}");
    }
}
