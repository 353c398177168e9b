//! Single requests about documents, repeated until they succeed or fail for good.

use std::future::Future;

use azure_data_cosmos::{CosmosError, PartitionKey};
use serde_json::Value;
use tidefeed_runtime::{Fence, Result};

use super::backoff::BackoffConfig;
use super::container::Container;
use super::failure::Failure;
use super::retry::Retry;
use super::status::Disposition;
use crate::target::SERVICE_PROPERTIES;

/// Sends a request while `fence` is open. Passing faults are repeated without limit; `Ok(Err(..))` is a failure that is about
/// the document, and that the caller may take for a success.
///
/// # Errors
/// When no request can succeed: the fence has closed, the credentials are refused, the container is gone.
pub(super) async fn send<T, F>(
    container: &Container,
    fence: &Fence,
    mut request: impl FnMut() -> F,
) -> Result<std::result::Result<T, Failure>>
where
    F: Future<Output = std::result::Result<T, CosmosError>>,
{
    let mut retry = Retry::new(BackoffConfig::default());
    loop {
        let failure = match fence.guard(request()).await? {
            Ok(answer) => return Ok(Ok(answer)),
            Err(error) => Failure::of(&error),
        };
        match failure.disposition {
            Disposition::Denied | Disposition::NoContainer => {
                return Err(failure.into_error(format!("cannot use container {container}")));
            }
            _ if failure.is_passing() => {
                tokio::time::sleep(retry.wait_after(&failure, container)).await;
            }
            _ => return Ok(Err(failure)),
        }
    }
}

/// The document that the container holds, as it was written: without what the service adds to it.
///
/// # Errors
/// As [`send`], and when the service refuses to read it.
pub(super) async fn read(
    container: &Container,
    fence: &Fence,
    key: &PartitionKey,
    id: &str,
) -> Result<Option<Value>> {
    let failed = |failure: Failure| {
        failure.into_error(format!(
            "cannot read document {id} of container {container}"
        ))
    };
    let client = container.client();
    let answer = match send(container, fence, || client.read_item(key.clone(), id, None)).await? {
        Ok(answer) => answer,
        Err(failure) if failure.disposition == Disposition::NoDocument => return Ok(None),
        Err(failure) => return Err(failed(failure)),
    };
    let mut document: Value = answer
        .into_model()
        .map_err(|error| failed(Failure::of(&error)))?;
    if let Some(members) = document.as_object_mut() {
        members.retain(|name, _| !SERVICE_PROPERTIES.contains(&name.as_str()));
    }
    Ok(Some(document))
}
