//! A job over the same orders whose windows are final: each customer's orders by window of event time, which is in the cents.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidefeed::prelude::*;
use tidefeed::{Late, Window};

use crate::views::{Order, OrderDocument};

/// How long a window is.
pub const WINDOW_MS: u64 = 100;

/// The customer of orders that only move the watermark.
pub const TICKER: &str = "ticker";

/// Regions of ticking orders: enough for one in every feed range.
const TICK_REGIONS: u32 = 64;

/// The lines of `[source.orders]` about event time.
pub fn event_time(out_of_orderness_ms: u64, idle_after_ms: u64) -> String {
    format!(
        "event_time = {{ path = \"/cents\", out_of_orderness_ms = {out_of_orderness_ms}, idle_after_ms = {idle_after_ms} }}\n"
    )
}

/// Orders that move the watermark to this moment, in every feed range.
pub fn ticks(at_ms: u64) -> impl Iterator<Item = Order> {
    ticks_in(TICK_REGIONS, at_ms)
}

/// The same in so many regions: where feed ranges are split again and again, it takes more for one in each.
pub fn ticks_in(regions: u32, at_ms: u64) -> impl Iterator<Item = Order> {
    (0..regions).map(move |region| Order {
        id: format!("tick{region}"),
        region: format!("t{region}"),
        customer: TICKER.to_owned(),
        cents: at_ms as i64,
    })
}

/// What a window of a customer comes to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Bill {
    /// Orders.
    pub orders: i64,
    /// The sum of their times.
    pub cents: i64,
}

impl Bill {
    /// Adds an order so often, or takes it off.
    pub fn add(&mut self, order: &Order, times: i64) {
        self.orders += times;
        self.cents += order.cents * times;
    }
}

#[derive(Clone, Serialize)]
struct Billed {
    id: String,
    #[serde(flatten)]
    bill: Bill,
}

#[derive(Clone, Serialize)]
struct Missed {
    id: String,
    of: String,
    cents: i64,
    times: isize,
}

/// The results in `totals`, and what was late in `spent`.
///
/// # Errors
/// When a source or a sink is used twice.
pub fn billed(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow
        .change_feed::<OrderDocument>("orders")?
        .filter(|document| !document.deleted && document.order.customer != TICKER)
        .map(|document| (document.order.customer.clone(), document.order));
    let watermark = flow.watermark("orders")?;
    let bills = flow.final_windows(
        "bills",
        orders,
        FinalWindows::tumbling(Duration::from_millis(WINDOW_MS))?,
        &watermark,
        |order| order.cents.unsigned_abs(),
        |bill: &mut Bill, order, times| bill.add(order, times as i64),
    )?;
    let id = |customer: String, window: Window| format!("{customer} {}", window.start_ms);
    let billed = move |((customer, window), bill): ((String, Window), Bill)| Billed {
        id: id(customer, window),
        bill,
    };
    flow.upsert("totals", bills.results.map(billed))?;
    let missed = move |((customer, window), late): ((String, Window), Late<Order>)| Missed {
        id: format!("{} {} {}", late.row.id, late.row.cents, late.times),
        of: id(customer, window),
        cents: late.row.cents,
        times: late.times,
    };
    flow.upsert("spent", bills.late.map(missed))
}

/// What every window comes to, late or not, by its document's id.
pub fn bills<'a>(orders: impl IntoIterator<Item = &'a Order>) -> BTreeMap<String, Bill> {
    let mut bills: BTreeMap<String, Bill> = BTreeMap::new();
    for order in orders {
        let time_ms = order.cents.unsigned_abs();
        let start_ms = time_ms - time_ms % WINDOW_MS;
        let id = format!("{} {start_ms}", order.customer);
        bills.entry(id).or_default().add(order, 1);
    }
    bills
}

/// The bills that documents of `totals` say, by id.
///
/// # Panics
/// When one is no bill.
pub fn billed_in<'a>(documents: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, Bill> {
    let bill = |document: &Value| {
        let bill = json!({"orders": document["orders"], "cents": document["cents"]});
        let bill = serde_json::from_value(bill).expect("a bill");
        (text(&document["id"]), bill)
    };
    documents.into_iter().map(bill).collect()
}

/// The same bills with what documents of `spent` add or take off. Those that come to nothing are left out.
///
/// # Panics
/// When one is no late order.
pub fn with_late<'a>(
    mut bills: BTreeMap<String, Bill>,
    late: impl IntoIterator<Item = &'a Value>,
) -> BTreeMap<String, Bill> {
    for document in late {
        let number = |name: &str| document[name].as_i64().expect("a number");
        let bill = bills.entry(text(&document["of"])).or_default();
        bill.orders += number("times");
        bill.cents += number("times") * number("cents");
    }
    bills.retain(|_, bill| *bill != Bill::default());
    bills
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
