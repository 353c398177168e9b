//! Sums and counts of delays that retract exactly.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};

use crate::bands::LATE_MIN;
use crate::model::{FlightDocument, Status};

/// What a group of flights adds up to. It is a difference: it is added when a flight comes and subtracted when it goes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Totals {
    /// Flights.
    pub flights: i64,
    /// Cancelled flights.
    pub cancelled: i64,
    /// Departed flights, landed or not.
    pub departed: i64,
    /// Landed flights.
    pub landed: i64,
    /// Flights that departed late.
    pub late: i64,
    /// Flights whose delay at departure is known, and the sum of these delays in minutes.
    pub dep_delays: i64,
    pub dep_delay_sum: i64,
    /// Flights whose delay at arrival is known, and the sum of these delays in minutes.
    pub arr_delays: i64,
    pub arr_delay_sum: i64,
}

impl Totals {
    /// What one flight adds.
    pub fn of(flight: &FlightDocument) -> Totals {
        let dep_delay = flight.dep_delay.filter(|_| flight.status.has_departed());
        let arr_delay = flight.arr_delay.filter(|_| flight.status == Status::Landed);
        Totals {
            flights: 1,
            cancelled: (flight.status == Status::Cancelled).into(),
            departed: flight.status.has_departed().into(),
            landed: (flight.status == Status::Landed).into(),
            late: dep_delay.is_some_and(|delay| delay > LATE_MIN).into(),
            dep_delays: dep_delay.is_some().into(),
            dep_delay_sum: dep_delay.unwrap_or(0).into(),
            arr_delays: arr_delay.is_some().into(),
            arr_delay_sum: arr_delay.unwrap_or(0).into(),
        }
    }

    /// Share of the departed flights that were late.
    pub fn late_share(&self) -> Option<f64> {
        quotient(self.late, self.departed, 10_000)
    }

    /// Mean delay at departure in minutes.
    pub fn mean_dep_delay_min(&self) -> Option<f64> {
        quotient(self.dep_delay_sum, self.dep_delays, 100)
    }

    /// Mean delay at arrival in minutes.
    pub fn mean_arr_delay_min(&self) -> Option<f64> {
        quotient(self.arr_delay_sum, self.arr_delays, 100)
    }

    fn map2(self, other: Totals, f: impl Fn(i64, i64) -> i64) -> Totals {
        Totals {
            flights: f(self.flights, other.flights),
            cancelled: f(self.cancelled, other.cancelled),
            departed: f(self.departed, other.departed),
            landed: f(self.landed, other.landed),
            late: f(self.late, other.late),
            dep_delays: f(self.dep_delays, other.dep_delays),
            dep_delay_sum: f(self.dep_delay_sum, other.dep_delay_sum),
            arr_delays: f(self.arr_delays, other.arr_delays),
            arr_delay_sum: f(self.arr_delay_sum, other.arr_delay_sum),
        }
    }
}

/// `sum / count`, rounded to the nearest of so many parts of one, halves away from zero; `None` for a count of zero.
fn quotient(sum: i64, count: i64, parts: i64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let doubled = 2 * sum * parts;
    let rounded = (doubled + doubled.signum() * count) / (2 * count);
    Some(rounded as f64 / parts as f64)
}

impl IsZero for Totals {
    fn is_zero(&self) -> bool {
        *self == Totals::default()
    }
}

impl Semigroup for Totals {
    fn plus_equals(&mut self, other: &Totals) {
        *self = self.map2(*other, |a, b| a + b);
    }
}

impl Monoid for Totals {
    fn zero() -> Self {
        Totals::default()
    }
}

impl Abelian for Totals {
    fn negate(&mut self) {
        *self = Totals::default().map2(*self, |a, b| a - b);
    }
}

impl Multiply<isize> for Totals {
    type Output = Totals;

    fn multiply(self, times: &isize) -> Totals {
        let times = *times as i64;
        self.map2(self, |a, _| a * times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_round_halves_away_from_zero() {
        for (sum, count, expected) in [
            (1, 8, 0.13),   // 0.125
            (-1, 8, -0.13), // -0.125
            (1, 3, 0.33),
            (2, 3, 0.67),
            (-2, 3, -0.67),
            (0, 5, 0.0),
            (1_301, 1, 1_301.0),
        ] {
            assert_eq!(quotient(sum, count, 100), Some(expected), "{sum} / {count}");
        }
        assert_eq!(quotient(5, 0, 100), None);
    }

    #[test]
    fn what_comes_and_goes_is_zero() {
        let one = Totals {
            flights: 1,
            late: 1,
            dep_delay_sum: -7,
            ..Totals::default()
        };
        let mut sum = one.multiply(&3);
        assert_eq!((sum.flights, sum.late, sum.dep_delay_sum), (3, 3, -21));
        let mut back = one.multiply(&3);
        back.negate();
        assert_eq!(back, one.multiply(&-3));
        sum.plus_equals(&back);
        assert!(sum.is_zero());
    }
}
