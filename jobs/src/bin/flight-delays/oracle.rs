//! The views recomputed from scratch with plain loops, to check the dataflow against.
//!
//! It shares the types of the rows and the definitions of the bands with the dataflow, and nothing that aggregates.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use crate::bands::{LATE_MIN, Weather};
use crate::code::Code;
use crate::data::Tables;
use crate::model::{FlightDocument, Status};
use crate::moment::UtcMinute;
use crate::rows::{Airborne, CarrierDelays, RouteDelays, WeatherDelays, weather_id};

/// The documents of a view, by id.
pub type Documents = BTreeMap<String, Value>;

/// What every view should hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Documents of `carrier_delays`.
    pub carrier_delays: Documents,
    /// Documents of `route_delays`.
    pub route_delays: Documents,
    /// Documents of `weather_delays`.
    pub weather_delays: Documents,
    /// Documents of `airborne`.
    pub airborne: Documents,
}

impl Expected {
    /// Recomputes the views of these flights.
    pub fn of(flights: &[FlightDocument], tables: &Tables) -> Expected {
        Expected {
            carrier_delays: carrier_delays(flights, tables),
            route_delays: route_delays(flights, tables),
            weather_delays: weather_delays(flights, tables),
            airborne: airborne(flights, tables),
        }
    }

    /// The documents of a view by its name.
    pub fn view(&self, name: &str) -> Option<&Documents> {
        match name {
            "carrier_delays" => Some(&self.carrier_delays),
            "route_delays" => Some(&self.route_delays),
            "weather_delays" => Some(&self.weather_delays),
            "airborne" => Some(&self.airborne),
            _ => None,
        }
    }
}

/// Everything that is counted of one group, kept as the plain list of its delays.
#[derive(Default)]
struct Tally {
    flights: i64,
    cancelled: i64,
    departed: i64,
    landed: i64,
    late: i64,
    departure_delays: Vec<i32>,
    arrival_delays: Vec<i32>,
}

impl Tally {
    fn count(&mut self, flight: &FlightDocument) {
        self.flights += 1;
        match flight.status {
            Status::Scheduled => return,
            Status::Cancelled => {
                self.cancelled += 1;
                return;
            }
            Status::Departed => self.departed += 1,
            Status::Landed => {
                self.departed += 1;
                self.landed += 1;
                self.arrival_delays.extend(flight.arr_delay);
            }
        }
        self.departure_delays.extend(flight.dep_delay);
        if flight.dep_delay > Some(LATE_MIN) {
            self.late += 1;
        }
    }

    fn late_share(&self) -> Option<f64> {
        if self.departed == 0 {
            return None;
        }
        Some(rounded(self.late, self.departed, 4))
    }
}

fn mean(delays: &[i32]) -> Option<f64> {
    if delays.is_empty() {
        return None;
    }
    let sum: i64 = delays.iter().map(|delay| i64::from(*delay)).sum();
    Some(rounded(sum, delays.len() as i64, 2))
}

/// `a / b` to so many decimals, by long division; a remainder of half or more rounds away from zero.
fn rounded(a: i64, b: i64, decimals: usize) -> f64 {
    let mut digits = format!("{}{}.", if a < 0 { "-" } else { "" }, a.abs() / b);
    let mut rest = a.abs() % b;
    for _ in 0..decimals {
        rest *= 10;
        digits.push_str(&(rest / b).to_string());
        rest %= b;
    }
    let cut: f64 = digits.parse().unwrap_or(f64::NAN);
    if rest * 2 < b {
        // Not "-0.00".
        return if cut == 0.0 { 0.0 } else { cut };
    }
    let scale = 10_f64.powi(decimals as i32);
    let away = if a < 0 { -1.0 } else { 1.0 };
    ((cut * scale).round() + away) / scale
}

fn carrier_delays(flights: &[FlightDocument], tables: &Tables) -> Documents {
    let mut tallies: HashMap<Code, Tally> = HashMap::new();
    for flight in flights {
        tallies.entry(flight.carrier).or_default().count(flight);
    }
    let row = |(carrier, tally): (Code, Tally)| CarrierDelays {
        id: carrier.to_string(),
        view: "carrier_delays".to_owned(),
        carrier,
        name: tables
            .airlines
            .iter()
            .find(|row| row.carrier == carrier)
            .map(|row| row.name.clone()),
        flights: tally.flights,
        cancelled: tally.cancelled,
        departed: tally.departed,
        landed: tally.landed,
        late: tally.late,
        late_share: tally.late_share(),
        mean_dep_delay_min: mean(&tally.departure_delays),
        worst_dep_delay_min: tally.departure_delays.iter().copied().max(),
        mean_arr_delay_min: mean(&tally.arrival_delays),
        worst_arr_delay_min: tally.arrival_delays.iter().copied().max(),
    };
    documents(
        tallies
            .into_iter()
            .map(row)
            .map(|row| (row.id.clone(), row)),
    )
}

fn route_delays(flights: &[FlightDocument], tables: &Tables) -> Documents {
    let mut tallies: HashMap<(Code, Code), Tally> = HashMap::new();
    for flight in flights {
        tallies
            .entry((flight.origin, flight.dest))
            .or_default()
            .count(flight);
    }
    let name = |faa: Code| {
        tables
            .airports
            .iter()
            .find(|airport| airport.faa == faa)
            .map(|airport| airport.name.clone())
    };
    let row = |((origin, dest), tally): ((Code, Code), Tally)| RouteDelays {
        id: format!("{origin}-{dest}"),
        origin,
        origin_name: name(origin),
        dest,
        dest_name: name(dest),
        flights: tally.flights,
        cancelled: tally.cancelled,
        departed: tally.departed,
        landed: tally.landed,
        late: tally.late,
        late_share: tally.late_share(),
        mean_dep_delay_min: mean(&tally.departure_delays),
        worst_dep_delay_min: tally.departure_delays.iter().copied().max(),
        mean_arr_delay_min: mean(&tally.arrival_delays),
        worst_arr_delay_min: tally.arrival_delays.iter().copied().max(),
    };
    documents(
        tallies
            .into_iter()
            .map(row)
            .map(|row| (row.id.clone(), row)),
    )
}

fn weather_delays(flights: &[FlightDocument], tables: &Tables) -> Documents {
    let mut tallies: HashMap<(Code, UtcMinute), Tally> = HashMap::new();
    for flight in flights {
        tallies
            .entry((flight.origin, flight.time_hour))
            .or_default()
            .count(flight);
    }
    let measured: HashMap<(Code, UtcMinute), Weather> = tables
        .weather
        .iter()
        .map(|row| ((row.origin, row.hour), row.weather))
        .collect();
    let row = |(key, tally): ((Code, UtcMinute), Tally)| {
        let weather = measured
            .get(&key)
            .copied()
            .unwrap_or(Weather::new(None, None));
        WeatherDelays {
            id: weather_id(key.0, key.1),
            origin: key.0,
            time_hour: key.1,
            wind_band: weather.wind_band(),
            visibility_band: weather.visibility_band(),
            wind_speed_mph: weather.wind_speed_mph(),
            visibility_mi: weather.visibility_mi(),
            flights: tally.flights,
            cancelled: tally.cancelled,
            departed: tally.departed,
            landed: tally.landed,
            late: tally.late,
            late_share: tally.late_share(),
            mean_dep_delay_min: mean(&tally.departure_delays),
            mean_arr_delay_min: mean(&tally.arrival_delays),
        }
    };
    documents(
        tallies
            .into_iter()
            .map(row)
            .map(|row| (row.id.clone(), row)),
    )
}

fn airborne(flights: &[FlightDocument], tables: &Tables) -> Documents {
    let planes: HashMap<Code, _> = tables
        .planes
        .iter()
        .map(|plane| (plane.tailnum, plane))
        .collect();
    let in_air = flights
        .iter()
        .filter(|flight| flight.status == Status::Departed);
    let row = |flight: &FlightDocument| {
        let plane = flight.tailnum.and_then(|tailnum| planes.get(&tailnum));
        let scheduled = flight.time_hour + flight.sched_dep_time % 100;
        Airborne {
            id: flight.id.clone(),
            origin: flight.origin,
            dest: flight.dest,
            carrier: flight.carrier,
            flight: flight.flight,
            departed_at: scheduled + flight.dep_delay.unwrap_or(0),
            dep_delay_min: flight.dep_delay,
            tailnum: flight.tailnum,
            aircraft: plane.map(|plane| plane.aircraft.clone()),
            seats: plane.map(|plane| plane.seats),
        }
    };
    documents(in_air.map(row).map(|row| (row.id.clone(), row)))
}

fn documents<R: Serialize>(rows: impl Iterator<Item = (String, R)>) -> Documents {
    rows.map(|(id, row)| {
        let value = serde_json::to_value(row).expect("rows are plain JSON");
        (id, value)
    })
    .collect()
}
