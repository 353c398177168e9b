//! Point operations on items.

use std::borrow::Cow;

use hyper::StatusCode;

use crate::epk::Epk;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::ids::now_seconds;
use crate::json::Members;
use crate::partition_key::parse_components;
use crate::ru::Charge;
use crate::store::{Container, Document, Draft, Partition};

/// Longest id of an item.
const MAX_ID_BYTES: usize = 1023;

/// `POST docs`: create, or upsert.
pub fn create(container: &Container, call: &Call<'_>, upsert: bool) -> ApiResult {
    let text = call.json_text()?;
    let members = Members::parse(&text).map_err(ApiError::bad_request)?;
    let draft = draft(
        container,
        &members,
        addressed_key(container, call)?.as_ref(),
    )?;
    let partition = container.partition_of(&draft.epk);
    let (bytes, now) = (draft.text.len(), now_seconds());

    let mut shard = partition.write();
    let (status, slot, charge) = match shard.find(&draft.epk, &draft.id) {
        Some(_) if !upsert => {
            return Err(ApiError::conflict(format!("an item with id {}", draft.id)));
        }
        Some(slot) => {
            if !call
                .conditions()
                .allow_write(&shard.document(slot).etag(&container.rendering))
            {
                return Err(ApiError::precondition_failed());
            }
            let stamp = shard.advance(now);
            shard.replace(slot, draft.text, container.etags.next(), stamp);
            (StatusCode::OK, slot, Charge::replace(bytes))
        }
        None => {
            let stamp = shard.advance(now);
            let slot = shard.insert(draft, container.rids.next(), container.etags.next(), stamp);
            (StatusCode::CREATED, slot, Charge::write(bytes))
        }
    };
    let document = shard.document(slot);
    Ok(item_reply(
        status,
        container,
        partition,
        document,
        call.wants_content(),
        document.lsn,
    )
    .charge(charge))
}

/// `PUT docs/{id}`.
pub fn replace(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let text = call.json_text()?;
    let members = Members::parse(&text).map_err(ApiError::bad_request)?;
    let draft = draft(
        container,
        &members,
        addressed_key(container, call)?.as_ref(),
    )?;
    if *draft.id != *id {
        return Err(ApiError::bad_request(
            "the id in the item is not the id in the path, and ids cannot be changed",
        ));
    }
    let partition = container.partition_of(&draft.epk);
    let bytes = draft.text.len();

    let mut shard = partition.write();
    let slot = shard.find(&draft.epk, id).ok_or_else(|| missing(id))?;
    if !call
        .conditions()
        .allow_write(&shard.document(slot).etag(&container.rendering))
    {
        return Err(ApiError::precondition_failed());
    }
    let stamp = shard.advance(now_seconds());
    shard.replace(slot, draft.text, container.etags.next(), stamp);
    let document = shard.document(slot);
    let reply = item_reply(
        StatusCode::OK,
        container,
        partition,
        document,
        call.wants_content(),
        document.lsn,
    );
    Ok(reply.charge(Charge::replace(bytes)))
}

/// `GET docs/{id}`.
pub fn read(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let epk = required_key(container, call)?;
    let partition = container.partition_of(&epk);
    let shard = partition.read();
    let document = shard
        .find(&epk, id)
        .map(|slot| shard.document(slot))
        .ok_or_else(|| missing(id))?;
    let etag = document.etag(&container.rendering);
    let conditions = call.conditions();
    if conditions.not_modified(&etag) {
        let reply = item_reply(
            StatusCode::NOT_MODIFIED,
            container,
            partition,
            document,
            false,
            shard.lsn(),
        );
        return Ok(reply.charge(Charge::METADATA));
    }
    if !conditions.allow_write(&etag) {
        return Err(ApiError::precondition_failed());
    }
    let reply = item_reply(
        StatusCode::OK,
        container,
        partition,
        document,
        true,
        shard.lsn(),
    );
    Ok(reply.charge(Charge::read(document.size())))
}

/// `DELETE docs/{id}`.
pub fn delete(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let epk = required_key(container, call)?;
    let partition = container.partition_of(&epk);
    let mut shard = partition.write();
    let slot = shard.find(&epk, id).ok_or_else(|| missing(id))?;
    if !call
        .conditions()
        .allow_write(&shard.document(slot).etag(&container.rendering))
    {
        return Err(ApiError::precondition_failed());
    }
    let stamp = shard.advance(now_seconds());
    let document = shard.remove(slot);
    drop(shard);
    Ok(located(
        Reply::empty(StatusCode::NO_CONTENT),
        container,
        partition,
        stamp.lsn,
    )
    .charge(Charge::write(document.size())))
}

/// Checks a document's id and key and turns it into a draft. `addressed` is the key that the call named, if it did.
///
/// # Errors
/// 400, with sub-status 1001 if document and call disagree about the partition key.
pub fn draft(
    container: &Container,
    members: &Members<'_>,
    addressed: Option<&Epk>,
) -> Result<Draft, ApiError> {
    let id = checked_id(members.find_text("id"))?;
    let components = container
        .key
        .extract(members)
        .map_err(ApiError::bad_request)?;
    let epk = container.key.epk(&components);
    if addressed.is_some_and(|addressed| *addressed != epk) {
        return Err(ApiError::key_mismatch(
            "the partition key in the item is not the one in the x-ms-documentdb-partitionkey header",
        ));
    }
    Ok(Draft {
        id: id.into(),
        epk,
        text: members.to_stored(),
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

/// The full key in the partition key header, if there is one.
///
/// # Errors
/// 400 if it is malformed or a prefix.
pub fn addressed_key(container: &Container, call: &Call<'_>) -> Result<Option<Epk>, ApiError> {
    let Some(text) = call.header(&headers::PARTITION_KEY) else {
        return Ok(None);
    };
    let components = parse_components(text).map_err(ApiError::bad_request)?;
    if components.len() != container.key.len() {
        return Err(ApiError::key_mismatch(
            container.key.arity_error(components.len()),
        ));
    }
    Ok(Some(container.key.epk(&components)))
}

/// Like [`addressed_key`], for calls that cannot do without.
///
/// # Errors
/// As above, and 400 if the header is missing.
pub fn required_key(container: &Container, call: &Call<'_>) -> Result<Epk, ApiError> {
    addressed_key(container, call)?
        .ok_or_else(|| ApiError::bad_request("the x-ms-documentdb-partitionkey header is missing"))
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("an item with id {id} and this partition key"))
}

fn item_reply(
    status: StatusCode,
    container: &Container,
    partition: &Partition,
    document: &Document,
    content: bool,
    lsn: u64,
) -> Reply {
    let reply = if content {
        let mut body = Vec::with_capacity(document.text.len() + 256);
        document.render(&container.rendering, false, &mut body);
        Reply::text(status, body)
    } else {
        Reply::empty(status)
    };
    let mut etag = String::with_capacity(38);
    etag.push('"');
    etag.extend(document.etag(&container.rendering).map(char::from));
    etag.push('"');
    located(reply, container, partition, lsn)
        .etag(etag)
        .put_number(&headers::ITEM_LSN, document.lsn)
}

/// Adds what every reply from one partition carries.
pub fn located(reply: Reply, container: &Container, partition: &Partition, lsn: u64) -> Reply {
    reply
        .put(&headers::SESSION_TOKEN, partition.session_token(lsn))
        .put_number(&headers::LSN, lsn)
        .put_number(&headers::PARTITION_KEY_RANGE_ID, u64::from(partition.id))
        .put(&headers::OWNER_NAME, container.name_link.as_str())
        .put(&headers::OWNER_RID, container.rid.as_str())
}
