//! The documents of the four views.
//!
//! | view | one document for each | partition key | why |
//! |---|---|---|---|
//! | `carrier_delays` | carrier | `/view`, the view's name | 16 documents that are read together; one batch writes them all |
//! | `route_delays` | origin and destination | `/origin` | the routes of an airport are one query; some 70 share a batch |
//! | `weather_delays` | origin and hour of scheduled departure | `/origin` | as above; 8,760 hours a year for each origin |
//! | `airborne` | flight that has departed and not landed | `/origin` | what a tower asks for; small, and always changing |
//!
//! A mean is the exact sum divided by the count, rounded to hundredths of a minute with halves away from zero; a share is
//! rounded to ten-thousandths in the same way. Both are computed when a row is made, from integers, and are null when
//! there is nothing to divide. A field that is not known is null; every row of a view has the same fields.

use serde::{Deserialize, Serialize};

use crate::bands::{VisibilityBand, WindBand};
use crate::code::Code;
use crate::moment::UtcMinute;

/// A view's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewContainer {
    /// Name of the view and of its container.
    pub name: &'static str,
    /// The path of the container's partition key.
    pub partition_key: &'static str,
}

/// The container of [`CarrierDelays`].
pub const CARRIER_DELAYS: ViewContainer = ViewContainer {
    name: "carrier_delays",
    partition_key: "/view",
};
/// The container of [`RouteDelays`].
pub const ROUTE_DELAYS: ViewContainer = ViewContainer {
    name: "route_delays",
    partition_key: "/origin",
};
/// The container of [`WeatherDelays`].
pub const WEATHER_DELAYS: ViewContainer = ViewContainer {
    name: "weather_delays",
    partition_key: "/origin",
};
/// The container of [`Airborne`].
pub const AIRBORNE: ViewContainer = ViewContainer {
    name: "airborne",
    partition_key: "/origin",
};
/// The four views.
pub const VIEWS: [ViewContainer; 4] = [CARRIER_DELAYS, ROUTE_DELAYS, WEATHER_DELAYS, AIRBORNE];

/// The delays of one carrier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CarrierDelays {
    /// The carrier's code.
    pub id: String,
    /// The partition key: the name of the view, the same for every carrier.
    pub view: String,
    /// The carrier's code.
    pub carrier: Code,
    /// The carrier's name, if the airlines have it.
    pub name: Option<String>,
    /// Flights known, whatever their status.
    pub flights: i64,
    /// Of these, cancelled.
    pub cancelled: i64,
    /// Of these, departed, landed or not.
    pub departed: i64,
    /// Of these, landed.
    pub landed: i64,
    /// Departed more than 15 minutes late.
    pub late: i64,
    /// `late` of `departed`.
    pub late_share: Option<f64>,
    /// Mean delay at departure of those that departed.
    pub mean_dep_delay_min: Option<f64>,
    /// Largest delay at departure.
    pub worst_dep_delay_min: Option<i32>,
    /// Mean delay at arrival of those that landed where they should.
    pub mean_arr_delay_min: Option<f64>,
    /// Largest delay at arrival.
    pub worst_arr_delay_min: Option<i32>,
}

/// The delays between two airports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteDelays {
    /// `{origin}-{dest}`.
    pub id: String,
    /// Airport of departure; the partition key.
    pub origin: Code,
    /// Its name, if the airports have it.
    pub origin_name: Option<String>,
    /// Airport of arrival.
    pub dest: Code,
    /// Its name, if the airports have it.
    pub dest_name: Option<String>,
    /// Flights known, whatever their status.
    pub flights: i64,
    /// Of these, cancelled.
    pub cancelled: i64,
    /// Of these, departed, landed or not.
    pub departed: i64,
    /// Of these, landed.
    pub landed: i64,
    /// Departed more than 15 minutes late.
    pub late: i64,
    /// `late` of `departed`.
    pub late_share: Option<f64>,
    /// Mean delay at departure of those that departed.
    pub mean_dep_delay_min: Option<f64>,
    /// Largest delay at departure.
    pub worst_dep_delay_min: Option<i32>,
    /// Mean delay at arrival of those that landed where they should.
    pub mean_arr_delay_min: Option<f64>,
    /// Largest delay at arrival.
    pub worst_arr_delay_min: Option<i32>,
}

/// The delays of the flights scheduled to leave an airport in one hour, and that hour's weather.
///
/// An hour without a measurement is kept, with its bands `unknown`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeatherDelays {
    /// `{origin}-{hour}`, the hour as `2013-01-31T05Z`.
    pub id: String,
    /// Airport of departure; the partition key.
    pub origin: Code,
    /// The hour of the scheduled departure, in UTC.
    pub time_hour: UtcMinute,
    /// The band of the wind speed.
    pub wind_band: WindBand,
    /// The band of the visibility.
    pub visibility_band: VisibilityBand,
    /// Wind speed, to tenths.
    pub wind_speed_mph: Option<f64>,
    /// Visibility.
    pub visibility_mi: Option<f64>,
    /// Flights known, whatever their status.
    pub flights: i64,
    /// Of these, cancelled.
    pub cancelled: i64,
    /// Of these, departed, landed or not.
    pub departed: i64,
    /// Of these, landed.
    pub landed: i64,
    /// Departed more than 15 minutes late.
    pub late: i64,
    /// `late` of `departed`.
    pub late_share: Option<f64>,
    /// Mean delay at departure of those that departed.
    pub mean_dep_delay_min: Option<f64>,
    /// Mean delay at arrival of those that landed where they should.
    pub mean_arr_delay_min: Option<f64>,
}

/// A flight that has departed and not landed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Airborne {
    /// The id of the flight's document.
    pub id: String,
    /// Airport of departure; the partition key.
    pub origin: Code,
    /// Airport of arrival.
    pub dest: Code,
    /// The carrier's code.
    pub carrier: Code,
    /// Flight number.
    pub flight: i32,
    /// When it left, in UTC.
    pub departed_at: UtcMinute,
    /// Minutes of delay at departure.
    pub dep_delay_min: Option<i32>,
    /// Tail number.
    pub tailnum: Option<Code>,
    /// Maker and model, if the planes have the tail number.
    pub aircraft: Option<String>,
    /// Number of seats, if the planes have the tail number.
    pub seats: Option<i32>,
}

/// The id of a document of `weather_delays`.
pub fn weather_id(origin: Code, hour: UtcMinute) -> String {
    // "2013-01-31T05:00:00Z" without its minutes and seconds.
    format!("{origin}-{}Z", &hour.to_string()[..13])
}
