//! A job whose code says for a sink what a status means.

use std::sync::Arc;

use tidefeed::config::JobConfig;
use tidefeed::{CheckpointStore, Cosmos, ErrorKind, Job};
use tidefeed_emulator::{Emulator, FaultAction, FaultOperation, FaultRule};
use tidefeed_operators::cosmos::{Classifier, Verdict};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::{config_text, views};

/// Runs the job while the server refuses the first three writes of `totals` for good.
fn run(place: &Place, adapted: impl FnOnce(Cosmos) -> Cosmos) -> tidefeed::Result<()> {
    let refused = FaultRule::new(FaultAction::status(400))
        .on(&[FaultOperation::BulkItem])
        .in_container(place.database(), "totals")
        .times(3);
    place.server().set_faults(1, vec![refused]).expect("sound");
    let config = JobConfig::parse(&config_text(place.database(), LOCAL)).expect("parses");
    let cosmos = Cosmos::new(place.server().endpoint(), place.server().key())?;
    let job = Job::new("shop", config, adapted(cosmos), views)
        .checkpoint_store(CheckpointStore::in_memory("shop"))
        .start()?;
    job.finish_when_caught_up();
    job.join().map(drop)
}

#[test]
fn a_sink_has_its_own_table() {
    let server = Arc::new(Emulator::start(Default::default()).expect("a free port"));
    let mut orders = Orders::new(1);
    let changes = orders.change(60);

    let place = Place::within(&server, "default", LOCAL);
    place.write(changes.clone());
    let error = run(&place, |cosmos| cosmos).expect_err("the default table refuses the document");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{}", error.report());

    let again = Verdict::Retry { ambiguous: false };
    let table = Classifier::default().with(400, None, again);
    let place = Place::within(&server, "again", LOCAL);
    place.write(changes);
    let ended = run(&place, |cosmos| cosmos.with_classifier("totals", table));
    ended.unwrap_or_else(|error| panic!("{}", error.report()));
    let differences = differences(&place.found(), &orders.expected());
    assert_eq!(differences, Vec::<String>::new());
}
