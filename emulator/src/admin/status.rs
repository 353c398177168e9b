//! What the server holds, down to the partition.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Admin, clock};
use crate::epk::to_hex;
use crate::http::{ApiResult, Reply};
use crate::store::{Container, Database, Partition};

/// `GET /_emulator/status`. Costs a look at every partition.
///
/// ```json
/// {"version": "0.1.0", "endpoint": "http://127.0.0.1:8081", "requests": 12,
///  "priorities": {"high": 0, "low": 3}, "throughput_buckets": [0, 2, 0, 0, 0],
///  "clock": {"now_ms": 1767225600000, "now_seconds": 1767225600, "advanced_ms": 0},
///  "faults": {"rules": 1, "hits": 3},
///  "databases": [{"id": "shop", "rid": "AAAAAQ==", "containers": [
///    {"id": "orders", "rid": "AAAAAYAAAAI=", "documents": 2, "bytes": 900, "partitions": [
///      {"id": 0, "parents": [], "min": "", "max": "20...", "documents": 2, "bytes": 900, "lsn": 2,
///       "request_units": 11.0, "throttled": 0}]}]}]}
/// ```
pub fn read(admin: &Admin<'_>) -> ApiResult {
    let service = admin.service;
    let faults = service.faults.inspect(|engine| {
        let hits: u64 = engine.rules().map(|(_, hits)| hits).sum();
        json!({"rules": engine.rules().count(), "hits": hits})
    });
    let databases: Vec<Value> = service
        .account
        .databases()
        .iter()
        .map(|one| database(one))
        .collect();
    let [high, low] = service.precedence.priorities();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "endpoint": service.endpoint,
        "requests": service.requests(),
        "priorities": {"high": high, "low": low},
        "throughput_buckets": service.precedence.buckets(),
        "clock": clock::shown(&service.clock),
        "faults": faults,
        "databases": databases,
    });
    Ok(Reply::json(StatusCode::OK, &body))
}

/// `GET /_emulator/dbs/{db}/colls/{coll}`: one container, as in the status of the server.
pub fn read_container(admin: &Admin<'_>) -> ApiResult {
    let found = admin.container()?;
    Ok(Reply::json(StatusCode::OK, &container(&found)))
}

fn database(database: &Database) -> Value {
    let containers: Vec<Value> = database
        .containers()
        .iter()
        .map(|one| container(one))
        .collect();
    json!({"id": database.id, "rid": database.rid, "containers": containers})
}

fn container(container: &Container) -> Value {
    let map = container.map();
    let partitions: Vec<Value> = map.partitions().iter().map(partition).collect();
    let sum = |name: &str| -> u64 {
        let numbers = partitions.iter().filter_map(|one| one[name].as_u64());
        numbers.sum()
    };
    json!({
        "id": container.id,
        "rid": container.rid,
        "documents": sum("documents"),
        "bytes": sum("bytes"),
        "throttled": sum("throttled"),
        "partitions": partitions,
    })
}

fn partition(partition: &Partition) -> Value {
    partition.inspect(|shard| {
        json!({
            "id": partition.id,
            "parents": partition.parents,
            "min": to_hex(&partition.range.min),
            "max": to_hex(&partition.range.max),
            "documents": shard.len(),
            "bytes": shard.footprint(),
            "lsn": shard.lsn(),
            "request_units": partition.consumed(),
            "throttled": partition.throttled(),
        })
    })
}
