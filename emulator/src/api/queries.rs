//! Queries over documents and over other resources.
//!
//! Documents are looked at in key order, partition by partition. A continuation is the place of the last document looked
//! at with what `OFFSET` and `LIMIT` have left, or, for sorted results, the number of rows returned so far.

use std::collections::HashMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::items::located;
use super::read_feed::{PAGE_BYTES, Page, Place};
use super::scope::{self, Piece};
use crate::http::{ApiError, ApiResult, Call, Reply, headers};
use crate::json::write_number;
use crate::query::ast::{Query, Select};
use crate::query::parse::parse;
use crate::query::rows::{Resume, SortedRow, Totals, row};
use crate::ru::Charge;
use crate::store::{Container, Document};

/// A feed of resources other than documents, in one page.
pub fn resource_feed(name: &str, rid: &str, resources: &[Value]) -> Reply {
    let body = json!({"_rid": rid, "_count": resources.len(), name: resources});
    Reply::json(StatusCode::OK, &body)
        .charge(Charge::METADATA)
        .put_number(&headers::ITEM_COUNT, resources.len() as u64)
}

/// A query over resources other than documents, in one page.
pub fn over_resources(name: &str, rid: &str, resources: Vec<Value>, call: &Call<'_>) -> ApiResult {
    let (query, _) = read_query(call)?;
    if !query.aggregates.is_empty() {
        let mut totals = Totals::new(&query);
        resources.iter().for_each(|resource| totals.add(resource));
        return Ok(resource_feed(name, rid, &Vec::from_iter(totals.row())));
    }
    let mut rows: Vec<SortedRow> = resources
        .iter()
        .zip(0..)
        .filter_map(|(resource, number)| SortedRow::of(&query, resource, number))
        .collect();
    rows.sort_by(|a, b| a.compare(b, &query));
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| row.row)
        .skip(query.offset as usize)
        .take(limit(&query))
        .collect();
    Ok(resource_feed(name, rid, &rows))
}

/// `POST docs` for a query plan.
pub fn plan(_container: &Container, _call: &Call<'_>) -> ApiResult {
    Err(ApiError::unsupported(
        "the query plan request (aggregates and other merges across partitions)",
    ))
}

/// `POST docs` with a query.
pub fn execute(container: &Container, call: &Call<'_>) -> ApiResult {
    let (query, resume) = read_query(call)?;
    let most = call.page_items()?;
    let map = container.map();
    let pieces = scope::of(container, &map, call)?;
    let reply = if !query.aggregates.is_empty() {
        aggregated(container, &query, &pieces)?
    } else if !query.order.is_empty() {
        sorted(container, &query, resume.as_ref(), &pieces, most, call)?
    } else {
        streamed(container, &query, &pieces, most, call)?
    };
    Ok(match pieces.first() {
        Some(piece) => located(
            reply,
            container,
            piece.partition,
            piece.partition.lsn(),
            Charge::PAGE,
        ),
        None => reply,
    })
}

fn read_query(call: &Call<'_>) -> Result<(Query, Option<Resume>), ApiError> {
    let body = call.json_value()?;
    let text = body["query"]
        .as_str()
        .ok_or_else(|| ApiError::bad_request("the body has no query"))?;
    let parameters: HashMap<String, Value> = body["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parameter| {
            Some((
                parameter["name"].as_str()?.to_owned(),
                parameter["value"].clone(),
            ))
        })
        .collect();
    let query = parse(text, parameters).map_err(ApiError::bad_request)?;
    let resume = match &body["resumeFilter"] {
        Value::Null => None,
        filter => Some(resume(filter, &query)?),
    };
    Ok((query, resume))
}

fn resume(filter: &Value, query: &Query) -> Result<Resume, ApiError> {
    let keys = filter["value"]
        .as_array()
        .filter(|keys| keys.len() == query.order.len());
    let keys = keys.ok_or_else(|| {
        ApiError::bad_request("resumeFilter.value must have one value for each sort key")
    })?;
    let keys = keys
        .iter()
        .map(|key| match key {
            // Undefined has no JSON form of its own.
            Value::Array(items) if items.is_empty() => Ok(None),
            Value::Array(_) | Value::Object(_) => Err(ApiError::unsupported(
                "resuming at an array or object as sort key",
            )),
            value => Ok(Some(value.clone())),
        })
        .collect::<Result<_, _>>()?;
    let number = match filter["rid"].as_str() {
        None => None,
        Some(rid) => Some(
            document_number(rid)
                .ok_or_else(|| ApiError::bad_request("resumeFilter.rid is no item's _rid"))?,
        ),
    };
    Ok(Resume {
        keys,
        number,
        exclude: filter["exclude"].as_bool().unwrap_or(false),
    })
}

fn document_number(rid: &str) -> Option<u64> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(rid.replace('-', "/"))
        .ok()?;
    Some(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?))
}

fn limit(query: &Query) -> usize {
    query.limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// The document as a value, with its system properties.
fn value_of(
    container: &Container,
    document: &Document,
    buffer: &mut Vec<u8>,
) -> Result<Value, ApiError> {
    buffer.clear();
    document.version.render(&container.rendering, false, buffer);
    serde_json::from_slice(buffer).map_err(|_| {
        ApiError::bad_request(format!(
            "item {} is too deeply nested for a query",
            document.id
        ))
    })
}

fn aggregated(container: &Container, query: &Query, pieces: &[Piece<'_>]) -> ApiResult {
    let mut totals = Totals::new(query);
    let (mut charge, mut buffer) = (Charge::PAGE, Vec::new());
    for piece in pieces {
        let shard = container.reader(piece.partition)?;
        for document in shard.scan(&piece.range, None) {
            charge += Charge::scan(document.version.size());
            totals.add(&value_of(container, document, &mut buffer)?);
        }
    }
    Ok(rows_reply(container, &Vec::from_iter(totals.row())).charge(charge))
}

fn sorted(
    container: &Container,
    query: &Query,
    resume: Option<&Resume>,
    pieces: &[Piece<'_>],
    most: usize,
    call: &Call<'_>,
) -> ApiResult {
    let done = match call.header(&headers::CONTINUATION) {
        None => 0,
        Some(token) => {
            let rows = token
                .strip_prefix("sorted:")
                .and_then(|rows| rows.parse::<usize>().ok());
            rows.ok_or_else(|| ApiError::bad_request("the continuation is not one of this query"))?
        }
    };
    let (mut rows, mut charge, mut buffer) = (Vec::new(), Charge::PAGE, Vec::new());
    for piece in pieces {
        let shard = container.reader(piece.partition)?;
        for document in shard.scan(&piece.range, None) {
            charge += Charge::scan(document.version.size());
            let value = value_of(container, document, &mut buffer)?;
            let row = SortedRow::of(query, &value, document.version.rid);
            rows.extend(row.filter(|row| resume.is_none_or(|resume| resume.admits(row, query))));
        }
    }
    rows.sort_by(|a, b| a.compare(b, query));
    let window = rows
        .into_iter()
        .skip(query.offset as usize)
        .take(limit(query))
        .map(|row| row.row);
    let mut page: Vec<Value> = window.skip(done).take(most.saturating_add(1)).collect();
    let more = page.len() > most;
    page.truncate(most);
    let reply = rows_reply(container, &page).charge(charge);
    Ok(if more {
        reply.put(
            &headers::CONTINUATION,
            format!("sorted:{}", done + page.len()),
        )
    } else {
        reply
    })
}

/// What a streamed query has behind it.
#[derive(Clone, Copy, Default)]
struct Progress {
    after: Option<Place>,
    skipped: u64,
    taken: u64,
}

impl Progress {
    fn to_token(self, after: Place) -> String {
        format!("rows:{}:{}:{}", self.skipped, self.taken, after.to_token())
    }

    fn from_token(token: &str) -> Option<Self> {
        let (skipped, rest) = token.strip_prefix("rows:")?.split_once(':')?;
        let (taken, place) = rest.split_once(':')?;
        let after = Some(Place::from_token(place)?);
        Some(Self {
            after,
            skipped: skipped.parse().ok()?,
            taken: taken.parse().ok()?,
        })
    }
}

fn streamed(
    container: &Container,
    query: &Query,
    pieces: &[Piece<'_>],
    most: usize,
    call: &Call<'_>,
) -> ApiResult {
    let mut progress = match call.header(&headers::CONTINUATION) {
        None => Progress::default(),
        Some(token) => Progress::from_token(token)
            .ok_or_else(|| ApiError::bad_request("the continuation is not one of this query"))?,
    };
    // Whole documents without a condition are copied, never parsed.
    let plain = matches!(query.select, Select::Star) && query.filter.is_none();
    let limit = query.limit.unwrap_or(u64::MAX);
    let start = progress.after.map(Place::key);
    let mut page = Page::new(container);
    let (mut last, mut more, mut buffer) = (None, false, Vec::new());
    'pieces: for piece in pieces {
        let shard = container.reader(piece.partition)?;
        for document in shard.scan(&piece.range, start) {
            if progress.taken >= limit {
                break 'pieces;
            }
            if page.items >= most || page.body.len() >= PAGE_BYTES {
                more = true;
                break 'pieces;
            }
            last = Some(Place::of(document));
            let row = if plain {
                None
            } else {
                row(query, &value_of(container, document, &mut buffer)?)
            };
            page.look_at(document);
            if !plain && row.is_none() {
                continue;
            }
            if progress.skipped < query.offset {
                progress.skipped += 1;
                continue;
            }
            progress.taken += 1;
            match row {
                Some(row) => page.push_row(&row),
                None => page.push(document),
            }
        }
    }
    let reply = page.into_reply();
    Ok(match last.or(progress.after) {
        Some(last) if more => reply.put(&headers::CONTINUATION, progress.to_token(last)),
        _ => reply,
    })
}

fn rows_reply(container: &Container, rows: &[Value]) -> Reply {
    let mut body = format!(
        "{{\"_rid\":\"{}\",\"Documents\":{},\"_count\":",
        container.rid,
        json!(rows)
    )
    .into_bytes();
    write_number(&mut body, rows.len());
    body.push(b'}');
    Reply::text(StatusCode::OK, body).put_number(&headers::ITEM_COUNT, rows.len() as u64)
}
