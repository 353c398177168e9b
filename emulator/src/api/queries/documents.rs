//! The documents of a query, one by one: the only place where queries touch the store.

use std::ops::ControlFlow;

use serde_json::Value;

use super::super::read_feed::Place;
use super::super::scope::Piece;
use super::super::session;
use crate::http::{ApiError, Call};
use crate::ru::Charge;
use crate::store::Container;

/// A document under a query's eyes.
pub struct Seen<'a> {
    /// Its place in the order of documents.
    pub place: Place,
    /// Its text, with system properties.
    pub text: &'a [u8],
    /// Its size for the charge.
    pub size: usize,
    id: &'a str,
}

impl Seen<'_> {
    /// The document as a value.
    ///
    /// # Errors
    /// 400 if it is nested too deeply.
    pub fn value(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(self.text).map_err(|_| {
            ApiError::bad_request(format!("item {} is too deeply nested for a query", self.id))
        })
    }
}

/// Visits the documents of some pieces in order, from `from` on if that is given, and books the cost where they are.
///
/// # Errors
/// The visitor's.
pub fn each(
    container: &Container,
    call: &Call<'_>,
    pieces: &[Piece<'_>],
    from: Option<Place>,
    mut visit: impl FnMut(&Seen<'_>) -> Result<ControlFlow<()>, ApiError>,
) -> Result<(), ApiError> {
    // A scan begins behind a place.
    let after = from.map(|place| (place.head, place.rid.saturating_sub(1)));
    let mut text = Vec::new();
    for piece in pieces {
        let shard = container.reader(piece.partition)?;
        session::check(call, piece.partition, shard.lsn())?;
        let mut charge = Charge::default();
        let mut outcome = ControlFlow::Continue(());
        for document in shard.scan(&piece.range, after) {
            text.clear();
            document
                .version
                .render(&container.rendering, false, &mut text);
            let seen = Seen {
                place: Place::of(document),
                text: &text,
                size: document.version.size(),
                id: &document.id,
            };
            charge += Charge::scan(seen.size);
            outcome = visit(&seen)?;
            if outcome.is_break() {
                break;
            }
        }
        piece.partition.consume(charge);
        if outcome.is_break() {
            return Ok(());
        }
    }
    Ok(())
}
