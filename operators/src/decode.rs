//! Documents into values, and what becomes of those that do not decode.
//!
//! A document that does not decode either ends the run, while nothing of its epoch is durable, or is as if it were not there: its
//! key has no value until a version comes that decodes. That depends on the newest version alone, so a run that rebuilds the
//! collection from its checkpoint comes to the same, whatever versions it has not seen.

use serde::Deserialize;
use tidefeed_runtime::{Error, RecordRef, Result};

use crate::document::ViewDocument;
use crate::letters::Undelivered;
use crate::reconcile::split_key;

/// What becomes of a document that does not decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeErrors {
    /// It ends the run.
    #[default]
    Fail,
    /// It is counted.
    Skip,
    /// It is counted, and a dead letter.
    DeadLetters,
}

/// A record, decoded.
pub(crate) enum Decoded<V> {
    /// A value, or a removal.
    Value(Option<V>),
    /// As if it were not there, because of this error.
    Undecodable(Error),
}

impl DecodeErrors {
    /// Decodes a record.
    ///
    /// # Errors
    /// When it does not decode and that ends the run.
    pub(crate) fn decode<V>(
        self,
        record: RecordRef<'_>,
        decode: impl Fn(&[u8]) -> Result<V>,
    ) -> Result<Decoded<V>> {
        let error = match record.body.map(decode).transpose() {
            Ok(value) => return Ok(Decoded::Value(value)),
            Err(error) => error,
        };
        if self != DecodeErrors::Fail {
            return Ok(Decoded::Undecodable(error));
        }
        let key = String::from_utf8_lossy(record.key);
        Err(error.wrap(format!(
            "document {key} does not decode: correct it in its container, or set on_decode_error of its source"
        )))
    }
}

/// The record as a letter says it.
pub(crate) fn undelivered(record: RecordRef<'_>, error: &Error) -> Undelivered {
    // A key of another form is worth showing all the same.
    let (partition_key, id) = split_key(record.key).unwrap_or_else(|_| {
        (
            String::new(),
            String::from_utf8_lossy(record.key).into_owned(),
        )
    });
    Undelivered {
        document: ViewDocument {
            partition_key: partition_key.into(),
            id: id.into(),
            body: record.body.unwrap_or_default().into(),
            position: 0,
        },
        why: format!("it does not decode: {}", error.report()).into(),
    }
}
