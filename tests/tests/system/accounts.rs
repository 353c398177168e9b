//! A job between two accounts, each with a key of its own in a file.

use std::sync::Arc;

use tidefeed::{CheckpointStore, Cosmos, ErrorKind, Job, JobConfig};
use tidefeed_emulator::{Emulator, EmulatorConfig};
use tidefeed_tests::orders::Orders;
use tidefeed_tests::place::{LOCAL, Place, differences};
use tidefeed_tests::{config_text, views};

#[test]
fn the_views_may_be_in_another_account() {
    let archive = EmulatorConfig {
        key: "YW5vdGhlciBrZXk=".to_owned(),
        ..EmulatorConfig::default()
    };
    let archive = Arc::new(Emulator::start(archive).expect("a free port"));
    // Its container of orders stays empty.
    let views_place = Place::within(&archive, "shop", LOCAL);
    let source_place = Place::new();
    let mut orders = Orders::new(1);
    source_place.write(orders.change(200));

    let folder = tempfile::tempdir().expect("a folder");
    let key_file = |name: &str, server: &Emulator| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{}\n", server.key())).expect("written");
        let endpoint = server.endpoint();
        format!(
            "endpoint = \"{endpoint}\"\nkey_file = \"{}\"\n",
            file.display()
        )
    };
    let accounts = format!(
        "[account]\n{}[accounts.archive]\n{}",
        key_file("default", source_place.server()),
        key_file("archive", &archive)
    );
    let mut config = JobConfig::parse(&(accounts + &config_text("shop", LOCAL))).expect("parses");
    for sink in config.sink.values_mut() {
        sink.account = Some("archive".to_owned());
    }
    let store = CheckpointStore::in_memory("shop");
    let start = |config: &JobConfig, cosmos: Cosmos| {
        let job = Job::new("shop", config.clone(), cosmos, views).checkpoint_store(store.clone());
        job.start()
    };
    let cosmos = || Cosmos::of_job(&config).expect("both keys are there");
    let job = start(&config, cosmos()).unwrap_or_else(|error| panic!("{}", error.report()));
    job.finish_when_caught_up();
    job.join()
        .unwrap_or_else(|error| panic!("{}", error.report()));
    let different = differences(&views_place.found(), &orders.expected());
    assert_eq!(different, Vec::<String>::new());
    assert_eq!(
        source_place.server().stats().containers,
        1,
        "nothing but the orders"
    );

    let only_default = Cosmos::from_config(&config.account).expect("a key");
    let error = start(&config, only_default)
        .err()
        .expect("an account is missing");
    assert_eq!(error.kind(), ErrorKind::Config);
    let report = error.report();
    assert!(
        report.contains("account archive was not given to this job"),
        "{report}"
    );
    // A sink in another account is another container: it is filled anew.
    let sink = config.sink.get_mut("totals").expect("a sink");
    sink.account = None;
    let cosmos = Cosmos::of_job(&config).expect("both keys are there");
    let job = start(&config, cosmos).unwrap_or_else(|error| panic!("{}", error.report()));
    job.finish_when_caught_up();
    job.join()
        .unwrap_or_else(|error| panic!("{}", error.report()));
    let found = source_place.contents("totals");
    assert_eq!(found, orders.expected()["totals"]);
}
