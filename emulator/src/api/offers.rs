//! Throughput offers: remembered and returned, and enforced if the server was started with a throughput.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::queries;
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
        let most = settings["maxThroughput"]
            .as_u64()
            .ok_or_else(|| ApiError::bad_request("the autopilot settings need a maxThroughput"))?;
        return Ok(Some(
            json!({"offerThroughput": most / 10, "offerAutopilotSettings": settings}),
        ));
    }
    let Some(text) = call.header(&headers::OFFER_THROUGHPUT) else {
        return Ok(None);
    };
    let throughput: u64 = text
        .trim()
        .parse()
        .map_err(|_| ApiError::bad_request("x-ms-offer-throughput must be a number of RU/s"))?;
    Ok(Some(json!({"offerThroughput": throughput})))
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
    let mut body = call.json_value()?;
    let content = body["content"].take();
    if content["offerThroughput"].as_u64().is_none() && content["offerAutopilotSettings"].is_null()
    {
        return Err(ApiError::bad_request(
            "an offer needs content.offerThroughput or content.offerAutopilotSettings",
        ));
    }
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
