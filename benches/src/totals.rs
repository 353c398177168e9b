//! A small job over flights, for benches of whole jobs.

use serde::Serialize;
use tidefeed::prelude::*;

use crate::flights::Flight;

#[derive(Clone, Serialize)]
struct Total {
    id: String,
    flights: isize,
    delay: isize,
}

/// Flights and minutes of delay of each carrier.
///
/// # Errors
/// None that can happen.
pub fn totals(flow: &mut Flow<'_>) -> tidefeed::Result<()> {
    let flights = flow.change_feed::<Flight>("flights")?;
    let totals = flights
        .explode(|flight| Some((flight.carrier, (1isize, flight.delay as isize))))
        .count_total()
        .map(|(id, (flights, delay))| Total { id, flights, delay });
    flow.upsert("totals", totals)
}
