//! What an enumerator of files says when files appear.

use tidefeed_runtime::Epoch;

use super::*;
use crate::files::{FileFeed, FilesOptions};

fn range(name: &str) -> FeedRangeId {
    FeedRangeId(format!("file:{name}"))
}

fn read_orders(orders: &Orders) -> Vec<(u64, RangeStart)> {
    let order = |(worker, order): &(u64, Order)| match order {
        Order::Read(start) => (*worker, start.clone()),
        Order::Divide(range, _) => panic!("{range} is not to be divided"),
    };
    orders.given.iter().map(order).collect()
}

#[tokio::test]
async fn what_appears_is_read_once_and_from_where_it_stood() {
    let feed = |follow| {
        let options = FilesOptions {
            files: vec!["*".to_owned()],
            key: vec!["/id".to_owned()],
            partitioned: true,
            follow,
            ..FilesOptions::default()
        };
        FileFeed::new("source.s", options).expect("sound")
    };
    let (to, changes) = Inbox::new(4);
    let back = ContinuationToken("where it stood".to_owned());
    let first = RangeStart {
        range: range("a"),
        start: Start::Beginning,
        loading: true,
    };
    let parts = EnumeratorParts {
        starts: vec![first.clone()],
        live: vec![range("a")],
        changes,
        absent: [(range("back"), back.clone())].into(),
        least: 2,
        assignment: Assignment::new(2, 0),
    };
    let mut enumerator = Enumerator::new(parts, "s".to_owned(), Ledger::new(Epoch(0), Epoch(0)));
    let followed = feed(true);
    let orders = enumerator.orders(Some(0), &followed);
    assert_eq!(read_orders(&orders), [(0, first)]);
    assert_eq!((orders.appeared, orders.listed_last), (0, false));
    assert_eq!(enumerator.orders(Some(0), &followed).given.len(), 0);

    let listing = |names: &[&str], last| Listing {
        live: names.iter().map(|name| range(name)).collect(),
        last,
    };
    to.send(listing(&["a", "back", "new"], false)).await;
    let orders = enumerator.orders(Some(0), &followed);
    let start = |name, start| RangeStart {
        range: range(name),
        start,
        loading: false,
    };
    let expected = [
        (1, start("back", Start::Token(back))),
        (0, start("new", Start::Beginning)),
    ];
    assert_eq!(read_orders(&orders), expected);
    assert_eq!((orders.appeared, orders.listed_last), (2, false));

    // What has gone is read on by its reader, and does not appear when it comes back.
    to.send(listing(&["new"], false)).await;
    to.send(listing(&["a", "new"], true)).await;
    let orders = enumerator.orders(Some(0), &followed);
    assert_eq!((orders.appeared, orders.listed_last), (0, true));
    assert_eq!(read_orders(&orders), []);

    // Files that are not followed are those of the start.
    to.send(listing(&["a", "later"], false)).await;
    let orders = enumerator.orders(Some(0), &feed(false));
    assert_eq!((orders.appeared, orders.given.len()), (0, 0));
}
