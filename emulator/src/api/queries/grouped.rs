//! Rows of groups, and of queries without a `FROM` clause.
//!
//! Every page computes all groups, in memory, and goes on behind the last group returned: groups have an order that does
//! not depend on what other groups there are.

use std::collections::HashSet;

use serde_json::Value;

use super::documents::each;
use super::page::Page;
use super::tokens::GroupPlace;
use super::{GO_ON, Job, within};
use crate::http::{ApiError, ApiResult};
use crate::query::budget::Budget;
use crate::query::distinct::fingerprint;
use crate::query::groups::Groups;
use crate::query::rows::{expand, rows, write_row};

/// One page.
pub fn page(job: &Job<'_>) -> ApiResult {
    let start = job.continuation(GroupPlace::from_token)?;
    let mut page = Page::new(job);
    if job.query.sources.is_empty() {
        let budget = Budget::default();
        for row in rows(job.query, &[None], &budget) {
            page.push_with(|body| write_row(job.query, &row, body));
        }
        within(&budget)?;
        return Ok(page.into_reply(None));
    }
    let (mut last, mut more) = (None, false);
    for (place, row) in all(job, &mut page)? {
        if start.is_some_and(|start| place <= start.0) {
            continue;
        }
        if page.is_full() {
            more = true;
            break;
        }
        page.push_with(|body| write_row(job.query, &row, body));
        last = Some(GroupPlace(place));
    }
    let token = last.filter(|_| more).map(GroupPlace::to_token);
    Ok(page.into_reply(token))
}

/// The rows of all groups within the window of the query, with the places of their groups.
fn all(job: &Job<'_>, page: &mut Page<'_>) -> Result<Vec<(u128, Value)>, ApiError> {
    let query = job.query;
    let mut groups = Groups::new(query);
    each(job.container, job.call, job.pieces, None, |document| {
        page.look_at(document);
        let (value, budget) = (document.value()?, Budget::default());
        let _ = expand(query, &[Some(&value)], &budget, &mut |scope| {
            groups.add(scope);
            GO_ON
        });
        within(&budget)?;
        Ok(GO_ON)
    })?;
    let budget = Budget::default();
    let rows = groups.into_rows(&budget);
    within(&budget)?;
    let mut seen = HashSet::new();
    let to_usize = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(rows
        .into_iter()
        .filter(|(_, row)| !query.distinct || seen.insert(fingerprint([Some(row)])))
        .skip(to_usize(query.offset()))
        .take(to_usize(query.limit()))
        .collect())
}
