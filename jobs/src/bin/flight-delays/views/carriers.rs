//! The delays of each carrier.

use differential_dataflow::VecCollection;

use super::group::{Part, add_up, assemble, delays};
use super::worst::worst_delays;
use crate::data::Airline;
use crate::model::FlightDocument;
use crate::rows::{CARRIER_DELAYS, CarrierDelays};

/// One row for each carrier that has flights, with its name joined in.
pub fn carrier_delays<'s>(
    flights: VecCollection<'s, u64, FlightDocument, isize>,
    airlines: VecCollection<'s, u64, Airline, isize>,
) -> VecCollection<'s, u64, CarrierDelays, isize> {
    let totals = add_up(flights.clone(), |flight| flight.carrier)
        .map(|(carrier, totals)| (carrier, Part::Totals(totals)));
    let worst = worst_delays(delays(flights, |flight| flight.carrier))
        .map(|((carrier, at), delay)| (carrier, Part::Worst(at, delay)));
    let names = airlines.map(|airline| (airline.carrier, Part::Joined(airline.name)));

    assemble(totals.concat(worst).concat(names)).map(|(carrier, group)| CarrierDelays {
        id: carrier.to_string(),
        view: CARRIER_DELAYS.name.to_owned(),
        carrier,
        name: group.joined.into_iter().next(),
        flights: group.totals.flights,
        cancelled: group.totals.cancelled,
        departed: group.totals.departed,
        landed: group.totals.landed,
        late: group.totals.late,
        late_share: group.totals.late_share(),
        mean_dep_delay_min: group.totals.mean_dep_delay_min(),
        worst_dep_delay_min: group.worst_dep_delay_min,
        mean_arr_delay_min: group.totals.mean_arr_delay_min(),
        worst_arr_delay_min: group.worst_arr_delay_min,
    })
}
