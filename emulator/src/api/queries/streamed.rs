//! Rows in the order of the documents they come from.
//!
//! The continuation is the place of the next row (its document, and its number among that document's rows) with what
//! `OFFSET` and `LIMIT` have behind them. `DISTINCT` looks at the documents before that place again: what was returned from
//! there is not returned twice, and no page remembers anything.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::super::read_feed::Place;
use super::documents::{Seen, each};
use super::page::Page;
use super::tokens::Progress;
use super::{GO_ON, Job, within};
use crate::http::{ApiError, ApiResult};
use crate::query::budget::Budget;
use crate::query::distinct::fingerprint;
use crate::query::rows::{expand, shape, write_row};

/// One page.
pub fn page(job: &Job<'_>) -> ApiResult {
    let start = job.continuation(Progress::from_token)?;
    let from = start
        .map(|start| start.place)
        .filter(|_| !job.query.distinct);
    let mut stream = Stream {
        job,
        page: Page::new(job),
        start: start.map(|start| (start.place, start.row)),
        skipped: start.map_or(0, |start| start.skipped),
        taken: start.map_or(0, |start| start.taken),
        returned: HashSet::new(),
        next: None,
    };
    each(job.container, job.call, job.pieces, from, |document| {
        stream.document(document)
    })?;
    let (skipped, taken) = (stream.skipped, stream.taken);
    let token = stream.next.map(|(place, row)| {
        let progress = Progress {
            place,
            row,
            skipped,
            taken,
        };
        progress.to_token()
    });
    Ok(stream.page.into_reply(token))
}

struct Stream<'a> {
    job: &'a Job<'a>,
    page: Page<'a>,
    /// The first row that counts.
    start: Option<(Place, u64)>,
    skipped: u64,
    taken: u64,
    /// Fingerprints of the rows so far, for `DISTINCT`.
    returned: HashSet<u128>,
    /// The row that the page had no room for.
    next: Option<(Place, u64)>,
}

impl Stream<'_> {
    fn document(&mut self, document: &Seen<'_>) -> Result<ControlFlow<()>, ApiError> {
        let query = self.job.query;
        if self.taken >= query.limit() {
            return Ok(ControlFlow::Break(()));
        }
        if self.page.is_full() {
            self.next = Some((document.place, 0));
            return Ok(ControlFlow::Break(()));
        }
        self.page.look_at(document);
        if query.selects_documents() && query.filter.is_none() && !query.distinct {
            // Whole documents without a condition are copied, never parsed.
            return Ok(self.row(document.place, 0, None, |out| {
                out.extend_from_slice(document.text);
            }));
        }
        let (value, budget) = (document.value()?, Budget::default());
        let (mut row, mut flow) = (0, GO_ON);
        let _ = expand(query, &[Some(&value)], &budget, &mut |scope| {
            if let Some(shaped) = shape(query, scope) {
                let print = query.distinct.then(|| fingerprint([Some(&shaped)]));
                flow = self.row(document.place, row, print, |out| {
                    if query.selects_documents() {
                        out.extend_from_slice(document.text);
                    } else {
                        write_row(query, &shaped, out);
                    }
                });
                row += 1;
            }
            flow
        });
        within(&budget)?;
        Ok(flow)
    }

    fn row(
        &mut self,
        place: Place,
        row: u64,
        print: Option<u128>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> ControlFlow<()> {
        let order = |place: Place, row: u64| (place.key(), row);
        let is_behind = self
            .start
            .is_some_and(|(start, first)| order(place, row) < order(start, first));
        if is_behind {
            self.returned.extend(print);
            return GO_ON;
        }
        if print.is_some_and(|print| self.returned.contains(&print)) {
            return GO_ON;
        }
        if self.skipped < self.job.query.offset() {
            self.skipped += 1;
            self.returned.extend(print);
            return GO_ON;
        }
        if self.taken >= self.job.query.limit() {
            return ControlFlow::Break(());
        }
        if self.page.is_full() {
            self.next = Some((place, row));
            return ControlFlow::Break(());
        }
        self.returned.extend(print);
        self.taken += 1;
        self.page.push_with(write);
        GO_ON
    }
}
