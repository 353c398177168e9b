//! The documents of a query, one by one: the only place where queries touch the store.

use std::ops::ControlFlow;

use serde_json::Value;

use super::super::read_feed::Place;
use super::super::scope::Piece;
use crate::http::ApiError;
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

/// Visits the documents of some pieces in order, from `from` on if that is given.
///
/// # Errors
/// The visitor's.
pub fn each(
    container: &Container,
    pieces: &[Piece<'_>],
    from: Option<Place>,
    mut visit: impl FnMut(&Seen<'_>) -> Result<ControlFlow<()>, ApiError>,
) -> Result<(), ApiError> {
    // A scan begins behind a place.
    let after = from.map(|place| (place.head, place.rid.saturating_sub(1)));
    let mut text = Vec::new();
    for piece in pieces {
        let shard = piece.partition.read();
        for document in shard.scan(&piece.range, after) {
            text.clear();
            document.render(&container.rendering, false, &mut text);
            let seen = Seen {
                place: Place::of(document),
                text: &text,
                size: document.size(),
                id: &document.id,
            };
            if visit(&seen)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
