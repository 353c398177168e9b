//! Fault rules over HTTP.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::Admin;
use crate::faults::{FaultPlan, FaultRule};
use crate::http::{ApiError, ApiResult, Reply};

/// A rule as clients read it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    rule: &'a FaultRule,
    hits: u64,
}

/// `GET /_emulator/faults`: the seed, and the rules in force with their hits.
pub fn read(admin: &Admin<'_>) -> ApiResult {
    let body = admin.service.faults.inspect(|engine| {
        let rules: Vec<Shown<'_>> = engine
            .rules()
            .map(|(rule, hits)| Shown { rule, hits })
            .collect();
        json!({"seed": engine.seed(), "rules": rules})
    });
    Ok(Reply::json(StatusCode::OK, &body))
}

/// `PUT /_emulator/faults`: replaces the rules, with new counts and random numbers.
pub fn replace(admin: &Admin<'_>) -> ApiResult {
    let plan: FaultPlan = admin.parse()?;
    let set = admin.service.faults.set(plan);
    set.map_err(ApiError::bad_request)?;
    read(admin)
}

/// `DELETE /_emulator/faults`: no rules.
pub fn clear(admin: &Admin<'_>) -> ApiResult {
    admin.service.faults.clear();
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}
