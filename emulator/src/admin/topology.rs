//! Splits, merges and limits of physical partitions on command.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::Admin;
use crate::http::{ApiError, ApiResult, Reply};
use crate::store::Container;

/// Longest time that a partition may be moving, in milliseconds.
const MAX_MOVING_MS: u64 = 600_000;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Split {
    /// The hash at which to split, 32 hexadecimal digits; the middle of the range if it is left out.
    at: Option<String>,
    moving_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Merge {
    /// Ids of the two ranges.
    ranges: [String; 2],
    #[serde(default)]
    moving_ms: u64,
}

/// `POST /_emulator/dbs/{db}/colls/{coll}/ranges/{id}/split`: splits a partition; its clients find the children by the
/// map. The body may be empty, or `{"at": "1F...", "moving_ms": 500}`: with `moving_ms`, requests that name the range get
/// 410/1002 for that long first, and the reply (202) does not wait for the end of it.
///
/// ```json
/// {"parents": ["0"], "children": ["4", "5"]}
/// ```
pub fn split(admin: &Admin<'_>) -> ApiResult {
    let container = admin.container()?;
    let id = range_id(admin.names.get(2).map_or("", AsRef::as_ref))?;
    let body: Split = if admin.body.trim_ascii().is_empty() {
        Split::default()
    } else {
        admin.parse()?
    };
    let at = body
        .at
        .map(|at| {
            u128::from_str_radix(&at, 16).map_err(|_| {
                ApiError::bad_request("at must be a hash of 32 hexadecimal digits, or left out")
            })
        })
        .transpose()?;
    container
        .map()
        .split_point(id, at)
        .map_err(ApiError::bad_request)?;
    after_moving(&container, &[id], body.moving_ms, move |container| {
        container.split(id, at).map(Vec::from)
    })
}

/// `POST /_emulator/dbs/{db}/colls/{coll}/merge` with `{"ranges": ["4", "5"]}`, and perhaps `moving_ms` as for a split:
/// merges two neighbouring partitions.
pub fn merge(admin: &Admin<'_>) -> ApiResult {
    let container = admin.container()?;
    let body: Merge = admin.parse()?;
    let [a, b] = &body.ranges;
    let (a, b) = (range_id(a)?, range_id(b)?);
    container
        .map()
        .check_merge(a, b)
        .map_err(ApiError::bad_request)?;
    after_moving(&container, &[a, b], body.moving_ms, move |container| {
        container.merge(a, b).map(|id| vec![id])
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// Request units per second. `null` is the partition's share of the container's throughput again.
    #[serde(deserialize_with = "Option::deserialize")]
    ru_per_s: Option<f64>,
}

/// `PUT /_emulator/dbs/{db}/colls/{coll}/ranges/{id}/throughput` with `{"ru_per_s": 100}`: limits one partition in place of
/// its share of the container's throughput, whether throughput is enforced or not, until it is split or merged;
/// `{"ru_per_s": null}` takes that back.
pub fn limit(admin: &Admin<'_>) -> ApiResult {
    let container = admin.container()?;
    let id = range_id(admin.names.get(2).map_or("", AsRef::as_ref))?;
    let body: Limit = admin.parse()?;
    container
        .limit_partition(id, body.ru_per_s)
        .map_err(ApiError::bad_request)?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

fn range_id(text: &str) -> Result<u32, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!("the partition key range id {text} is not a number"))
    })
}

fn after_moving(
    container: &Arc<Container>,
    ids: &[u32],
    moving_ms: u64,
    change: impl FnOnce(&Container) -> Result<Vec<u32>, String> + Send + 'static,
) -> ApiResult {
    if moving_ms > MAX_MOVING_MS {
        return Err(ApiError::bad_request(format!(
            "moving_ms is {moving_ms}, but must be 0 to {MAX_MOVING_MS}"
        )));
    }
    let texts = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>();
    let parents = texts(ids);
    if moving_ms == 0 {
        let children = change(container).map_err(ApiError::bad_request)?;
        let body = json!({"parents": parents, "children": texts(&children)});
        return Ok(Reply::json(StatusCode::OK, &body));
    }
    container.set_moving(ids, true);
    let (container, ids) = (Arc::clone(container), ids.to_vec());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(moving_ms)).await;
        if let Err(error) = change(&container) {
            container.set_moving(&ids, false);
            tracing::warn!(container = container.id, error, "a split or merge failed");
        }
    });
    let body = json!({"parents": parents, "moving_ms": moving_ms});
    Ok(Reply::json(StatusCode::ACCEPTED, &body))
}
