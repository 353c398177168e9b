//! The four views as differential dataflows.
//!
//! ```text
//!          +- add up: sums and counts per group, in the difference --+
//! flights -+- worst:  distinct delays per group, largest in buckets -+-> one row for each group
//!          +- groups: the distinct groups, joined with their names --+
//! ```
//!
//! # Cost
//!
//! No arrangement holds a flight. What a change costs does not grow with the number of flights:
//!
//! - Sums and counts live in the difference ([`totals`]): a change is a look-up of its group.
//! - The largest delay is kept over the distinct delays of a group ([`worst`]), in two levels of at most 32 and about 500
//!   values, and only when a delay appears for the first time or vanishes.
//! - Names are joined to the distinct groups, 16 carriers or some 220 routes, not to flights.
//! - The parts of a row meet in one reduction over at most five values.
//!
//! # Floats
//!
//! Rows contain means, which are floats; they are made in the last step, from integers, and never enter an arrangement.

mod airborne;
mod carriers;
mod group;
mod routes;
mod totals;
mod weather;
mod worst;

pub use airborne::airborne;
pub use carriers::carrier_delays;
pub use routes::route_delays;
pub use weather::weather_delays;

#[cfg(test)]
mod tests;
