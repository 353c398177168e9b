//! The protocol around the operations: requests, signatures, routing, replies and errors.

pub mod auth;
pub mod call;
pub mod dispatch;
pub mod error;
pub mod headers;
pub mod precedence;
pub mod reply;
pub mod service;
pub mod target;

pub use call::Call;
pub use error::{ApiError, ApiResult};
pub use reply::Reply;
