//! The workloads. An order is only ever in one thread's files, so parts of a result are added up, or ranked together.

use std::collections::HashMap;

use crate::input::{Customers, Order};

/// Rows of a region that `w4` keeps.
const TOP: usize = 10;

/// A view of the orders of one thread.
pub trait View: Default {
    /// What a thread hands over at the end.
    type Result: Default + Send;

    /// Takes in an event.
    fn apply(&mut self, order: &Order<'_>);

    /// This thread's part of the result. State that is no longer needed is not freed: the process ends soon.
    fn result(self, customers: &Customers) -> Self::Result;

    /// Adds another thread's part.
    fn merge(all: &mut Self::Result, part: Self::Result);

    /// The result as it is written, sorted.
    fn lines(result: Self::Result) -> Vec<String>;
}

/// Sum and count by key.
#[derive(Default)]
pub struct Totals(HashMap<String, (i64, i64)>);

impl Totals {
    fn add(&mut self, key: &str, sum: i64, count: i64) {
        if let Some(total) = self.0.get_mut(key) {
            total.0 += sum;
            total.1 += count;
        } else {
            self.0.insert(key.to_owned(), (sum, count));
        }
    }

    fn merge(&mut self, part: Self) {
        for (key, (sum, count)) in part.0 {
            self.add(&key, sum, count);
        }
    }

    fn lines(self) -> Vec<String> {
        let mut totals: Vec<_> = self
            .0
            .into_iter()
            .filter(|(_, (_, count))| *count != 0)
            .collect();
        totals.sort_unstable();
        totals
            .into_iter()
            .map(|(key, (sum, count))| format!("{key}\t{sum}\t{count}"))
            .collect()
    }
}

/// `w1`: sum and count of all events, by region.
#[derive(Default)]
pub struct RegionTotals(Totals);

impl View for RegionTotals {
    type Result = Totals;

    fn apply(&mut self, order: &Order<'_>) {
        self.0.add(&order.region, order.amount, 1);
    }

    fn result(self, _: &Customers) -> Totals {
        self.0
    }

    fn merge(all: &mut Totals, part: Totals) {
        all.merge(part);
    }

    fn lines(result: Totals) -> Vec<String> {
        result.lines()
    }
}

/// The latest version of an order: what the view groups by, and the amount.
struct Version {
    group: String,
    amount: i64,
    lsn: u64,
}

/// The latest version of each order.
#[derive(Default)]
struct Latest(HashMap<String, Version>);

impl Latest {
    /// Keeps the version if it is the newest; `changed` gets the group and amount of the one before, if there is one.
    fn apply(&mut self, order: &Order<'_>, group: &str, changed: impl FnOnce(Option<(&str, i64)>)) {
        let Some(version) = self.0.get_mut(order.id.as_ref()) else {
            changed(None);
            let version = Version {
                group: group.to_owned(),
                amount: order.amount,
                lsn: order.lsn,
            };
            self.0.insert(order.id.clone().into_owned(), version);
            return;
        };
        if order.lsn > version.lsn {
            changed(Some((&version.group, version.amount)));
            version.group.clear();
            version.group.push_str(group);
            version.amount = order.amount;
            version.lsn = order.lsn;
        }
    }
}

/// `w2`: sum and count of the latest versions, by region.
#[derive(Default)]
pub struct LatestTotals {
    latest: Latest,
    totals: Totals,
}

impl View for LatestTotals {
    type Result = Totals;

    fn apply(&mut self, order: &Order<'_>) {
        self.latest.apply(order, &order.region, |before| {
            if let Some((region, amount)) = before {
                self.totals.add(region, -amount, -1);
            }
            self.totals.add(&order.region, order.amount, 1);
        });
    }

    fn result(self, _: &Customers) -> Totals {
        std::mem::forget(self.latest);
        self.totals
    }

    fn merge(all: &mut Totals, part: Totals) {
        all.merge(part);
    }

    fn lines(result: Totals) -> Vec<String> {
        result.lines()
    }
}

/// `w3`: sum and count of the latest versions, by the latest segment of their customer. Joined once, at the end.
#[derive(Default)]
pub struct LatestBySegment(Latest);

impl View for LatestBySegment {
    type Result = Totals;

    fn apply(&mut self, order: &Order<'_>) {
        self.0.apply(order, &order.customer, |_| {});
    }

    fn result(self, customers: &Customers) -> Totals {
        let mut totals = Totals::default();
        for version in self.0.0.values() {
            if let Some((segment, _)) = customers.get(&version.group) {
                totals.add(segment, version.amount, 1);
            }
        }
        std::mem::forget(self.0);
        totals
    }

    fn merge(all: &mut Totals, part: Totals) {
        all.merge(part);
    }

    fn lines(result: Totals) -> Vec<String> {
        result.lines()
    }
}

/// `w4`: the orders with the largest amounts of each region. Ranked once, at the end.
#[derive(Default)]
pub struct LatestTop(Latest);

impl View for LatestTop {
    type Result = HashMap<String, Vec<(i64, String)>>;

    fn apply(&mut self, order: &Order<'_>) {
        self.0.apply(order, &order.region, |_| {});
    }

    fn result(self, _: &Customers) -> Self::Result {
        let mut regions: HashMap<&str, Vec<(i64, &str)>> = HashMap::new();
        for (id, version) in &self.0.0 {
            let orders = regions.entry(&version.group).or_default();
            orders.push((-version.amount, id));
            // Bounded memory, at a cost per order that does not depend on how many there are.
            if orders.len() == 64 * TOP {
                keep_top(orders);
            }
        }
        let owned = |(amount, id): (i64, &str)| (amount, id.to_owned());
        let top = |(region, mut orders): (&str, Vec<_>)| {
            keep_top(&mut orders);
            (region.to_owned(), orders.into_iter().map(owned).collect())
        };
        let result = regions.into_iter().map(top).collect();
        std::mem::forget(self.0);
        result
    }

    fn merge(all: &mut Self::Result, part: Self::Result) {
        for (region, orders) in part {
            let top = all.entry(region).or_default();
            top.extend(orders);
            keep_top(top);
        }
    }

    fn lines(result: Self::Result) -> Vec<String> {
        let mut regions: Vec<_> = result.into_iter().collect();
        regions.sort_unstable();
        let line = |region: &str, rank: usize, (amount, id): (i64, String)| {
            format!("{region}\t{}\t{id}\t{}", rank + 1, -amount)
        };
        let ranked = regions.into_iter().flat_map(|(region, orders)| {
            let lines: Vec<_> = orders
                .into_iter()
                .enumerate()
                .map(|(rank, order)| line(&region, rank, order))
                .collect();
            lines
        });
        ranked.collect()
    }
}

/// Keeps the first ten of `(-amount, id)` in their order: the largest amounts, of equal ones the smaller id first.
fn keep_top<I: Ord>(orders: &mut Vec<(i64, I)>) {
    orders.sort_unstable();
    orders.truncate(TOP);
}
