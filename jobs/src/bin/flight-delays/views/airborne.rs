//! The flights in the air.

use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::data::Plane;
use crate::model::{FlightDocument, Status};
use crate::moment::UtcMinute;
use crate::rows;

/// What stands under one tail number: the flights that are in the air, and the plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Part {
    Plane(Aircraft),
    Flight(InAir),
}

/// A plane as the row has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Aircraft {
    name: String,
    seats: i32,
}

/// A flight as the row has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct InAir {
    id: String,
    origin: Code,
    dest: Code,
    carrier: Code,
    flight: i32,
    departed_at: UtcMinute,
    dep_delay: Option<i32>,
    tailnum: Option<Code>,
}

/// One row for each flight that has departed and not landed, with its aircraft joined in; it goes when the flight lands.
pub fn airborne<'s>(
    flights: VecCollection<'s, u64, FlightDocument, isize>,
    planes: VecCollection<'s, u64, Plane, isize>,
) -> VecCollection<'s, u64, rows::Airborne, isize> {
    let in_air = flights
        .filter(|flight| flight.status == Status::Departed)
        .map(in_air);
    let planes = planes.map(|plane| {
        let aircraft = Aircraft {
            name: plane.aircraft,
            seats: plane.seats,
        };
        (plane.tailnum, Part::Plane(aircraft))
    });
    let without_tailnum = in_air
        .clone()
        .filter(|flight| flight.tailnum.is_none())
        .map(|flight| row(flight, None));

    in_air
        .flat_map(|flight| {
            flight
                .tailnum
                .map(|tailnum| (tailnum, Part::Flight(flight)))
        })
        .concat(planes)
        .reduce_named("Aircraft", |_, parts, joined| {
            // Parts are in order, so the plane, if there is one, comes first.
            let mut aircraft = None;
            for (part, count) in parts {
                match part {
                    Part::Plane(plane) => aircraft = Some(plane.clone()),
                    Part::Flight(flight) => {
                        joined.push(((flight.clone(), aircraft.clone()), *count))
                    }
                }
            }
        })
        .map(|(_, (flight, aircraft))| row(flight, aircraft))
        .concat(without_tailnum)
}

fn in_air(flight: FlightDocument) -> InAir {
    InAir {
        departed_at: flight.scheduled_departure() + flight.dep_delay.unwrap_or(0),
        id: flight.id,
        origin: flight.origin,
        dest: flight.dest,
        carrier: flight.carrier,
        flight: flight.flight,
        dep_delay: flight.dep_delay,
        tailnum: flight.tailnum,
    }
}

fn row(flight: InAir, aircraft: Option<Aircraft>) -> rows::Airborne {
    let (aircraft, seats) = aircraft.map(|plane| (plane.name, plane.seats)).unzip();
    rows::Airborne {
        id: flight.id,
        origin: flight.origin,
        dest: flight.dest,
        carrier: flight.carrier,
        flight: flight.flight,
        departed_at: flight.departed_at,
        dep_delay_min: flight.dep_delay,
        tailnum: flight.tailnum,
        aircraft,
        seats,
    }
}
