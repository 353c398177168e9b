//! Databases: create, read, list, delete.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{containers, offers, queries};
use crate::http::{ApiError, ApiResult, Call, Reply};
use crate::ru::Charge;
use crate::store::Account;

/// `POST /dbs`.
pub fn create(account: &Account, call: &Call<'_>) -> ApiResult {
    let body = call.json_value()?;
    let id = containers::checked_name(&body, "database")?;
    let offer = offers::requested(call)?;
    let now = account.environment().clock.now_seconds();
    let database = account
        .create_database(id, offer, now)?
        .ok_or_else(|| ApiError::conflict(format!("a database named {id}")))?;
    Ok(reply(StatusCode::CREATED, &database.properties()).etag(database.etag()))
}

/// `GET /dbs/{name}`.
pub fn read(account: &Account, name: &str) -> ApiResult {
    let database = account
        .database(name)
        .ok_or_else(|| ApiError::not_found(format!("database {name}")))?;
    Ok(reply(StatusCode::OK, &database.properties()).etag(database.etag()))
}

/// `GET /dbs`.
pub fn list(account: &Account) -> ApiResult {
    Ok(queries::resource_feed("Databases", "", &all(account)))
}

/// `POST /dbs` with a query.
pub fn query(account: &Account, call: &Call<'_>) -> ApiResult {
    queries::over_resources("Databases", "", all(account), call)
}

/// `DELETE /dbs/{name}`.
pub fn delete(account: &Account, name: &str) -> ApiResult {
    let missing = || ApiError::not_found(format!("database {name}"));
    let database = account.database(name).ok_or_else(missing)?;
    if !account.delete_database(&database)? {
        return Err(missing());
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT).charge(Charge::METADATA))
}

fn all(account: &Account) -> Vec<Value> {
    account
        .databases()
        .iter()
        .map(|database| database.properties())
        .collect()
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    Reply::json(status, &json!(body)).charge(Charge::METADATA)
}
