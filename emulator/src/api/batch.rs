//! Transactional batches: up to 100 operations on one logical partition, all or nothing, under one LSN.
//!
//! The batch is judged first, without touching anything: an overlay knows which ids earlier operations of the batch
//! would have written or deleted. Only if every operation would succeed are they carried out, in order, so that a read
//! sees the writes before it. Otherwise the first failure keeps its status and all others get 424.

use std::collections::HashMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::items::{draft, located, required_key};
use crate::epk::Epk;
use crate::http::call::Conditions;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::ids::now_seconds;
use crate::json::{Members, write_number};
use crate::ru::Charge;
use crate::store::{Container, Draft, Shard, Stamp};

/// Most operations in a batch (service limit).
const MAX_OPERATIONS: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation<'a> {
    operation_type: &'a str,
    #[serde(default)]
    id: Option<String>,
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
}

enum Step {
    Create(Draft),
    Upsert(Draft),
    Replace(Draft),
    Read(String),
    Delete(String),
}

impl Step {
    fn id(&self) -> &str {
        match self {
            Self::Create(draft) | Self::Upsert(draft) | Self::Replace(draft) => &draft.id,
            Self::Read(id) | Self::Delete(id) => id,
        }
    }
}

/// `POST docs` with the batch header.
pub fn execute(container: &Container, call: &Call<'_>) -> ApiResult {
    let atomic = call
        .header(&headers::BATCH_ATOMIC)
        .is_none_or(|value| value.eq_ignore_ascii_case("true"));
    if !atomic || call.header(&headers::PARTITION_KEY).is_none() {
        return Err(ApiError::unsupported(
            "a batch that is not atomic or has no partition key (bulk)",
        ));
    }
    let text = call.json_text()?;
    let operations: Vec<Operation<'_>> = serde_json::from_slice(&text).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is not an array of batch operations: {error}"
        ))
    })?;
    if operations.is_empty() || operations.len() > MAX_OPERATIONS {
        return Err(ApiError::bad_request(format!(
            "a batch must have 1 to {MAX_OPERATIONS} operations"
        )));
    }
    let epk = required_key(container, call)?;
    let steps = operations
        .iter()
        .map(|operation| step(container, &epk, operation))
        .collect::<Result<Vec<_>, _>>()?;
    let writes = steps.iter().any(|step| !matches!(step, Step::Read(_)));

    let partition = container.partition_of(&epk);
    let mut shard = partition.write();
    let mut outcome = Outcome {
        container,
        content: call.wants_content(),
        charge: Charge::default(),
        body: vec![b'['],
    };
    if let Some((failed, status)) = first_failure(container, &shard, &epk, &steps, &operations) {
        for index in 0..steps.len() {
            outcome.push(
                if index == failed { status } else { 424 },
                Charge::default(),
                None,
                false,
            );
        }
        let lsn = shard.lsn();
        let reply = Reply::text(StatusCode::MULTI_STATUS, outcome.close());
        return Ok(located(reply, container, partition, lsn).charge(Charge::METADATA));
    }
    let stamp = if writes {
        shard.advance(now_seconds())
    } else {
        Stamp {
            lsn: shard.lsn(),
            ts: 0,
        }
    };
    for (step, operation) in steps.into_iter().zip(&operations) {
        outcome.carry_out(&mut shard, &epk, step, operation.conditions(), stamp);
    }
    drop(shard);
    let charge = outcome.charge;
    Ok(located(
        Reply::text(StatusCode::OK, outcome.close()),
        container,
        partition,
        stamp.lsn,
    )
    .charge(charge))
}

fn step(container: &Container, epk: &Epk, operation: &Operation<'_>) -> Result<Step, ApiError> {
    let id = || {
        operation.id.clone().ok_or_else(|| {
            ApiError::bad_request(format!("a batch {} needs an id", operation.operation_type))
        })
    };
    let body = || {
        let raw = operation.resource_body.ok_or_else(|| {
            ApiError::bad_request(format!(
                "a batch {} needs a resourceBody",
                operation.operation_type
            ))
        })?;
        let members = Members::parse(raw.get().as_bytes()).map_err(ApiError::bad_request)?;
        let draft = draft(container, &members, Some(epk))?;
        match &operation.id {
            Some(id) if **id != *draft.id => Err(ApiError::bad_request(
                "a batch operation's id is not the id in its item",
            )),
            _ => Ok(draft),
        }
    };
    match operation.operation_type {
        "Create" => Ok(Step::Create(body()?)),
        "Upsert" => Ok(Step::Upsert(body()?)),
        "Replace" => {
            id()?;
            Ok(Step::Replace(body()?))
        }
        "Read" => Ok(Step::Read(id()?)),
        "Delete" => Ok(Step::Delete(id()?)),
        "Patch" => Err(ApiError::unsupported("a Patch in a batch")),
        other => Err(ApiError::bad_request(format!(
            "the batch operation {other} is unknown"
        ))),
    }
}

/// The first operation that would fail, with its status.
fn first_failure(
    container: &Container,
    shard: &Shard,
    epk: &Epk,
    steps: &[Step],
    operations: &[Operation<'_>],
) -> Option<(usize, u16)> {
    // What the operations so far would leave of an id: whether it exists. Its new tag is not known to the client.
    let mut overlay: HashMap<&str, bool> = HashMap::with_capacity(steps.len());
    for (index, (step, operation)) in steps.iter().zip(operations).enumerate() {
        let id = step.id();
        let tag = match overlay.get(id) {
            Some(true) => Some(None),
            Some(false) => None,
            None => shard
                .find(epk, id)
                .map(|slot| Some(shard.document(slot).etag(&container.rendering))),
        };
        let conditions = operation.conditions();
        let tag_bytes = tag
            .as_ref()
            .map(|known| known.as_ref().map_or(&[][..], |tag| &tag[..]));
        let status = match (step, tag_bytes) {
            (Step::Create(_), Some(_)) => Some(409),
            (Step::Replace(_) | Step::Read(_) | Step::Delete(_), None) => Some(404),
            (Step::Read(_), Some(tag)) => {
                let unmet = Conditions {
                    if_none_match: None,
                    ..conditions
                };
                (!unmet.allow_write(tag)).then_some(412)
            }
            (_, Some(tag)) => (!conditions.allow_write(tag)).then_some(412),
            (_, None) => None,
        };
        if let Some(status) = status {
            return Some((index, status));
        }
        if !matches!(step, Step::Read(_)) {
            overlay.insert(id, !matches!(step, Step::Delete(_)));
        }
    }
    None
}

struct Outcome<'a> {
    container: &'a Container,
    content: bool,
    charge: Charge,
    body: Vec<u8>,
}

impl Outcome<'_> {
    fn carry_out(
        &mut self,
        shard: &mut Shard,
        epk: &Epk,
        step: Step,
        conditions: Conditions<'_>,
        stamp: Stamp,
    ) {
        let existing = shard.find(epk, step.id());
        match (step, existing) {
            (Step::Create(draft) | Step::Upsert(draft) | Step::Replace(draft), Some(slot)) => {
                let charge = Charge::replace(draft.text.len());
                shard.replace(slot, draft.text, self.container.etags.next(), stamp);
                self.push(200, charge, Some(shard.document(slot)), self.content);
            }
            (Step::Create(draft) | Step::Upsert(draft) | Step::Replace(draft), None) => {
                let charge = Charge::write(draft.text.len());
                let slot = shard.insert(
                    draft,
                    self.container.rids.next(),
                    self.container.etags.next(),
                    stamp,
                );
                self.push(201, charge, Some(shard.document(slot)), self.content);
            }
            (Step::Read(_), Some(slot)) => {
                let document = shard.document(slot);
                let known = conditions.not_modified(&document.etag(&self.container.rendering));
                self.push(
                    if known { 304 } else { 200 },
                    Charge::read(document.size()),
                    Some(document),
                    !known,
                );
            }
            (Step::Delete(_), Some(slot)) => {
                let document = shard.remove(slot);
                self.push(204, Charge::write(document.size()), None, false);
            }
            // Judged impossible before; answered all the same rather than trusted.
            (Step::Read(_) | Step::Delete(_), None) => {
                self.push(404, Charge::default(), None, false)
            }
        }
    }

    fn push(
        &mut self,
        status: u16,
        charge: Charge,
        document: Option<&crate::store::Document>,
        content: bool,
    ) {
        let rendering = &self.container.rendering;
        if self.body.len() > 1 {
            self.body.push(b',');
        }
        self.body.extend_from_slice(b"{\"statusCode\":");
        write_number(&mut self.body, status);
        self.body.extend_from_slice(b",\"requestCharge\":");
        self.body.extend_from_slice(charge.to_text().as_bytes());
        if let Some(document) = document {
            self.body.extend_from_slice(b",\"eTag\":\"\\\"");
            self.body.extend_from_slice(&document.etag(rendering));
            self.body.extend_from_slice(b"\\\"\"");
            if content {
                self.body.extend_from_slice(b",\"resourceBody\":");
                document.render(rendering, false, &mut self.body);
            }
        }
        self.body.push(b'}');
        self.charge += charge;
    }

    fn close(mut self) -> Vec<u8> {
        self.body.push(b']');
        self.body
    }
}
