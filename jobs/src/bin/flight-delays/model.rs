//! The document of one flight, as the player writes it and as the job reads it.
//!
//! A document gains fields as its flight lives on: the schedule first, what happened at departure when it departs, what
//! happened at arrival when it lands. A field that does not apply yet is absent; a field that applies but that the data
//! does not know is null. Reading treats the two alike.
//!
//! # Choice of the partition key
//!
//! `partition` is `{origin}-{date}-{carrier}`: all departures of one carrier from one airport on one day, which is what a
//! station asks for in one query. Origin and date alone would put all writes of a moment into three logical partitions,
//! and a logical partition takes at most 10,000 RU/s; with the carrier they spread over about 35 at once. The largest
//! has 140 documents, far below the 20 GB limit.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::code::Code;
use crate::moment::{Day, UtcMinute};

/// The path of the partition key of the container of flights.
pub const FLIGHTS_PARTITION_KEY: &str = "/partition";

/// Where a flight is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Announced, with nothing known but the schedule.
    Scheduled,
    /// Left the gate, and not landed.
    Departed,
    /// Will not depart.
    Cancelled,
    /// Arrived at the gate.
    Landed,
}

impl Status {
    /// True from departure on.
    pub fn has_departed(self) -> bool {
        matches!(self, Status::Departed | Status::Landed)
    }
}

/// One flight, at one moment of its life.
///
/// There are no floats: documents live in differential's arrangements, and whole minutes retract exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct FlightDocument {
    /// Unique: `{date}-{carrier}{flight}-{origin}-{sched_dep_time}`, for example `2013-01-01-UA1545-EWR-0515`.
    pub id: String,
    /// The partition key, `{origin}-{date}-{carrier}`.
    pub partition: String,
    /// Where the flight is in its life.
    pub status: Status,
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
    /// Tail number; known from departure on.
    #[serde(default)]
    pub tailnum: Option<Code>,
    /// Departure, local `hhmm`.
    #[serde(default)]
    pub dep_time: Option<i32>,
    /// Minutes of delay at departure, negative when early.
    #[serde(default)]
    pub dep_delay: Option<i32>,
    /// Arrival, local `hhmm`.
    #[serde(default)]
    pub arr_time: Option<i32>,
    /// Minutes of delay at arrival, negative when early; unknown for a flight that was diverted.
    #[serde(default)]
    pub arr_delay: Option<i32>,
    /// Minutes in the air; unknown for a flight that was diverted.
    #[serde(default)]
    pub air_time: Option<i32>,
}

impl FlightDocument {
    /// The scheduled departure in UTC.
    pub fn scheduled_departure(&self) -> UtcMinute {
        self.time_hour + self.sched_dep_time % 100
    }
}

/// Absent fields are a matter of JSON; a binary form that does not describe itself needs every field in its place.
impl Serialize for FlightDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let every_field = !serializer.is_human_readable();
        let departed = every_field || self.status.has_departed();
        let landed = every_field || self.status == Status::Landed;
        let mut fields = serializer.serialize_struct("FlightDocument", 18)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("partition", &self.partition)?;
        fields.serialize_field("status", &self.status)?;
        fields.serialize_field("date", &self.date)?;
        fields.serialize_field("carrier", &self.carrier)?;
        fields.serialize_field("flight", &self.flight)?;
        fields.serialize_field("origin", &self.origin)?;
        fields.serialize_field("dest", &self.dest)?;
        fields.serialize_field("sched_dep_time", &self.sched_dep_time)?;
        fields.serialize_field("sched_arr_time", &self.sched_arr_time)?;
        fields.serialize_field("time_hour", &self.time_hour)?;
        fields.serialize_field("distance", &self.distance)?;
        if departed || self.tailnum.is_some() {
            fields.serialize_field("tailnum", &self.tailnum)?;
        }
        let mut optional =
            |name, value: &Option<i32>, applies: bool| match applies || value.is_some() {
                true => fields.serialize_field(name, value),
                false => fields.skip_field(name),
            };
        optional("dep_time", &self.dep_time, departed)?;
        optional("dep_delay", &self.dep_delay, departed)?;
        optional("arr_time", &self.arr_time, landed)?;
        optional("arr_delay", &self.arr_delay, landed)?;
        optional("air_time", &self.air_time, landed)?;
        fields.end()
    }
}
