//! The delays of each pair of airports.

use differential_dataflow::VecCollection;
use differential_dataflow::operators::ThresholdTotal;
use serde::{Deserialize, Serialize};

use super::group::{Group, Part, add_up, assemble, delays};
use super::worst::worst_delays;
use crate::code::Code;
use crate::data::Airport;
use crate::model::FlightDocument;
use crate::rows::RouteDelays;

/// Origin and destination.
type Route = (Code, Code);

/// Which of the two airports a name belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Name {
    Origin(String),
    Dest(String),
}

/// One row for each origin and destination that have flights, with the names of both airports joined in.
pub fn route_delays<'s>(
    flights: VecCollection<'s, u64, FlightDocument, isize>,
    airports: VecCollection<'s, u64, Airport, isize>,
) -> VecCollection<'s, u64, RouteDelays, isize> {
    let route = |flight: &FlightDocument| (flight.origin, flight.dest);
    let totals = add_up(flights.clone(), route);
    let worst = worst_delays(delays(flights, route));
    // From the totals, where a route goes in and out with each of its changes but is counted only once.
    let routes = totals
        .clone()
        .map(|(route, _)| route)
        .threshold_total(|_, _| 1);

    let parts = totals
        .map(|(route, totals)| (route, Part::Totals(totals)))
        .concat(worst.map(|((route, at), delay)| (route, Part::Worst(at, delay))))
        .concat(names(routes, airports));
    assemble(parts).map(row)
}

/// The known names of the airports of each route.
fn names<'s>(
    routes: VecCollection<'s, u64, Route, isize>,
    airports: VecCollection<'s, u64, Airport, isize>,
) -> VecCollection<'s, u64, (Route, Part<Name>), isize> {
    let names = airports
        .map(|airport| (airport.faa, airport.name))
        .arrange_by_key_named("AirportNames");
    let origins = routes
        .clone()
        .map(|(origin, dest)| (origin, (origin, dest)))
        .join_core(names.clone(), |_, route, name| {
            Some((*route, Part::Joined(Name::Origin(name.clone()))))
        });
    let dests = routes
        .map(|(origin, dest)| (dest, (origin, dest)))
        .join_core(names, |_, route, name| {
            Some((*route, Part::Joined(Name::Dest(name.clone()))))
        });
    origins.concat(dests)
}

fn row(((origin, dest), group): (Route, Group<Name>)) -> RouteDelays {
    let (mut origin_name, mut dest_name) = (None, None);
    for name in group.joined {
        match name {
            Name::Origin(name) => origin_name = Some(name),
            Name::Dest(name) => dest_name = Some(name),
        }
    }
    RouteDelays {
        id: format!("{origin}-{dest}"),
        origin,
        origin_name,
        dest,
        dest_name,
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
    }
}
