//! The delays of each origin and hour, with that hour's weather.

use differential_dataflow::VecCollection;

use super::group::{Part, add_up, assemble};
use crate::bands::Weather;
use crate::data::WeatherHour;
use crate::model::FlightDocument;
use crate::rows::{WeatherDelays, weather_id};

/// One row for each origin and hour of scheduled departure that have flights, with or without a measurement.
pub fn weather_delays<'s>(
    flights: VecCollection<'s, u64, FlightDocument, isize>,
    weather: VecCollection<'s, u64, WeatherHour, isize>,
) -> VecCollection<'s, u64, WeatherDelays, isize> {
    let totals = add_up(flights, |flight| (flight.origin, flight.time_hour))
        .map(|(hour, totals)| (hour, Part::Totals(totals)));
    let weather = weather.map(|row| ((row.origin, row.hour), Part::Joined(row.weather)));

    assemble(totals.concat(weather)).map(|((origin, hour), group)| {
        let measured = group.joined.first().copied();
        let weather = measured.unwrap_or(Weather::new(None, None));
        WeatherDelays {
            id: weather_id(origin, hour),
            origin,
            time_hour: hour,
            wind_band: weather.wind_band(),
            visibility_band: weather.visibility_band(),
            wind_speed_mph: weather.wind_speed_mph(),
            visibility_mi: weather.visibility_mi(),
            flights: group.totals.flights,
            cancelled: group.totals.cancelled,
            departed: group.totals.departed,
            landed: group.totals.landed,
            late: group.totals.late,
            late_share: group.totals.late_share(),
            mean_dep_delay_min: group.totals.mean_dep_delay_min(),
            mean_arr_delay_min: group.totals.mean_arr_delay_min(),
        }
    })
}
