//! A job that exchanges what only JSON can bring back: it runs as one process, `check` says so, and a cluster of it does not start.

use serde::{Deserialize, Serialize};
use tidefeed::prelude::*;
use tidefeed::{CheckpointStore, ErrorKind, Job};
use tidefeed_tests::{Order, Shop, config};

use super::cluster::try_start;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Region {
    region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct ByRegion {
    #[serde(flatten)]
    of: Region,
}

#[derive(Clone, Serialize)]
struct Total {
    id: String,
    orders: isize,
}

fn totals(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow.change_feed::<Order>("orders")?;
    let by_region = orders.map(|Order { region, .. }| ByRegion {
        of: Region { region },
    });
    let total = |(ByRegion { of }, orders): (ByRegion, isize)| Total {
        id: of.region,
        orders,
    };
    flow.upsert("totals", by_region.count().map(total))
}

#[test]
fn a_cluster_does_not_start_with_what_cannot_travel() {
    let shop = Shop::new(21);
    for number in 0..50 {
        shop.put(&Order {
            id: format!("o{number}"),
            region: format!("r{}", number % 9),
            customer: "c".to_owned(),
            cents: 1,
        });
    }
    let store = CheckpointStore::in_memory("shop");
    let job = || Job::new("shop", config(1), shop.clone(), totals).checkpoint_store(store.clone());
    let report = job().check().expect("looks");
    let cannot = report.cannot_travel.clone().expect("it is seen");
    assert!(cannot.contains("exchanged::ByRegion"), "{cannot}");
    assert!(
        report
            .to_string()
            .contains("as a cluster it would not start")
    );
    assert_eq!(report.exit_code(), 0, "one process can run it");

    // Process 0 finds it out, and the other hears of it.
    let kinds = [ErrorKind::Config, ErrorKind::PeerLost];
    for (started, kind) in try_start(&shop, &store, (2, 1), totals)
        .into_iter()
        .zip(kinds)
    {
        let error = started.err().expect("refused");
        assert_eq!(error.kind(), kind, "{}", error.report());
        assert!(error.report().contains("exchanged::ByRegion"));
    }
    assert!(shop.views["totals"].contents().is_empty());

    let running = job().start().expect("starts");
    running.finish_when_caught_up();
    running.join().expect("ends well");
    assert_eq!(shop.views["totals"].contents().len(), 9);
}
