//! Bulk writes.
mod answer;
pub(crate) mod classify;
pub(crate) mod config;
mod groups;
pub(crate) mod machine;
pub(crate) mod operation;
mod order;
pub(crate) mod partition;
pub(crate) mod routing;

#[cfg(test)]
mod model;
