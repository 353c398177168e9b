//! From a client's document to a draft: its id, its place, and what the container demands of it.

use std::borrow::Cow;

use crate::epk::Epk;
use crate::http::{ApiError, Call, headers};
use crate::json::Members;
use crate::partition_key::{Component, parse_components};
use crate::store::{Container, Draft};

/// Longest id of an item.
const MAX_ID_BYTES: usize = 1023;

/// Largest document, as JSON text.
pub const MAX_ITEM_BYTES: usize = 2 * 1024 * 1024;

/// The key that a call named beside the document.
pub enum Addressed<'a> {
    /// As the header has it; none if there is no header.
    Header(Option<Vec<Component>>),
    /// Worked out before.
    Key(&'a Epk),
}

/// Checks a document and turns it into a draft. `addressed` is the key that the call named, if it did. The caller holds
/// the container's map until the draft is written: it depends on the container's time to live.
///
/// # Errors
/// 400, with sub-status 1001 if document and call disagree about the partition key; 413 if it is too large.
pub fn draft(
    container: &Container,
    text: &[u8],
    addressed: &Addressed<'_>,
) -> Result<Draft, ApiError> {
    if text.len() > MAX_ITEM_BYTES {
        return Err(ApiError::too_large(
            "the item is larger than 2 MB: store less in it",
        ));
    }
    let members = Members::parse(text).map_err(ApiError::bad_request)?;
    let id = checked_id(members.find_text("id"))?;
    let components = container
        .key
        .extract(&members)
        .map_err(ApiError::bad_request)?;
    let epk = container.key.epk(&components);
    // Values are compared where there are values: hashing is what costs.
    let fits = match addressed {
        Addressed::Header(None) => true,
        Addressed::Header(Some(named)) => *named == components,
        Addressed::Key(key) => **key == epk,
    };
    if !fits {
        return Err(ApiError::key_mismatch(
            "the partition key in the item is not the one in the x-ms-documentdb-partitionkey header",
        ));
    }
    let unique = if container.unique.is_empty() {
        Box::default()
    } else {
        let value = serde_json::from_slice(text)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?;
        container.unique.hashes(&epk, &value)
    };
    Ok(Draft {
        id: id.into(),
        epk,
        text: members.to_stored(),
        ttl: container.ttl_of(&members).map_err(ApiError::bad_request)?,
        unique,
    })
}

fn checked_id(id: Option<Cow<'_, str>>) -> Result<Cow<'_, str>, ApiError> {
    let id =
        id.ok_or_else(|| ApiError::bad_request("an item needs an id property that is a string"))?;
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains(['/', '\\', '?', '#']) {
        return Err(ApiError::bad_request(format!(
            "an id must be 1 to {MAX_ID_BYTES} bytes without / \\ ? #"
        )));
    }
    Ok(id)
}

/// The partition key header, if there is one.
///
/// # Errors
/// 400 if it is malformed or a prefix.
pub fn addressed(container: &Container, call: &Call<'_>) -> Result<Addressed<'static>, ApiError> {
    call.header(&headers::PARTITION_KEY)
        .map(|text| full_components(container, text))
        .transpose()
        .map(Addressed::Header)
}

/// The key in the partition key header, for calls that cannot do without.
///
/// # Errors
/// As above, and 400 if the header is missing.
pub fn required_key(container: &Container, call: &Call<'_>) -> Result<Epk, ApiError> {
    let text = call.header(&headers::PARTITION_KEY).ok_or_else(|| {
        ApiError::bad_request("the x-ms-documentdb-partitionkey header is missing")
    })?;
    full_key(container, text)
}

/// The key that a JSON array of components stands for.
///
/// # Errors
/// 400 if it is malformed or a prefix.
pub fn full_key(container: &Container, text: &str) -> Result<Epk, ApiError> {
    Ok(container.key.epk(&full_components(container, text)?))
}

fn full_components(container: &Container, text: &str) -> Result<Vec<Component>, ApiError> {
    let components = parse_components(text).map_err(ApiError::bad_request)?;
    if components.len() == container.key.len() {
        return Ok(components);
    }
    Err(ApiError::key_mismatch(
        container.key.arity_error(components.len()),
    ))
}
