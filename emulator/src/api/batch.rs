//! Batches: up to 100 operations in one request and under one LSN.
//!
//! | | transactional | bulk |
//! |---|---|---|
//! | addressed by | a partition key | a partition key range id |
//! | operations on | that logical partition | any key of the range, each names its own |
//! | if one fails | nothing happens, the others get 424 | the others happen |
//! | throughput | asked for once | asked for before each operation |
//!
//! Operations are carried out in the order of the request and see the ones before them. A bulk request that says not to
//! continue on errors stops at the first one: the rest get 424.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::draft::{Addressed, draft, full_key, required_key};
use super::items::located;
use super::patch::Patch;
use super::scope;
use super::write::{Done, Intent, perform};
use crate::epk::Epk;
use crate::faults::{End, Faults};
use crate::http::call::Conditions;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::json::{write_number, write_text};
use crate::ru::Charge;
use crate::store::{Container, Partition, Transaction, Version};

/// Most operations in a batch (service limit).
const MAX_OPERATIONS: usize = 100;

/// Largest reply (service limit). An item that was read and does not fit is a 413 of its operation; one that was written
/// is left out.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation<'a> {
    operation_type: &'a str,
    #[serde(default)]
    id: Option<String>,
    /// JSON text of the key's components, in a string.
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(borrow, default)]
    resource_body: Option<&'a RawValue>,
    #[serde(default)]
    if_match: Option<String>,
    #[serde(default)]
    if_none_match: Option<String>,
}

impl Operation<'_> {
    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            if_match: self.if_match.as_deref(),
            if_none_match: self.if_none_match.as_deref(),
        }
    }

    fn id(&self) -> Result<Box<str>, ApiError> {
        self.id.as_deref().map(Box::from).ok_or_else(|| {
            ApiError::bad_request(format!("a batch {} needs an id", self.operation_type))
        })
    }

    fn body(&self) -> Result<&str, ApiError> {
        self.resource_body.map(RawValue::get).ok_or_else(|| {
            ApiError::bad_request(format!(
                "a batch {} needs a resourceBody",
                self.operation_type
            ))
        })
    }

    fn draft(&self, container: &Container, epk: &Epk) -> Result<crate::store::Draft, ApiError> {
        let draft = draft(container, self.body()?.as_bytes(), &Addressed::Key(epk))?;
        match &self.id {
            Some(id) if **id != *draft.id => Err(ApiError::bad_request(
                "a batch operation's id is not the id in its item",
            )),
            _ => Ok(draft),
        }
    }

    fn intent(&self, container: &Container, epk: Epk) -> Result<Intent, ApiError> {
        Ok(match self.operation_type {
            "Create" => Intent::Create(self.draft(container, &epk)?),
            "Upsert" => Intent::Upsert(self.draft(container, &epk)?),
            "Replace" => {
                self.id()?;
                Intent::Replace(self.draft(container, &epk)?)
            }
            "Read" => Intent::Read(epk, self.id()?),
            "Delete" => Intent::Delete(epk, self.id()?),
            "Patch" => {
                let body = serde_json::from_str(self.body()?).map_err(|error| {
                    ApiError::bad_request(format!("the patch is not JSON: {error}"))
                })?;
                Intent::Patch(epk, self.id()?, Patch::parse(&body)?.into())
            }
            other => {
                return Err(ApiError::bad_request(format!(
                    "the batch operation {other} is unknown"
                )));
            }
        })
    }
}

/// `POST docs` with the batch header.
pub fn execute(container: &Container, call: &Call<'_>, faults: &Faults) -> ApiResult {
    let text = call.json_text()?;
    let operations: Vec<Operation<'_>> = serde_json::from_slice(&text).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is not an array of batch operations: {error}"
        ))
    })?;
    if operations.is_empty() || operations.len() > MAX_OPERATIONS {
        return Err(ApiError::bad_request(format!(
            "a batch request has more operations than what is supported, or none: send 1 to {MAX_OPERATIONS}"
        )));
    }
    let atomic = call
        .header(&headers::BATCH_ATOMIC)
        .is_none_or(|value| value.eq_ignore_ascii_case("true"));
    if atomic {
        transactional(container, call, &operations)
    } else {
        bulk(container, call, &operations, faults)
    }
}

fn transactional(
    container: &Container,
    call: &Call<'_>,
    operations: &[Operation<'_>],
) -> ApiResult {
    let epk = required_key(container, call)?;
    let map = container.map();
    let intents = operations
        .iter()
        .map(|operation| operation.intent(container, epk.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let partition = map.of(&epk);
    let mut transaction = container.begin(partition)?;
    let mut results = Results::new(container, call);
    for (index, (intent, operation)) in intents.into_iter().zip(operations).enumerate() {
        match perform(container, &mut transaction, intent, operation.conditions()) {
            Ok(done) => results.push(done),
            Err(error) => {
                let lsn = transaction.lsn();
                drop(transaction);
                return Ok(rolled_back(
                    container,
                    partition,
                    operations.len(),
                    index,
                    &error,
                    lsn,
                ));
            }
        }
    }
    let lsn = transaction.commit()?;
    let (charge, reply) = results.into_reply();
    partition.consume(charge);
    Ok(located(reply, container, partition, lsn).charge(charge))
}

fn rolled_back(
    container: &Container,
    partition: &Partition,
    count: usize,
    failed: usize,
    error: &ApiError,
    lsn: u64,
) -> Reply {
    let dependent = ApiError::failed_dependency();
    let mut body = vec![b'['];
    for index in 0..count {
        let error = if index == failed { error } else { &dependent };
        push_error(&mut body, error, index == failed);
    }
    body.push(b']');
    let reply = Reply::text(StatusCode::MULTI_STATUS, body);
    partition.consume(Charge::METADATA);
    located(reply, container, partition, lsn).charge(Charge::METADATA)
}

fn bulk(
    container: &Container,
    call: &Call<'_>,
    operations: &[Operation<'_>],
    faults: &Faults,
) -> ApiResult {
    let map = container.map();
    let id = call
        .header(&headers::PARTITION_KEY_RANGE_ID)
        .ok_or_else(|| {
            ApiError::bad_request(
                "a batch that is not atomic needs the x-ms-documentdb-partitionkeyrangeid header",
            )
        })?;
    let partition = scope::partition(&map, id)?;
    let go_on = call
        .header(&headers::BATCH_CONTINUE)
        .is_none_or(|value| value.eq_ignore_ascii_case("true"));
    let mut transaction = container.begin(partition)?;
    let mut results = Results::new(container, call);
    let mut stopped = false;
    for operation in operations {
        let outcome = if stopped {
            Err(ApiError::failed_dependency())
        } else {
            faulty(container, partition, faults, || {
                bulk_operation(container, partition, &mut transaction, operation)
            })
        };
        match outcome {
            Ok(done) => {
                // Booked at once, so that the next operation is asked whether there is any left.
                partition.consume(done.charge);
                results.push(done);
            }
            Err(error) => {
                stopped |= !go_on;
                partition.consume(error.charge());
                results.push_error(&error);
            }
        }
    }
    let lsn = transaction.commit()?;
    let (charge, reply) = results.into_reply();
    Ok(located(reply, container, partition, lsn).charge(charge))
}

/// Carries out an operation of a bulk batch, unless a fault rule refuses it, before or after.
fn faulty(
    container: &Container,
    partition: &Partition,
    faults: &Faults,
    operation: impl FnOnce() -> Result<Done, ApiError>,
) -> Result<Done, ApiError> {
    match faults.decide_item(&container.database, &container.id, partition.id) {
        End::Refuse(status) => Err(status.into_error()),
        End::RefuseAfter(status) => {
            if let Ok(done) = operation() {
                partition.consume(done.charge);
            }
            Err(status.into_error())
        }
        // Rules for items are checked to have no other action.
        End::Proceed | End::DropBefore | End::DropAfter | End::Freeze => operation(),
    }
}

fn bulk_operation(
    container: &Container,
    partition: &Partition,
    transaction: &mut Transaction<'_>,
    operation: &Operation<'_>,
) -> Result<Done, ApiError> {
    let key = operation.partition_key.as_deref().ok_or_else(|| {
        ApiError::bad_request("an operation of a batch that is not atomic needs a partitionKey")
    })?;
    let epk = full_key(container, key)?;
    if !partition.range.contains(&epk) {
        return Err(ApiError::partition_gone(format!(
            "the partition key {key} is not in partition key range {}",
            partition.id
        )));
    }
    container.admit(partition)?;
    let intent = operation.intent(container, epk)?;
    perform(container, transaction, intent, operation.conditions())
}

struct Results<'a> {
    container: &'a Container,
    content: bool,
    charge: Charge,
    failed: bool,
    body: Vec<u8>,
}

impl<'a> Results<'a> {
    fn new(container: &'a Container, call: &Call<'_>) -> Self {
        Self {
            container,
            content: call.wants_content(),
            charge: Charge::default(),
            failed: false,
            body: vec![b'['],
        }
    }

    fn push(&mut self, done: Done) {
        let read = done
            .version
            .as_ref()
            .filter(|_| done.status == StatusCode::OK && done.is_read);
        if read.is_some_and(|version| self.body.len() + version.size() > MAX_REPLY_BYTES) {
            self.charge += done.charge;
            return self.push_error(&ApiError::reply_too_large());
        }
        let body = &mut self.body;
        separate(body);
        body.extend_from_slice(b"{\"statusCode\":");
        write_number(body, done.status.as_u16());
        body.extend_from_slice(b",\"requestCharge\":");
        body.extend_from_slice(done.charge.to_text().as_bytes());
        // What was read is always returned, what was written only if the client wants it.
        let content = match done.status {
            StatusCode::NOT_MODIFIED => false,
            _ => done.is_read || self.content,
        };
        if let Some(version) = &done.version {
            push_version(body, version, self.container, content);
        }
        body.push(b'}');
        self.charge += done.charge;
    }

    fn push_error(&mut self, error: &ApiError) {
        self.failed = true;
        self.charge += error.charge();
        push_error(&mut self.body, error, true);
    }

    fn into_reply(mut self) -> (Charge, Reply) {
        self.body.push(b']');
        let status = if self.failed {
            StatusCode::MULTI_STATUS
        } else {
            StatusCode::OK
        };
        (self.charge, Reply::text(status, self.body))
    }
}

fn push_version(body: &mut Vec<u8>, version: &Version, container: &Container, content: bool) {
    let rendering = &container.rendering;
    body.extend_from_slice(b",\"eTag\":\"\\\"");
    body.extend_from_slice(&version.etag(rendering));
    body.extend_from_slice(b"\\\"\"");
    if content && body.len() + version.size() <= MAX_REPLY_BYTES {
        body.extend_from_slice(b",\"resourceBody\":");
        version.render(rendering, false, body);
    }
}

fn push_error(body: &mut Vec<u8>, error: &ApiError, message: bool) {
    separate(body);
    body.extend_from_slice(b"{\"statusCode\":");
    write_number(body, error.status.as_u16());
    if error.substatus != 0 {
        body.extend_from_slice(b",\"subStatusCode\":");
        write_number(body, error.substatus);
    }
    body.extend_from_slice(b",\"requestCharge\":");
    body.extend_from_slice(error.charge().to_text().as_bytes());
    if let Some(wait) = error.retry_after_ms {
        body.extend_from_slice(b",\"retryAfterMilliseconds\":");
        write_number(body, wait);
    }
    if message {
        body.extend_from_slice(b",\"message\":");
        write_text(body, &error.message);
    }
    body.push(b'}');
}

fn separate(body: &mut Vec<u8>) {
    if body.len() > 1 {
        body.push(b',');
    }
}
