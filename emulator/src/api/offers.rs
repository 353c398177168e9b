//! Throughput offers: remembered and returned, and enforced if the server was started with a throughput.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::queries;
use crate::config::MAX_THROUGHPUT;
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::ru::Charge;
use crate::store::{Account, Offer};

/// Throughput of a container that was created without any, in RU/s.
const DEFAULT_THROUGHPUT: u32 = 400;

/// The content of the offer that the headers of a create call ask for.
///
/// # Errors
/// 400 if a header is malformed.
pub fn requested(call: &Call<'_>) -> Result<Option<Value>, ApiError> {
    if let Some(text) = call.header(&headers::OFFER_AUTOPILOT) {
        let settings: Value = serde_json::from_str(text).map_err(|_| {
            ApiError::bad_request("x-ms-cosmos-offer-autopilot-settings must be a JSON object")
        })?;
        let most = allowed(
            &settings["maxThroughput"],
            "the autopilot settings' maxThroughput",
        )?;
        return Ok(Some(
            json!({"offerThroughput": most / 10, "offerAutopilotSettings": settings}),
        ));
    }
    let Some(text) = call.header(&headers::OFFER_THROUGHPUT) else {
        return Ok(None);
    };
    let throughput = text.trim().parse::<u64>().map_or(Value::Null, Value::from);
    let throughput = allowed(&throughput, "x-ms-offer-throughput")?;
    Ok(Some(json!({"offerThroughput": throughput})))
}

/// A throughput in RU/s within the service's limit: a container gets a partition for every 10,000.
fn allowed(throughput: &Value, name: &str) -> Result<u64, ApiError> {
    let most = u64::from(MAX_THROUGHPUT);
    let given = throughput.as_u64();
    given
        .filter(|given| (1..=most).contains(given))
        .ok_or_else(|| ApiError::bad_request(format!("{name} must be 1 to {most} RU/s")))
}

/// The content of the offer of a container that was created without throughput.
pub fn default_content(account: &Account) -> Value {
    let limits = &account.environment().limits;
    json!({"offerThroughput": limits.throughput.unwrap_or(DEFAULT_THROUGHPUT)})
}

/// `GET /offers`.
pub fn list(account: &Account) -> ApiResult {
    Ok(queries::resource_feed("Offers", "", &all(account)))
}

/// `POST /offers`, a query.
pub fn query(account: &Account, call: &Call<'_>) -> ApiResult {
    queries::over_resources("Offers", "", all(account), call)
}

/// `GET /offers/{id}`.
pub fn read(account: &Account, id: &str) -> ApiResult {
    account
        .offer(id)
        .map(|offer| reply(&offer))
        .ok_or_else(|| ApiError::not_found(format!("offer {id}")))
}

/// `PUT /offers/{id}`.
pub fn replace(account: &Account, id: &str, call: &Call<'_>) -> ApiResult {
    let body = call.json_value()?;
    let content = body["content"].clone();
    match &content["offerAutopilotSettings"] {
        Value::Null => allowed(&content["offerThroughput"], "content.offerThroughput")?,
        settings => allowed(
            &settings["maxThroughput"],
            "content.offerAutopilotSettings.maxThroughput",
        )?,
    };
    account
        .replace_offer(id, content, account.environment().clock.now_seconds())?
        .map(|offer| reply(&offer))
        .ok_or_else(|| ApiError::not_found(format!("offer {id}")))
}

fn all(account: &Account) -> Vec<Value> {
    account.offers().iter().map(Offer::properties).collect()
}

fn reply(offer: &Offer) -> Reply {
    Reply::json(StatusCode::OK, &offer.properties())
        .charge(Charge::METADATA)
        .etag(&offer.etag)
        .put(&headers::OFFER_REPLACE_PENDING, "false")
}
