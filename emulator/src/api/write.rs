//! What one operation on one item does: the rules that point calls, transactional batches and bulk share.

use hyper::StatusCode;

use super::draft::{Addressed, draft};
use super::patch::Patch;
use crate::epk::Epk;
use crate::http::ApiError;
use crate::http::call::Conditions;
use crate::ru::Charge;
use crate::store::{Container, Draft, Transaction, Version};

/// An operation on one item.
pub enum Intent {
    /// Create; 409 if it exists.
    Create(Draft),
    /// Create or replace.
    Upsert(Draft),
    /// Replace; 404 if it does not exist.
    Replace(Draft),
    /// Change parts of it; 404 if it does not exist.
    Patch(Epk, Box<str>, Box<Patch>),
    /// Delete; 404 if it does not exist.
    Delete(Epk, Box<str>),
    /// Read; 404 if it does not exist.
    Read(Epk, Box<str>),
}

impl Intent {
    /// Key of the item.
    pub fn key(&self) -> (&Epk, &str) {
        match self {
            Self::Create(draft) | Self::Upsert(draft) | Self::Replace(draft) => {
                (&draft.epk, &draft.id)
            }
            Self::Patch(epk, id, _) | Self::Delete(epk, id) | Self::Read(epk, id) => (epk, id),
        }
    }
}

/// What an operation did.
pub struct Done {
    /// 200, 201, 204 or 304.
    pub status: StatusCode,
    /// What it cost.
    pub charge: Charge,
    /// The item afterwards; none after a delete.
    pub version: Option<Version>,
    /// Nothing was written.
    pub is_read: bool,
}

/// Judges an operation and adds its writes to the transaction.
///
/// # Errors
/// 400, 404, 409, 412 or 413; the transaction is as before then.
pub fn perform(
    container: &Container,
    transaction: &mut Transaction<'_>,
    intent: Intent,
    conditions: Conditions<'_>,
) -> Result<Done, ApiError> {
    let (epk, id) = intent.key();
    let Some(current) = transaction.find(epk, id) else {
        return match intent {
            Intent::Create(draft) | Intent::Upsert(draft) => put(transaction, draft, None),
            _ => Err(missing(id)),
        };
    };
    let etag = current.etag(&container.rendering);
    let rid = Some(current.rid);
    match intent {
        Intent::Create(draft) => Err(ApiError::conflict(format!("an item with id {}", draft.id))),
        Intent::Read(..) => Ok(read(current.clone(), &etag, conditions)?),
        _ if !conditions.allow_write(&etag) => Err(ApiError::precondition_failed()),
        Intent::Upsert(draft) | Intent::Replace(draft) => put(transaction, draft, rid),
        Intent::Patch(epk, _, patch) => {
            let text = patch.apply(container, current)?;
            let draft = draft(container, &text, &Addressed::Key(&epk))?;
            put(transaction, draft, rid)
        }
        Intent::Delete(epk, id) => {
            let charge = Charge::write(current.size());
            transaction.remove(epk, id);
            Ok(Done {
                status: StatusCode::NO_CONTENT,
                charge,
                version: None,
                is_read: false,
            })
        }
    }
}

/// A read of `current`.
///
/// # Errors
/// 412.
pub fn read(current: Version, etag: &[u8], conditions: Conditions<'_>) -> Result<Done, ApiError> {
    if conditions.not_modified(etag) {
        return Ok(Done {
            status: StatusCode::NOT_MODIFIED,
            charge: Charge::METADATA,
            version: Some(current),
            is_read: true,
        });
    }
    if !conditions.allow_write(etag) {
        return Err(ApiError::precondition_failed());
    }
    Ok(Done {
        status: StatusCode::OK,
        charge: Charge::read(current.size()),
        version: Some(current),
        is_read: true,
    })
}

/// Writes a document that exists under the number `rid`, or does not exist yet.
fn put(
    transaction: &mut Transaction<'_>,
    draft: Draft,
    rid: Option<u64>,
) -> Result<Done, ApiError> {
    if transaction.violates_unique_key(&draft) {
        return Err(ApiError::unique_key_violation());
    }
    let bytes = draft.text.len();
    let (status, charge) = match rid {
        None => (StatusCode::CREATED, Charge::write(bytes)),
        Some(_) => (StatusCode::OK, Charge::replace(bytes)),
    };
    let version = transaction.put(draft, rid);
    Ok(Done {
        status,
        charge,
        version: Some(version),
        is_read: false,
    })
}

/// 404 for an item.
pub fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("an item with id {id} and this partition key"))
}
