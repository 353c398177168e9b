//! From method and path to an operation.

use std::borrow::Cow;

use hyper::Method;
use hyper::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;

use super::call::Call;
use super::error::{ApiError, ApiResult};
use super::headers;
use super::service::Service;
use crate::api;

/// Carries out a call, whose signature is not looked at any more.
///
/// # Errors
/// Any refusal of the operation, and 405 for what is none.
pub fn route(service: &Service, call: &Call<'_>, path: &str) -> ApiResult {
    let segments = split(path)?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let account = &service.account;
    match (call.method, segments.as_slice()) {
        (&Method::GET, []) => Ok(api::account::read(&service.endpoint)),
        (&Method::POST, ["dbs"]) if is_query(call) => api::databases::query(account, call),
        (&Method::POST, ["dbs"]) => api::databases::create(account, call),
        (&Method::GET, ["dbs"]) => api::databases::list(account),
        (&Method::GET, ["dbs", name]) => api::databases::read(account, name),
        (&Method::DELETE, ["dbs", name]) => api::databases::delete(account, name),
        (&Method::POST, ["dbs", db, "colls"]) if is_query(call) => {
            api::containers::query(account, db, call)
        }
        (&Method::POST, ["dbs", db, "colls"]) => api::containers::create(account, db, call),
        (&Method::GET, ["dbs", db, "colls"]) => api::containers::list(account, db),
        (&Method::POST, ["offers"]) => api::offers::query(account, call),
        (&Method::GET, ["offers"]) => api::offers::list(account),
        (&Method::GET, ["offers", id]) => api::offers::read(account, id),
        (&Method::PUT, ["offers", id]) => api::offers::replace(account, id, call),
        (method, ["dbs", db, "colls", name, rest @ ..]) => {
            let database = account
                .database(db)
                .ok_or_else(|| ApiError::owner_not_found(format!("database {db}")))?;
            let Some(container) = database.container(name) else {
                let what = format!("container {name}");
                return Err(if rest.is_empty() {
                    ApiError::not_found(what)
                } else {
                    ApiError::owner_not_found(what)
                });
            };
            if call
                .header(&headers::INTENDED_RID)
                .is_some_and(|rid| rid != container.rid)
            {
                return Err(ApiError::container_replaced());
            }
            service.precedence.note(call)?;
            let answer = match (method, rest) {
                (&Method::GET, []) => Ok(api::containers::read(&container)),
                (&Method::PUT, []) => api::containers::replace(account, &container, call),
                (&Method::DELETE, []) => api::containers::delete(account, &database, &container),
                (&Method::GET, ["pkranges"]) => Ok(api::ranges::read(&container, call)),
                (&Method::GET, ["docs"]) if call.header(&headers::A_IM).is_some() => {
                    api::change_feed::read(&container, call)
                }
                (&Method::GET, ["docs"]) => api::read_feed::read(&container, call),
                (&Method::POST, ["docs"]) => post_docs(service, &container, call),
                (&Method::GET, ["docs", id]) => api::items::read(&container, id, call),
                (&Method::PUT, ["docs", id]) => api::items::replace(&container, id, call),
                (&Method::DELETE, ["docs", id]) => api::items::delete(&container, id, call),
                (&Method::PATCH, ["docs", id]) => api::items::patch(&container, id, call),
                (
                    _,
                    [
                        "sprocs" | "triggers" | "udfs" | "conflicts" | "operations",
                        ..,
                    ],
                ) => Err(ApiError::unsupported(format!(
                    "the resource type {}",
                    rest[0]
                ))),
                _ => Err(ApiError::method_not_allowed(method.as_str(), path)),
            };
            // The map of partitions is free again: one that has grown too large can be split.
            container.settle();
            answer
        }
        (_, ["dbs", _, other @ ("users" | "clientencryptionkeys"), ..]) => {
            Err(ApiError::unsupported(format!("the resource type {other}")))
        }
        (method, _) => Err(ApiError::method_not_allowed(method.as_str(), path)),
    }
}

fn post_docs(service: &Service, container: &crate::store::Container, call: &Call<'_>) -> ApiResult {
    if call.flag(&headers::IS_BATCH) {
        api::batch::execute(container, call, &service.faults)
    } else if call.flag(&headers::IS_QUERY_PLAN) {
        api::queries::plan(container, call)
    } else if is_query(call) {
        api::queries::execute(container, call)
    } else {
        api::items::create(container, call, call.flag(&headers::IS_UPSERT))
    }
}

/// Whether a POST is a query.
pub fn is_query(call: &Call<'_>) -> bool {
    call.flag(&headers::IS_QUERY)
        || call.flag(&headers::IS_QUERY_OLD)
        || call
            .header(&CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with("application/query+json"))
}

/// The decoded segments of a path; slashes at its ends do not count.
///
/// # Errors
/// 400 if a segment is not UTF-8.
pub fn split(path: &str) -> Result<Vec<Cow<'_, str>>, ApiError> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/')
        .map(|segment| {
            percent_decode_str(segment).decode_utf8().map_err(|_| {
                ApiError::bad_request("a name in the path is not UTF-8 after decoding")
            })
        })
        .collect()
}
