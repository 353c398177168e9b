//! The seed file: databases, containers and documents that a server starts with.
//!
//! ```json
//! {"databases": [{"id": "shop", "throughput": 400, "containers": [
//!   {"id": "orders", "partitionKey": "/customer", "documents": [{"id": "1", "customer": "a"}]}]}]}
//! ```
//!
//! 1. Everything is created by the requests that a client would send, so every rule of the server applies. A container
//!    takes any property that a create request takes; `partitionKey` may be a path alone; `throughput` is in RU/s.
//! 2. What exists already stays as it is: a server with durable data can start with the same file again. A document that
//!    was deleted since comes back. In a container that the file itself created, a conflict is an error.
//! 3. The first refusal stops the start, with its place in the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::http::headers;
use crate::http::service::Service;

/// Largest seed file: it is read as a whole, beside the documents that come of it.
const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed<'a> {
    #[serde(borrow)]
    databases: Vec<DatabaseSeed<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseSeed<'a> {
    id: String,
    #[serde(default)]
    throughput: Option<u32>,
    #[serde(borrow, default)]
    containers: Vec<ContainerSeed<'a>>,
}

/// Members by name; most are for the server to judge.
type ContainerSeed<'a> = BTreeMap<String, &'a RawValue>;

/// Whether a create request created something, or found it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Exists,
}

/// Carries out the seed file at `path`.
///
/// # Errors
/// One clause with the place in the file.
pub fn load(service: &Service, path: &Path) -> Result<(), String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    let seed: Seed<'_> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    for database in &seed.databases {
        database_of(service, database)
            .map_err(|problem| format!("database {}{problem}", database.id))?;
    }
    Ok(())
}

fn database_of(service: &Service, seed: &DatabaseSeed<'_>) -> Result<(), String> {
    let headers = throughput(seed.throughput);
    let body = json!({"id": seed.id}).to_string();
    create(service, "/dbs", &headers, body.into()).map_err(|problem| format!(": {problem}"))?;
    let path = format!("/dbs/{}/colls", encoded(&seed.id));
    for (index, container) in seed.containers.iter().enumerate() {
        container_of(service, &path, container).map_err(|problem| {
            let id = member::<String>(container, "id").ok().flatten();
            let name = id.unwrap_or_else(|| format!("{index} of the list"));
            format!(", container {name}{problem}")
        })?;
    }
    Ok(())
}

fn container_of(service: &Service, path: &str, seed: &ContainerSeed<'_>) -> Result<(), String> {
    let at = |problem: String| format!(": {problem}");
    let id: String = member(seed, "id").map_err(at)?.unwrap_or_default();
    let documents: Vec<&RawValue> = member(seed, "documents").map_err(at)?.unwrap_or_default();
    let headers = throughput(member(seed, "throughput").map_err(at)?);
    let properties = properties(seed).map_err(at)?;
    let body = properties.to_string().into();
    let outcome = create(service, path, &headers, body).map_err(at)?;
    let path = format!("{path}/{}", encoded(&id));
    if outcome == Outcome::Exists {
        same_key(service, &path, &properties).map_err(at)?;
    }
    let path = format!("{path}/docs");
    for (index, document) in documents.into_iter().enumerate() {
        let body = Bytes::copy_from_slice(document.get().as_bytes());
        let created = create(service, &path, &[], body);
        let clash = |problem: String| format!(", documents[{index}]: {problem}");
        if created.map_err(clash)? == Outcome::Exists && outcome == Outcome::Created {
            return Err(clash(
                "conflicts with a document before it: same id, or same unique key".to_owned(),
            ));
        }
    }
    Ok(())
}

/// What the create request of a container carries.
fn properties(seed: &ContainerSeed<'_>) -> Result<Value, String> {
    let mut properties = serde_json::Map::new();
    for name in seed.keys() {
        if name != "documents" && name != "throughput" {
            properties.insert(name.clone(), member(seed, name)?.unwrap_or_default());
        }
    }
    if let Some(key @ Value::String(_)) = properties.get_mut("partitionKey") {
        *key = json!({"paths": [key.take()], "kind": "Hash", "version": 2});
    }
    Ok(properties.into())
}

fn same_key(service: &Service, path: &str, wanted: &Value) -> Result<(), String> {
    let reply = service
        .trusted(Method::GET, path, &[], Bytes::new())
        .map_err(|error| error.message)?;
    let found: Value = serde_json::from_slice(reply.body()).map_err(|error| error.to_string())?;
    let (wanted, found) = (
        &wanted["partitionKey"]["paths"],
        &found["partitionKey"]["paths"],
    );
    if wanted == found {
        return Ok(());
    }
    Err(format!(
        "exists already, but with the partition key {found} instead of {wanted}"
    ))
}

fn create(
    service: &Service,
    path: &str,
    headers: &[(&'static HeaderName, HeaderValue)],
    body: Bytes,
) -> Result<Outcome, String> {
    match service.trusted(Method::POST, path, headers, body) {
        Ok(_) => Ok(Outcome::Created),
        Err(error) if error.status == StatusCode::CONFLICT => Ok(Outcome::Exists),
        Err(error) => Err(format!(
            "{} {}: {}",
            error.status.as_u16(),
            error.code,
            error.message
        )),
    }
}

/// A member of a container, if it is there.
fn member<'a, T: Deserialize<'a>>(
    seed: &ContainerSeed<'a>,
    name: &str,
) -> Result<Option<T>, String> {
    seed.get(name)
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|error| format!("{name} is wrong: {error}"))
}

fn throughput(wanted: Option<u32>) -> Vec<(&'static HeaderName, HeaderValue)> {
    let header = |wanted: u32| (&headers::OFFER_THROUGHPUT, HeaderValue::from(wanted));
    wanted.map(header).into_iter().collect()
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}
