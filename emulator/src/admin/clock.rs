//! The server's clock over HTTP.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use crate::clock::Clock;
use crate::http::{ApiResult, Reply};

/// Body of `POST /_emulator/clock`: `{"advance_ms": 60000}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    /// Milliseconds to move forward.
    advance_ms: u64,
}

/// `GET /_emulator/clock`.
pub fn read(admin: &Admin<'_>) -> ApiResult {
    Ok(Reply::json(StatusCode::OK, &shown(&admin.service.clock)))
}

/// `POST /_emulator/clock`.
pub fn advance(admin: &Admin<'_>) -> ApiResult {
    let asked: Advance = admin.parse()?;
    let by = Duration::from_millis(asked.advance_ms);
    admin.service.clock.advance(by);
    read(admin)
}

/// The clock as clients read it.
pub fn shown(clock: &Clock) -> Value {
    json!({
        "now_ms": clock.now_millis(),
        "now_seconds": clock.now_seconds(),
        "advanced_ms": clock.advanced_millis(),
    })
}
