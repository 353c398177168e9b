//! What a write does to a document, as a service does it.

use bytes::Bytes;
use serde_json::Value;
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use crate::strategy::PatchWrite;
use crate::target::{DocumentAction, EPOCH_PROPERTY};

/// What a write does to a document.
pub(super) enum Outcome {
    /// The document is this from now on; `None` if it is gone.
    Body(Option<Bytes>),
    /// Nothing.
    Ignored,
}

/// What `action` does to a document, given with its etag.
pub(super) fn outcome(action: DocumentAction, before: Option<(&Bytes, String)>) -> Result<Outcome> {
    let (body, etag) = before.unzip();
    let has = |if_match: Option<Box<str>>| {
        if_match.is_none_or(|wanted| etag.as_deref() == Some(&*wanted))
    };
    Ok(match action {
        DocumentAction::Upsert(new) => Outcome::Body(Some(new)),
        DocumentAction::Create(new) if body.is_none() => Outcome::Body(Some(new)),
        DocumentAction::Replace {
            body: new,
            if_match,
        } if body.is_some() && has(if_match.clone()) => Outcome::Body(Some(new)),
        DocumentAction::Delete { if_match } if has(if_match.clone()) => Outcome::Body(None),
        DocumentAction::Patch(patch) => match body {
            Some(body) => patched(&patch, body)?,
            None => match patch.create {
                Some(new) => Outcome::Body(Some(new)),
                None => Outcome::Ignored,
            },
        },
        DocumentAction::Create(_)
        | DocumentAction::Replace { .. }
        | DocumentAction::Delete { .. } => Outcome::Ignored,
    })
}

fn patched(patch: &PatchWrite, body: &[u8]) -> Result<Outcome> {
    if patch.condition.is_some() {
        return Err(Error::new(
            ErrorKind::Config,
            "a container in memory knows no query language: leave out the condition of the patch",
        ));
    }
    let mut document: Value =
        serde_json::from_slice(body).context(ErrorKind::Data, || "the document is no JSON")?;
    if let Some(epoch) = patch.epoch {
        let smaller = |known: &Value| known.as_f64().is_some_and(|known| known < epoch as f64);
        if !document.get(EPOCH_PROPERTY).is_none_or(smaller) {
            return Ok(Outcome::Ignored);
        }
        document[EPOCH_PROPERTY] = Value::from(epoch);
    }
    for operation in &patch.operations {
        let applied = operation.apply(&mut document);
        applied.map_err(|what| Error::new(ErrorKind::Data, format!("a patch: {what}")))?;
    }
    Ok(Outcome::Body(Some(document.to_string().into())))
}
