//! Containers: create, read, replace, list, delete.
//!
//! A property that would change what the server does, and that it does not implement, is refused by name; others (the
//! indexing policy, for one) are kept and returned.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{offers, queries};
use crate::http::{ApiError, ApiResult, Call, Reply};
use crate::partition_key::PartitionKeyDefinition;
use crate::ru::Charge;
use crate::store::{Account, Container, Database, Definition};

/// Longest name of a database or container.
const MAX_NAME_BYTES: usize = 255;

/// Properties of a container that this server does not implement.
const UNSUPPORTED: [&str; 6] = [
    "analyticalStorageTtl",
    "vectorEmbeddingPolicy",
    "fullTextPolicy",
    "computedProperties",
    "clientEncryptionPolicy",
    "materializedViewDefinition",
];

/// `POST /dbs/{db}/colls`.
pub fn create(account: &Account, db: &str, call: &Call<'_>) -> ApiResult {
    let database = owner(account, db)?;
    let definition = checked(call)?;
    // Without throughput of its own a container shares that of its database, if that has any.
    let content = match (offers::requested(call)?, account.offer_of(&database.rid)) {
        (None, Some(_)) => None,
        (own, _) => Some(own.unwrap_or_else(|| offers::default_content(account))),
    };
    let now = account.environment().clock.now_seconds();
    let taken = ApiError::conflict(format!("a container named {}", definition.id));
    let container = account
        .create_container(&database, definition, content, now)?
        .ok_or(taken)?;
    Ok(reply(StatusCode::CREATED, &container))
}

/// `GET /dbs/{db}/colls/{name}`.
pub fn read(container: &Container) -> Reply {
    reply(StatusCode::OK, container)
}

/// `PUT /dbs/{db}/colls/{name}`.
pub fn replace(account: &Account, container: &Container, call: &Call<'_>) -> ApiResult {
    let definition = checked(call)?;
    if definition.id != container.id {
        return Err(ApiError::bad_request(
            "the id of a container cannot be changed",
        ));
    }
    let current = container.properties();
    for name in ["partitionKey", "uniqueKeyPolicy"] {
        if definition.properties[name] != current[name] {
            return Err(ApiError::bad_request(format!(
                "the {name} of a container cannot be changed"
            )));
        }
    }
    let now = account.environment().clock.now_seconds();
    container.replace(definition.properties, now)?;
    Ok(reply(StatusCode::OK, container))
}

/// `DELETE /dbs/{db}/colls/{name}`.
pub fn delete(account: &Account, database: &Database, container: &Container) -> ApiResult {
    if !account.delete_container(database, container)? {
        return Err(ApiError::not_found(format!("container {}", container.id)));
    }
    Ok(Reply::empty(StatusCode::NO_CONTENT).charge(Charge::METADATA))
}

/// `GET /dbs/{db}/colls`.
pub fn list(account: &Account, db: &str) -> ApiResult {
    let database = owner(account, db)?;
    Ok(queries::resource_feed(
        "DocumentCollections",
        &database.rid,
        &all(&database),
    ))
}

/// `POST /dbs/{db}/colls` with a query.
pub fn query(account: &Account, db: &str, call: &Call<'_>) -> ApiResult {
    let database = owner(account, db)?;
    queries::over_resources("DocumentCollections", &database.rid, all(&database), call)
}

/// The `id` of a database or container to be created.
pub fn checked_name<'a>(body: &'a Value, what: &str) -> Result<&'a str, ApiError> {
    let id = body["id"].as_str().unwrap_or_default();
    if id.is_empty()
        || id.len() > MAX_NAME_BYTES
        || id.ends_with(' ')
        || id.contains(['/', '\\', '?', '#'])
    {
        return Err(ApiError::bad_request(format!(
            "the id of a {what} must be 1 to {MAX_NAME_BYTES} bytes without / \\ ? # and without a space at its end"
        )));
    }
    Ok(id)
}

fn owner(account: &Account, db: &str) -> Result<std::sync::Arc<Database>, ApiError> {
    account
        .database(db)
        .ok_or_else(|| ApiError::owner_not_found(format!("database {db}")))
}

fn checked(call: &Call<'_>) -> Result<Definition, ApiError> {
    let mut body = call.json_value()?;
    checked_name(&body, "container")?;
    for name in UNSUPPORTED {
        // An empty policy asks for nothing.
        let asks = !matches!(&body[name], Value::Null) && body[name] != json!([]);
        if asks {
            return Err(ApiError::unsupported(format!(
                "the container property {name}"
            )));
        }
    }
    check_ttl(&body["defaultTtl"])?;
    // Checked before it is completed: only an object can be.
    PartitionKeyDefinition::from_json(&body["partitionKey"]).map_err(ApiError::bad_request)?;
    body["partitionKey"]["version"] = json!(2);
    if body["partitionKey"]["kind"].is_null() {
        body["partitionKey"]["kind"] = json!("Hash");
    }
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    if body["indexingPolicy"].is_null() {
        body["indexingPolicy"] = json!({
            "indexingMode": "consistent",
            "automatic": true,
            "includedPaths": [{"path": "/*"}],
            "excludedPaths": [{"path": "/\"_etag\"/?"}],
        });
    }
    Definition::from_properties(body).map_err(ApiError::bad_request)
}

fn check_ttl(ttl: &Value) -> Result<(), ApiError> {
    let allowed = ttl.is_null()
        || ttl
            .as_i64()
            .is_some_and(|ttl| ttl == -1 || (1..=i64::from(i32::MAX)).contains(&ttl));
    if allowed {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "defaultTtl {ttl} is invalid: use a positive number of seconds, or -1 for no expiry unless an item has a ttl"
    )))
}

fn all(database: &Database) -> Vec<Value> {
    database
        .containers()
        .iter()
        .map(|container| container.properties())
        .collect()
}

fn reply(status: StatusCode, container: &Container) -> Reply {
    let properties = container.properties();
    let etag = properties["_etag"].as_str().unwrap_or_default().to_owned();
    Reply::json(status, &properties)
        .charge(Charge::METADATA)
        .etag(etag)
}
