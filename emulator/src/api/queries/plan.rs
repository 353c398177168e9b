//! Query plans: how a client runs a query over several partitions itself.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Request, fixed_range};
use crate::epk::to_hex;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::query::plan::{features, query_info};
use crate::ru::Charge;
use crate::store::Container;

/// `POST docs` for a query plan.
pub fn plan(container: &Container, call: &Call<'_>) -> ApiResult {
    let request = Request::read(call)?;
    let supported: Vec<&str> = call
        .header(&headers::SUPPORTED_QUERY_FEATURES)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let missing: Vec<String> = features(&request.query)
        .into_iter()
        .filter(|feature| !supported.contains(feature))
        .map(|feature| {
            format!("\nQuery contained {feature}, which the calling client does not support.")
        })
        .collect();
    if !missing.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Query contains 1 or more unsupported features. Upgrade your SDK to a version that does support the \
             requested features:{}",
            missing.concat()
        )));
    }
    let plan = document(container, &request)?;
    Ok(Reply::json(StatusCode::OK, &plan).charge(Charge::METADATA))
}

/// 400/1004: the client has to run the query itself, by the plan in the body.
pub fn not_servable(container: &Container, request: &Request) -> ApiResult {
    let plan = document(container, request)?;
    let body = json!({
        "code": "BadRequest",
        "message": "The provided cross partition query can not be directly served by the gateway. Clients run it by the \
                    query plan in additionalErrorInfo; if this surfaces, the client is too old or is no SDK: send the \
                    query to each partition key range, or name a partition key.",
        "additionalErrorInfo": plan.to_string(),
    });
    Ok(Reply::json(StatusCode::BAD_REQUEST, &body)
        .charge(Charge::METADATA)
        .put(&headers::SUBSTATUS, "1004"))
}

fn document(container: &Container, request: &Request) -> Result<Value, ApiError> {
    let info = query_info(&request.text, &request.query)
        .map_err(|error| ApiError::bad_request(error.to_message()))?;
    let range = match fixed_range(container, &request.query) {
        // One logical partition is a point, which is its own end.
        Some((range, true)) => range_document(&to_hex(&range.min), &to_hex(&range.min), true),
        Some((range, false)) => range_document(&to_hex(&range.min), &to_hex(&range.max), false),
        None => range_document("", "FF", false),
    };
    Ok(json!({
        "partitionedQueryExecutionInfoVersion": 2,
        "queryInfo": info,
        "queryRanges": [range],
        "hybridSearchQueryInfo": null,
    }))
}

fn range_document(min: &str, max: &str, is_max_inclusive: bool) -> Value {
    json!({"min": min, "max": max, "isMinInclusive": true, "isMaxInclusive": is_max_inclusive})
}
