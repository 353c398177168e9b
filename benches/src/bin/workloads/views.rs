//! The workloads.

use std::cmp::Reverse;
use std::fmt::Write;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tidefeed::prelude::*;
use tidefeed_benches::Outcome;

use crate::rows::{Bought, Customer, Large, Order, Regional, Total};

/// One of the workloads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Sum and count of each region, of all events.
    Events,
    /// The same of the latest version of each order.
    Orders,
    /// The same of each segment, by the order's customer, who may change segments.
    Segments,
    /// The ten largest orders of each region.
    Largest,
}

/// How many of the largest orders of a region count.
const PLACES: usize = 10;

impl Workload {
    pub fn named(name: &str) -> Option<Workload> {
        Some(match name {
            "w1" => Workload::Events,
            "w2" => Workload::Orders,
            "w3" => Workload::Segments,
            "w4" => Workload::Largest,
            _ => return None,
        })
    }

    /// # Errors
    /// None that a right configuration leaves.
    pub fn build(self, flow: &mut Flow<'_>) -> Result<()> {
        match self {
            Workload::Events => {
                let events = flow.append_only_feed("orders")?;
                regions(flow, events)
            }
            Workload::Orders => {
                let orders = flow.change_feed("orders")?;
                regions(flow, orders)
            }
            Workload::Segments => segments(flow),
            Workload::Largest => largest(flow),
        }
    }

    /// The view as lines, from its documents.
    ///
    /// # Errors
    /// When one is not of this workload.
    pub fn lines<'a>(self, bodies: impl Iterator<Item = &'a Bytes>) -> Outcome<String> {
        let mut lines = String::new();
        match self {
            Workload::Largest => {
                let mut rows: Vec<Large> = parsed(bodies)?;
                rows.sort();
                for of_region in rows.chunk_by(|a, b| a.region == b.region) {
                    for (rank, row) in (1..).zip(of_region) {
                        writeln!(
                            lines,
                            "{}\t{rank}\t{}\t{}",
                            row.region, row.id, row.amount.0
                        )?;
                    }
                }
            }
            _ => {
                for total in parsed::<Total>(bodies)? {
                    writeln!(lines, "{}\t{}\t{}", total.id, total.sum, total.count)?;
                }
            }
        }
        Ok(lines)
    }
}

fn parsed<'a, T: DeserializeOwned>(bodies: impl Iterator<Item = &'a Bytes>) -> Outcome<Vec<T>> {
    let parsed: serde_json::Result<Vec<T>> =
        bodies.map(|body| serde_json::from_slice(body)).collect();
    Ok(parsed?)
}

fn regions<'scope>(flow: &mut Flow<'scope>, orders: View<'scope, Regional>) -> Result<()> {
    let totals = orders.sum_by(|order| [(order.region, (order.amount as isize, 1isize))]);
    flow.upsert("view", totals.map(Total::of))
}

/// By customer first: there are fewer of them than orders, and each of their sums is joined once an epoch.
fn segments(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow.change_feed::<Bought>("orders")?;
    let customers = flow.change_feed::<Customer>("customers")?;
    let by_customer = orders.sum_by(|order| [(order.customer, (order.amount as isize, 1isize))]);
    let segments = customers.map(|customer| (customer.id, customer.segment));
    let joined = by_customer.join_map(segments, |_customer, sum, segment| (segment.clone(), *sum));
    let totals = joined.sum_by(|sum| [sum]);
    flow.upsert("view", totals.map(Total::of))
}

fn largest(flow: &mut Flow<'_>) -> Result<()> {
    let orders = flow.change_feed::<Order>("orders")?;
    let by_region = orders.map(|order| (order.region, (Reverse(order.amount), order.id)));
    let rows = by_region.top_k(PLACES);
    flow.upsert(
        "view",
        rows.map(|(region, (amount, id))| Large { region, amount, id }),
    )
}
