//! Sorted rows.
//!
//! A page looks at every document and holds at most twice the rows that it may return or has to leave out; `DISTINCT`
//! holds every different row. The continuation is the place of the last row returned, by value, so that it stays
//! where it is when documents come and go, and when a client adds a condition to the query.

use std::collections::HashMap;

use super::documents::each;
use super::page::Page;
use super::tokens::SortedProgress;
use super::{GO_ON, Job, within};
use crate::http::ApiResult;
use crate::query::budget::Budget;
use crate::query::distinct::fingerprint;
use crate::query::rows::{expand, shape, write_row};
use crate::query::sorting::{First, Resume, SortPlace, sort_keys};

type Row = (SortPlace, Vec<u8>);

/// One page.
pub fn page(job: &Job<'_>, resume: Option<&Resume>) -> ApiResult {
    let query = job.query;
    let start = job.continuation(|token| SortedProgress::from_token(token, query))?;
    let skip = match &start {
        Some(_) => 0,
        None => usize::try_from(query.offset()).unwrap_or(usize::MAX),
    };
    let mut taken = start.as_ref().map_or(0, |start| start.taken);
    let left = usize::try_from(query.limit().saturating_sub(taken)).unwrap_or(usize::MAX);
    // One more than fits tells whether there is another page.
    let wanted = skip.saturating_add(job.most.saturating_add(1).min(left));
    let mut page = Page::new(job);
    let after = start.as_ref().map(|start| &start.last);
    let rows = first_rows(job, &mut page, wanted, after, resume)?;

    let mut rows = rows.into_iter().skip(skip).take(left);
    let (mut last, mut more) = (None, false);
    for (place, row) in &mut rows {
        if page.is_full() {
            more = true;
            break;
        }
        page.push(&row);
        taken += 1;
        last = Some(place);
    }
    let token = last
        .filter(|_| more)
        .map(|last| SortedProgress { last, taken }.to_token());
    Ok(page.into_reply(token))
}

/// The first rows behind a place.
fn first_rows(
    job: &Job<'_>,
    page: &mut Page<'_>,
    wanted: usize,
    after: Option<&SortPlace>,
    resume: Option<&Resume>,
) -> Result<Vec<Row>, crate::http::ApiError> {
    let query = job.query;
    let is_to_come = |place: &SortPlace| {
        after.is_none_or(|after| place.compare(after, query).is_gt())
            && resume.is_none_or(|resume| resume.admits(place, query))
    };
    let mut first = First::new(query, wanted);
    // Of equal rows the first counts, wherever the client is by now.
    let mut different: HashMap<u128, Row> = HashMap::new();
    each(job.container, job.call, job.pieces, None, |document| {
        page.look_at(document);
        let (value, budget) = (document.value()?, Budget::default());
        let mut number = 0;
        let _ = expand(query, &[Some(&value)], &budget, &mut |scope| {
            let Some(shaped) = shape(query, scope) else {
                return GO_ON;
            };
            let place = SortPlace {
                keys: sort_keys(query, scope),
                document: document.place.rid,
                row: number,
            };
            number += 1;
            if !query.distinct && !is_to_come(&place) {
                return GO_ON;
            }
            let mut row = Vec::new();
            if query.selects_documents() {
                row.extend_from_slice(document.text);
            } else {
                write_row(query, &shaped, &mut row);
            }
            if !query.distinct {
                first.offer(place, row);
                return GO_ON;
            }
            let known = different
                .entry(fingerprint([Some(&shaped)]))
                .or_insert_with(|| (place.clone(), row));
            if place.compare(&known.0, query).is_lt() {
                known.0 = place;
            }
            GO_ON
        });
        within(&budget)?;
        Ok(GO_ON)
    })?;
    for (place, row) in different.into_values() {
        if is_to_come(&place) {
            first.offer(place, row);
        }
    }
    Ok(first.into_sorted())
}
