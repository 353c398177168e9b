//! A job over the same orders whose code can be made to stand still, as code that waits for something elsewhere would.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tidefeed::prelude::*;

use crate::views::OrderDocument;

/// How often it looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was ordered in a region.
#[derive(Clone, Serialize)]
struct Total {
    id: String,
    cents: i64,
}

/// Sums by region, in keyed state, whose step waits while the file `by` exists.
///
/// # Errors
/// When a source or a sink is used twice.
pub fn held(flow: &mut Flow<'_>, by: &Path) -> Result<()> {
    let orders = flow.change_feed::<OrderDocument>("orders")?;
    let by_region = orders.map(|document| (document.order.region, document.order.cents));
    let by = by.to_owned();
    let sums = flow.stateful("sums", by_region, move |_region, sum, changes| {
        pass(&by);
        let came = changes.into_iter().map(|(cents, diff)| cents * diff as i64);
        *sum = Some(sum.unwrap_or(0) + came.sum::<i64>());
        *sum
    })?;
    flow.upsert("totals", sums.map(|(id, cents)| Total { id, cents }))
}

#[expect(
    clippy::disallowed_methods,
    reason = "to hold a worker is what it is for"
)]
fn pass(by: &Path) {
    while by.exists() {
        std::thread::sleep(LOOK_EVERY);
    }
}
