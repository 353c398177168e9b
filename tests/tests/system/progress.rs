//! Progress documents: never ahead of the commits, through faults and crashes, and up to date when a run has ended well.

use std::collections::BTreeMap;

use serde_json::Value;
use tidefeed_emulator::{FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{Account, AccountConfig, Container, CosmosReader};
use tidefeed_tests::checkpoint_files::CheckpointFiles;
use tidefeed_tests::place::LOCAL;
use tidefeed_tests::process::Run;
use tidefeed_tests::views::SINKS;
use tokio::runtime::Builder;

use super::mended::Job;

const CONTAINER: &str = "progress";
const CRASHES: usize = 6;

/// A job that tells how far it is.
fn telling() -> Job {
    let job = Job::new();
    let database = job.place.database();
    job.place.configure(&format!(
        "{LOCAL}\n[progress]\ndatabase = \"{database}\"\ncontainer = \"{CONTAINER}\"\nsettle_ms = 20"
    ));
    job
}

impl Job {
    /// The newest committed epoch, 0 if there is none.
    fn committed(&self) -> u64 {
        let files = CheckpointFiles::of(&self.place.checkpoint());
        files.commit.map_or(0, |commit| commit.epoch)
    }

    /// The progress documents by their names. None if their container does not exist yet.
    fn progress(&self) -> BTreeMap<String, Value> {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let server = self.place.server();
            let config = AccountConfig::with_key(server.endpoint(), server.key());
            let account = Account::connect(&config).await.expect("connected");
            let found = Container::open(&account, self.place.database(), CONTAINER).await;
            let Ok(container) = found else {
                return BTreeMap::new();
            };
            let documents = CosmosReader::new(container).documents().await;
            let name =
                |document: Value| (document["id"].as_str().expect("an id").to_owned(), document);
            documents
                .expect("readable")
                .into_values()
                .map(name)
                .collect()
        })
    }

    /// The epoch that each document tells, which is committed by then.
    fn told(&self) -> BTreeMap<String, u64> {
        let epoch = |(name, document): (String, Value)| {
            (name, document["epoch"].as_u64().expect("an epoch"))
        };
        let told: BTreeMap<_, _> = self.progress().into_iter().map(epoch).collect();
        let committed = self.committed();
        for (name, epoch) in &told {
            assert!(
                *epoch <= committed,
                "{name} tells {epoch}, committed is {committed}"
            );
        }
        told
    }

    fn all_tell_the_last_commit(&self) {
        let committed = self.committed();
        let expected = SINKS.map(|(sink, _)| (format!("shop.{sink}"), committed));
        assert_eq!(self.told(), BTreeMap::from(expected));
    }

    /// What the container of the documents suffers from now on.
    fn disturb(&self, rules: Vec<FaultRule>) {
        let database = self.place.database();
        let rules = rules
            .into_iter()
            .map(|rule| rule.in_container(database, CONTAINER));
        self.place
            .server()
            .set_faults(1, rules.collect())
            .expect("sound rules");
    }
}

#[test]
fn progress_is_never_ahead_and_is_up_to_date_at_the_end() {
    let mut job = telling();
    job.go_on();
    job.all_tell_the_last_commit();
    let document = &job.progress()["shop.totals"];
    assert_eq!(document["job"], "shop");
    assert_eq!(document["sink"], "totals");
    let committed_ms = document["committed_ms"].as_u64().expect("a time");
    assert!(
        committed_ms >= job.committed(),
        "an epoch is a time before its commit"
    );
    assert_eq!(
        document.as_object().expect("an object").len(),
        5,
        "{document}"
    );

    job.disturb(vec![
        FaultRule::new(FaultAction::DropAfter)
            .on(&[FaultOperation::Bulk])
            .probability(0.1),
        FaultRule::new(FaultAction::status(429))
            .on(&[FaultOperation::BulkItem])
            .times(3),
        FaultRule::new(FaultAction::status(503))
            .on(&[FaultOperation::Bulk])
            .probability(0.05),
    ]);
    let mut before = job.told();
    for _ in 0..CRASHES {
        let committed = job.committed();
        let mut run = Run::start(job.place.program(env!("CARGO_BIN_EXE_shop"), 2));
        for _ in 0..3 {
            job.change();
            job.told();
        }
        assert!(run.wait_until(|| job.committed() > committed), "it runs");
        run.kill();
        let after = job.told();
        for (name, epoch) in &before {
            assert!(
                after[name] >= *epoch,
                "{name} went back from {epoch} to {}",
                after[name]
            );
        }
        before = after;
    }
    job.go_on();
    job.all_tell_the_last_commit();

    // Of a sink that is rebuilt there is nothing to tell until it is; then there is.
    job.change();
    job.succeeds(&["--until-caught-up", "--rebuild", "totals"]);
    job.check("after a rebuild");
    job.all_tell_the_last_commit();
    job.succeeds(&["--until-caught-up", "--fresh"]);
    job.all_tell_the_last_commit();
}

#[test]
fn a_progress_document_that_is_refused_ends_the_run() {
    let mut job = telling();
    job.go_on();
    let refused = FaultRule::new(FaultAction::status(400)).on(&[FaultOperation::BulkItem]);
    job.disturb(vec![refused]);
    job.change();
    let (code, said) = job.run(&["--until-caught-up"]);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("cannot write progress documents"), "{said}");
    job.place.server().clear_faults();
    job.go_on();
    job.all_tell_the_last_commit();
}
