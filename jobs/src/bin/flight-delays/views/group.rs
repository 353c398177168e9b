//! Bringing together what is known of each group of flights.

use std::hash::Hash;

use differential_dataflow::operators::CountTotal;
use differential_dataflow::{ExchangeData, VecCollection};
use serde::{Deserialize, Serialize};

use super::totals::Totals;
use super::worst::At;
use crate::model::{FlightDocument, Status};

/// One part of a group's row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part<J> {
    /// Its sums and counts. Every group that has flights has them; a group without flights has no row.
    Totals(Totals),
    /// Its largest delay at departure or arrival.
    Worst(At, i32),
    /// Something joined from a table.
    Joined(J),
}

/// All parts of a group's row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Group<J> {
    pub totals: Totals,
    pub worst_dep_delay_min: Option<i32>,
    pub worst_arr_delay_min: Option<i32>,
    pub joined: Vec<J>,
}

/// The sums and counts of the flights of each group.
pub fn add_up<'s, K>(
    flights: VecCollection<'s, u64, FlightDocument, isize>,
    group: impl Fn(&FlightDocument) -> K + 'static,
) -> VecCollection<'s, u64, (K, Totals), isize>
where
    K: ExchangeData + Hash,
{
    flights
        .explode(move |flight| Some((group(&flight), Totals::of(&flight))))
        .count_total()
}

/// The delays of each flight with its group.
pub fn delays<'s, K>(
    flights: VecCollection<'s, u64, FlightDocument, isize>,
    group: impl Fn(&FlightDocument) -> K + 'static,
) -> VecCollection<'s, u64, (K, At, i32), isize>
where
    K: ExchangeData + Hash,
{
    flights.flat_map(move |flight| {
        let departure = flight.dep_delay.filter(|_| flight.status.has_departed());
        let arrival = flight.arr_delay.filter(|_| flight.status == Status::Landed);
        let group = group(&flight);
        [(At::Departure, departure), (At::Arrival, arrival)]
            .into_iter()
            .filter_map(move |(at, delay)| Some((group.clone(), at, delay?)))
    })
}

/// One [`Group`] for each key that has totals: an outer join of all parts, and its output is consolidated.
pub fn assemble<'s, K, J>(
    parts: VecCollection<'s, u64, (K, Part<J>), isize>,
) -> VecCollection<'s, u64, (K, Group<J>), isize>
where
    K: ExchangeData + Hash,
    J: ExchangeData,
{
    parts.reduce_named("Assemble", |_, parts, groups| {
        let mut totals = None;
        let (mut worst_dep_delay_min, mut worst_arr_delay_min) = (None, None);
        let mut joined = Vec::new();
        for (part, _) in parts {
            match part {
                Part::Totals(sums) => totals = Some(*sums),
                Part::Worst(At::Departure, delay) => worst_dep_delay_min = Some(*delay),
                Part::Worst(At::Arrival, delay) => worst_arr_delay_min = Some(*delay),
                Part::Joined(value) => joined.push(value.clone()),
            }
        }
        if let Some(totals) = totals {
            let group = Group {
                totals,
                worst_dep_delay_min,
                worst_arr_delay_min,
                joined,
            };
            groups.push((group, 1));
        }
    })
}
