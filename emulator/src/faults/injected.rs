//! A refusal that a rule asked for.

use hyper::StatusCode;

use crate::http::{ApiError, Reply};
use crate::ru::Charge;

/// `x-ms-retry-after-ms` of a 429 whose rule does not say, in milliseconds.
const RETRY_AFTER_MS: u64 = 10;

/// A refusal that a rule asked for, of a request or of one item of a bulk batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectedStatus {
    /// HTTP status.
    pub status: u16,
    /// Sub-status; 0 is not sent.
    pub substatus: u32,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Message of the body.
    pub message: String,
}

impl InjectedStatus {
    /// The refusal of the rule with this index, with what it leaves out filled in.
    pub fn new(
        rule: usize,
        status: u16,
        substatus: Option<u32>,
        retry_after_ms: Option<u64>,
        message: Option<&str>,
    ) -> Self {
        let throttled = status == 429;
        Self {
            status,
            substatus: substatus.unwrap_or(match status {
                410 => 1002,
                429 => 3200,
                _ => 0,
            }),
            retry_after_ms: retry_after_ms.or_else(|| throttled.then_some(RETRY_AFTER_MS)),
            message: message.map_or_else(
                || format!("injected by fault rule {rule}, see /_emulator/faults"),
                str::to_owned,
            ),
        }
    }

    /// The reply to a request that is refused. It charges nothing, as nothing was done.
    pub fn into_reply(self) -> Reply {
        self.into_error().into_reply().charge(Charge::default())
    }

    /// The refusal of one operation.
    pub fn into_error(self) -> ApiError {
        ApiError {
            // Every status from 100 to 999 has a code, and rules are checked to be within.
            status: StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            substatus: self.substatus,
            code: code(self.status),
            message: self.message,
            retry_after_ms: self.retry_after_ms,
        }
    }
}

/// The Cosmos error code of a status.
fn code(status: u16) -> &'static str {
    match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        408 => "RequestTimeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "PreconditionFailed",
        413 => "RequestEntityTooLarge",
        424 => "FailedDependency",
        429 => "TooManyRequests",
        449 => "RetryWith",
        503 => "ServiceUnavailable",
        500.. => "InternalServerError",
        _ => "BadRequest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_leaves_out_is_what_clients_expect() {
        let of = |status| InjectedStatus::new(3, status, None, None, None);
        assert_eq!(
            (of(429).substatus, of(429).retry_after_ms),
            (3200, Some(10))
        );
        assert_eq!((of(410).substatus, of(410).retry_after_ms), (1002, None));
        assert_eq!((of(404).substatus, of(503).substatus), (0, 0));
        assert!(of(500).message.contains("fault rule 3"));
        let said = InjectedStatus::new(0, 404, Some(1002), Some(7), Some("m"));
        assert_eq!(
            (said.substatus, said.retry_after_ms, &*said.message),
            (1002, Some(7), "m")
        );
    }
}
