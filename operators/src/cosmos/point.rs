//! Single requests about documents, repeated until they succeed or fail for good.

use std::future::Future;

use azure_data_cosmos::CosmosError;
use tidefeed_runtime::{Fence, Result};

use super::backoff::BackoffConfig;
use super::container::Container;
use super::failure::Failure;
use super::retry::Retry;
use super::status::Disposition;

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
