//! The map of physical partitions, which clients read as a feed of its own: all of it at first, 304 while nothing changed.

use hyper::StatusCode;
use hyper::header::IF_NONE_MATCH;
use serde_json::{Value, json};

use crate::epk::to_hex;
use crate::http::{Call, Reply, headers};
use crate::ru::Charge;
use crate::store::Container;

/// `GET /dbs/{db}/colls/{name}/pkranges`.
pub fn read(container: &Container, call: &Call<'_>) -> Reply {
    let etag = container.map_etag();
    if call
        .header(&IF_NONE_MATCH)
        .is_some_and(|known| known == etag)
    {
        return Reply::empty(StatusCode::NOT_MODIFIED)
            .charge(Charge::METADATA)
            .etag(etag);
    }
    let map = container.map();
    let partitions = map.partitions();
    let ranges: Vec<Value> = partitions
        .iter()
        .map(|partition| {
            json!({
                "id": partition.id.to_string(),
                "_rid": container.rid,
                "_self": format!("{}pkranges/{}/", container.self_link, partition.id),
                "_etag": etag,
                "_ts": 0,
                "_lsn": partition.lsn(),
                "minInclusive": to_hex(&partition.range.min),
                "maxExclusive": to_hex(&partition.range.max),
                "ridPrefix": partition.id,
                "throughputFraction": 1.0 / partitions.len() as f64,
                "status": "online",
                "parents": partition.parents.iter().map(u32::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    let body = json!({"_rid": container.rid, "_count": ranges.len(), "PartitionKeyRanges": ranges});
    Reply::json(StatusCode::OK, &body)
        .charge(Charge::METADATA)
        .etag(etag)
        .put_number(&headers::ITEM_COUNT, partitions.len() as u64)
}
