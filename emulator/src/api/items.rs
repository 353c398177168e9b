//! Point operations on items.

use hyper::StatusCode;

use super::draft::{addressed, draft, required_key};
use super::patch::Patch;
use super::session;
use super::write::{Done, Intent, missing, perform, read as judge_read};
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::store::{Container, Partition, PartitionMap};

/// `POST docs`: create, or upsert.
pub fn create(container: &Container, call: &Call<'_>, upsert: bool) -> ApiResult {
    let addressed = addressed(container, call)?;
    let map = container.map();
    let draft = draft(container, &call.json_text()?, &addressed)?;
    let intent = if upsert {
        Intent::Upsert(draft)
    } else {
        Intent::Create(draft)
    };
    write(container, &map, intent, call)
}

/// `PUT docs/{id}`.
pub fn replace(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let addressed = addressed(container, call)?;
    let map = container.map();
    let draft = draft(container, &call.json_text()?, &addressed)?;
    if *draft.id != *id {
        return Err(ApiError::bad_request(
            "the id in the item is not the id in the path, and ids cannot be changed",
        ));
    }
    write(container, &map, Intent::Replace(draft), call)
}

/// `PATCH docs/{id}`.
pub fn patch(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let epk = required_key(container, call)?;
    let patch = Patch::parse(&call.json_value()?)?;
    let intent = Intent::Patch(epk, id.into(), patch.into());
    write(container, &container.map(), intent, call)
}

/// `DELETE docs/{id}`.
pub fn delete(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let epk = required_key(container, call)?;
    let intent = Intent::Delete(epk, id.into());
    write(container, &container.map(), intent, call)
}

/// `GET docs/{id}`.
pub fn read(container: &Container, id: &str, call: &Call<'_>) -> ApiResult {
    let epk = required_key(container, call)?;
    let map = container.map();
    let partition = map.of(&epk);
    let shard = container.reader(partition)?;
    session::check(call, partition, shard.lsn())?;
    let current = shard.get(&epk, id).map(|document| document.version.clone());
    let lsn = shard.lsn();
    drop(shard);
    let done = current.ok_or_else(|| missing(id)).and_then(|current| {
        let etag = current.etag(&container.rendering);
        judge_read(current, &etag, call.conditions())
    });
    let done = done.inspect_err(|error| partition.consume(error.charge()))?;
    let content = done.status == StatusCode::OK;
    Ok(item_reply(container, partition, done, content, lsn))
}

fn write(container: &Container, map: &PartitionMap, intent: Intent, call: &Call<'_>) -> ApiResult {
    let partition = map.of(intent.key().0);
    let mut transaction = container.begin(partition)?;
    let done = perform(container, &mut transaction, intent, call.conditions())
        .inspect_err(|error| partition.consume(error.charge()))?;
    let lsn = transaction.commit()?;
    Ok(item_reply(
        container,
        partition,
        done,
        call.wants_content(),
        lsn,
    ))
}

fn item_reply(
    container: &Container,
    partition: &Partition,
    done: Done,
    content: bool,
    lsn: u64,
) -> Reply {
    partition.consume(done.charge);
    let reply = match &done.version {
        Some(version) if content => {
            let mut body = Vec::with_capacity(version.text.len() + 256);
            version.render(&container.rendering, false, &mut body);
            Reply::text(done.status, body)
        }
        _ => Reply::empty(done.status),
    };
    let reply = located(reply, container, partition, lsn).charge(done.charge);
    let Some(version) = done.version else {
        return reply;
    };
    let mut etag = String::with_capacity(38);
    etag.push('"');
    etag.extend(version.etag(&container.rendering).map(char::from));
    etag.push('"');
    reply.etag(etag).put_number(&headers::ITEM_LSN, version.lsn)
}

/// Adds what every reply from one partition carries.
pub fn located(reply: Reply, container: &Container, partition: &Partition, lsn: u64) -> Reply {
    let [name, rid] = &container.owner;
    reply
        .put(&headers::SESSION_TOKEN, partition.session_token(lsn))
        .put_number(&headers::LSN, lsn)
        .put_number(&headers::PARTITION_KEY_RANGE_ID, u64::from(partition.id))
        .put_value(&headers::OWNER_NAME, name.clone())
        .put_value(&headers::OWNER_RID, rid.clone())
}
