//! The life of every flight as a list of events in time order.
//!
//! | event | when |
//! |---|---|
//! | scheduled | four hours before the scheduled departure |
//! | cancelled | at the scheduled departure |
//! | departed | at the scheduled departure and its delay |
//! | landed | at departure, the time in the air and 31 minutes on the ground |
//!
//! The data has arrivals only as local times in the time zone of the destination; the time in the air and on the ground
//! comes out the same without time zones. 31 minutes is the mean over the 186,329 flights of the year that land in the
//! time zone of New York. A diverted flight has no time in the air; it lands when its local times say, which ignores
//! time zones. A flight without an arrival in the data departs and never lands.
//!
//! Events of one flight are at least a minute apart and in the order of its life, whatever the data says. Events of one
//! minute are in the order of the flights in the data. So the list is a function of the flights alone.
//!
//! An event is 12 bytes; its document is built when it is asked for. The whole year's million events take 12 MB.

use xxhash_rust::xxh3::Xxh3;

use crate::data::{Arrival, Departure, Flight};
use crate::model::{FlightDocument, Status};
use crate::moment::UtcMinute;

/// How long before its scheduled departure a flight becomes known.
const SCHEDULED_AHEAD_MIN: i32 = 240;
/// Minutes between leaving and reaching a gate that are not in the air.
const ON_THE_GROUND_MIN: i32 = 31;

/// One step in the life of one flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// When it happens.
    pub at: UtcMinute,
    /// The flight, by its position among the flights.
    pub flight: u32,
    /// What the flight becomes.
    pub status: Status,
}

/// All events of a set of flights, in time order.
pub struct Timeline {
    flights: Vec<Flight>,
    events: Vec<Event>,
}

/// What tells one set of events from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Number of flights.
    pub flights: u64,
    /// Number of events.
    pub events: u64,
    /// Hash of all flights in order.
    pub hash: u64,
}

impl Timeline {
    /// The life of these flights.
    ///
    /// # Panics
    /// With 2³² flights or more.
    pub fn new(flights: Vec<Flight>) -> Timeline {
        let mut events = Vec::with_capacity(flights.len() * 3);
        for (index, flight) in flights.iter().enumerate() {
            let index = u32::try_from(index).expect("flights are fewer than 2³²");
            push_life(&mut events, index, flight);
        }
        events.sort_unstable();
        Timeline { flights, events }
    }

    /// The events, in time order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The flights, as they were given.
    pub fn flights(&self) -> &[Flight] {
        &self.flights
    }

    /// The whole document that an event leaves behind.
    pub fn document(&self, event: &Event) -> FlightDocument {
        document(&self.flights[event.flight as usize], event.status)
    }

    /// What tells this timeline from one of other flights.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Xxh3::new();
        for flight in &self.flights {
            hash_flight(&mut hash, flight);
        }
        Fingerprint {
            flights: self.flights.len() as u64,
            events: self.events.len() as u64,
            hash: hash.digest(),
        }
    }
}

fn push_life(events: &mut Vec<Event>, index: u32, flight: &Flight) {
    let mut push = |at, status| {
        events.push(Event {
            at,
            flight: index,
            status,
        });
        at
    };
    let planned = flight.time_hour + flight.sched_dep_time % 100;
    let scheduled = push(planned + -SCHEDULED_AHEAD_MIN, Status::Scheduled);
    let Some(departure) = flight.departure else {
        push(planned, Status::Cancelled);
        return;
    };
    let departed = (planned + departure.dep_delay).max(scheduled + 1);
    push(departed, Status::Departed);
    if let Some(arrival) = departure.arrival {
        push(
            departed + gate_to_gate_min(&departure, &arrival),
            Status::Landed,
        );
    }
}

/// Minutes from gate to gate, at least one.
fn gate_to_gate_min(departure: &Departure, arrival: &Arrival) -> i32 {
    let minute_of_day = |hhmm: i32| hhmm / 100 * 60 + hhmm % 100;
    match arrival.air_time {
        Some(air_time) => air_time + ON_THE_GROUND_MIN,
        None => (minute_of_day(arrival.arr_time) - minute_of_day(departure.dep_time))
            .rem_euclid(24 * 60)
            .max(1),
    }
}

/// The document of a flight that has come as far as `status`.
fn document(flight: &Flight, status: Status) -> FlightDocument {
    let Flight {
        date,
        carrier,
        flight: number,
        origin,
        sched_dep_time,
        ..
    } = *flight;
    let departure = flight.departure.filter(|_| status.has_departed());
    let arrival = departure
        .and_then(|departure| departure.arrival)
        .filter(|_| status == Status::Landed);
    FlightDocument {
        id: format!("{date}-{carrier}{number}-{origin}-{sched_dep_time:04}"),
        partition: format!("{origin}-{date}-{carrier}"),
        status,
        date,
        carrier,
        flight: number,
        origin,
        dest: flight.dest,
        sched_dep_time,
        sched_arr_time: flight.sched_arr_time,
        time_hour: flight.time_hour,
        distance: flight.distance,
        tailnum: flight.tailnum.filter(|_| status.has_departed()),
        dep_time: departure.map(|departure| departure.dep_time),
        dep_delay: departure.map(|departure| departure.dep_delay),
        arr_time: arrival.map(|arrival| arrival.arr_time),
        arr_delay: arrival.and_then(|arrival| arrival.arr_delay),
        air_time: arrival.and_then(|arrival| arrival.air_time),
    }
}

fn hash_flight(hash: &mut Xxh3, flight: &Flight) {
    // One number that no field can have says "not known".
    const UNKNOWN: i32 = i32::MIN;
    for code in [
        Some(flight.carrier),
        Some(flight.origin),
        Some(flight.dest),
        flight.tailnum,
    ] {
        hash.update(&code.map_or([0; 8], |code| code.to_bytes()));
    }
    let departure = flight.departure;
    let arrival = departure.and_then(|departure| departure.arrival);
    for number in [
        flight.date.number(),
        flight.flight,
        flight.sched_dep_time,
        flight.sched_arr_time,
        flight.time_hour.number(),
        flight.distance,
        departure.map_or(UNKNOWN, |departure| departure.dep_time),
        departure.map_or(UNKNOWN, |departure| departure.dep_delay),
        arrival.map_or(UNKNOWN, |arrival| arrival.arr_time),
        arrival
            .and_then(|arrival| arrival.arr_delay)
            .unwrap_or(UNKNOWN),
        arrival
            .and_then(|arrival| arrival.air_time)
            .unwrap_or(UNKNOWN),
    ] {
        hash.update(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::data::bundled_flights;

    fn january() -> Timeline {
        Timeline::new(bundled_flights().expect("flights"))
    }

    /// Counted independently with Python's `csv` module in the package's `flights.csv`, rows with month 1: 27,004 rows;
    /// 521 have no dep_time; 15 have a dep_time and no arr_time. So 27,004 - 521 = 26,483 depart, 26,483 - 15 = 26,468
    /// land, and there are 27,004 + 521 + 26,483 + 26,468 = 80,476 events.
    #[test]
    fn january_has_the_events_that_its_rows_say() {
        let timeline = january();
        let mut counts = BTreeMap::new();
        for event in timeline.events() {
            *counts.entry(event.status).or_insert(0) += 1;
        }
        let expected = [
            (Status::Scheduled, 27_004),
            (Status::Departed, 26_483),
            (Status::Cancelled, 521),
            (Status::Landed, 26_468),
        ];
        assert_eq!(counts, BTreeMap::from(expected));
        assert_eq!(timeline.events().len(), 80_476);
        assert_eq!(std::mem::size_of::<Event>(), 12);
    }

    #[test]
    fn each_life_is_in_order_and_ids_are_unique() {
        let timeline = january();
        let mut lives: Vec<Vec<(UtcMinute, Status)>> = vec![Vec::new(); timeline.flights().len()];
        let mut last = timeline.events()[0].at;
        for event in timeline.events() {
            assert!(last <= event.at);
            last = event.at;
            lives[event.flight as usize].push((event.at, event.status));
        }
        for life in &lives {
            assert!(
                life.windows(2).all(|pair| pair[0].0 < pair[1].0),
                "{life:?}"
            );
            let statuses: Vec<Status> = life.iter().map(|(_, status)| *status).collect();
            use Status::{Cancelled, Departed, Landed, Scheduled};
            assert!(
                [
                    &[Scheduled, Departed, Landed][..],
                    &[Scheduled, Departed],
                    &[Scheduled, Cancelled]
                ]
                .contains(&statuses.as_slice()),
                "{statuses:?}"
            );
        }
        let ids: HashSet<String> = timeline
            .events()
            .iter()
            .map(|event| timeline.document(event).id)
            .collect();
        assert_eq!(ids.len(), 27_004);
    }

    #[test]
    fn a_document_knows_only_what_has_happened() {
        let timeline = january();
        let life: Vec<String> = timeline
            .events()
            .iter()
            .filter(|event| event.flight == 0)
            .map(|event| {
                let document = timeline.document(event);
                let json = serde_json::to_string(&document).expect("json");
                assert_eq!(
                    serde_json::from_str::<FlightDocument>(&json).ok(),
                    Some(document)
                );
                format!("{} {json}", event.at)
            })
            .collect();
        let schedule = r#""date":"2013-01-01","carrier":"UA","flight":1545,"origin":"EWR","dest":"IAH","sched_dep_time":515,"sched_arr_time":819,"time_hour":"2013-01-01T10:00:00Z","distance":1400"#;
        let head =
            r#"{"id":"2013-01-01-UA1545-EWR-0515","partition":"EWR-2013-01-01-UA","status":"#;
        let departed = r#","tailnum":"N14228","dep_time":517,"dep_delay":2"#;
        let landed = r#","arr_time":830,"arr_delay":11,"air_time":227"#;
        assert_eq!(
            life,
            [
                format!("2013-01-01T06:15:00Z {head}\"scheduled\",{schedule}}}"),
                format!("2013-01-01T10:17:00Z {head}\"departed\",{schedule}{departed}}}"),
                format!("2013-01-01T14:35:00Z {head}\"landed\",{schedule}{departed}{landed}}}"),
            ]
        );
    }

    #[test]
    fn a_diverted_flight_lands_with_nulls_and_binary_keeps_every_field() {
        let timeline = january();
        let diverted = timeline.events().iter().find(|event| {
            event.status == Status::Landed && timeline.document(event).arr_delay.is_none()
        });
        let document = timeline.document(diverted.expect("January has diverted flights"));
        let json = serde_json::to_string(&document).expect("json");
        assert!(
            json.ends_with(r#""arr_delay":null,"air_time":null}"#),
            "{json}"
        );

        for event in &timeline.events()[..5_000] {
            let document = timeline.document(event);
            let bytes = bincode::serialize(&document).expect("binary");
            assert_eq!(
                bincode::deserialize::<FlightDocument>(&bytes).ok(),
                Some(document)
            );
        }
    }

    #[test]
    fn other_flights_have_another_fingerprint() {
        let mut flights = bundled_flights().expect("flights");
        flights.truncate(1_000);
        let fingerprint = |flights: &[Flight]| Timeline::new(flights.to_vec()).fingerprint();
        let first = fingerprint(&flights);
        assert_eq!(first, fingerprint(&flights));
        flights[500].distance += 1;
        assert_ne!(first, fingerprint(&flights));
    }

    /// Counts of the whole year, by the same program as January's: 336,776 flights, of which 8,255 have no dep_time and
    /// 458 have a dep_time without arr_time. Give the package's `flights.csv.zip` in `FLIGHTS_2013` to run it.
    #[test]
    #[ignore = "needs the whole year's file, which is not bundled"]
    fn the_whole_year_has_the_events_that_its_rows_say() {
        let path = std::env::var("FLIGHTS_2013").expect("FLIGHTS_2013 names the file");
        let flights = crate::data::read_flights(path.as_ref()).expect("flights");
        let timeline = Timeline::new(flights);
        assert_eq!(timeline.flights().len(), 336_776);
        assert_eq!(timeline.events().len(), 336_776 + 8_255 + 328_521 + 328_063);
        let ids: HashSet<String> = timeline
            .events()
            .iter()
            .map(|event| timeline.document(event).id)
            .collect();
        assert_eq!(ids.len(), 336_776);
    }
}
