//! Writes that go through the SDK: one by one, or in atomic batches of one partition key.
//!
//! The SDK repeats by itself what it takes for passing, all within [`LIMIT`]; what it concludes without the service is no
//! answer here. Everything else comes back as the service said it, for [`classify`](super::classify) to judge. Patches do not
//! go this way: the SDK has none.

use std::time::Duration;

use azure_core::http::Etag;
use azure_data_cosmos::models::ResponseHeaders;
use azure_data_cosmos::options::{
    BatchDeleteOptions, BatchOptions, BatchReplaceOptions, BatchUpsertOptions,
    EndToEndOperationLatencyPolicy, ItemWriteOptions, OperationOptions, OperationOptionsBuilder,
    Precondition,
};
use azure_data_cosmos::{CosmosError, PartitionKey, TransactionalBatch};
use serde_json::value::RawValue;
use tidefeed_runtime::{Error, ErrorKind, Result};

use super::operation::{Action, Answer, Lost, Operation, OperationResult};
use super::wire::NoAnswer;
use crate::cosmos::container::Container;
use crate::cosmos::failure::Failure;

/// The most time for one request with the retries that the SDK makes by itself. 8 s: one attempt may take the SDK's 6 s, and
/// a run that ends waits 10 s ([`REQUEST_DEADLINE`](crate::target::REQUEST_DEADLINE)).
const LIMIT: Duration = Duration::from_secs(8);

/// Sends one operation by itself.
///
/// # Errors
/// When the service has not answered.
pub(super) async fn point(
    container: &Container,
    operation: &Operation,
) -> Result<Answer, NoAnswer> {
    let key = partition_key(container, operation)?;
    let client = container.client();
    let id = &*operation.key.id;
    let options = Some(item_options(operation));
    let sent = match &operation.action {
        Action::Upsert(body) => client.upsert_item(key, id, raw(body)?, options).await,
        Action::Create(body) => client.create_item(key, id, raw(body)?, options).await,
        Action::Replace(body) => client.replace_item(key, id, raw(body)?, options).await,
        Action::Delete => client.delete_item(key, id, options).await,
        Action::Patch { .. } => return Err(no_patches()),
    };
    let result = match sent {
        Ok(response) => OperationResult {
            status: response.status().status_code().into(),
            charge_ru: charge(response.headers()),
            etag: response.headers().etag().map(|etag| etag.as_ref().into()),
            ..OperationResult::default()
        },
        Err(error) => {
            let (failure, sub_status) = refused(&error)?;
            OperationResult {
                status: failure.status,
                sub_status,
                charge_ru: failure.charge_ru,
                retry_after: failure.retry_after,
                etag: None,
                message: Some(failure.message.into()),
            }
        }
    };
    Ok(Answer {
        status: 207,
        charge_ru: result.charge_ru,
        results: vec![result],
        ..Answer::default()
    })
}

/// Sends operations on documents with one partition key: all of them, or none.
///
/// # Errors
/// When the service has not answered.
pub(super) async fn transactional(
    container: &Container,
    operations: &[impl AsRef<Operation>],
) -> Result<Answer, NoAnswer> {
    let first = operations.first().map(AsRef::as_ref);
    let first = first.ok_or_else(|| NoAnswer::unsent(Error::internal("a batch of nothing")))?;
    let mut batch = TransactionalBatch::new(partition_key(container, first)?);
    for operation in operations {
        batch = add(batch, operation.as_ref())?;
    }
    let options = BatchOptions::default().with_operation_options(within_limit());
    let client = container.client();
    let sent = client
        .execute_transactional_batch(batch, Some(options))
        .await;
    let response = match sent {
        Ok(response) => response,
        Err(error) => {
            let (failure, sub_status) = refused(&error)?;
            return Ok(Answer {
                status: failure.status,
                sub_status,
                retry_after: failure.retry_after,
                charge_ru: failure.charge_ru,
                message: failure.message.into(),
                ..Answer::default()
            });
        }
    };
    let charge_ru = charge(response.headers());
    let status = response.status().status_code().into();
    let results = response.into_model().map_err(|error| lost(&error))?;
    let results = results.results().iter().map(|result| OperationResult {
        status: result.status_code(),
        sub_status: result.substatus_code().unwrap_or_default(),
        charge_ru: result.request_charge().unwrap_or_default(),
        retry_after: result.retry_after(),
        etag: result.etag().map(Into::into),
        message: None,
    });
    Ok(Answer {
        status,
        charge_ru,
        results: results.collect(),
        ..Answer::default()
    })
}

fn add(batch: TransactionalBatch, operation: &Operation) -> Result<TransactionalBatch, NoAnswer> {
    let id = operation.key.id.to_string();
    let condition = operation.if_match.as_deref().map(if_match);
    let added = match (&operation.action, condition) {
        (Action::Upsert(body), None) => batch.upsert_item(raw(body)?, None),
        (Action::Upsert(body), Some(condition)) => {
            let options = BatchUpsertOptions::default().with_precondition(condition);
            batch.upsert_item(raw(body)?, Some(options))
        }
        (Action::Create(body), _) => batch.create_item(raw(body)?),
        (Action::Replace(body), None) => batch.replace_item(id, raw(body)?, None),
        (Action::Replace(body), Some(condition)) => {
            let options = BatchReplaceOptions::default().with_precondition(condition);
            batch.replace_item(id, raw(body)?, Some(options))
        }
        (Action::Delete, None) => Ok(batch.delete_item(id, None)),
        (Action::Delete, Some(condition)) => {
            let options = BatchDeleteOptions::default().with_precondition(condition);
            Ok(batch.delete_item(id, Some(options)))
        }
        (Action::Patch { .. }, _) => return Err(no_patches()),
    };
    added.map_err(|error| {
        let failure = Failure::of(&error);
        NoAnswer::unsent(failure.into_error("an operation does not fit into a batch"))
    })
}

fn item_options(operation: &Operation) -> ItemWriteOptions {
    let options = ItemWriteOptions::default().with_operation_options(within_limit());
    match operation.if_match.as_deref() {
        Some(etag) => options.with_precondition(if_match(etag)),
        None => options,
    }
}

fn if_match(etag: &str) -> Precondition {
    Precondition::IfMatch(Etag::from(etag.to_owned()))
}

/// Bounds every retry that the SDK makes by itself.
fn within_limit() -> OperationOptions {
    OperationOptionsBuilder::new()
        .with_end_to_end_latency_policy(EndToEndOperationLatencyPolicy::new(LIMIT))
        .build()
}

fn partition_key(container: &Container, operation: &Operation) -> Result<PartitionKey, NoAnswer> {
    let parsed = container.keys().parse(&operation.key.partition_key);
    parsed.map_err(NoAnswer::unsent)
}

/// The document as it is, without decoding it. The SDK's binary encoding cannot take that and is off, see
/// [`Account::connect`](crate::cosmos::Account::connect).
fn raw(body: &[u8]) -> Result<&RawValue, NoAnswer> {
    serde_json::from_slice(body).map_err(|error| {
        NoAnswer::unsent(Error::internal("a document is no JSON").with_source(error))
    })
}

fn no_patches() -> NoAnswer {
    NoAnswer::unsent(Error::internal("a patch was to go through the SDK"))
}

fn charge(headers: &ResponseHeaders) -> f64 {
    headers
        .request_charge()
        .map_or(0.0, |charge| charge.value())
}

/// What the service said, with the sub-status. Anything that the SDK concluded by itself is no answer.
fn refused(error: &CosmosError) -> Result<(Failure, u32), NoAnswer> {
    let failure = Failure::of(error);
    if !failure.from_service {
        return Err(lost(error));
    }
    let sub_status = error.status().sub_status();
    let sub_status = sub_status.map_or(0, |sub_status| u32::from(sub_status.value()));
    Ok((failure, sub_status))
}

fn lost(error: &CosmosError) -> NoAnswer {
    let failure = Failure::of(error);
    NoAnswer {
        lost: Lost::Maybe,
        error: Error::new(ErrorKind::Unreachable, "a write was not answered")
            .with_source(failure.message),
    }
}
