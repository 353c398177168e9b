//! Operators and connectors.

pub mod feed;
pub mod target;
