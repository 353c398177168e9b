//! A refused call: status, sub-status, Cosmos error code, and a message that says what to do.

use hyper::StatusCode;
use serde_json::json;

use super::headers;
use super::reply::Reply;
use crate::ru::Charge;
use crate::store::StoreError;

/// What an operation answers.
pub type ApiResult = Result<Reply, ApiError>;

/// A refused call.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Cosmos sub-status; 0 is not sent.
    pub substatus: u32,
    /// Cosmos error code.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// Milliseconds to wait before the next try, if the server knows.
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        substatus: u32,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            substatus,
            code,
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 0, "BadRequest", message)
    }

    /// 400: the service can do it, this server cannot.
    pub fn unsupported(what: impl AsRef<str>) -> Self {
        Self::bad_request(format!(
            "{} is not supported yet by this server",
            what.as_ref()
        ))
    }

    /// 400/1001: header and document disagree about the partition key.
    pub fn key_mismatch(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 1001, "BadRequest", message)
    }

    /// 400/1024: the container was deleted and created again.
    pub fn container_replaced() -> Self {
        let message =
            "the container was created anew under the same name: read it again for its resource id";
        Self::new(StatusCode::BAD_REQUEST, 1024, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 0, "Unauthorized", message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, 0, "Forbidden", message)
    }

    /// 404: the resource itself.
    pub fn not_found(what: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            0,
            "NotFound",
            format!("{} does not exist", what.as_ref()),
        )
    }

    /// 404/1003: the database or container around it.
    pub fn owner_not_found(what: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            1003,
            "NotFound",
            format!("{} does not exist: create it first", what.as_ref()),
        )
    }

    /// 405.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{method} {path} is not an operation of this server");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            0,
            "MethodNotAllowed",
            message,
        )
    }

    /// 409.
    pub fn conflict(what: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            0,
            "Conflict",
            format!("{} exists already", what.as_ref()),
        )
    }

    /// 409: another item has the same unique key.
    pub fn unique_key_violation() -> Self {
        let message = "another item of the logical partition has the same value for a unique key";
        Self::new(StatusCode::CONFLICT, 0, "Conflict", message)
    }

    /// 404/1002: the session token is ahead of the partition.
    pub fn session_not_available() -> Self {
        let message = "the read session is not available for the session token: it is ahead of the partition, so it comes from another container or server";
        Self::new(StatusCode::NOT_FOUND, 1002, "NotFound", message)
    }

    /// 424: another operation of the batch failed.
    pub fn failed_dependency() -> Self {
        let message = "another operation of the batch failed";
        Self::new(
            StatusCode::FAILED_DEPENDENCY,
            0,
            "FailedDependency",
            message,
        )
    }

    /// 429/3200.
    pub fn throttled(retry_after_ms: u64) -> Self {
        let message = "the request rate is too large: more throughput may be needed; try again after the time in x-ms-retry-after-ms";
        Self {
            retry_after_ms: Some(retry_after_ms),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                3200,
                "TooManyRequests",
                message,
            )
        }
    }

    /// 410/1002: the client's map of partitions is not ours.
    pub fn partition_gone(what: impl AsRef<str>) -> Self {
        let message = format!("{}: read the partition key ranges again", what.as_ref());
        Self::new(StatusCode::GONE, 1002, "Gone", message)
    }

    /// 412.
    pub fn precondition_failed() -> Self {
        let message =
            "the entity tag does not meet the condition: read the item again and decide anew";
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            0,
            "PreconditionFailed",
            message,
        )
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            0,
            "RequestEntityTooLarge",
            message,
        )
    }

    /// 413/3402: the item of an operation does not fit into the reply of its batch.
    pub fn reply_too_large() -> Self {
        let message = "the reply would be larger than 4 MB: read this item in another request";
        Self {
            substatus: 3402,
            ..Self::too_large(message)
        }
    }

    /// 413 for a body that was not read to its end.
    pub fn body_too_large() -> Self {
        Self::too_large("the request body is larger than this server reads: send less at once")
    }

    /// What the refused call is said to cost: nothing, if it was not even tried.
    pub fn charge(&self) -> Charge {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::FAILED_DEPENDENCY => Charge::default(),
            _ => Charge::METADATA,
        }
    }

    /// 400 for a body that ended early or was framed wrongly.
    pub fn body_unreadable(error: &dyn std::error::Error) -> Self {
        Self::bad_request(format!("the request body cannot be read: {error}"))
    }

    /// The reply that carries it.
    pub fn into_reply(self) -> Reply {
        let body = json!({"code": self.code, "message": self.message});
        let mut reply = Reply::json(self.status, &body).charge(self.charge());
        if self.substatus != 0 {
            reply = reply.put(&headers::SUBSTATUS, self.substatus.to_string());
        }
        if let Some(wait) = self.retry_after_ms {
            reply = reply.put_number(&headers::RETRY_AFTER_MS, wait);
        }
        reply
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Throttled { retry_after_ms } => Self::throttled(retry_after_ms),
            StoreError::DatabaseGone => Self::owner_not_found("the database"),
            error => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                0,
                "ServiceUnavailable",
                error.to_string(),
            ),
        }
    }
}
