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

impl DecodeErrors {
    /// What a record that does not decode is told as, if the run goes on without it.
    ///
    /// # Errors
    /// When that ends the run.
    pub(crate) fn tell(self, record: RecordRef<'_>, error: Error) -> Result<Undelivered> {
        if self != DecodeErrors::Fail {
            return Ok(undelivered(record, &error));
        }
        let key = String::from_utf8_lossy(record.key);
        Err(error.wrap(format!(
            "document {key} does not decode: correct it in its container, or set on_decode_error of its source"
        )))
    }
}

/// The record as a letter says it.
fn undelivered(record: RecordRef<'_>, error: &Error) -> Undelivered {
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
